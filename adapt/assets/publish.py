"""Put what a zoo recipe has learnt into its embedded checkpoint, in half precision and the public format.

    adapt finetune recipe=zoo/sam_tiny && python -m adapt.assets.publish runs/sam_tiny-…

A checkpoint's configuration, processor and tokenizer are what its `build_*.py` wrote before.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import load_file

from adapt import plug
from adapt.methods._adapter import FILE
from adapt.models._checkpoint import EMBEDDED
from adapt.plug import UserError
from adapt.recipe import load_recipe


def publish(run: Path) -> Path:
    """Write the backbone that a finished run holds; returns the checkpoint's folder.

    What the run's method left frozen stays as the checkpoint has it.

    Raises:
        UserError: the run has no such weights.
    """
    learnt = run / "adapter" / FILE
    if not learnt.exists():
        raise UserError(f"{learnt}: missing. First: adapt finetune with a recipe of recipes/zoo, until it ends.")
    recipe = load_recipe(str(run / "recipe.yaml"))
    backbone = plug.load("models", recipe.model.name).load(recipe.model).backbone
    state = {name.removeprefix("backbone."): value for name, value in load_file(learnt).items() if name.startswith("backbone.")}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    # weights that are tied are stored once
    missing = set(missing) - set(backbone.all_tied_weights_keys) if recipe.method.name == "full" else set()
    if missing or unexpected:
        raise UserError(f"{learnt}: of another model: {sorted({*missing, *unexpected})[:3]} differ.")
    folder = EMBEDDED / recipe.model.checkpoint
    layout = (folder / "config.json").read_bytes()
    backbone.half().save_pretrained(folder)
    (folder / "config.json").write_bytes(layout)
    return folder


if __name__ == "__main__":
    print(publish(Path(sys.argv[1])))
