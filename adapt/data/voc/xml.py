"""One XML file of VOC's: the picture and the objects that it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

MOST = 1 << 24
"""Bytes of a file; what is larger is refused."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")
READ = {"name", "bndbox", "difficult"}


class BadXML(Exception):
    """Why a file cannot be read."""


@dataclass(frozen=True)
class Thing:
    """An object."""

    name: str
    """Its class; empty where the file says none."""
    corners: tuple[str, ...]
    """xmin, ymin, xmax, ymax, as the file writes them; empty without a box."""
    difficult: bool
    wrong: str = ""
    """Why it cannot be used."""


@dataclass
class Annotation:
    """A file."""

    filename: str = ""
    size: tuple[int, int] | None = None
    """Width and height, pixels."""
    things: list[Thing] = field(default_factory=list)
    over: set[str] = field(default_factory=set)
    """Tags of objects that are not read."""


def parsed(path: Path) -> Annotation:
    """Read a file.

    Raises:
        BadXML: it is too large, no XML, has a document type (by which entities grow or read other files), or is no annotation.
    """
    try:
        if path.stat().st_size > MOST:
            raise BadXML(f"more than {MOST >> 20} MB")
        data = path.read_bytes()
        _no_doctype(data)
        root = ElementTree.fromstring(data)
    except OSError as error:
        raise BadXML(error.strerror) from None
    except (ElementTree.ParseError, expat.ExpatError, LookupError, ValueError, RecursionError) as error:
        raise BadXML(" ".join(str(error).split())[:100]) from None
    if root.tag != "annotation":
        raise BadXML(f"its root is <{root.tag[:40]}>, and must be <annotation>")
    things = root.findall("object")
    over = {part.tag for thing in things for part in thing if (part.text or "").strip() not in ("", "0") or len(part)} - READ
    return Annotation(_said(root, "filename"), _size(root), [_thing(thing) for thing in things], over)


def _no_doctype(data: bytes) -> None:
    """Raises `BadXML` at a document type, in whatever encoding, before anything in it is expanded."""

    def refuse(*_: object) -> None:
        raise BadXML("it has a DOCTYPE, which annotations need not; delete that line")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(data, True)


def _said(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height; none, where the file says none, or 0, as some tools write."""
    try:
        width, height = int(float(_said(root, "size/width"))), int(float(_said(root, "size/height")))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _thing(thing: ElementTree.Element) -> Thing:
    box = thing.find("bndbox")
    wrong = "a rotated box, robndbox, which is not read; give it a bndbox" if thing.find("robndbox") is not None else ""
    corners = () if box is None else tuple(_said(box, corner) for corner in CORNERS)
    return Thing(_said(thing, "name"), corners, _said(thing, "difficult") in ("1", "true", "True"), wrong)
