"""A picture and clicks: regions with their classes by points, boxes, words, or by example; as PNG, COCO JSON and cut-out.

What is marked is `regions.py`; what the models answer, `masks.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from adapt.demo import masks, parts, regions
from adapt.demo.desk import Desk
from adapt.demo.parts import PRIVATE, QUIET, TYPED, Upload, line
from adapt.demo.regions import Marks, Region
from adapt.plug import UserError, counted
from adapt.prompting.alike import SAME
from adapt.vision.masks import unrle

FAMILY = "sam"
ADD, SUBTRACT, BOX = "Add", "Subtract", "Box"
NEW = "a new region"
FRESH, MORE, REMOVE = "New region", "All like this", "Remove this"
THING = "thing"
"""The class, where none is written."""
ONE = QUIET | {"concurrency_id": "segment"}
"""One after the other, of all handlers that change what is marked: none overwrites what another has added."""
HINT = "Click on a thing. Box: click on two corners. What a region has too much, take away with Subtract."
SAVE = "(file) => { const link = document.createElement('a'); link.href = file.url; link.download = file.orig_name; link.click(); }"
Drawn = tuple[Any, ...]
"""What every step shows: picture, marks, list, choice of the region, class."""


def build(desk: Desk) -> None:
    """The tab."""
    names = desk.names(FAMILY, students=True)
    if not names:
        gr.HTML(line("No model here answers clicks. Start the demo with checkpoint=sam-tiny."))
        return
    marks = gr.State(None)
    with gr.Row():
        with gr.Column(min_width=300, scale=3):
            part, upload, said = parts.upload(desk, "Picture: click on a thing", "segment-picture")
            with gr.Row():
                mode = gr.Radio(
                    [ADD, SUBTRACT, BOX], value=ADD, label="A click", elem_id="segment-mode", scale=3, min_width=310
                )
                undo, clear = (gr.Button(text, size="sm", min_width=70) for text in ("Undo", "Clear"))
            with gr.Row():
                model = gr.Dropdown(names, value=names[0], label="Model", scale=3, min_width=160)
                parts.example(desk, model, part, upload, said)
        with gr.Column(min_width=300, scale=2):
            hint = gr.HTML(line("Upload a picture."), elem_id="segment-hint")
            with gr.Row():
                chosen = gr.Dropdown([NEW], value=NEW, label="Next click changes", elem_id="segment-chosen", min_width=140)
                name = gr.Textbox(THING, label="Class", elem_id="segment-class", min_width=120, max_lines=1)
            with gr.Row():
                fresh, more, remove = (gr.Button(text, size="sm", min_width=90) for text in (FRESH, MORE, REMOVE))
            listed = gr.HTML(elem_id="segment-list")
            shows = [part, marks, listed, chosen, name]
            words_by = _search(desk, model, upload, marks, name, more, shows)
            _downloads(desk, upload, marks)
    gr.on(
        [upload.change, model.change], functools.partial(_ready, desk), [model, upload, marks], [hint, listed, chosen], **TYPED
    )
    part.select(_clicks(desk), [model, upload, marks, mode, name], shows, **ONE)
    for button, act in ((undo, _undo), (clear, _clear), (fresh, _fresh), (remove, _remove)):
        button.click(functools.partial(parts.told(act), desk), [upload, marks, name], shows, **ONE)
    chosen.input(functools.partial(_choose, desk), [upload, marks, chosen, name], shows, **ONE)
    gr.on([name.submit, name.blur], functools.partial(_rename, desk), [upload, marks, chosen, name], shows, **ONE)
    _script(desk, names[0], words_by)


def _search(
    desk: Desk, model: gr.Dropdown, upload: gr.State, marks: gr.State, name: gr.Textbox, more: gr.Button, shows: list
) -> str | None:
    """Words, and all that is like a region (`more`); the name of the CLIP that words are asked by, if there is one."""
    clips, encoders = desk.names("clip"), desk.names("dinov2", "clip")
    words = gr.Textbox(
        label="Words", placeholder="the red apple; the bus", submit_btn="Find", elem_id="segment-words", visible=bool(clips)
    )
    with gr.Accordion("How words and examples are compared", open=False, visible=bool(encoders)):
        least = gr.Slider(0.1, 1, 0.5, step=0.05, label="Alike from this cosine")
        with gr.Row():
            words_by = gr.Dropdown(clips, value=clips[0] if clips else None, label="Words by", min_width=120)
            example_by = gr.Dropdown(encoders, value=encoders[0] if encoders else None, label="Examples by", min_width=120)
    # what is slow is done first, and kept; the steps after it, of which one waits for another, are quick
    step = words.submit(functools.partial(_look, desk), [model, upload], None, **PRIVATE)
    step.success(functools.partial(_find, desk), [model, words_by, upload, marks, words, name], shows, **ONE)
    step = more.click(functools.partial(_look_alike, desk), [model, example_by, upload, marks], None, **PRIVATE)
    step.success(functools.partial(_more, desk), [model, example_by, upload, marks, least, name], shows, **ONE)
    return clips[0] if clips else None


def _downloads(desk: Desk, upload: gr.State, marks: gr.State) -> None:
    """A button a file: it is made when it is wanted, and the browser saves it."""
    file = gr.DownloadButton(visible="hidden", elem_id="segment-file")
    with gr.Row():
        for title, suffix in (("Mask PNG", "mask.png"), ("COCO JSON", "coco.json"), ("Cut-out PNG", "cut-out.png")):
            button = gr.Button(title, size="sm", min_width=80)
            made = button.click(functools.partial(_file, desk, suffix, file.GRADIO_CACHE), [upload, marks], file, **ONE)
            made.success(None, file, None, js=SAVE, **PRIVATE)


def _script(desk: Desk, name: str, words_by: str | None) -> None:
    """The endpoint `segment`."""

    def segment(picture: str, points: list, outside: list, box: list, words: str, model: str) -> dict:
        """Masks in a picture, as COCO's run lengths. Give points [[x, y], …] on a thing and outside of it, or a box [left, top, right,
        bottom], in pixels; or words, such as the red apple; the bus."""
        if picture is None:
            raise UserError("picture: missing. Give handle_file('photo.jpg').")
        upload = Upload(picture, desk.picture(picture).size)
        marks = segmented(desk, model, upload, points or [], outside or [], box or None, words or "", words_by)
        return {"model": model, "size": list(upload.size), "masks": regions.shapes(marks)}

    places = [gr.JSON(label=label, visible=False) for label in ("points", "outside", "box")]
    words = [gr.Textbox(value, label=label, visible=False) for label, value in (("words", ""), ("model", name))]
    parts.endpoint("segment", segment, [parts.image("picture", visible=False), *places, *words], gr.JSON(visible=False))


def segmented(
    desk: Desk, name: str, upload: Upload, points: list, outside: list, box: list | None, words: str, words_by: str | None
) -> Marks:
    """What is at points (x, y in pixels), in a box, or named; arguments as the endpoint has them.

    Raises:
        UserError: nothing or both is asked, or a place is not on the picture.
    """
    marks, places = Marks(upload), bool(points or outside or box)
    if places == bool(words.strip()) or (places and not (points or box)):
        raise UserError("segment: give points or a box (and outside, beside these), or words: one of the two.")
    if words.strip():
        if words_by is None:
            raise UserError("words: no model here compares pictures with words. Give points or a box.")
        found, _ = masks.named(desk, name, words_by, upload, words)
        return marks.add(*(Region.of(upload, each, mask, score, title="similarity") for each, mask, score in found))
    if not all(isinstance(one, list | tuple) and len(one) == 2 for one in (*points, *outside)):
        raise UserError("points: write [[x, y], …] in pixels, for outside too.")
    clicks = [(*one, inside) for many, inside in ((points, True), (outside, False)) for one in many]
    return marks.add(Region.of(upload, THING, *masks.prompted(desk, name, upload, clicks, box)))


# ----------------------------------------------------------------------------------------------------------------- events


def _ready(desk: Desk, name: str, upload: Upload | None, marks: Marks | None) -> Iterator[Drawn]:
    """Encode a picture before the first click; what was listed of another one goes."""
    same = bool(marks and marks.upload == upload)
    cleared = (gr.skip(), gr.skip()) if same else ("", gr.Dropdown([NEW], value=NEW))
    if upload is None:
        yield line("Upload a picture."), *cleared
        return
    yield line(HINT if desk.loaded(name) else f"{name} is loading …"), *cleared
    try:
        masks.ready(desk, name, upload)
        yield line(HINT), gr.skip(), gr.skip()
    except UserError as error:
        yield line(str(error), wrong=True), gr.skip(), gr.skip()


def _clicks(desk: Desk) -> Callable:
    """A point on the thing or beside it, or a corner of a box, which begins a region."""

    @parts.told
    def clicked(name: str, upload: Upload | None, marks: Marks | None, mode: str, called: str, click: gr.SelectData) -> Drawn:
        marks = _of(upload, marks)
        x, y = upload.place(click)
        region = marks.region
        if mode == BOX:
            if marks.corner is None:
                return _shown(desk, marks.step(corner=(x, y)), called)
            left, top = marks.corner
            box = min(left, x), min(top, y), max(left, x), max(top, y)
            if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                raise UserError("The second corner is on the first one. Click further away.")
            return _shown(desk, marks.add(_answer(desk, name, upload, called, (), box)), called)
        if region is None:
            if mode == SUBTRACT:
                raise UserError("There is nothing to subtract from: first add a click on the thing.")
            return _shown(desk, marks.add(_answer(desk, name, upload, called, ((x, y, True),), None)), called)
        points = (*region.points, (x, y, mode == ADD))
        box = region.box
        if box is None and not region.points:  # of words or an example: its box keeps the thing
            box = tuple(regions.shapes(Marks(upload, (region,)))[0]["box"])
        return _shown(desk, marks.put(_answer(desk, name, upload, region.name, points, box)), called)

    return clicked


def _answer(desk: Desk, name: str, upload: Upload, called: str, points: tuple, box: tuple | None) -> Region:
    mask, score = masks.prompted(desk, name, upload, points, box)
    return Region.of(upload, _class(called), mask, score, points=points, box=box)


def _undo(desk: Desk, upload: Upload | None, marks: Marks | None, called: str) -> Drawn:
    return _shown(desk, _of(upload, marks).undone(), called)


def _clear(desk: Desk, upload: Upload | None, marks: Marks | None, called: str) -> Drawn:
    return _shown(desk, _of(upload, marks).step(regions=(), active=None), called)


def _fresh(desk: Desk, upload: Upload | None, marks: Marks | None, called: str) -> Drawn:
    return _shown(desk, _of(upload, marks).at(None), called)


def _remove(desk: Desk, upload: Upload | None, marks: Marks | None, called: str) -> Drawn:
    marks = _of(upload, marks)
    if marks.region is None:
        raise UserError("Choose the region that shall go, under Next click changes.")
    return _shown(desk, marks.put(None), called)


@parts.told
def _choose(desk: Desk, upload: Upload | None, marks: Marks | None, chosen: str, called: str) -> Drawn:
    marks = _of(upload, marks)
    return _shown(desk, marks.at(_number(chosen)), called)


@parts.told
def _rename(desk: Desk, upload: Upload | None, marks: Marks | None, chosen: str, called: str) -> Drawn:
    """The class of the region that was chosen when it was typed: the click that ends the typing may have come before, and have begun
    another one. That of a new region is read when it is clicked."""
    if upload is None or marks is None or marks.upload != upload:
        return (gr.skip(),) * 5
    renamed = marks.called(_number(chosen), _class(called))
    return (gr.skip(),) * 5 if renamed is marks else _shown(desk, renamed, called)


def _number(chosen: str) -> int | None:
    """A region's place, of what is chosen."""
    return None if chosen == NEW else int(chosen.partition(":")[0]) - 1


@parts.told
def _look(desk: Desk, name: str, upload: Upload | None) -> None:
    """Find all that can be named: slow, once a picture."""
    masks.proposals(desk, name, _of(upload, None).upload)


@parts.told
def _look_alike(desk: Desk, name: str, example_by: str | None, upload: Upload | None, marks: Marks | None) -> None:
    """Find all that may be like an example: slow, once an example."""
    marks = _of(upload, marks)
    masks.like(desk, name, example_by, upload, _example(marks, example_by).mask, 1)


def _example(marks: Marks, example_by: str | None) -> Region:
    """The region at work, or the last one."""
    if example_by is None:
        raise UserError("No model here compares pictures. Start the demo without a recipe, or with checkpoint=dinov2-tiny.")
    if not marks.regions:
        raise UserError("Mark the thing first: a click, a box or words.")
    return marks.region or marks.regions[-1]


@parts.told
def _find(desk: Desk, name: str, words_by: str, upload: Upload | None, marks: Marks | None, words: str, called: str) -> Drawn:
    marks = _of(upload, marks)
    found, lacking = masks.named(desk, name, words_by, upload, words)
    if lacking:
        gr.Info(f"Not found: {', '.join(lacking)}. What is there shows the other words better.")
    return _shown(
        desk, marks.add(*(Region.of(upload, each, mask, score, title="similarity") for each, mask, score in found)), called
    )


@parts.told
def _more(
    desk: Desk, name: str, example_by: str | None, upload: Upload | None, marks: Marks | None, least: float, called: str
) -> Drawn:
    marks = _of(upload, marks)
    region = _example(marks, example_by)
    found = masks.like(desk, name, example_by, upload, region.mask, least)
    known = [unrle(one.mask) for one in marks.regions]
    new = [(mask, score) for mask, score in found if not any(_same(mask, other) for other in known)]
    if not new:
        raise UserError(f"Nothing else is like this {region.name}. Lower the cosine to see what is less like it.")
    alike = (Region.of(upload, region.name, mask, score, title="similarity") for mask, score in new)
    return _shown(desk, marks.add(*alike, active=False), called)


def _same(mask: Any, other: Any) -> bool:
    """Are two masks one thing?"""
    return (mask & other).sum() >= SAME * max(1, min(mask.sum(), other.sum()))


@parts.told
def _file(desk: Desk, suffix: str, cache: str, upload: Upload | None, marks: Marks | None) -> str:
    marks, path = _of(upload, marks), Path(upload.path if upload else "")
    if suffix == "coco.json":
        data = regions.coco(marks, path.name)
    else:
        data = regions.numbered(marks) if suffix == "mask.png" else regions.cut_out(marks, desk.picture(upload.path))
    return save_bytes_to_cache(data, f"{path.stem}-{suffix}", cache)


# ------------------------------------------------------------------------------------------------------------------ shown


def _of(upload: Upload | None, marks: Marks | None) -> Marks:
    """The marks of this picture, not of one before it."""
    if upload is None:
        raise UserError("Upload a picture first.")
    return marks if marks is not None and marks.upload == upload else Marks(upload)


def _class(called: str) -> str:
    return " ".join(called.split()) or THING


def _shown(desk: Desk, marks: Marks, called: str) -> Drawn:
    """What a step shows; a class that stood there already (`called`) is not written again over what has been typed since."""
    path = marks.upload.path
    picture = desk.pictures.get((path, "shown"), lambda: parts.shown(desk.picture(path)))
    titles = [f"{number}: {region.name}" for number, region in enumerate(marks.regions, 1)]
    choice = gr.Dropdown([NEW, *titles], value=NEW if marks.active is None else titles[marks.active])
    name = gr.skip() if marks.region is None or marks.region.name == called else marks.region.name
    return regions.drawn(picture, marks), marks, _list(marks), choice, name


def _list(marks: Marks) -> str:
    rows = "".join(
        f'<div class="region"{" aria-current=true" if number == marks.active else ""}>'
        f'<i style="background:rgb{regions.colour(number)}"></i><span>{number + 1}: {escape(region.name)}</span>'
        f"<em>{region.pixels:,} px · {region.title} {region.score:.2f}</em></div>"
        for number, region in enumerate(marks.regions)
    )
    note = "Now the second corner." if marks.corner else counted(len(marks.regions), "region")
    return f'<div class="regions">{rows}</div><p class="said">{note}</p>'
