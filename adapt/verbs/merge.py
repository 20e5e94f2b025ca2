"""Adapter + base → one checkpoint, in full precision, proven equal before it is called merged.

The adapter may have been trained on a 4-bit base (QLoRA); it is always the unquantised base that it is added to.
A scale α below 1 goes part of the way, θ₀ + α ΔW, without retraining: WiSE-FT over LoRA, arXiv:2109.01903 §3.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt.methods.adapter import HEAD
from adapt.plug import UserError
from adapt.run import atomic
from adapt.verbs import kept, measuring, scores

if TYPE_CHECKING:
    from torch import nn

    from adapt.models.base import Family
    from adapt.verbs.session import Session

SCALES = [i / 10 for i in range(11)]
FIRST = ("class_logits", "image_embedding", "patch_features")
OPEN_CLIP = "open_clip_model.safetensors"
COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja")
"""What lies beside the weights of a public checkpoint: tokenizer, processor, templates."""
TOLERANCE = 1e-3
"""Largest error allowed, as a share of the largest output."""
AGREEMENT = 0.99
"""Least share of the samples on which both decide alike."""


def merge(session: Session, scale: float | str = 1.0, keep: float = 0.9) -> None:
    """Join adapter and base, and measure what comes of it; see `joined`."""
    place = joined(session, scale, keep)
    if session.recipe.evals:
        size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
        title = f"{scores.title(session, 'adapted')}, merged"
        measuring.measure(session, "merged", title, session.family, size_bytes=size)
    session.say(f"Merged: {place}")


def joined(session: Session, scale: float | str = 1.0, keep: float = 0.9) -> Path:
    """Write `merged/` into the run folder, proven against base + adapter on real samples; returns its path.

    Args:
        scale: α, or "sweep": the best on validation that keeps enough.
        keep: of a sweep, the share of zero-shot's right answers that must stay right.

    Raises:
        UserError: there is no LoRA adapter, the scale does not go with it, or the merged model answers otherwise.
    """
    adapter = _adapter_of(session, scale)
    session.family = family = _with_adapter(session.loaded(), adapter)
    family.to(session.accelerator.device)
    rows: list[dict[str, float]] = []
    if scale == "sweep":
        rows = sweep(session, family)
        scale = choose(rows, keep)
        _tell(session, rows, scale)
    set_scale(family.backbone, float(scale))
    samples = _samples(session)
    expected = answers(family, samples)
    place = session.run.path / "merged"
    with atomic(place) as folder:
        folder.mkdir()
        net = _joined(family.backbone)
        write(net, folder, session.recipe.model.checkpoint)
        if (adapter / HEAD).exists():  # what learned outside the backbone goes with it
            shutil.copy(adapter / HEAD, folder / HEAD)
        family.backbone = read(net, folder).to(session.accelerator.device)
        proof = compare(expected, answers(family, samples))
        if proof["relative"] > TOLERANCE or proof["agreement"] < AGREEMENT:
            raise UserError(
                f"merge: the merged model does not answer as base + adapter do: largest error {proof['error']:.2g}, "
                f"agreement {proof['agreement']:.3f} on {len(samples)} samples. Nothing was written. Is it the same base checkpoint?"
            )
        (folder / "README.md").write_text(card(session, float(scale), proof, len(samples)), encoding="utf-8")
    session.say(
        f"merge: scale {float(scale):g}; against base + adapter on {len(samples)} samples: largest error {proof['error']:.2g}, "
        f"agreement {proof['agreement']:.1%}"
    )
    facts = {"scale": float(scale), "sweep": rows, "proof": proof, "base": session.base}
    session.record("merge", adapter=session.hash("adapter"), merged=session.hash("merged"), **facts)
    return place


def _adapter_of(session: Session, scale: float | str) -> Path:
    """The run's adapter, if it can be merged at this scale."""
    if session.accelerator.num_processes > 1:
        raise UserError("merge: one process does it. Run it without accelerate launch.")
    if not kept.finetuned(session):
        raise UserError(f"{session.run.path}: no adapter yet. First: adapt finetune with the same recipe and overrides.")
    folder = session.run.path / "adapter"
    method = session.recipe.method.name
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"merge: method {method!r} leaves no adapter to merge. It works on lora and qlora runs.")
    about = json.loads((folder / "adapter_config.json").read_text())
    if about.get("peft_type") != "LORA":
        raise UserError(f"merge: {about.get('peft_type')} adapters cannot be merged into the weights; LoRA ones can.")
    if about.get("use_dora") and scale != 1:
        raise UserError(f"scale: {scale} is not for DoRA, whose magnitudes do not scale with the adapter. Leave it out.")
    return folder


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


def set_scale(backbone: nn.Module, scale: float) -> None:
    """Scale the update of every LoRA layer: 0 is the base, 1 what was trained."""
    from peft.tuners.lora import LoraLayer

    for part in backbone.modules():
        if isinstance(part, LoraLayer):
            for name in part.scaling:
                part.set_scale(name, scale)


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
    recipe = session.recipe
    return (
        f"# {recipe.name}\n\n`{recipe.model.checkpoint}` with a {recipe.method.name} adapter at scale {scale:g}, merged in full "
        f"precision by Adapt.\n\nAgainst base + adapter on {count} samples: largest error {proof['error']:.2g}, equal choices "
        f"{proof['agreement']:.1%}.\n\nThe licence of the base checkpoint applies.\n"
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


def answers(family: Family, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What a family says of samples: `values` float[…] (its image function's, or its loss) and `choices`, one a sample."""
    import torch

    family.eval()
    device = next(family.parameters()).device
    functions = family.predictors()
    if not family.classes:
        functions.pop("class_logits", None)  # the classes' words make them
    name = next((name for name in (*FIRST, *functions) if name in functions), None)
    function = functions.get(name)
    with torch.inference_mode():
        if function is not None and function.takes == "images":
            images = family.collate([family.preprocess(sample, False) for sample in samples])["image"]
            values = torch.cat([function(part.float()) for part in images.to(device).split(16)]).float().cpu()
            return {"values": values.numpy(), "choices": list(values.flatten(1).argmax(1).numpy())}
        samples = samples[:8]
        batch = family.collate([family.preprocess(sample, True) for sample in samples]) | {"seed": torch.arange(len(samples))}
        batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        torch.manual_seed(0)
        loss = family(batch)[0].float().cpu().numpy()
        return {"values": loss[None], "choices": list(function(samples)) if function else [0]}


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


# ------------------------------------------------------------------------------------------------------------------ sweep


def sweep(session: Session, family: Family) -> list[dict[str, float]]:
    """The first eval on the validation split for each scale: the metric, and what is lost of that which zero-shot had right.

    Raises:
        UserError: there is nothing to choose by.
    """
    if not session.recipe.evals or "validation" not in session.data:
        raise UserError("scale: sweep chooses by the first eval on the validation split; this recipe lacks one or the other.")
    config = session.recipe.evals[0]
    rows: list[dict[str, float]] = []
    before = None
    for scale in SCALES:
        set_scale(family.backbone, scale)
        result = measuring.evaluated(session, config, measuring.predictor(session, family), "validation", family)
        if "correct" not in result.table:
            raise UserError(
                f"scale: sweep needs an eval that says which rows are right; {config.name} does not. Give a number."
            )
        right = np.asarray(result.table["correct"], bool)
        before = right if before is None else before
        lost = float((before & ~right).sum() / max(1, before.sum()))
        rows.append({"scale": scale, config.main: float(result.metrics[config.main]), "forgotten": lost})
    return rows


def choose(rows: list[dict[str, float]], keep: float) -> float:
    """The scale of the best metric among those that keep enough of what zero-shot had right; of equals the smallest."""
    main = next(name for name in rows[0] if name not in ("scale", "forgotten"))
    return max((row for row in rows if row["forgotten"] <= 1 - keep + 1e-9), key=lambda row: (row[main], -row["scale"]))[
        "scale"
    ]


def _tell(session: Session, rows: list[dict[str, float]], chosen: float) -> None:
    for row in rows:
        scale, value, lost = row.values()
        main = list(row)[1]
        mark = "  ← chosen" if scale == chosen else ""
        session.say(f"scale {scale:.1f}   validation {main} {value:6.1%}   forgotten {lost:6.1%}{mark}")
