"""Questions in words to PaliGemma or Florence-2: a caption, an answer, or things that are named, in boxes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from adapt.demo import parts
from adapt.demo.desk import Desk
from adapt.demo.parts import QUIET, Upload, line
from adapt.plug import UserError, counted
from adapt.prompting import tasks

if TYPE_CHECKING:
    from PIL import Image as Picture

FAMILIES = ("paligemma", "florence2")
CAPTION, ANSWER, DETECT, WORDS = "Caption", "Question", "Detect", "In the model's own words"
KINDS = (CAPTION, ANSWER, DETECT, WORDS)
LONGEST = 2000
"""Letters of a question."""
HINT = {
    CAPTION: "Nothing needs to be written.",
    ANSWER: "A question, such as: how many things are there?",
    DETECT: "What to look for, with commas between: household object, vehicle",
    WORDS: "The prompt as the model knows it, such as: caption en, or <OD> for Florence-2",
}


@dataclass
class Reply:
    """What a model says of a picture."""

    asked: str
    """The question as the model got it."""
    text: str
    """All that it said."""
    objects: list[dict[str, Any]]
    """What of it is a box: name, box (left, top, right, bottom in pixels of the picture), score 0–1; the surest first."""


def build(desk: Desk) -> None:
    """The tab."""
    names = desk.names(*FAMILIES)
    if not names:
        gr.HTML(line("No model here answers in words. Start the demo with checkpoint=paligemma-tiny."))
        return
    state = gr.State(None)
    with gr.Row():
        with gr.Column(min_width=300):
            part, upload, said = parts.upload(desk, "Picture", "ask-picture")
            model = gr.Dropdown(names, value=names[0], label="Model", elem_id="ask-model")
            parts.example(desk, model, part, upload, said)
        with gr.Column(min_width=300):
            kind = gr.Radio(KINDS, value=CAPTION, label="What is asked", elem_id="ask-kind")
            words = gr.Textbox(label=HINT[CAPTION], max_length=LONGEST, elem_id="ask-words")
            with gr.Row():
                go = gr.Button("Ask", variant="primary", elem_id="ask-go")
                known = gr.Button("All that its data name", size="sm", elem_id="ask-known")
            answer = gr.HTML(line("Upload a picture."), elem_id="ask-answer", min_height=40)
    kind.change(lambda kind: gr.Textbox(label=HINT[kind]), kind, words, **QUIET)
    known.click(functools.partial(_known, desk), model, [kind, words], **QUIET)
    gr.on([go.click, words.submit], functools.partial(_answers, desk), [model, upload, kind, words], [answer, state], **QUIET)
    state.change(functools.partial(_drawn, desk), [upload, state], part, **QUIET)
    upload.change(lambda: (line("Press Ask."), None), None, [answer, state], **QUIET)
    _script(desk, names[0])


def _script(desk: Desk, name: str) -> None:
    """The endpoint `detect`."""

    def detect(picture: str, words: str, model: str) -> dict:
        """Boxes of what is named, with commas between: left, top, right, bottom in pixels of the picture, the surest first."""
        if picture is None:
            raise UserError("picture: missing. Give handle_file('photo.jpg').")
        reply = asked(desk, model, Upload(picture, desk.picture(picture).size), question(DETECT, words))
        return {"model": model, "text": reply.text, "objects": reply.objects}

    words = gr.Textbox(label="words", visible=False), gr.Textbox(name, label="model", visible=False)
    parts.endpoint("detect", detect, [parts.image("picture", visible=False), *words], gr.JSON(visible=False))


# ----------------------------------------------------------------------------------------------------------------- events


def _answers(desk: Desk, name: str, upload: Upload | None, kind: str, words: str) -> Iterator[tuple[str, Any]]:
    """The answer in words and as a table; and the boxes, with the picture that they are of."""
    try:
        if upload is None:
            raise UserError("Upload a picture first.")
        text = question(kind, words)
        yield line(f"{name} is {'asked' if desk.loaded(name) else 'loading'} …"), None
        reply = asked(desk, name, upload, text)
        yield _shown(reply), (upload, reply.objects) if reply.objects else None
    except UserError as error:
        yield line(str(error), wrong=True), None


@parts.told
def _known(desk: Desk, name: str) -> tuple[str, str]:
    """The names of a model's data, to look for."""
    with desk.using(name) as model:
        if not model.classes:
            raise UserError(f"{name}: its data have no names of things.")
        return DETECT, ", ".join(dict.fromkeys(model.classes))


def _drawn(desk: Desk, upload: Upload | None, state: tuple[Upload, list[dict[str, Any]]] | None) -> Picture.Image | None:
    """The picture as the page shows it, with the boxes of its own answer."""
    if upload is None:
        return None
    picture = parts.shown(desk.picture(upload.path))
    return boxes(picture, state[1], upload.scale) if state and state[0] == upload else picture


def _shown(reply: Reply) -> str:
    """An answer for the page."""
    said = f'<p class="reply">{escape(reply.text or "(no words)")}</p>' if not reply.objects else ""
    rows = [(f"{number}. {one['name'] or '?'}", one["score"]) for number, one in enumerate(reply.objects, 1)]
    note = f"{counted(len(rows), 'box')}, each with the mean probability of its words." if rows else ""
    return said + (parts.bars(rows, most=len(rows), note=note) if rows else "") + line(f"Asked: {reply.asked[:200]}")


# ---------------------------------------------------------------------------------------------------------------- answers


def question(kind: str, words: str) -> str:
    """What the model is asked, in PaliGemma's syntax, which Florence-2's family reads too.

    Raises:
        UserError: words are missing, or too long.
    """
    words = " ".join((words or "").split())
    if kind not in KINDS:
        raise UserError(f"kind: there is no {kind!r}. Have: {', '.join(KINDS)}.")
    if kind == CAPTION:
        return tasks.CAPTION
    if not words.strip(" ,;"):
        raise UserError(f"words: none yet. {HINT[kind]}")
    if len(words) > LONGEST:
        raise UserError(f"words: {len(words):,} letters are too many; up to {LONGEST:,} are asked. Ask less at a time.")
    if kind == DETECT:
        return tasks.detect([word.strip() for word in words.replace(",", ";").split(";") if word.strip()])
    return f"answer en {words}" if kind == ANSWER else words


def asked(desk: Desk, name: str, upload: Upload, text: str) -> Reply:
    """What a model says.

    Raises:
        UserError: there is no such model, or it does not know such a question.
    """
    import torch

    if name not in desk.names(*FAMILIES):
        raise UserError(f"model: there is no {name!r} that answers in words. Have: {', '.join(desk.names(*FAMILIES))}.")
    picture = desk.picture(upload.path)
    with desk.using(name) as model, torch.inference_mode():
        (answer,) = model.module.answer([{"image": picture}], [text])
        said, found = model.module.words(answer), model.module.read(answer, picture.size)
    each = zip(found["name"], found["bbox"].tolist(), found["score"].tolist(), strict=True)
    return Reply(text, said, [{"name": name, "box": box, "score": score} for name, box, score in each])


def boxes(picture: Picture.Image, objects: list[dict[str, Any]], scale: float) -> Picture.Image:
    """A copy of the picture with numbered boxes and names.

    Args:
        scale: pixels of the boxes' picture for one of this.
    """
    from PIL import ImageDraw, ImageFont

    from adapt.vision.draw import PALETTE

    picture = picture.copy()
    pen, font, wide = (
        ImageDraw.Draw(picture),
        ImageFont.load_default(max(picture.size) / 36),
        max(2, round(max(picture.size) / 200)),
    )
    for number, one in enumerate(objects):
        left, top, right, bottom = (value / scale for value in one["box"])
        colour, text = PALETTE[number % len(PALETTE)], f" {number + 1}. {one['name']} "
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=wide)
        x0, _, x1, y1 = pen.textbbox((0, 0), text, font=font)
        x, y = max(0, min(left, picture.width - x1)), max(0, top - y1 - 2)
        pen.rectangle((x + x0, y, x + x1, y + y1 + 2), fill=colour)
        pen.text((x, y), text, fill="white", font=font)
    return picture
