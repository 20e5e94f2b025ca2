"""What a frozen encoder makes of pictures, computed once: for training, validation, and what a method prepares and searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from adapt.plug import UserError
from adapt.verbs import kept, lineage

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.verbs.session import Session


def cached(session: Session, split: str = "train", views: int = 0) -> Callable[[int, int], dict[str, Tensor]]:
    """The features of a split's pictures, kept on disk by content.

    Args:
        views: random views of each picture, by `train.augment` and the recipe's seed; 0: the picture as it is.

    Returns:
        (view, row) → `features`, float32[…].

    Raises:
        UserError: the encoder learns, the family has no such features, or its truth cannot follow random views.
    """
    need_still(session, views)
    recipe, function = session.recipe, session.family.frozen_features()
    if function is None:
        needs = recipe.method.prepares or recipe.method.searches
        place, way = ("method.name", "Use lora or full.") if needs else ("train.cache", "Set train.cache=false.")
        raise UserError(
            f"{place}: with method {recipe.method.name!r} the encoder of {recipe.model.name!r} learns, or this family has no features "
            f"to keep. {way}"
        )
    if session.shared is not None:
        return session.shared(split, views)
    seen = (views, recipe.train.augment) if views else (1, None)
    called = "features" + (f"_{split}" if split != "train" else "") + (f"_{views}" if views else "")
    made = lineage.features(session, split, views)
    return kept.outputs(session, "features", made, function, session.family, session.data[split], *seen, called=called)


def need_still(session: Session, views: int) -> None:
    """Refuse features of random views where what is learnt from them has places: in the data these are of the picture as it is.

    Args:
        views: random views of each picture; 0: the picture as it is.
    """
    if views and session.family.located:
        raise UserError(
            f"train.cache_views: {views}, but what {session.recipe.model.name!r} learns here has places in the picture, and features on "
            "disk are of other views. Set train.cache_views=0, or train.cache=false for random views with which the truth moves."
        )


def table(session: Session, split: str, views: int = 0, rows: Sequence[int] | None = None) -> Tensor:
    """The features of some rows, or of all: float32[views, N, …] on the session's device; [1, N, …] of the pictures as they are."""
    import torch

    found = cached(session, split, views)
    rows = range(len(session.data[split])) if rows is None else rows
    seen = [torch.stack([found(view, row)["features"] for row in rows]) for view in range(views or 1)]
    return torch.stack(seen).to(session.accelerator.device)
