"""The embedded world: 849 things, each drawn by five hands; classes are the 49 Unicode subgroups.

The split is by concept and the same for every hand, so the things of the test split are new, whoever drew them. A class with
a single concept (`animal-amphibian`: the frog) has it in train.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from adapt.contracts import SourceConfig

Hand = Literal["noto", "twemoji", "fluent_flat", "fluent_3d", "openmoji"]


class Config(SourceConfig):
    """Pictures of one hand, 64 × 64 pixels on white."""

    source: str = "emoji"
    """This file."""
    hand: Hand = "openmoji"
    """Who drew them. The target hand, openmoji, has been in no pre-training."""
    shots: int | None = Field(None, ge=1)
    """At most so many training pictures a class; none: all."""
    also: list[Hand] = []
    """More hands, all concepts, with labels, in the training split: a labelled source domain beside the target's few labels."""
    unlabelled: list[Hand] = []
    """More hands, all concepts, without labels, as the split `unlabelled`; not by the artist of `hand`."""

    @field_validator("also", "unlabelled")
    @classmethod
    def _other_artists(cls, hands: list[str], info: ValidationInfo) -> list[str]:
        own = info.data.get("hand", "")
        # the two Fluent sets are one artist's drawing twice
        if same := [hand for hand in hands if hand.split("_")[0] == own.split("_")[0]]:
            raise ValueError(f"{same[0]} is by the artist of data.hand={own} and shows the test split; name other hands")
        return list(dict.fromkeys(hands))


def load(config: Config):
    """Read the pictures.

    Returns:
        `Splits` with train, validation and test (id `hand/hexcode`, image, label, caption: the CLDR name, objects: the
        thing drawn, from the transparency), and with `unlabelled` hands also unlabelled (id, image).
    """
    from datasets import concatenate_datasets

    from adapt.data.split import Splits, by_split, percent
    from adapt.data.world import TEST, VALIDATION, concept_splits, read

    rows = read(config.hand)
    splits = by_split(rows, concept_splits(rows))
    if config.shots:
        splits["train"] = splits["train"].select(_first(splits["train"]["label"], config.shots))
    if config.also:
        splits["train"] = concatenate_datasets([splits["train"], *(read(hand) for hand in config.also)])
    if config.unlabelled:
        splits["unlabelled"] = concatenate_datasets([read(hand).select_columns(["id", "image"]) for hand in config.unlabelled])
    shares = {"train": 1 - VALIDATION - TEST, "validation": VALIDATION, "test": TEST}
    origin = {split: f"{percent(share)} of the things, drawn by {config.hand}" for split, share in shares.items()}
    origin["train"] += f", {config.shots} a class at most" if config.shots else ""
    origin["train"] += f"; and all things by {', '.join(config.also)}" if config.also else ""
    origin["unlabelled"] = f"all things by {', '.join(config.unlabelled)}, without labels"
    return Splits(splits, origin)


def _first(labels: list[int], shots: int) -> list[int]:
    """Row numbers of the first `shots` rows of each label."""
    counts: dict[int, int] = {}
    kept = []
    for row, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + 1
        if counts[label] <= shots:
            kept.append(row)
    return kept
