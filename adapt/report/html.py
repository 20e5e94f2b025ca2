"""What all our pages are made of: one file with its style and pictures inside; what cannot be drawn costs one line."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from adapt.plug import ROOT

STYLE = ROOT / "assets" / "report.css"


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page of these sections."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def section(title: str, instead: str, draw: Callable[..., str], *parts: Any) -> str:
    """What `draw` makes of `parts`; where it fails, one line that says so (with ADAPT_DEBUG=1, the error itself).

    Args:
        instead: a sentence on where the same is to be found.
    """
    try:
        return draw(*parts)
    except Exception as error:  # a figure must not end a verb after its work
        if os.environ.get("ADAPT_DEBUG"):
            raise
        why = " ".join(str(error).split())[:200]
        return f"<p class=note>{escape(f'{title}: could not be drawn ({type(error).__name__}: {why}). {instead}')}</p>"


def data_uri(data: bytes, kind: str = "png") -> str:
    """A picture's bytes as the address of an image inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table of texts, the first of each row its name; it scrolls where it is too wide.

    Args:
        head, rows: lines of a cell after its first are small.
        words: numbers of the columns that hold words: these begin at the left, and are broken into lines.
    """
    look = [" class=words" if number in words else "" for number in range(len(head))]
    top = "".join(f"<th{kind}>{_cell(name)}</th>" for kind, name in zip(look, head, strict=True))
    lines = ""
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{_cell(text)}</td>" for kind, text in zip(look[1:], rest, strict=True))
        lines += f"<tr><th>{_cell(first)}</th>{cells}</tr>"
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def _cell(text: str) -> str:
    first, *more = text.split("\n")
    return escape(first) + "".join(f"<br><small>{escape(line)}</small>" for line in more)
