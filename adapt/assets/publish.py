"""Put what a zoo recipe has learnt into its embedded checkpoint, in half precision and the public format.

    adapt finetune recipe=zoo/sam_tiny && python -m adapt.assets.publish runs/sam_tiny-…
    adapt evaluate recipe=zoo/cnn_tiny && adapt distill recipe=zoo/cnn_tiny && python -m adapt.assets.publish runs/cnn_tiny-…

A checkpoint's configuration, processor and tokenizer are what its `build_*.py` wrote before; a student's are timm's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import nn

from adapt import plug
from adapt.methods.adapter import FILE
from adapt.models.checkpoint import EMBEDDED
from adapt.plug import UserError
from adapt.recipe import Recipe, load_recipe
from adapt.students import cnn


def publish(run: Path) -> Path:
    """Write the student that a finished run holds, without its last layer, or the backbone; returns the checkpoint's folder.

    What the run's method left frozen stays as the checkpoint has it.

    Raises:
        UserError: the run has no such weights.
    """
    recipe = load_recipe(str(run / "recipe.yaml"))
    verb, learnt = "finetune", run / "adapter" / FILE
    if recipe.distill:
        verb, learnt = "distill", run / "student" / recipe.distill.called / "model.safetensors"
    if not learnt.exists():
        raise UserError(f"{learnt}: missing. First: adapt {verb} with a recipe of recipes/zoo, until it ends.")
    return _student_of(recipe, learnt) if recipe.distill else _backbone_of(recipe, learnt)


def _student_of(recipe: Recipe, learnt: Path) -> Path:
    """The folder is in timm's format: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
    net = cnn.create(recipe.distill.student, 0, str(learnt))
    seen = json.loads((learnt.parent / "config.json").read_text())["input"]
    data = {name: seen[name] for name in ("interpolation", "mean", "std")} | {"input_size": (3, *seen["size"]), "crop_pct": 1.0}
    folder = cnn.EMBEDDED / recipe.name.replace("_", "-")
    origin = {"pretrained_cfg": {"tag": folder.name, "origin_url": None}}
    save_for_hf(net.half(), str(folder), origin, safe_serialization=True, data_config=data)
    return folder


def _backbone_of(recipe: Recipe, learnt: Path) -> Path:
    backbone = plug.load("models", recipe.model.name).load(recipe.model).backbone
    state = {name.removeprefix("backbone."): value for name, value in load_file(learnt).items() if name.startswith("backbone.")}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    # weights that are tied are stored once
    missing = set(missing) - set(backbone.all_tied_weights_keys) if recipe.method.name == "full" else set()
    if missing or unexpected:
        raise UserError(f"{learnt}: of another model: {sorted({*missing, *unexpected})[:3]} differ.")
    return write(backbone, EMBEDDED / recipe.model.checkpoint)


def write(backbone: nn.Module, folder: Path) -> Path:
    """Put a model's weights into its checkpoint's folder, which keeps its configuration."""
    layout = (folder / "config.json").read_bytes()
    backbone.half().save_pretrained(folder)
    (folder / "config.json").write_bytes(layout)
    return folder


if __name__ == "__main__":
    print(publish(Path(sys.argv[1])))
