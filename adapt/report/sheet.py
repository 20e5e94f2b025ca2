"""The contact sheet of a data set: what is there in numbers, and pictures with their boxes, masks and classes, on one page."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from adapt.plug import counted
from adapt.report.html import data_uri, document, section
from adapt.run import atomic
from adapt.vision.draw import PALETTE

WIDTH, HEIGHT = 220, 200
"""Pixels of the page that a picture gets: what letters and lines on it are measured by."""
NAMED = 8
"""A picture with more objects has no names on it, only below it."""
CHIPS = 6
"""Classes below a picture."""
BARS = 60
"""Classes with a bar; of more, the commonest half and the rarest half of these."""
LISTED = 12
"""Problems of a kind that the page lists."""
LETTERS = 18
"""Of a name on a picture and beside a bar; below pictures `CHIP`."""
CHIP = 24
TEXT = 160
"""Of a caption."""
TINTS = ("#0072b2", "#e69f00", "#009e73", "#8a8f98")
"""Of train, validation, test and others in bars (Okabe and Ito 2008)."""
INSTEAD = "The list has it all: write=problems.csv."


@dataclass(frozen=True)
class Mark:
    """A box on a picture."""

    box: tuple[float, float, float, float]
    """XYXY, pixels of the picture as it is stored in the page."""
    name: str
    colour: tuple[int, int, int]
    crowd: bool = False
    """A region of a crowd: dashed."""
    wrong: bool = False
    """What the picture is shown for."""


@dataclass(frozen=True)
class Frame:
    """A picture with what is said of it."""

    jpeg: bytes
    """Scaled for the page, masks laid over it."""
    size: tuple[int, int]
    """Its width and height, pixels."""
    id: str
    marks: list[Mark] = field(default_factory=list)
    """The boxes that are drawn."""
    classes: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    """Name and colour of its class, or of each of its objects."""
    words: str = ""
    """A line on it, its most important one."""
    text: str = ""
    """Its caption, or the question and the answer."""


@dataclass(frozen=True)
class Twins:
    """Two pictures that look alike."""

    one: Frame
    other: Frame
    words: str


@dataclass(frozen=True)
class Bars:
    """Classes with how often each is there."""

    title: str
    names: list[str]
    counts: Mapping[str, Sequence[int]]
    """Split → of each class."""


@dataclass
class Sheet:
    """All that is on the page."""

    title: str
    lead: str
    lines: list[str]
    """What is there, in sentences."""
    splits: list[list[str]]
    """The table of the splits; the first row is its head."""
    problems: list[tuple[str, bool, int, str, list[str]]]
    """Kind, is it severe, how often, what to do, and some of them in words."""
    bars: list[Bars] = field(default_factory=list)
    doubts: list[Frame] = field(default_factory=list)
    twins: list[Twins] = field(default_factory=list)
    wrong: list[Frame] = field(default_factory=list)
    """Pictures with an object that is wrong, or may be."""
    samples: dict[str, list[Frame]] = field(default_factory=dict)
    """Split → some of its pictures."""


def build(path: Path, sheet: Sheet) -> Path:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    parts = [
        section("Headline", INSTEAD, _head, sheet),
        section("Problems", INSTEAD, _problems, sheet.problems),
        *(section(bars.title, INSTEAD, _bars, bars) for bars in sheet.bars),
        section("Doubtful labels", INSTEAD, _frames, "Doubtful labels", sheet.doubts, "The most doubtful first."),
        section("Alike", INSTEAD, _twins, sheet.twins),
        section("Boxes and masks to look at", INSTEAD, _frames, "Boxes and masks to look at", sheet.wrong),
        *(section(split, INSTEAD, _frames, f"Some of {split}", frames) for split, frames in sheet.samples.items()),
    ]
    with atomic(path) as temporary:
        temporary.write_text(document(sheet.title, parts), encoding="utf-8", errors="replace")
    return path


def colour(number: int, of: int) -> tuple[int, int, int]:
    """A class's colour, the same on every picture: of few classes from the palette, of many all around the circle."""
    if of <= len(PALETTE):
        return PALETTE[number % len(PALETTE)]
    red, green, blue = colorsys.hls_to_rgb(number * 0.381966 % 1, (0.42, 0.55)[number % 2], 0.85)  # by the golden angle
    return round(255 * red), round(255 * green), round(255 * blue)


# ----------------------------------------------------------------------------------------------------------------- numbers


def _head(sheet: Sheet) -> str:
    lines = "".join(f"<p class=note>{escape(line)}</p>" for line in sheet.lines)
    head, *rows = sheet.splits
    names = "".join(f"<th>{escape(name)}</th>" for name in head[:-1]) + f"<th class=words>{escape(head[-1])}</th>"
    body = ""
    for first, *cells, words in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body += f"<tr><th>{escape(first)}</th>{values}<td class=words>{escape(words)}</td></tr>"
    table = f"<div class=wide><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>" if rows else ""
    return f"<header><h1>{escape(sheet.title)}</h1><p class=lead>{escape(sheet.lead)}</p></header>{table}{lines}"


def _problems(problems: Sequence[tuple[str, bool, int, str, list[str]]]) -> str:
    if not problems:
        return ""
    parts = ""
    for kind, severe, count, todo, some in problems:
        items = "".join(f"<li>{escape(one)}</li>" for one in some[:LISTED])
        more = f"<li>… and {count - LISTED:,} more</li>" if count > LISTED else ""
        head = f"<b{' class=severe' if severe else ''}>{escape(kind)}: {count:,}</b> <small>{escape(todo)}</small>"
        parts += f"<details><summary>{head}</summary><ul>{items}{more}</ul></details>"
    return f"<section><h2>Problems</h2>{parts}</section>"


def _bars(bars: Bars) -> str:
    """A row a class, the commonest first: a bar with a part for each split, and the counts."""
    total = [sum(counts[i] for counts in bars.counts.values()) for i in range(len(bars.names))]
    order = sorted(range(len(total)), key=lambda i: (-total[i], i))
    note = ""
    if len(order) > BARS:
        note = f"The {BARS // 2} commonest and the {BARS // 2} rarest of {len(order)} classes."
        order = order[: BARS // 2] + order[-BARS // 2 :]
    longest = max(max(total, default=0), 1)
    rows = ""
    for i in order:
        parts = "".join(
            f'<i style="background:{_tint(split)};width:{100 * counts[i] / longest:.2f}%"></i>'
            for split, counts in bars.counts.items()
            if counts[i]
        )
        name, shown = escape(bars.names[i]), escape(_cut(bars.names[i], LETTERS))
        numbers = " · ".join(f"{counts[i]:,}" for counts in bars.counts.values())
        rows += f'<div><span title="{name}">{shown}</span><span class=bar>{parts}</span><small>{numbers}</small></div>'
    key = "".join(_chip(split, _tint(split)) for split in bars.counts)
    few = " one" if len(order) < 8 else ""
    return f"<section><h2>{escape(bars.title)}</h2><p class=key>{key} {escape(note)}</p><div class='bars{few}'>{rows}</div></section>"


def _tint(split: str) -> str:
    return TINTS[("train", "validation", "test", split).index(split)]


# ---------------------------------------------------------------------------------------------------------------- pictures


def _frames(title: str, frames: Sequence[Frame], note: str = "") -> str:
    if not frames:
        return ""
    note = f"<p class=note>{escape(note)}</p>" if note else ""
    figures = "".join(f"<figure>{_frame(one)}</figure>" for one in frames)
    return f"<section><h2>{escape(title)}</h2>{note}<div class=sheet>{figures}</div></section>"


def _twins(twins: Sequence[Twins]) -> str:
    if not twins:
        return ""
    figures = "".join(
        f"<figure><div class=both><figure>{_frame(two.one)}</figure><figure>{_frame(two.other)}</figure></div>"
        f"<figcaption>{escape(two.words)}</figcaption></figure>"
        for two in twins
    )
    return f"<section><h2>Pictures that look alike</h2><div class=twins>{figures}</div></section>"


def _frame(frame: Frame) -> str:
    """The picture with its boxes, in units of its own pixels, and what is below it."""
    width, height = frame.size
    unit = 1 / min(WIDTH / width, HEIGHT / height)  # pixels of the picture in one of the page
    named = len(frame.marks) <= NAMED
    order = sorted(frame.marks, key=lambda mark: mark.wrong)
    faint = any(mark.wrong for mark in order)
    marks = "".join(_mark(mark, unit, frame.size, named, faint and not mark.wrong) for mark in order)
    picture = f'<image href="{data_uri(frame.jpeg, "jpeg")}" width="{width}" height="{height}"/>'
    name = escape(frame.id)
    drawing = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{picture}{marks}</svg>'
    words = f"<b>{escape(frame.words)}</b>" if frame.words else ""
    text = f"<div>{escape(frame.text if len(frame.text) <= TEXT else frame.text[: TEXT - 1] + '…')}</div>" if frame.text else ""
    counts = Counter(frame.classes)
    chips = "".join(
        _chip(label + (f" × {count}" if count > 1 else ""), _rgb(tint)) for (label, tint), count in counts.most_common(CHIPS)
    )
    rest = f" <small>{counted(len(counts) - CHIPS, 'more class')}</small>" if len(counts) > CHIPS else ""
    return f'{drawing}<figcaption>{words}<span class=id title="{name}">{name}</span>{chips}{rest}{text}</figcaption>'


def _mark(mark: Mark, unit: float, size: tuple[int, int], named: bool, faint: bool) -> str:
    """A box with its name; `unit` pixels of the picture are one of the page. A faint one stands beside what is wrong."""
    left, top, right, bottom = mark.box
    dash = f' stroke-dasharray="{4 * unit:.2f} {3 * unit:.2f}"' if mark.crowd else ""
    dash += ' stroke-opacity=".45"' if faint else ""
    line = f'fill="none" stroke="{_rgb(mark.colour)}" stroke-width="{(3.5 if mark.wrong else 1.75) * unit:.3f}"{dash}'
    box = f'<rect x="{left:.2f}" y="{top:.2f}" width="{max(right - left, 0):.2f}" height="{max(bottom - top, 0):.2f}" {line}/>'
    if not named or faint or not mark.name:
        return box
    text = _cut(mark.name, LETTERS)
    wide = 7.6 * len(text) * unit  # of a letter of 11 pixels; a little too wide is no harm
    x, y = min(max(left, 0) + 3 * unit, max(size[0] - wide, 2 * unit)), min(max(top, 0) + 11.5 * unit, size[1] - 3 * unit)
    halo = f'stroke="#000b" stroke-width="{2.5 * unit:.3f}" paint-order="stroke" stroke-linejoin="round"'
    return f'{box}<text x="{x:.2f}" y="{y:.2f}" font-size="{11 * unit:.3f}" font-weight="600" fill="#fff" {halo}>{escape(text)}</text>'


def _chip(name: str, tint: str) -> str:
    return f'<span class=chip title="{escape(name)}"><i style="background:{tint}"></i><span>{escape(_cut(name, CHIP))}</span></span>'


def _rgb(tint: tuple[int, int, int]) -> str:
    return f"rgb({tint[0]} {tint[1]} {tint[2]})"


def _cut(name: str, most: int) -> str:
    """A name on one line, cut in its middle when it is long: what tells it from others is often its end."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most - 8]}…{name[-7:]}"
