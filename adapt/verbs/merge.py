"""Adapter + base → one checkpoint, in full precision, proven equal before it is called merged.

The adapter may have been trained on a 4-bit base (QLoRA); it is always the unquantised base that it is added to. What learnt in the
weights themselves (full) is written as the checkpoint that it has become; a head alone as `head.safetensors`.
A scale α below 1 goes part of the way without retraining: WiSE-FT, arXiv:2109.01903 §3; see `interpolation.py`, and `sweep.py` for the
scale that forgets little.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt.methods.adapter import HEAD
from adapt.plug import UserError
from adapt.run import atomic
from adapt.verbs import canary, kept, measuring, scores, sweep
from adapt.verbs.guests import guests
from adapt.verbs.interpolation import TOLERANCE, answers, lora, weights

if TYPE_CHECKING:
    from torch import nn

    from adapt.models.base import Family
    from adapt.verbs.session import Session

OPEN_CLIP = "open_clip_model.safetensors"
COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja")
"""What lies beside the weights of a public checkpoint: tokenizer, processor, templates."""
AGREEMENT = 0.99
"""Least share of the samples on which both decide alike."""


def merge(session: Session, scale: float | str = 1.0, keep: float | None = None) -> None:
    """Join adapter and base, and measure what comes of it, on the canary too; see `joined`."""
    if keep is not None and not 0 <= keep <= 1:
        raise UserError(f"keep: {keep} is not a number from 0 to 1, such as 0.98.")
    if keep is not None and scale != "sweep" and not session.recipe.canary:
        raise UserError(
            f"keep: at scale {scale:g} without a canary nothing shows what is kept. Write scale=sweep, or name a canary, such as "
            "canary=source_hands."
        )
    _adapter_of(session, scale)
    if guests(session):
        canary.measured(session, "zero-shot", session.as_it_comes)
    place, found = joined(session, scale, keep)
    if session.recipe.evals:
        size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
        title = f"{scores.title(session, 'adapted')}, merged"
        measuring.measure(session, "merged", title, session.family, size_bytes=size)
    if session.recipe.canary:
        canary.held(session, session.family, found["keep"] if found else keep)
    if found:
        sweep.finish(session, found)
    session.say(f"Merged: {place}")


def joined(session: Session, scale: float | str = 1.0, keep: float | None = None) -> tuple[Path, dict[str, Any] | None]:
    """Write `merged/` into the run folder, proven against base + adapter on real samples.

    Args:
        scale: α, or "sweep": the best on validation that keeps enough.
        keep: of a sweep, the share of the canary's zero-shot score that must be kept; without a canary, of the target's pictures that
            zero-shot had right. None: `sweep.KEEP`.

    Returns:
        The folder, and what the sweep has found; none: there was none.

    Raises:
        UserError: nothing has been learnt, the scale does not go with it, or the merged model answers otherwise.
    """
    adapter, samples = _adapter_of(session, scale), _samples(session)
    move = _ready(session, adapter, samples, scale)
    family = session.family.to(session.accelerator.device)
    found = sweep.sweep(session, family, move, keep) if scale == "sweep" else None
    alpha = float(found["chosen"] if found else scale)
    move(alpha)
    expected = answers(family, samples)
    place = session.run.path / "merged"
    with atomic(place) as folder:
        folder.mkdir()
        _write(session, family, folder, adapter)
        proof = compare(expected, answers(family, samples))
        if proof["relative"] > TOLERANCE or proof["agreement"] < AGREEMENT:
            raise UserError(
                f"merge: the merged model does not answer as base + adapter do: largest error {proof['error']:.2g}, "
                f"agreement {proof['agreement']:.3f} on {len(samples)} samples. Nothing was written. Is it the same base checkpoint?"
            )
        (folder / "README.md").write_text(card(session, alpha, proof, len(samples)), encoding="utf-8")
    session.say(
        f"merge: scale {alpha:g}; against base + adapter on {len(samples)} samples: largest error {proof['error']:.2g}, "
        f"agreement {proof['agreement']:.1%}"
    )
    facts = {"scale": alpha, "sweep": found["rows"] if found else [], "proof": proof, "base": session.base}
    if found:
        facts["budget"] = {name: value for name, value in found.items() if name != "rows"}
    session.record("merge", adapter=session.hash("adapter"), merged=session.hash("merged"), **facts)
    return place, found


def _adapter_of(session: Session, scale: float | str) -> Path:
    """What the run has learnt, if it can be merged at this scale."""
    if session.accelerator.num_processes > 1:
        raise UserError("merge: one process does it. Run it without accelerate launch.")
    if not kept.finetuned(session):
        raise UserError(f"{session.run.path}: no adapter yet. First: adapt finetune with the same recipe and overrides.")
    folder, method = session.run.path / "adapter", session.recipe.method
    if not method.merges:
        raise UserError(
            f"merge: what method {method.name!r} has learnt is no part of a checkpoint; it stays in {folder}, and answers with the "
            "checkpoint as it comes. Use adapt predict, distill or export with this run."
        )
    if _is_peft(folder):
        about = json.loads((folder / "adapter_config.json").read_text())
        if about.get("peft_type") != "LORA":
            raise UserError(f"merge: {about.get('peft_type')} adapters cannot be merged into the weights; LoRA ones can.")
        if about.get("use_dora") and scale != 1:
            raise UserError(f"scale: {scale} is not for DoRA, whose magnitudes do not scale with the adapter. Leave it out.")
    return folder


def _is_peft(adapter: Path) -> bool:
    return (adapter / "adapter_config.json").is_file()


def _ready(session: Session, adapter: Path, samples: list[dict[str, Any]], scale: float | str) -> Callable[[float], None]:
    """Put what was learnt on the session's family, whose base is never quantised; returns what takes it to a scale."""
    if _is_peft(adapter):
        session.family = _with_adapter(session.loaded(), adapter)
        session.learns = True
        return lora(session.family.backbone)
    return weights(session, adapter, samples, scale)


def _write(session: Session, family: Family, folder: Path, adapter: Path) -> None:
    """What the family is now, into `folder`, and back from there."""
    learnt = [name for name, value in family.named_parameters() if value.requires_grad]
    if _is_peft(adapter) or any(name.startswith("backbone.") for name in learnt):
        net = _joined(family.backbone) if _is_peft(adapter) else family.backbone
        write(net, folder, session.recipe.model.checkpoint)
        family.backbone = read(net, folder).to(session.accelerator.device)
    if _is_peft(adapter):
        if (adapter / HEAD).exists():  # what learned outside the backbone goes with it
            shutil.copy(adapter / HEAD, folder / HEAD)
        return
    beside = {name: value for name, value in family.named_parameters() if name in learnt and not name.startswith("backbone.")}
    if beside:
        _through(beside, folder / HEAD)


def _through(state: dict[str, Any], file: Path) -> None:
    """Write tensors, and put into them what the file says."""
    import torch
    from safetensors.torch import load_file, save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, file)
    with torch.no_grad():
        for name, value in load_file(file).items():
            state[name].copy_(value)


def _with_adapter(family: Family, adapter: Path) -> Family:
    """The base as it came from its checkpoint, never quantised, with the adapter on it, and the head that learned beside."""
    from peft import PeftModel

    from adapt.methods.adapter import load_beside

    assert not getattr(family.backbone, "is_loaded_in_4bit", False)
    family.requires_grad_(False)
    try:
        family.backbone = PeftModel.from_pretrained(family.backbone.float(), str(adapter), torch_device="cpu")
        family.complete()
        load_beside(family, adapter)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{adapter}: does not fit this checkpoint ({str(error).splitlines()[0]}).") from None
    return family


def _joined(backbone: nn.Module) -> nn.Module:
    try:
        return backbone.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(f"merge: {str(error).splitlines()[0]}. Train again with a lower train.lr or train.clip=1.") from None


# ------------------------------------------------------------------------------------------------------------------ files


def write(net: nn.Module, folder: Path, checkpoint: str) -> None:
    """Weights, configuration, processor and tokenizer, as the base checkpoint has them.

    Args:
        net: the library's own module: `transformers` writes its layout, open_clip's becomes one file of its names.
        checkpoint: where what lies beside the weights is copied from.
    """
    from safetensors.torch import save_file
    from transformers import PreTrainedModel

    from adapt.models.checkpoint import resolve

    if not isinstance(net, PreTrainedModel):
        save_file({name: value.detach().cpu().clone() for name, value in net.state_dict().items()}, folder / OPEN_CLIP)
        return
    net.save_pretrained(folder)
    place = resolve(checkpoint)
    if not Path(place).is_dir():
        from huggingface_hub import snapshot_download

        place = snapshot_download(place, allow_patterns=list(COMPANIONS))
    for file in sorted(file for pattern in COMPANIONS for file in Path(place).glob(pattern)):
        if not (folder / file.name).exists() and not file.name.endswith(".index.json"):
            shutil.copy(file, folder / file.name)


def card(session: Session, scale: float, proof: dict[str, float], count: int) -> str:
    """What the folder is and where it comes from, for whoever finds it alone."""
    recipe, folder = session.recipe, session.run.path / "adapter"
    what = f"with a {recipe.method.name} adapter at" if _is_peft(folder) else f"and what `{recipe.method.name}` made of it, at"
    return (
        f"# {recipe.name}\n\n`{recipe.model.checkpoint}` {what} scale {scale:g}, merged in full precision by Adapt.\n\n"
        f"Against base + adapter on {count} samples: largest error {proof['error']:.2g}, equal choices {proof['agreement']:.1%}.\n\nThe licence of the base checkpoint applies.\n"
    )


def read(net: nn.Module, folder: Path) -> nn.Module:
    """What was written, by the library alone; `net` says of what kind it is, and its own weights are not used."""
    import torch
    from safetensors.torch import load_file
    from transformers import PreTrainedModel

    if isinstance(net, PreTrainedModel):
        return type(net).from_pretrained(folder, dtype=torch.float32)
    net.load_state_dict(load_file(folder / OPEN_CLIP))
    return net


# ------------------------------------------------------------------------------------------------------------------ proof


def _samples(session: Session, count: int = 64) -> list[dict[str, Any]]:
    """Rows of the validation split (of the training split, if there is none), evenly chosen."""
    rows = session.data["validation" if "validation" in session.data else "train"]
    return [rows[int(i)] for i in np.linspace(0, len(rows) - 1, min(count, len(rows)))]


def compare(expected: dict[str, Any], got: dict[str, Any]) -> dict[str, float]:
    """Largest absolute error, the same as a share of the largest output, and the share of equal choices."""
    error = float(np.abs(expected["values"] - got["values"]).max())
    alike = [_alike(a, b) for a, b in zip(expected["choices"], got["choices"], strict=True)]
    largest = float(np.abs(expected["values"]).max())
    return {"error": error, "relative": error / max(largest, 1e-12), "agreement": float(np.mean(alike))}


def _alike(a: Any, b: Any) -> bool:
    """Equal words, numbers and shapes; of masks and boxes nearly all entries equal to a hundredth."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[name], b[name]) for name in a)
    if isinstance(a, str):
        return a == b
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a.shape == b.shape and (a.size == 0 or bool((np.abs(a - b) <= 0.01).mean() > 0.99))
