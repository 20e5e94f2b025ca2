"""A part of a run that has a page of its own and a section on the run's page: few labels, the workbench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from adapt.report.html import document, section
from adapt.run import Run, atomic

Read = Mapping[str, Any]
"""What the part's JSON file says."""


@dataclass(frozen=True)
class Part:
    """How its numbers become words, a table and a plot."""

    file: str
    """The numbers, in the run folder, such as `shots/shots.json`; the page and the plot lie beside them."""
    title: str
    """Of the section."""
    lead: Callable[[Read], str]
    """All of it in a sentence."""
    plot: Callable[[Read], tuple[str, bytes]]
    """SVG and PNG."""
    body: Callable[[Read, str], str]
    """What follows the sentence, as HTML; the text given is the plot's."""
    markdown: Callable[[str, Read], str] | None = None
    """The same in Markdown, under the name given; none: it has no such file."""

    def build(self, folder: Path) -> Path:
        """Write the page, the Markdown file and the plot from what the run folder holds; returns the page's path.

        Raises:
            UserError: the numbers cannot be read, or the page cannot be written.
        """
        read, place = Run(folder).read_json(self.file), (folder / self.file).parent
        drawing, png = self.plot(read)
        name = f"{folder.resolve().name}: {self.title.lower()}"
        head = f"<header><h1>{escape(name)}</h1><p class=lead>{escape(self.lead(read))}</p></header>"
        files = {"report.html": document(name, [head, self.body(read, drawing)]).encode(), self._picture: png}
        if self.markdown:
            files["report.md"] = self.markdown(name, read).encode()
        for file, content in files.items():
            with atomic(place / file) as path:
                path.write_bytes(content)
        return place / "report.html"

    def panel(self, folder: Path) -> str:
        """The section of the run's own report; empty where there are no such numbers."""
        read = Run(folder).read_json(self.file)
        return f"<section><h2>{self.title}</h2>{self.shown(read)}</section>" if read else ""

    def shown(self, read: Read) -> str:
        """The sentence, the plot and the table, as the report and a notebook show them."""
        drawing = section("Plot", f"It is in {Path(self.file).parent / self._picture}.", lambda: self.plot(read)[0])
        return f"<p>{escape(self.lead(read))}</p>{self.body(read, drawing)}"

    @property
    def _picture(self) -> str:
        return f"{Path(self.file).stem}.png"
