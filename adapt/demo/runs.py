"""The prompt search over a model's data, with its table; and the run folders of this place, whose pages are opened in the page.

A page is shown in a frame that runs no script and reaches no host, and only where it lies below `runs/`.
"""

from __future__ import annotations

import functools
import queue
import re
import threading
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from adapt.demo.desk import COMES, Desk
from adapt.demo.parts import QUIET, line
from adapt.overrides import parse_yaml
from adapt.plug import UserError, nearest
from adapt.prompting.word_lists import shipped
from adapt.verbs import runs

FAMILY = "clip"
SPACE = "templates: ['{}', 'a {}', 'a photo of a {}.', emoji]"
MOST = 400
"""Pictures of a search."""
LARGEST = 32 * 2**20
"""Bytes of a page that is shown."""
RULES = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
"""What a shown page may load: what it brings itself."""


def build(desk: Desk) -> None:
    """The tab."""
    names = [name for name in desk.names(FAMILY) if desk.choices[name].by == COMES]
    searched = _search(desk, names) if names else None
    gr.HTML("<h3>Runs</h3>" + line("What adapt evaluate, finetune, distill, export and workbench have left in runs/ here."))
    table = gr.HTML(elem_id="runs-table")
    with gr.Row():
        run = gr.Dropdown([], value=None, label="Run", min_width=200, elem_id="runs-run")
        page = gr.Dropdown([], value=None, label="Page", min_width=160, elem_id="runs-page")
        again = gr.Button("Look again", size="sm", min_width=100)
    shown = gr.HTML(elem_id="runs-shown")
    gr.on(None, _listed, None, [table, run], **QUIET)  # when the page is opened
    again.click(_listed, None, [table, run], **QUIET)
    if searched:
        searched.then(_listed, None, [table, run], **QUIET)
    run.change(_pages, run, page, **QUIET)
    gr.on([page.change, run.change], _shown, [run, page], shown, **QUIET)


def _search(desk: Desk, names: list[str]) -> Any:
    """The part that searches; returns the event of its end."""
    gr.HTML(
        "<h3>Which words ask best?</h3>"
        + line("Half of the labelled pictures choose, the other half confirm. The choice is written as a recipe, into runs/.")
    )
    with gr.Row():
        model = gr.Dropdown(names, value=names[0], label="Model, on the data of its recipe", min_width=160)
        pictures = gr.Slider(16, MOST, 100, step=1, label="Pictures", min_width=160, elem_id="runs-pictures")
    space = gr.Textbox(SPACE, label="What is tried, as in space= of adapt workbench", lines=2, elem_id="runs-space")
    begin = gr.Button("Search", variant="primary", elem_id="runs-search")
    found = gr.HTML(elem_id="runs-found", min_height=40)
    return begin.click(functools.partial(_searched, desk), [model, pictures, space], found, **QUIET)


# ----------------------------------------------------------------------------------------------------------------- search


def _searched(desk: Desk, name: str, pictures: int, space: str) -> Iterator[str]:
    """The lines of a search as they come, then its table."""
    from adapt.report import workbench as page
    from adapt.report.html import grid

    said: queue.Queue[str | None] = queue.Queue()
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(search(desk, name, pictures, space, said.put))
        except Exception as error:  # told below, by the one who waits
            outcome.append(error)
        said.put(None)

    threading.Thread(target=work, daemon=True).start()
    yield line(f"{name} is loading …")
    while (text := said.get()) is not None:
        yield line(text)
    (found,) = outcome
    if isinstance(found, UserError):
        yield line(str(found), wrong=True)
    elif isinstance(found, Exception):
        raise found
    else:
        read = found.document
        head, *rows = page.grid(read)
        notes = [page.sentence(read), *page.notes(read), f"Recipe: {read['recipe']}. Its page is below: {found.path.name}."]
        yield grid(head, rows) + "".join(map(line, notes))


def search(desk: Desk, name: str, pictures: int, space: str, say: Any = print) -> Any:
    """`adapt workbench` on the data of a model's recipe; see `adapt.verbs.workbench`.

    Args:
        space: what is tried, in YAML.
        say: gets a line now and then.

    Raises:
        UserError: there is no such model, what is tried is none, or the data have too few labels.
    """
    from adapt.verbs.searching import request
    from adapt.verbs.workbench import workbench

    if name not in desk.choices:
        raise UserError(f"model: there is no {name!r} here.{nearest(name, desk.choices)}")
    if not request.FEWEST <= pictures <= MOST:
        raise UserError(f"pictures: {pictures} is not a number from {request.FEWEST} to {MOST}.")
    tried = request.space(_typed(space))
    session = desk.open(desk.choices[name]).session  # one of its own: a search takes a while, and others ask meanwhile
    session.say = say
    return workbench(session, request.Request(pictures=int(pictures), space=tried))


def _typed(space: str) -> str:
    """What is tried, as `request.space` takes what is typed: lists by their keys, a line each, or one mapping.

    Raises:
        UserError: it is empty, or it names a file of this machine, which is not the visitor's to read.
    """
    text = space.strip()
    if not text:
        raise UserError(f"space: empty. Write lists by their keys, such as {SPACE}")
    if not text.startswith("{"):
        text = f"{{{', '.join(filter(None, map(str.strip, text.splitlines())))}}}"
    for word in _words(parse_yaml(text, "space")):
        if not shipped(word):
            raise UserError(
                f"space: {word[:80]!r} is a file of this machine; the page takes the lists that ship with Adapt, and words."
            )
    return text


def _words(value: Any) -> Iterator[str]:
    """All texts in what YAML gives."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _words(each)


# ------------------------------------------------------------------------------------------------------------------- runs


def _listed() -> tuple[str, Any]:
    """The run folders as a table, and to choose from."""
    from adapt.report.html import grid

    try:
        found = runs.found()
    except UserError as error:
        return line(str(error), wrong=True), gr.Dropdown(choices=[], value=None)
    table = grid(*runs.table(found)) if found else line("No run yet. The first is made by: adapt evaluate recipe=clip_lora")
    return table, gr.Dropdown(choices=[kept.path.name for kept in found])


def pages(name: str) -> dict[str, Path]:
    """The pages of a run, by their place in it; none that a link leads out of `runs/`.

    Raises:
        UserError: there is no such run.
    """
    folder = runs.named(name)
    home = runs.HOME.resolve()
    found = sorted([*folder.glob("*.html"), *folder.glob("*/*.html")], key=lambda path: (len(path.parts), path.name))
    return {path.relative_to(folder).as_posix(): path for path in found if path.resolve().is_relative_to(home)}


def _pages(name: str | None) -> Any:
    try:
        found = list(pages(name)) if name else []
    except UserError:
        found = []
    return gr.Dropdown(choices=found, value=next(iter(found), None))


def _shown(name: str | None, page: str | None) -> str:
    """A page of a run, in a frame."""
    if not name:
        return ""
    try:
        found = pages(name)
        if not found:
            return line(f"No page yet. Make it with: adapt report run=runs/{name}")
        if page not in found:
            return ""
        return frame(found[page])
    except UserError as error:
        return line(str(error), wrong=True)


def frame(path: Path) -> str:
    """A page in a frame without scripts, which loads nothing but what it brings.

    Raises:
        UserError: it is too large.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise UserError(f"{path}: {size / 1e6:.0f} MB are too many to be shown here. Open the file in a browser.")
    text = path.read_text(encoding="utf-8", errors="replace")
    rules = f'<meta http-equiv="Content-Security-Policy" content="{RULES}"><base target="_self">'
    head = re.search(r"<head[^>]*>", text)
    place = head.end() if head else 0
    text = text[:place] + rules + text[place:]
    return f'<iframe class="report" sandbox="" title="{escape(path.as_posix())}" srcdoc="{escape(text)}"></iframe>'
