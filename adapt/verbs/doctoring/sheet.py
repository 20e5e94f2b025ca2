"""What the contact sheet shows: which pictures, with which of their boxes and masks, and in which words."""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from adapt.data.problems import KINDS, Report
from adapt.plug import Spec, UserError, counted
from adapt.provenance import of
from adapt.report.sheet import Bars, Frame, Mark, Sheet, Twins, build, colour
from adapt.verbs.doctoring.request import NONE
from adapt.vision.classes import IGNORE, category_names
from adapt.vision.draw import overlay
from adapt.vision.masks import unrle

if TYPE_CHECKING:
    from adapt.verbs.doctoring.objects import Found
    from adapt.verbs.doctoring.rows import Seen

SAMPLE = 12
"""Pictures of each split."""
DOUBTS, TWINS, WRONG = 24, 12, 12
"""Of each, at most so many."""
MASKS = 40
"""Objects of a picture that are drawn: of a crowd of hundreds nothing could be seen."""
SIDE = 440
"""Pixels of a picture's longer side: twice those of the page, for sharp screens."""


def draw(seen: Seen, report: Report, config: Spec, place: str | None) -> tuple[str | None, str]:
    """Write the page; returns its path, none where there is none, and a line for the user.

    Args:
        place: as it was asked for; none: `doctor/NAME-HASH.html`, and if that cannot be written the line says so.

    Raises:
        UserError: the page that was asked for cannot be written.
    """
    if place == NONE:
        return None, ""
    name = _name(config)
    path = Path(place).expanduser() if place else Path("doctor") / f"{name}-{of(config.model_dump(mode='json'))[:8]}.html"
    try:
        build(path, _sheet(seen, report, name))
    except UserError as error:
        if place:
            raise
        return None, f"No sheet: {error} sheet=FILE.html names another place."
    return str(path), f"Sheet: {path}"


def _name(config: Spec) -> str:
    """Of the data: the last part of their path, or the source."""
    path = Path(str(config.values().get("path") or config.source))
    return re.sub(r"[^\w-]+", "_", path.stem or path.resolve().stem).strip("_")[:40] or config.source


def _sheet(seen: Seen, report: Report, name: str) -> Sheet:
    rows = seen.rows()
    pictures = sum(row["pictures"] for row in rows)
    things = sum(row.get("objects", 0) for row in rows)
    lead = f"{counted(pictures, 'picture')} in {counted(len(rows), 'split')}"
    lead += f", {counted(things, 'object')}" if seen.objects else ""
    problems = counted(len(report.problems), "problem")
    lead += f"; {problems}, {len(report.severe) or 'none'} of them severe." if report.problems else "; no problem."
    frames = _Frames(seen)
    return Sheet(
        name,
        lead,
        seen.sentences(),
        _table(rows),
        _problems(report),
        [_bars(balance) for balance in seen.balances],
        list(frames.of_doubts()),
        list(frames.of_twins()),
        list(frames.of_wrong()),
        {split: list(frames.of_sample(split)) for split in seen.splits},
    )


def _table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The splits, with the head."""
    objects = any("objects" in row for row in rows)
    table = [["", "pictures", *(["objects", "a picture"] if objects else []), "median size", "from"]]
    for row in rows:
        each, sizes = row.get("objects_each"), row["sizes"]
        cells = [row["split"], f"{row['pictures']:,}"]
        if objects:
            spread = each and (f"{each['least']}–{each['most']}" if each["least"] < each["most"] else str(each["least"]))
            cells += [f"{row['objects']:,}", spread] if each else ["", ""]
        cells.append("{} × {}".format(*sizes["median"]) if sizes else "")
        table.append([*cells, row["origin"]])
    return table


def _problems(report: Report) -> list[tuple[str, bool, int, str, list[str]]]:
    """The kinds of problems, severe ones first, each with all of it in words."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for one in report.problems:
        kinds[one.problem].append(f"{one.id}: {one.detail}" if one.detail else one.id)
    order = sorted(kinds, key=lambda kind: (not KINDS[kind][0], -len(kinds[kind])))
    return [(kind, KINDS[kind][0], len(kinds[kind]), KINDS[kind][1], kinds[kind]) for kind in order]


def _bars(balance) -> Bars:
    title = "Classes" if balance.what == "picture" else "Classes of the objects"
    return Bars(title, balance.names, {split: counts.tolist() for split, counts in balance.counts.items()})


# ---------------------------------------------------------------------------------------------------------------- pictures


class _Frames:
    """Rows as pictures of the page; one that cannot be drawn is left out."""

    def __init__(self, seen: Seen):
        self.seen = seen
        features = next(iter(seen.splits.values())).features
        self.labels = list(features["label"].names) if "label" in features else []
        self.names = category_names(features)

    def of_doubts(self) -> Iterator[Frame]:
        """Pictures whose label is doubtful, the most doubtful first."""
        for one in self.seen.noise.doubts[:DOUBTS] if self.seen.noise else []:
            words = f"{one.given}? Looks like {one.suggested}, {100 * one.probability:.0f} % sure."
            yield from self._frame(one.split, one.row, words)

    def of_twins(self) -> Iterator[Twins]:
        """Pictures that look alike: first the leaks, then in train; the most alike first."""
        for two in sorted(self.seen.alike, key=lambda two: (not two.leak, two.bits, two.split, two.row))[:TWINS]:
            one = [*self._frame(two.split, two.row, two.split)]
            other = [*self._frame(two.other_split, two.other_row, two.other_split)]
            kind = "Near leak" if two.leak else "Near duplicate"
            if one and other:
                yield Twins(one[0], other[0], f"{kind}: {two.bits} of 64 bits differ.")

    def of_wrong(self) -> Iterator[Frame]:
        """Pictures with an object that is wrong or may be, of each kind some."""
        kinds: dict[str, list[Found]] = defaultdict(list)
        for objects in self.seen.objects.values():
            for one in objects.found:
                if one.row not in {other.row for other in kinds[one.problem][:WRONG] if other.split == one.split}:
                    kinds[one.problem].append(one)
        for found in kinds.values():
            for one in found[: max(1, WRONG // len(kinds))]:
                yield from self._frame(one.split, one.row, f"{one.split}: {one.problem}", one.object)

    def of_sample(self, split: str) -> Iterator[Frame]:
        """Some of a split's pictures: those with the least and the most objects, and others by the hashes of their ids."""
        ids = self.seen.ids[split]
        order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(ids[row].encode("utf-8", "replace")).digest())
        first: list[int] = []
        if split in self.seen.objects and len(ids):
            each = self.seen.objects[split].each
            first = [int(each.argmin()), int(each.argmax())]
        if "label" in self.seen.splits[split].column_names:
            order = _by_turns(order, self.seen.splits[split]["label"][:])
        for row in list(dict.fromkeys([*first, *order]))[:SAMPLE]:
            yield from self._frame(split, row)

    def _frame(self, split: str, row: int, words: str = "", wrong: int | None = None) -> Iterator[Frame]:
        try:
            sample = self.seen.splits[split][row]
            if sample["image"] is None:
                return
            small = ImageOps.contain(sample["image"], (SIDE, SIDE)) if max(sample["image"].size) > SIDE else sample["image"]
            marks, picture = self._marks(sample, small, wrong)
        except (UserError, ValueError, OSError):
            return
        out = io.BytesIO()
        picture.convert("RGB").save(out, "JPEG", quality=85)
        classes = [(mark.name, mark.colour) for mark in marks if not mark.crowd]
        if sample.get("label") is not None and 0 <= sample["label"] < len(self.labels):
            classes = [(self.labels[sample["label"]], colour(sample["label"], len(self.labels)))]
        yield Frame(out.getvalue(), picture.size, self.seen.ids[split][row], marks, classes, words, _text(sample))

    def _marks(self, sample: dict[str, Any], small: Image.Image, wrong: int | None) -> tuple[list[Mark], Image.Image]:
        """A row's boxes in pixels of the small picture, and this with its masks laid over it."""
        objects = sample.get("objects") or {"bbox": [], "category": []}
        scale = small.width / sample["image"].width, small.height / sample["image"].height
        chosen = list(range(min(MASKS, len(objects["bbox"]))))
        chosen += [wrong] if wrong is not None and wrong not in chosen else []
        marks, masks, tints = [], [], []
        for i in chosen:
            number = objects["category"][i] if objects.get("category") else -1
            tint = colour(number, len(self.names)) if number >= 0 else (110, 110, 110)
            box = tuple(float(value) * scale[axis % 2] for axis, value in enumerate(objects["bbox"][i]))
            name = self.names[number] if 0 <= number < len(self.names) else ""
            crowd = bool((objects.get("iscrowd") or {i: 0})[i])
            if np.isfinite(box).all():
                marks.append(Mark(box, name, tint, crowd, i == wrong))
            code = (objects.get("mask") or {i: None})[i]
            if code and tuple(code["size"])[::-1] == sample["image"].size:
                masks.append(_fitted(unrle(code), small.size))
                tints.append(tint)
        if not objects["bbox"] and sample.get("segmentation") is not None:
            masks, tints = _of_map(sample["segmentation"], small.size)
        return marks, overlay(small, np.stack(masks), tints) if masks else small


def _text(sample: dict[str, Any]) -> str:
    """What is said of a row: its caption, the first of several, or question and answer."""
    if sample.get("suffix") is not None:
        return " → ".join(filter(None, (sample.get("prefix"), sample["suffix"])))
    caption = sample.get("caption") or ""
    return caption if isinstance(caption, str) else next(iter(caption), "")


def _by_turns(order: Sequence[int], labels: Sequence[int | None]) -> list[int]:
    """The same rows, so that each class has its turn before one comes again."""
    turn: dict = defaultdict(int)
    turns = {}
    for place, row in enumerate(order):
        turns[row] = turn[labels[row]], place
        turn[labels[row]] += 1
    return sorted(order, key=turns.__getitem__)


def _fitted(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask bool[H, W] scaled to a picture's (width, height)."""
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), bool)


def _of_map(values: Image.Image, size: tuple[int, int]) -> tuple[list[np.ndarray], list[tuple[int, int, int]]]:
    """The classes of a map as masks, but for background and what nobody judged; and their colours."""
    small = np.asarray(values.resize(size, Image.Resampling.NEAREST))
    if small.ndim != 2:
        return [], []
    classes = [value for value in np.unique(small).tolist() if value not in (0, IGNORE)][:MASKS]
    return [small == value for value in classes], [colour(int(value) - 1, 9) for value in classes]
