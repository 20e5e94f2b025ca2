"""A set as CLIP_benchmark and DataComp publish them for zero-shot numbers: tars of a split, class names and templates beside them.

    cars/test/nshards.txt                        how many tars: 0.tar, 1.tar, …
    cars/test/0.tar                              s0000000.webp and what is said of it:
        s0000000.cls                             its class: a line of classnames.txt, from 0
        s0000000.npy                             its classes, a 0 or 1 each; beside a .cls, what WILDS knows of it: region, year, …
        s0000000.txt                             its captions, one a line
    cars/classnames.txt, cars/zeroshot_classification_templates.txt
    cars/dataset_type.txt                        retrieval | multilabel; no such file: a class a picture

    data: {source: clip_benchmark, path: cars}                                           # a folder, or on the hub:
    data: {source: clip_benchmark, path: clip-benchmark/wds_voc2007_multilabel, labels: classes}
    data: {source: clip_benchmark, path: djghosh/wds_geode_test, group: region}

All pictures count, or none: a number of the literature is one of the whole set, so what cannot be used is refused and nothing is left out.
Labels are looked at before any picture is read, and a tar with a link, or with a name that leads out of it, is not read at all. Nothing is
unpacked; pictures are copied once, as `webdataset` does.

Source: clip_benchmark/webdataset_builder.py and datasets/builder.py of LAION-AI/CLIP_benchmark (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import SourceConfig

if TYPE_CHECKING:
    from adapt.data.split import Splits


class Config(SourceConfig):
    """Where the set lies, and what its pictures are labelled with."""

    source: str = "clip_benchmark"
    """This file."""
    path: str
    """A folder in the published layout, or a data set of the hub: owner/name."""
    split: str = Field("test", pattern=r"^[A-Za-z0-9][\w-]*$")
    """The split that is read: a folder of tars."""
    labels: Literal["class", "classes", "captions", "choice"] = "class"
    """What a picture has: a class; several classes; captions, all of them right; or captions of which the first is right."""
    group: str | None = None
    """The field by which pictures are grouped, such as region: of FMoW, GeoDE and Dollar Street; of other sets its position in the array
    beside the class, from '0'."""
    train: bool = False
    """Read the pictures for train too, where there are any: for evals that learn."""

    def check_paths(self) -> None:
        """A folder must have the tars that nshards.txt says, and labels of this kind."""
        from adapt.data.clip_benchmark.places import check, local

        if root := local(self.path):
            check(self, root)


@dataclass(frozen=True)
class Beside:
    """What lies beside the tars."""

    classes: list[str]
    """Lines of classnames.txt, word for word, the class 0 first; none: there is no such file."""
    templates: list[str]
    """Lines of zeroshot_classification_templates.txt, with `{c}` where the name goes; none: there is no such file."""
    kind: str
    """dataset_type.txt: retrieval, multilabel; empty: there is no such file, so that pictures have a class."""


@dataclass(frozen=True)
class Found:
    """What the labels of a split say, before any picture is read."""

    pictures: int
    names: list[str]
    """Of the classes, as the rows have them: lines of classnames.txt, each once; none: pictures have captions."""
    seen: int
    """Classes that occur."""
    captions: int
    """With repeated ones; 0: pictures have classes."""
    why: str = ""
    """Why the set cannot be used, in one line; empty: it can."""


def beside(path: str) -> Beside:
    """What lies beside the tars of a folder, or of a data set of the hub, of which nothing else is fetched.

    Raises:
        UserError: there is no such folder or data set, or a file is no text.
    """
    from adapt.data.clip_benchmark.places import TEXTS, lines, root
    from adapt.data.webdataset.tars import KIND, NAMES, TEMPLATES, text

    place = root(path, TEXTS)
    return Beside(lines(place / NAMES), lines(place / TEMPLATES), text(place / KIND).strip().lower())


def look(config: Config) -> Found:
    """Read headers and labels of the split's tars, and count. What was looked at is remembered until a tar changes.

    Raises:
        UserError: there is no such folder, a tar is missing, or the set is of another kind than `config.labels`.
    """
    from adapt.data.clip_benchmark.reading import found

    return found(config, config.split)


def load(config: Config) -> Splits:
    """Read the set.

    Returns:
        `Splits` with `config.split` and, with `config.train`, train: id (the tar's path and the key), image; label, labels (list of classes)
        or caption (list of texts, of `choice` the right one first); and group, a text, where asked.

    Raises:
        UserError: as `look`; or, in one line, what cannot be used: a tar that is damaged or unsafe, a picture without label, captions or
            group, a class that classnames.txt lacks, a picture that cannot be decoded.
    """
    from adapt.data.clip_benchmark.reading import splits

    return splits(config)
