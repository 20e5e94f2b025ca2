"""A recipe of the embedded world on other data: what it chose for icons gives way to the defaults, and a line says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WORLD = ("emoji", "emoji_scenes")
"""The embedded sources."""
CHOSEN = {
    # CLIP's own templates for photographs; seven, since the loss reads texts of each class and template in every step
    "prompts.templates": "7 templates of photographs; clip/imagenet has 80",
    "prompts.classes": "the labels' own names",
    "prompts.descriptions": "",
    "prompts.texts": "",
    "canary": "none of icons",
    "model.image_size": "the checkpoint's own",
    "train.augment": "",
    "distill.pretrained": "timm's weights, where they can be fetched",
    "distill.size": "about the teacher's",
    "distill.words.templates": "",
    "distill.words.background": "",
    "distill.train.augment": "",
}
"""Options that a recipe chooses for icons, and a word on their defaults."""
NAMED = ("prompts.classes", "prompts.descriptions", "prompts.texts")
"""Of these, what goes by the names of the data's classes."""
PUBLIC = {
    "clip-tiny": "openai/clip-vit-base-patch32",
    "dinov2-tiny": "facebook/dinov2-small",
    "paligemma-tiny": "google/paligemma2-3b-pt-224",
    "sam-tiny": "facebook/sam-vit-base",
}
"""Embedded checkpoint → a public one of its family."""


def forget(raw: dict, before: object, after: str) -> None:
    """Take out of a recipe file's mapping what was chosen for the data of another source.

    Args:
        before, after: the sources; class names are always those of the old data, the rest is for icons.
    """
    for path in CHOSEN if before in WORLD and after not in WORLD else NAMED:
        *sections, last = path.split(".")
        place = raw
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)


def notes(raw: dict, recipe: dict, given: Iterable[str]) -> list[str]:
    """Lines that a user should read once: what was chosen for other data and why, and which checkpoint would suit them.

    Args:
        raw: the recipe file's mapping.
        recipe: the resolved recipe's.
        given: dotted paths that the user has set.
    """
    source = recipe["data"]["source"]
    if source in WORLD:
        return []
    lines = []
    if _get(raw, "data.source") in WORLD:
        changed = [
            _told(path, _get(recipe, path))
            for path in CHOSEN
            if _differs(_get(raw, path), _get(recipe, path)) and not any(_meet(path, other) for other in given)
        ]
        if changed:
            lines.append(
                f"data.source={source}: the recipe's choices for icons are not used on other data. Now: {', '.join(changed)}. "
                "Set any of them to choose yourself."
            )
    for path in ("model.checkpoint", "distill.clip"):
        if (checkpoint := _get(recipe, path)) in PUBLIC and _get(recipe, "model.weights") != "random":
            lines.append(
                f"{path}={checkpoint} was trained on icons only. For your own pictures, use a public checkpoint: {path}={PUBLIC[checkpoint]}"
            )
    return lines


def _get(mapping: Any, path: str) -> Any:
    """The value at a dotted path; none when there is no such place."""
    for step in path.split("."):
        mapping = mapping.get(step) if isinstance(mapping, dict) else None
    return mapping


def _differs(chosen: Any, now: Any) -> bool:
    """Is what the file chose another value now? A mapping chooses only what it names."""
    if isinstance(chosen, dict) and isinstance(now, dict):
        return any(_differs(value, now.get(name)) for name, value in chosen.items())
    return chosen is not None and chosen != now


def _meet(path: str, other: str) -> bool:
    """Is one of two dotted paths the other, or inside it?"""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _told(path: str, value: Any) -> str:
    remark = CHOSEN[path]
    return f"{path}={_written(value)}" + (f" ({remark})" if remark else "")


def _any(value: Any) -> bool:
    """Is anything set? Of a mapping, in any of its parts."""
    return any(map(_any, value.values())) if isinstance(value, dict) else bool(value)


def _written(value: Any) -> str:
    """A value as it is typed; of a mapping, what is neither nothing nor all (of random views, what is done at all)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(part)}" for name, part in value.items() if _any(part)) + "}"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
