"""timm's CNNs: how one is made, what images it takes, and where its weights come from."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_data_config
from torch import nn

from adapt import hardware
from adapt.contracts import Input
from adapt.plug import ROOT, UserError, nearest
from adapt.provenance import commit, hash_path

EMBEDDED = ROOT / "assets" / "students"


def create(architecture: str, outputs: int, pretrained: bool | str) -> nn.Module:
    """A timm CNN with a fresh last layer.

    Args:
        outputs: width of the last layer; 0: none.
        pretrained: timm's weights (needs the hub or its cache), those of an embedded student, a folder or a safetensors file, none,
            or `auto`; see `chosen`.

    Raises:
        UserError: there is no such architecture, or there are no such weights.
    """
    known(architecture)
    pretrained, _ = chosen(architecture, pretrained)
    if isinstance(pretrained, str):
        return _filled(timm.create_model(architecture, num_classes=outputs), architecture, weights_file(pretrained))
    try:
        return timm_model(architecture, pretrained, num_classes=outputs, pretrained=pretrained)
    except (OSError, RuntimeError) as error:
        raise no_weights(architecture, error) from None


def known(architecture: str) -> None:
    """Refuse what is not a model of timm."""
    if architecture not in timm.list_models():
        family = [name for name in timm.list_models() if name[:6] == architecture[:6]][:12]
        some = family or ["resnet18", "resnet10t", "efficientnet_lite0", "mobilenetv4_conv_small"]
        raise UserError(f"distill.student: {architecture!r} is not a model of timm.{nearest(architecture, some)}")


def timm_model(architecture: str, fetch: bool, **options: Any) -> nn.Module:
    """timm's model; `fetch`: its weights may have to come from the hub."""
    with hardware.hub() if fetch else nullcontext():
        return timm.create_model(architecture, **options)


def seen_by(architecture: str, spec: Input, size: int | None = None) -> Input:
    """The `input` of a CNN: its teacher's, of another size if one is given; mean and std are those of timm's weights.

    Args:
        spec: the teacher's; see `adapt/vision/images.py`.
        size: pixels a side.
    """
    known(architecture)
    own = timm.get_pretrained_cfg(architecture)
    own = resolve_data_config(pretrained_cfg=own.to_dict() if own else {})
    return resized(spec, size) | {"mean": list(own["mean"]), "std": list(own["std"])}


def resized(spec: Input, size: int | None) -> Input:
    """An `input` of another size, cut or squeezed as before; none: as it is."""
    if size is None:
        return Input(**spec)
    before = spec["resize"]
    shorter = round(before * size / min(spec["size"])) if isinstance(before, int) else size
    resize = before if before == "longest" else (size, size) if isinstance(before, tuple | list) else shorter
    return Input(**spec) | {"size": (size, size), "resize": resize}


def squeezed(spec: Input, size: int | None) -> Input:
    """An `input` that squeezes pictures into a square, a multiple of 32 pixels a side; without a size about as large as `spec`."""
    side = size or 32 * max(2, round(spec["size"][0] / 32))
    return Input(size=(side, side), resize=(side, side), interpolation=spec["interpolation"], crop=None)


# --------------------------------------------------------------------------------------------------------------- weights


def chosen(architecture: str, pretrained: bool | str) -> tuple[bool | str, str]:
    """What `pretrained` means for an architecture, and a line on it; of `auto` the first that there is, else no line.

    auto: timm's weights, from the hub or its cache; an embedded student of the same architecture; nothing.
    """
    if pretrained != "auto":
        return pretrained, ""
    known(architecture)
    try:
        create(architecture, 0, True)
        return True, f"student: {architecture} starts from timm's weights."
    except UserError:
        pass
    for name in embedded():
        if json.loads((EMBEDDED / name / "config.json").read_text())["architecture"] == architecture:
            return name, f"student: timm's weights of {architecture} cannot be fetched; it starts from the embedded {name}."
    return False, f"student: timm's weights of {architecture} cannot be fetched; it starts from random ones."


def no_weights(architecture: str, error: Exception) -> UserError:
    """What to tell a user whose student's weights cannot be loaded."""
    return UserError(
        f"distill.pretrained: the weights of {architecture!r} cannot be fetched ({shorten(str(error), 120, placeholder=' …')}). "
        f"Set distill.pretrained=auto or false, or give a safetensors file, or an embedded student: {', '.join(embedded())}."
    )


def embedded() -> list[str]:
    """Names of the students that ship with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def weights_file(pretrained: str) -> Path:
    """The safetensors file that an embedded name, a folder or a path stands for."""
    path = EMBEDDED / pretrained if pretrained in embedded() else Path(pretrained).expanduser()
    return path / "model.safetensors" if path.is_dir() else path


def origin(architecture: str, pretrained: bool | str) -> str | None:
    """What a student starts from: the hash of a file's content, or timm's name and the commit of its weights' copy in the hub's cache."""
    if isinstance(pretrained, str):
        path = weights_file(pretrained)
        return hash_path(path) if path.exists() else None
    if not pretrained:
        return None
    repository = timm.get_pretrained_cfg(architecture).hf_hub_id
    return f"{repository} {commit(repository)}"


def _filled(cnn: nn.Module, architecture: str, path: Path) -> nn.Module:
    """Put in the weights of a safetensors file: timm's, or those of a student of `logits` or `features`; a head that fits is taken."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"distill.pretrained: {str(path)!r} cannot be read ({error}). "
            f"Give a safetensors file, a folder with one, or an embedded student: {', '.join(embedded())}."
        ) from None
    state = {name.removeprefix("cnn."): value for name, value in state.items()}
    own, last = cnn.state_dict(), cnn.pretrained_cfg["classifier"]
    heads = tuple(f"{name}." for name in ([last] if isinstance(last, str) else last))
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    wrong = [name for name in own if name not in fitting and not name.startswith(heads)]
    if wrong:
        raise UserError(
            f"distill.pretrained: {str(path)!r} is of another network than {architecture}: {len(wrong)} of its weights do not fit, "
            f"such as {wrong[0]}. Set distill.student to the architecture that its config.json names, or distill.pretrained=auto."
        )
    cnn.load_state_dict(fitting, strict=False)
    return cnn
