"""Where a checkpoint lies: embedded, a local folder or file, or the hub."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from safetensors import SafetensorError, safe_open

from adapt import hardware
from adapt.contracts import Input
from adapt.plug import ROOT, UserError
from adapt.provenance import commit, hash_path

EMBEDDED = ROOT / "assets" / "checkpoints"
UNLOADABLE = (OSError, ValueError, RuntimeError, SafetensorError)
"""What transformers raises for checkpoints that it cannot load."""
NO_TENSORS = (pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError)
"""What torch's reader of tensors alone, and who takes their names, raise for files that hold something else."""


def embedded() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def resolve(checkpoint: str) -> str:
    """An embedded name → its folder; a local folder stays; all else is taken for a hub id."""
    if checkpoint in embedded():
        return str(EMBEDDED / checkpoint)
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"model.checkpoint: {checkpoint!r} has no config.json. Give a folder that save_pretrained wrote.")
        return str(path)
    if path.exists() or checkpoint.count("/") != 1 or checkpoint.startswith((".", "/", "~")):
        raise UserError(
            f"model.checkpoint: {checkpoint!r} is neither a folder nor a hub id (owner/name). Embedded: {', '.join(embedded())}."
        )
    return checkpoint


def origin(checkpoint: str) -> dict[str, str]:
    """What a checkpoint's weights are: `checkpoint`, its name; and the `hash` of local files, or the `commit` that the hub gave.

    The commit is that of the copy in the hub's cache, so it is known ('' before) when the checkpoint has been loaded.
    """
    kind, _, rest = checkpoint.partition(":")
    if kind in ("open_clip", "segment_anything"):
        place = rest.partition("/")[2]
    else:  # whatever lies there: a family decides what it can read
        place = checkpoint if Path(checkpoint).expanduser().exists() else resolve(checkpoint)
    path = Path(place).expanduser()
    if place and path.exists():
        return {"checkpoint": checkpoint, "hash": hash_path(path, without=".md")}  # a card may be corrected
    if kind == "open_clip":
        from open_clip.pretrained import get_pretrained_cfg

        about = get_pretrained_cfg(rest.partition("/")[0], place) or {}
        place = about.get("hf_hub", "").rpartition("/")[0] or about.get("url", "")
    return {"checkpoint": checkpoint, "commit": commit(place)}


def read_config(checkpoint: str, families: tuple[str, ...], lacking: Mapping[str, str] | None = None) -> dict:
    """The checkpoint's `config.json`.

    Args:
        families: the `model_type`s that the caller can load.
        lacking: relatives that it cannot load → what is missing.

    Raises:
        UserError: it cannot be reached, the hub asks for consent, or it is of another family.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    place = resolve(checkpoint)
    try:
        file = Path(place) / "config.json"
        if not Path(place).is_dir():
            with hardware.hub():
                file = Path(hf_hub_download(place, "config.json"))
        values = json.loads(file.read_text(encoding="utf-8"))
    except GatedRepoError:
        raise UserError(
            f"model.checkpoint: {checkpoint!r}: the hub asks for consent first: open its page there, then: hf auth login. Or give a local "
            f"folder, or one of the embedded: {', '.join(embedded())}."
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"model.checkpoint: {checkpoint!r} cannot be loaded from the hub ({type(error).__name__}). Check the name and the network, "
            f"give a local folder, or one of the embedded: {', '.join(embedded())}."
        ) from None
    except ValueError:
        raise UserError(f"model.checkpoint: {checkpoint!r} has a config.json that is not valid JSON.") from None
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind in (lacking or {}):
        wanted = " or ".join(map(repr, families))
        raise UserError(f"model.checkpoint: {checkpoint!r} is a {kind!r} model; {lacking[kind]}. Give a {wanted} checkpoint.")
    if kind not in families:
        raise UserError(f"model.checkpoint: {checkpoint!r} is a {kind!r} model; this family takes {', '.join(families)}.")
    return values


def unreadable(checkpoint: str, error: Exception) -> UserError:
    """What to tell a user whose checkpoint transformers could not load."""
    if isinstance(error, SafetensorError):
        return UserError(
            f"model.checkpoint: {checkpoint!r} cannot be loaded: {_damaged(checkpoint)} is cut short or damaged. Download it again."
        )
    reason = " ".join(str(error).split(". ")[0].split())[:200]
    if "ignore_mismatched_sizes" in reason:
        reason = "its weights have other sizes than its config.json says"
    return UserError(
        f"model.checkpoint: {checkpoint!r} cannot be loaded: {reason.rstrip('.')}. Give a folder in the format of transformers, or a hub id."
    )


def unreadable_file(file: Path, error: Exception) -> UserError:
    """What to tell a user whose file of weights could not be read."""
    name = f"model.checkpoint: {str(file)!r}"
    if isinstance(error, NO_TENSORS):
        return UserError(f"{name} holds more than tensors, or is no torch file. Give the published weights.")
    if isinstance(error, SafetensorError) or "PytorchStreamReader" in str(error):
        return UserError(f"{name} is cut short or damaged. Download it again.")
    return UserError(f"{name} cannot be read as weights ({shorten(str(error), 200)}). Give the published file.")


def _damaged(checkpoint: str) -> str:
    """The first file of weights that cannot be opened, in the checkpoint's folder or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    place = resolve(checkpoint)
    folder = Path(place) if Path(place).is_dir() else Path(str(try_to_load_from_cache(place, "config.json"))).parent
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return str(file)
    return "a file of its weights"


def image_input(processor: dict[str, Any], size: int | None = None) -> Input:
    """The input of a checkpoint, read from its own processor's configuration; `size` in pixels replaces its size."""
    modes = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    wanted = processor.get("size") or {}
    crop = bool(processor.get("do_center_crop")) and processor.get("crop_size")
    if crop:
        out = (processor["crop_size"]["height"], processor["crop_size"]["width"])
    elif "height" in wanted:
        out = (wanted["height"], wanted["width"])
    else:
        raise UserError(f"model.checkpoint: its image processor gives no fixed size: {wanted}.")
    shorter = wanted.get("shortest_edge") or (wanted["height"], wanted["width"])
    if size:
        shorter = round(shorter * size / out[0]) if isinstance(shorter, int) else (size, size)
        out = (size, size)
    return Input(
        size=out,
        resize=shorter if processor.get("do_resize", True) else None,
        interpolation=modes[int(processor.get("resample", 3))],
        crop="floor" if crop else None,
        mean=list(processor["image_mean"]),
        std=list(processor["image_std"]),
    )
