"""Look at a folder, say what is there, and write a recipe that fits it: `adapt init PATH`."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from adapt.overrides import parse_yaml, write_yaml
from adapt.plug import UserError, counted, load
from adapt.provenance import of
from adapt.recipe import validate
from adapt.run import atomic

SHOWN = 12
"""Classes that are listed."""
MANY = 512
"""Training pictures from which on batches are large."""

CLASSES = """\
model: {{name: clip, checkpoint: openai/clip-vit-base-patch16}}
data: {data}
method: {{name: lora}}  # rank 2 in both towers, as in CLIP-LoRA
prompts: {{templates: simple}}  # prompts.classes={{LABEL: words}} names a class in better words than the label
train: {{epochs: 10, batch: {batch}, lr: 2e-4, augment: {{crop: 0.5, flip: 0.5, colour: 0.2}}}}
evals:
  - {{name: zeroshot, split: {split}}}
distill:  # a small CNN learns the adapted model's answers
  name: logits
  student: resnet18
  views: 8
  train: {{epochs: 40, batch: {batch}, lr: 1e-3, validate_every: 5, augment: {{crop: 0.5, flip: 0.5, colour: 0.2}}}}
export:
  - {{name: onnx, int8: true}}
"""
BOXES = """\
model: {{name: paligemma, checkpoint: google/paligemma2-3b-pt-224, tasks: [detect_all]}}  # smaller: florence2, tasks: [detect]
data: {data}
method: {{name: qlora, rank: 8, alpha: 16, rslora: false}}  # 4 bit; without a large GPU too
train: {{epochs: 5, batch: 16, accumulate: 4, lr: 1e-4, augment: {{colour: 0.2}}}}
evals:
  - {{name: detection, split: {split}}}
distill:  # a small CNN learns the boxes that the adapted model finds
  name: boxes
  student: resnet18
  train: {{epochs: 30, batch: 16, lr: 2e-3, weight_decay: 0.02, augment: {{crop: 0.5, flip: 0.5, colour: 0.2}}}}
export:
  - {{name: onnx, int8: true}}
"""
MASKS = """\
model: {{name: sam, checkpoint: facebook/sam-vit-base, objects: 8, clicks: 1}}
data: {data}
method: {{name: lora, rank: 8, alpha: 16, rslora: false, dropout: 0, targets: [qkv, proj, q, k, v, o], checkpointing: true}}
train: {{epochs: 10, batch: 4, lr: 2e-4, augment: {{crop: 0.5, flip: 0.5, colour: 0.2}}}}
evals:
  - {{name: segmentation, split: {split}}}
distill:  # a CNN takes the place of SAM's encoder
  name: masks
  student: resnet18
  train: {{epochs: 20, batch: 16, lr: 2e-3, weight_decay: 0.02, augment: {{crop: 0.6, flip: 0.5, colour: 0.2}}}}
export:
  - {{name: onnx, int8: true}}
"""
TEXTS = """\
model: {{name: paligemma, checkpoint: google/paligemma2-3b-pt-224, tasks: [{task}]}}  # smaller: florence2
data: {data}
method: {{name: qlora, rank: 8, alpha: 16, rslora: false}}  # 4 bit; without a large GPU too
train: {{epochs: 5, batch: 16, accumulate: 4, lr: 1e-4, augment: {{colour: 0.2}}}}
evals:
  - {{name: {measure}, split: {split}}}
"""


def init(path: str, file: str | None = None) -> tuple[int, dict[str, Any]]:
    """Look at a folder or file, print what was found, and write a recipe.

    Args:
        path: as `data.path` of `source: auto`.
        file: of the recipe; none: the folder's name, here.

    Returns:
        0, and for JSON: source, recipe (the file), splits, classes, problems.

    Raises:
        UserError: nothing is known there; the recipe's file is there already.
    """
    from adapt.data.auto import Config, chosen
    from adapt.data.split import described

    target = Path(file or f"{_name(path)}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"write: {str(target)!r} must end in .yaml.")
    if target.exists():
        raise UserError(f"write: {str(target)!r} is there already. Give another name: write=OTHER.yaml.")
    config, said = chosen(Config(path=path, on_error="skip"))
    print(said)
    splits = load("data", config.source).load(config)
    rows, report = described(splits), splits.report
    for row in rows:
        print(f"{row['split']}: {counted(row['pictures'], 'row')}; {row['origin']}")
    classes = _classes(splits["train"])
    if classes:
        print(f"classes: {_listed(classes)}")
    for problem in report.severe[:SHOWN]:
        print(f"left out: {problem}")
    print(report.summary())
    text = _recipe(target, config, splits, classes)
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    verb = "road" if "distill:" in text else "finetune"
    print(f"Recipe: {target}\nNext: adapt {verb} recipe={target}")
    found = {
        "source": config.source,
        "recipe": str(target),
        "splits": rows,
        "classes": dict(classes),
        "problems": report.rows(),
    }
    return 0, found


def _recipe(target: Path, config, splits, classes: Counter) -> str:
    """The recipe's text, which is valid."""
    columns, split = splits["train"].column_names, next(name for name in ("test", "validation", "train") if name in splits)
    template, more, words = _fitting(splits["train"], columns)
    batch = 64 if len(splits["train"]) >= MANY else 16
    wanted = {
        name: value for name, value in config.model_dump(mode="json", exclude_defaults=True).items() if name != "on_error"
    }
    data = {"source": config.source} | wanted | ({"on_error": "skip"} if splits.report.severe else {})
    flow = write_yaml(data, default_flow_style=True, width=10_000).strip()
    if splits.report.severe:
        flow += f"  # {counted(len(splits.report.severe), 'problem')} left out; adapt doctor data recipe={target} lists them"
    verb = "road" if "distill:" in template else "finetune"
    head = f"# adapt {verb} recipe={target}: {words}\n# {counted(sum(map(len, splits.values())), 'row')}"
    head += f"; classes: {_listed(classes)}\n" if classes else "\n"
    if split != "test":
        head += f"# There is no test split: what is measured on {split} is too good.\n"
    text = f"{head}{write_yaml({'name': _name(str(target))})}{template.format(data=flow, batch=batch, split=split, **more)}"
    validate(parse_yaml(text, str(target)))
    return text


def _fitting(rows, columns: list[str]) -> tuple[str, dict[str, str], str]:
    """The recipe that fits rows with these columns, its other words, and what it does.

    Raises:
        UserError: nothing is labelled that anything here learns.
    """
    if "label" in columns:
        return CLASSES, {}, "CLIP + LoRA learns the classes; then a small CNN as ONNX."
    if "suffix" in columns:
        asked = "objects" in columns and all(each is not None for each in rows["objects"][:])
        return TEXTS, {"task": "given", "measure": "detection" if asked else "vqa"}, "PaliGemma + QLoRA learns the answers."
    if "objects" in columns and "mask" in rows.features["objects"]:
        return MASKS, {}, "SAM + LoRA learns the masks; then a small CNN as ONNX."
    if "objects" in columns:
        return BOXES, {}, "PaliGemma + QLoRA learns the boxes; then a small CNN as ONNX."
    if "caption" in columns:
        return TEXTS, {"task": "caption", "measure": "caption"}, "PaliGemma + QLoRA learns the captions."
    raise UserError(
        f"init: no labels, boxes, masks or texts; the columns are {', '.join(columns)}. Nothing here learns from that."
    )


def _classes(rows) -> Counter:
    """Class → pictures of it, or things, in training; the most frequent first."""
    from adapt.vision.classes import class_names

    names = class_names(rows.features)
    if "label" in rows.column_names:
        numbers = rows["label"][:]
    elif "objects" in rows.column_names:
        numbers = [number for each in rows["objects"][:] for number in (each or {}).get("category", [])]
    else:
        return Counter()
    counts = Counter(dict.fromkeys(names, 0))
    counts.update(names[number] for number in numbers)
    return Counter(dict(counts.most_common()))


def _listed(classes: Counter) -> str:
    """The classes with their counts, on one line of plain text."""
    words = [f"{json.dumps(name, ensure_ascii=False)[1:-1]} {count:,}" for name, count in classes.most_common(SHOWN)]
    return ", ".join(words) + (f" … {len(classes)} in all" if len(classes) > SHOWN else "")


def _name(path: str) -> str:
    """A recipe's name from a path."""
    stem = Path(path).expanduser().resolve().stem
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")[:40]
    return plain or f"data-{of(stem)[:8]}"
