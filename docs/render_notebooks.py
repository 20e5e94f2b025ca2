"""Notebooks as pages of the docs: a Markdown file each, with its code and, where it has been run, with what it showed.

    python docs/render_notebooks.py     # runs the notebooks that have changed, into build/notebooks; minutes
    pages()                             # the pages, from what has been run; a second

Pictures stay inside the page, so that it can be moved, and opened without a server.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, RUN = ROOT / "notebooks", ROOT / "build" / "notebooks"
LINK = re.compile(r"(\]\([\w./-]+)\.ipynb(#[\w-]+)?\)")
EMPTY = re.compile(r"\n\s*\n")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LONGEST = 3600
"""Seconds that a cell may take."""


def pages(notebooks: Path = NOTEBOOKS, run: Path = RUN) -> dict[str, str]:
    """Each notebook's page, by its name without ending; one that has not been run since it changed has its code alone.

    Args:
        notebooks: as they are committed, without outputs.
        run: the same names, with outputs.
    """
    found = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        shown = current(path, run / path.name)
        found[path.stem] = page(shown or _read(path), path.name, shown is not None)
    return found


def current(path: Path, run: Path) -> NotebookNode | None:
    """The notebook with its outputs, if it has been run as it is now."""
    if not run.is_file():
        return None
    shown, now = _read(run), _read(path)
    return shown if [cell.source for cell in shown.cells] == [cell.source for cell in now.cells] else None


def page(notebook: NotebookNode, name: str, shown: bool) -> str:
    """A notebook as Markdown, its title first."""
    about = f"*This page is the notebook `notebooks/{name}`. Open it in your editor with the kernel of `.venv`, or `uv pip install jupyterlab`.*"
    if not shown:
        about += "\n\n*What its cells show is left out here: `make notebooks` runs it.*"
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(LINK.sub(r"\1.md\2)", cell.source))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += map(_output, _joined(cell.outputs))
    title, _, rest = parts[0].partition("\n")
    return "\n\n".join([title, about, rest.strip(), *parts[1:]]) + "\n"


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs that show something; lines that were printed one after the other are one."""
    found: list[NotebookNode] = []
    for output in filter(_output, outputs):
        if found and output.output_type == found[-1].output_type == "stream":
            output = NotebookNode(output | {"text": found.pop().text.rstrip("\n") + "\n" + output.text})
        found.append(output)
    return found


def _output(output: NotebookNode) -> str:
    """What a cell showed, as Markdown: a page, a picture or text; what it said of its progress is left out."""
    if output.output_type == "stream":
        return _text(output.text) if output.name == "stdout" else ""
    if output.output_type == "error":
        return _text("\n".join(output.traceback))
    data = output.data
    if "text/html" in data:
        html = EMPTY.sub("\n", data["text/html"])
        return "" if not html or html.startswith("<progress") else f'<div class="output">{html}</div>'
    if "image/svg+xml" in data:
        return f'<div class="output">{data["image/svg+xml"]}</div>'
    if "image/png" in data:
        return f'<div class="output"><img alt="" src="data:image/png;base64,{data["image/png"].strip()}"></div>'
    return _text(data.get("text/plain", ""))


def _text(text: str) -> str:
    return f'<pre class="output">{escape(COLOURS.sub("", text).strip())}</pre>' if text.strip() else ""


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def run(notebooks: Path = NOTEBOOKS, folder: Path = RUN) -> None:
    """Run the notebooks that have not been run as they are now; each works in a folder of its own."""
    from nbclient import NotebookClient

    for path in sorted(notebooks.glob("*.ipynb")):
        if current(path, folder / path.name):
            continue
        print(path.name, flush=True)
        place = folder / path.stem
        place.mkdir(parents=True, exist_ok=True)
        notebook = _read(path)
        NotebookClient(notebook, timeout=LONGEST, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
        nbformat.write(notebook, folder / path.name)


if __name__ == "__main__":
    sys.exit(run())
