"""A tree of ten small sets in the layout that CLIP_benchmark publishes, made in a moment; and the suite that measures them.

    path = write_tree(tmp_path / "tree", broken=["cups"], without=["petals"], other_names=["shapes"])
    suite = write_suite(tmp_path / "ten.yaml")                                # suite=ten.yaml data.path=tree

Labels, captions and groups are as `clip_benchmark_export_wds` and DataComp's sets have them: `.cls` a number, `.npy` zeros and ones, `.txt` a
caption a line, and beside `.cls` an `.npy` of what WILDS knows of a picture.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from webdataset import TarWriter

COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 70, 210),
    "yellow": (230, 210, 50),
    "black": (20, 20, 20),
    "white": (240, 240, 240),
    "pink": (240, 150, 190),
    "brown": (120, 75, 40),
}
TEMPLATES = ["a photo of a {c}.", "a drawing of a {c}."]


@dataclass(frozen=True)
class Small:
    """A set of the tree."""

    name: str
    """In the suite."""
    folder: str
    classes: list[str]
    """Lines of classnames.txt; none: the set has captions."""
    labels: list[Any]
    """For each picture its class, its classes, or its captions."""
    asked: dict[str, Any]
    """What the suite says of it: labels, metric, …"""
    groups: list[list[int]] = field(default_factory=list)
    """What WILDS knows of each picture, in an `.npy` beside its class."""
    train: int = 0
    """Pictures for train."""
    shards: int = 1
    """Tars of the test split."""
    ending: str = "png"

    @property
    def kind(self) -> str:
        """The line of dataset_type.txt; empty: there is no such file."""
        return {"captions": "retrieval", "choice": "retrieval", "classes": "multilabel"}.get(
            self.asked.get("labels", "class"), ""
        )


def _captions(number: int, each: int) -> list[str]:
    """Captions of a picture: the last names its number, so that no two pictures share it."""
    colour = list(COLOURS)[number % len(COLOURS)]
    texts = [
        f"a {colour} square",
        f"something {colour}",
        f"{colour} all over",
        f"one {colour} thing",
        f"{colour}, number {number}",
    ]
    return texts[-each:]


NAMES = list(COLOURS)
SETS = [
    Small("cups", "wds_cups", NAMES[:4], [i % 4 for i in range(12)], {"metric": "top1", "also": ["ece"]}, train=8),
    Small("petals", "wds_petals", NAMES[:3], [0] * 8 + [1] * 3 + [2] * 2, {"metric": "mean_per_class", "also": ["top1"]}),
    Small("wilds/iwildcam", "wds_wilds-iwildcam_test", NAMES[:6], [0, 0, 0, 1, 1, 2, 3, 3, 4], {"metric": "f1_macro", "also": ["top1"]},
          groups=[[i, i, 2013, 1, 1, 0, 0, 0, 0] for i in range(9)]),  # the last class occurs in no picture
    Small("wilds/fmow", "wds_wilds-fmow_test", NAMES[:3], [i % 3 for i in range(12)],
          {"metric": "worst_group", "also": ["top1"], "group": "region", "group_without": ["Other"]},
          groups=[[(0, 3, 5)[i // 4], 15, i % 3] for i in range(12)]),
    Small("dollar_street", "wds_dollar_street_test", NAMES, [i % 8 for i in range(16)],
          {"metric": "top5_worst_group", "also": ["top1", "top5"], "group": "income"}, groups=[[i // 4, 0, i % 4] for i in range(16)]),
    Small("voc2007_multilabel", "wds_voc2007_multilabel", NAMES[:4], [[i % 4, (i + 1) % 4][: 1 + i % 2] for i in range(12)],
          {"labels": "classes", "metric": "map"}, ending="webp"),
    Small("flickr8k", "wds_flickr8k", [], [_captions(i, 5) for i in range(10)],
          {"labels": "captions", "metric": "r1", "also": ["r5", "r10", "text_r1", "text_r5", "text_r10"]}),
    Small("mscoco_captions", "wds_mscoco_captions", [], [_captions(i, 2 + i % 2) for i in range(9)],
          {"labels": "captions", "metric": "mean_r1", "also": ["r1", "text_r1"]}, shards=2),
    Small("sugar_crepe/swap_obj", "wds_sugar_crepe-swap_obj", [], [[f"a {a} square", f"a {b} square"] for a, b in pairwise(NAMES)],
          {"labels": "choice", "metric": "choice"}),
    Small("shapes", "wds_shapes", NAMES[:6], [i % 6 for i in range(12)],
          {"metric": "top1", "also": ["top5"], "prompts": {"templates": ["a {}."], "classes": {name: f"{name} square" for name in NAMES[:6]}}},
          shards=3),
]  # fmt: skip
"""The ten, each with a metric of its own but the last, whose class names are the suite's."""


def picture(number: int, name: str, ending: str = "png") -> bytes:
    """A square of 24 pixels of a colour, with noise of its own."""
    noise = np.random.default_rng(number).integers(-12, 13, (24, 24, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8)).save(out, ending.upper(), lossless=True)
    return out.getvalue()


def sample(one: Small, number: int) -> dict[str, Any]:
    """What a tar has of a picture, as `TarWriter` takes it."""
    label = one.labels[number % len(one.labels)]
    if not one.classes:
        colour = next((word for word in label[0].replace(",", " ").split() if word in COLOURS), "red")
        said: dict[str, Any] = {"txt": "\n".join(label)}
    elif isinstance(label, list):
        colour, there = one.classes[label[0]], np.zeros(len(one.classes), np.float32)
        there[label] = 1
        said = {"npy": there}
    else:
        colour, said = one.classes[label], {"cls": label}
    if one.groups:
        said["npy"] = np.array(one.groups[number % len(one.groups)], np.int64)
    return {"__key__": f"s{number:07}", one.ending: picture(number, colour, one.ending)} | said


def write_split(one: Small, place: Path, samples: Sequence[dict[str, Any]], shards: int) -> None:
    """The tars of a split, and how many there are."""
    place.mkdir(parents=True, exist_ok=True)
    for shard, part in enumerate(np.array_split(np.arange(len(samples)), shards)):
        with TarWriter(str(place / f"{shard}.tar"), encoder=True) as tar:
            for number in part:
                tar.write(samples[number])
    (place / "nshards.txt").write_text(f"{shards}\n")


def write_set(root: Path, one: Small) -> Path:
    """The folder of a set."""
    place = root / one.folder
    samples = [sample(one, number) for number in range(len(one.labels))]
    write_split(one, place / "test", samples, one.shards)
    if one.train:
        more = [sample(one, len(one.labels) + number) for number in range(one.train)]
        write_split(one, place / "train", more, 1)
    if one.classes:
        (place / "classnames.txt").write_text("\n".join(one.classes) + "\n")
        (place / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    if one.kind:
        (place / "dataset_type.txt").write_text(f"{one.kind}\n")
    return place


def write_tree(
    root: Path, without: Collection[str] = (), broken: Collection[str] = (), other_names: Collection[str] = ()
) -> str:
    """The tree, as `data.path` takes it; sets are named as in the suite.

    Args:
        without: sets that are missing.
        broken: sets whose last tar ends in the middle.
        other_names: sets whose classnames.txt has other words.
    """
    assert {*without, *broken, *other_names} <= {one.name for one in SETS}
    for one in SETS:
        if one.name in without:
            continue
        place = write_set(root, one)
        if one.name in broken:
            tar = place / "test" / f"{one.shards - 1}.tar"
            tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
        if one.name in other_names:
            (place / "classnames.txt").write_text("\n".join(f"kind {i}" for i in range(len(one.classes))) + "\n")
    return str(root)


def write_suite(path: Path, counts: bool = True) -> str:
    """The suite of the ten, as `suite` takes it.

    Args:
        counts: say how many pictures, classes and captions each has.
    """
    sets = []
    for one in SETS:
        captions = sum(map(len, one.labels)) if one.asked.get("labels") == "captions" else None
        found = {"pictures": len(one.labels), "classes": len(one.classes) or None, "captions": captions}
        known = {name: number for name, number in found.items() if number and counts}
        sets.append({"name": one.name, "folder": one.folder} | one.asked | known)
    path.write_text(yaml.safe_dump({"about": "Ten small sets.", "sets": sets}, sort_keys=False))
    return str(path)
