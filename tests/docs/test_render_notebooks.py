"""Notebooks become pages of the docs: their words, their code, and what they showed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from adapt.plug import ROOT

PNG = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render_notebooks", ROOT.parent / "docs" / "render_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(place: Path, outputs: list) -> None:
    place.mkdir(exist_ok=True)
    cells = [new_markdown_cell("# A lesson\n\nSee [two](02_two.ipynb#end)."), new_code_cell("1 + 1", outputs=outputs)]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    nbformat.write(new_notebook(cells=cells), place / "01_one.ipynb")


def page(render, outputs: list) -> str:
    """The page of a notebook that has shown this."""
    written(Path("notebooks"), [])
    written(Path("run"), outputs)
    return render.pages(Path("notebooks"), Path("run"))["01_one"]


def test_a_page_has_the_words_the_code_and_what_was_shown(render):
    shown = [
        new_output("stream", name="stdout", text="a < b\n"),
        new_output("stream", name="stderr", text="finetune: 3 of 9\n"),
        new_output("display_data", data={"text/html": '<progress value="3" max="9"></progress> finetune'}),
        new_output("stream", name="stdout", text="then this\n"),
        new_output("execute_result", data={"text/html": "<table>\n\n<tr></tr></table>", "text/plain": "a table"}),
        new_output("display_data", data={"image/png": PNG, "text/plain": "<Figure>"}),
        new_output("execute_result", data={"text/plain": "2"}),
    ]
    said = page(render, shown)
    assert said.startswith("# A lesson\n\n*This page is the notebook `notebooks/01_one.ipynb`.")
    assert "the kernel of `.venv`" in said.splitlines()[2]
    assert "[two](02_two.md#end)" in said
    assert "```python\n1 + 1\n```" in said
    assert '<pre class="output">a &lt; b\nthen this</pre>' in said and '<pre class="output">2</pre>' in said
    assert "<table>\n<tr></tr></table>" in said, "no empty line ends the page's own HTML"
    assert f"data:image/png;base64,{PNG}" in said
    assert "finetune" not in said and "a table" not in said and "Figure" not in said


def test_what_was_run_before_it_changed_is_not_shown(render):
    assert "make notebooks" not in page(render, [new_output("execute_result", data={"text/plain": "2"})])
    changed = nbformat.read("notebooks/01_one.ipynb", as_version=4)
    changed.cells[1].source = "1 + 2"
    nbformat.write(changed, "notebooks/01_one.ipynb")
    said = render.pages(Path("notebooks"), Path("run"))["01_one"]
    assert "1 + 2" in said and '<pre class="output">2' not in said and "make notebooks" in said


def test_links_among_our_notebooks_lead_to_pages(render):
    pages = render.pages(run=Path("nowhere"))
    assert len(pages) == 7
    links = [link for text in pages.values() for link in text.split("](")[1:]]
    assert links and all(link.partition(")")[0].removesuffix(".md") in pages for link in links)
