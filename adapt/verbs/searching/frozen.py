"""The choice, frozen: a recipe that asks as the chosen candidate does."""

from __future__ import annotations

from typing import Any

from adapt.plug import settings
from adapt.prompting.visual import Visual, VisualEvalConfig
from adapt.recipe import Prompts, Recipe, validate

ASKED = ("templates", "classes", "combine")
"""What is chosen of `prompts`."""
SHOWN = ("drawings", "expand", "line", "blur", "fit")
"""What is chosen of `visual`."""


def frozen(recipe: Recipe, prompts: Prompts, visual: Visual | None = None, subtract: float = 0.0) -> Recipe:
    """A recipe with the chosen words in `prompts`, and the chosen drawings in every eval that shows things in boxes.

    Args:
        visual: of things in boxes; none: whole pictures, and the evals stay as they are.
        subtract: of `region`, how much of the mean over other boxes is subtracted; `referring` keeps its own.
    """
    raw = recipe.model_dump(mode="json")
    raw["prompts"] |= {name: value for name, value in prompts.model_dump(mode="json").items() if name in ASKED}
    if not prompts_own(prompts, recipe):
        raw["prompts"] |= {"descriptions": None, "texts": None, "random": None}
    if visual is not None:
        shown = {name: value for name, value in visual.model_dump(mode="json").items() if name in SHOWN}
        if not any(config.name == "region" for config in recipe.evals):
            raw["evals"].append({"name": "region", "visual": recipe_visual(recipe).model_dump(mode="json")})
        for section in raw["evals"]:
            if "visual" in section:
                section["visual"] = section["visual"] | shown
            if section["name"] == "region":
                section["subtract"] = subtract
    return validate(raw)


def prompts_own(prompts: Prompts, recipe: Recipe) -> bool:
    """Has the choice the recipe's descriptions, whole texts and random words? The plain wording has none."""
    return all(getattr(prompts, name) == getattr(recipe.prompts, name) for name in ("descriptions", "texts", "random"))


def recipe_visual(recipe: Recipe) -> Visual:
    """How a recipe shows things in boxes: as its first eval of boxes says, else as by default."""
    return next((config.visual for config in recipe.evals if isinstance(config, VisualEvalConfig)), Visual())


def told(recipe: Recipe) -> dict[str, Any]:
    """How a recipe shows things in boxes, for the metadata of an exported file; empty where no eval shows any."""
    shown = [config.visual for config in recipe.evals if isinstance(config, VisualEvalConfig)]
    return {"visual": settings(shown[0])} if shown else {}
