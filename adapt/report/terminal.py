"""A table in the terminal with the lines below it, as the parts of a run print them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def tell(grid: Sequence[Sequence[str]], lines: Iterable[tuple[str, str]], left: int, width: int) -> None:
    """Print a table and lines.

    Args:
        grid: rows of cells as text, the head first.
        lines: each with its style, such as ("Report: …", ""); nothing in them is markup.
        left: the first so many columns are words; the others are numbers, and stand to the right.
        width: characters of a row where the output is no terminal: a file has room for whole rows.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, out = Console(), Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    if not console.is_terminal:
        console = Console(width=width)
    head, *body = grid
    for number, name in enumerate(head):
        out.add_column(Text(name), justify="left" if number < left else "right", overflow="fold")
    for row in body:
        out.add_row(*map(Text, row))
    console.print(out)
    for line, style in lines:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
