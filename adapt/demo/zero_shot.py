"""A picture and free labels: bars of probability as one types, of the whole picture or of what lies between two clicked corners."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from adapt.demo import parts
from adapt.demo.desk import Desk, Model
from adapt.demo.parts import QUIET, TYPED, Upload, line
from adapt.plug import UserError
from adapt.prompting.text import placed_templates
from adapt.prompting.visual import SUMMED, Visual, drawn
from adapt.prompting.word_lists import placed
from adapt.verbs.question import Question

if TYPE_CHECKING:
    from torch import Tensor

FAMILY = "clip"
LABELS = "apple, book, cat, flower, lamp"
NONE = "none"
DRAWINGS = ("crop", "crop+white", "ellipse", "box", "contour", "blur", "grey", "white")
TEXTS = 4096
"""Labels times templates, at most."""
SEEN = 480
"""Pixels of the longer side on which is drawn what the page shows of that; lines and blur are relative to it."""
Shares = list[tuple[str, float]]


@dataclass(frozen=True)
class Corners:
    """What was clicked on a picture: one corner, or two, which are a box."""

    upload: Upload
    points: tuple[tuple[float, float], ...]

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """XYXY in the picture's pixels; none before the second corner."""
        if len(self.points) < 2:
            return None
        (a, b), (c, d) = self.points
        return min(a, c), min(b, d), max(a, c), max(b, d)

    @property
    def told(self) -> str:
        """What the page says of them."""
        if not self.box:
            return "The first corner is set. Click on the opposite one."
        return "The box is " + ", ".join(f"{value:.0f}" for value in self.box) + " (left, top, right, bottom in pixels)."


def build(desk: Desk) -> None:
    """The tab."""
    names = desk.names(FAMILY)
    if not names:
        gr.HTML(line("No model here compares pictures with words. Start the demo with checkpoint=clip-tiny."))
        return
    recipe = desk.choices[names[0]].recipe
    with gr.Row():
        with gr.Column(min_width=300):
            part, upload, said = parts.upload(desk, "Picture: two clicks are corners of a box", "zero-shot-picture")
            corners = gr.State(None)
            with gr.Row():
                model = gr.Dropdown(names, value=names[0], label="Model", min_width=140)
                other = gr.Dropdown([NONE, *desk.names(FAMILY, students=True)], value=NONE, label="Beside it", min_width=140)
            with gr.Row():
                parts.example(desk, model, part, upload, said)
                whole = gr.Button("Whole picture again", size="sm")
        with gr.Column(min_width=300):
            labels = gr.Textbox(LABELS, label="Labels, with commas between them", lines=2, elem_id="zero-shot-labels")
            first = gr.HTML(line("Upload a picture, or take an example."), elem_id="zero-shot-bars")
            second = gr.HTML(elem_id="zero-shot-bars-beside")
            with gr.Accordion("How it is asked", open=False):
                given = "\n".join(placed_templates(recipe.prompts))
                templates = gr.Textbox(
                    given, label="Templates, one a line; {} is the label's place", lines=3, elem_id="zero-shot-templates"
                )
                drawings = gr.Dropdown(
                    DRAWINGS, value=list(SUMMED), multiselect=True, label="Drawings of the box, whose scores are averaged"
                )
                own = gr.Button("Classes and templates of the model's data", size="sm")
            seen = gr.HTML(elem_id="zero-shot-seen")
    changed = [part.change for part in (model, other, upload, corners, labels, templates, drawings)]
    asked = [model, other, upload, corners, labels, templates, drawings]
    gr.on(changed, functools.partial(_answers, desk), asked, [first, second], **TYPED)
    part.select(_clicks(desk), [upload, corners], [part, corners, said], **QUIET)
    whole.click(functools.partial(_whole, desk), upload, [part, corners, said], **QUIET)
    boxed = [upload.change, corners.change, drawings.change]
    gr.on(boxed, functools.partial(_seen, desk), [upload, corners, drawings], seen, **QUIET)
    own.click(functools.partial(_own, desk), model, [labels, templates], **QUIET)
    _script(desk, names[0])


def _script(desk: Desk, name: str) -> None:
    """The endpoint `classify`."""

    def classify(picture: str, labels: str, templates: str, model: str) -> dict:
        """The share of each label in a picture: labels with commas between them, templates a line each."""
        if picture is None:
            raise UserError("picture: missing. Give handle_file('photo.jpg').")
        shares, note = classified(desk, model, Upload(picture, desk.picture(picture).size), None, labels, templates)
        found = [{"name": label, "share": share} for label, share in shares]
        return {"model": model, "classes": found} | ({"note": note} if note else {})

    words = gr.Textbox(label="labels", visible=False), gr.Textbox("{}", label="templates", visible=False)
    inputs = parts.image("picture", visible=False), *words, gr.Textbox(name, label="model", visible=False)
    parts.endpoint("classify", classify, inputs, gr.JSON(visible=False))


# ----------------------------------------------------------------------------------------------------------------- events


def _answers(
    desk: Desk, name: str, other: str, upload: Upload | None, corners: Corners | None, *words: Any
) -> Iterator[tuple[str, str]]:
    """The bars of the one model and of the other, as they come."""
    first = line("Upload a picture, or take an example.")
    if upload is None:
        yield first, ""
        return
    box = _box(upload, corners)
    for first in _bars(desk, name, upload, box, *words):
        yield first, gr.skip()
    for second in _bars(desk, other, upload, box, *words) if other != NONE else [""]:
        yield first, second if second != first or other == name else ""  # words that are wrong for both are told once


def _bars(
    desk: Desk, name: str, upload: Upload, box: Sequence[float] | None, labels: str, templates: str, drawings: list[str]
) -> Iterator[str]:
    """The bars of a model, or the line that says what is wrong; before that, that it is loading."""
    if not desk.loaded(name):
        yield line(f"{name} is loading …")
    try:
        shares, note = classified(desk, name, upload, box, labels, templates, drawings)
        yield f"<h3>{escape(name)}</h3>{parts.bars(shares, note=note)}"
    except UserError as error:
        yield line(str(error), wrong=True)


def _clicks(desk: Desk) -> Callable:
    """The first corner, or the second; a third click begins anew."""

    @parts.told
    def clicked(upload: Upload | None, corners: Corners | None, click: gr.SelectData) -> tuple[Any, Corners, str]:
        if upload is None:
            raise UserError("Upload a picture first.")
        before = corners.points if corners and corners.upload == upload and len(corners.points) < 2 else ()
        found = Corners(upload, (*before, upload.place(click)))
        if found.box and (found.box[2] - found.box[0] < 1 or found.box[3] - found.box[1] < 1):
            raise UserError("The second corner is on the first one. Click further away.")
        return _marked(desk, found), found, line(found.told)

    return clicked


def _whole(desk: Desk, upload: Upload | None) -> tuple[Any, None, str]:
    return (parts.shown(desk.picture(upload.path)), None, line(upload.told)) if upload else (None, None, "")


def _marked(desk: Desk, corners: Corners) -> Any:
    """The picture as it is shown, with the corner or the box."""
    from PIL import ImageDraw

    from adapt.vision.draw import FOUND, boxed

    picture, scale = parts.shown(desk.picture(corners.upload.path)), corners.upload.scale
    if corners.box:
        return boxed(picture, None, [value / scale for value in corners.box])
    picture, (x, y) = picture.copy(), (value / scale for value in corners.points[0])
    radius = max(1, round(max(picture.size) / 80))
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=FOUND, outline="white")
    return picture


def _seen(desk: Desk, upload: Upload | None, corners: Corners | None, drawings: list[str]) -> str:
    """What the model is shown of a box."""
    box = _box(upload, corners)
    if not box or not drawings:
        return ""
    picture = parts.shown(desk.picture(upload.path)) if upload.scale > 1 else desk.picture(upload.path).copy()
    picture.thumbnail((SEEN, SEEN))
    place = [value * picture.width / upload.size[0] for value in box]
    pictures = [(name, drawn(Visual(), picture, place, None, name)) for name in drawings]
    return line("What the model sees of the box:") + parts.pictures(pictures)


@parts.told
def _own(desk: Desk, name: str) -> tuple[str, str]:
    """The words that a model's recipe asks its own data with."""
    with desk.using(name) as model:
        if not model.classes:
            raise UserError(f"{name}: its data have no classes.")
        return ", ".join(model.classes), "\n".join(model.module.templates)


def _at_hand(desk: Desk, upload: Upload, box: Sequence[float]) -> tuple[Any, Sequence[float]]:
    """The picture that is drawn on, and the box on it; a large one is scaled down first: a blur of twelve million pixels takes seconds."""
    picture = desk.picture(upload.path)
    return (picture, box) if upload.scale <= 1 else (parts.shown(picture), [value / upload.scale for value in box])


def _box(upload: Upload | None, corners: Corners | None) -> tuple[float, float, float, float] | None:
    """Of this picture, not of one before it."""
    return corners.box if corners and corners.upload == upload else None


# ---------------------------------------------------------------------------------------------------------------- answers


def classified(
    desk: Desk,
    name: str,
    upload: Upload,
    box: Sequence[float] | None,
    labels: str,
    templates: str,
    drawings: Sequence[str] = SUMMED,
) -> tuple[Shares, str]:
    """The share of each label, the largest first, and what the reader should know.

    Args:
        box: XYXY in pixels; none: the whole picture, as `adapt evaluate` shows it to the model.
        labels: names apart by commas or lines.
        templates: one a line, which are averaged.
        drawings: of the box, on a picture of no more than `parts.SIDES` pixels.

    Raises:
        UserError: what is missing or wrong.
    """
    import torch

    with desk.using(name) as model, torch.inference_mode():
        if model.choice.student or model.module.own_classes_alone:
            own = _own_classes(model, desk.picture(upload.path))
            return own, f"It answers for the {len(own)} classes it has learnt, of the whole picture."
        names, forms = _names(labels), _templates(templates)
        if len(names) * len(forms) > TEXTS:
            raise UserError(f"labels: {len(names)} labels in {len(forms)} templates are more than {TEXTS:,} texts. Take fewer.")
        rows = torch.stack([_text(desk, model, label, forms) for label in names]).to(model.device)
        views = _views(desk, model, upload, box, tuple(drawings)).to(model.device)
        shares = model.module.logits(views, rows).mean(0).softmax(0).cpu()
    return sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: -pair[1]), ""


def _own_classes(model: Model, picture: Any) -> Shares:
    """Of what can be asked about its own classes alone: a student, an exported file, or a model with a head."""
    import torch

    have = [model.module.predictor] if model.choice.exported else list(model.module.predictors(None))
    if "class_logits" not in have:
        raise UserError(f"{model.choice.name}: it answers {', '.join(have)}, no classes of whole pictures.")
    if model.choice.exported:
        (logits,) = map(torch.from_numpy, model.module.answer([model.module.prepare(picture)], [picture.size]))
    else:
        view = model.module.preprocess({"image": picture}, False)["image"][None].float().to(model.device)
        logits = model.module.predictors(None)["class_logits"](view)[0].float().cpu()
    return sorted(zip(model.classes, logits.softmax(0).tolist(), strict=True), key=lambda pair: -pair[1])


def _views(desk: Desk, model: Model, upload: Upload, box: Sequence[float] | None, drawings: tuple[str, ...]) -> Tensor:
    """float32[D, E], L2-normalised: the whole picture, or D drawings of the box; encoded once."""

    def encode() -> Tensor:
        if box is None:
            view = model.module.preprocess({"image": desk.picture(upload.path)}, False)["image"][None].float()
            return model.module.image_embedding(view.to(model.device)).cpu()
        if not drawings:
            raise UserError("drawings: none. Choose one, such as crop.")
        picture, place = _at_hand(desk, upload, box)
        row, visual = {"id": "picture", "image": picture}, Visual(drawings=list(drawings))
        return model.module.predictors()["region_embedding"]([row], visual=[visual], boxes=[[place]])[0][0]

    return desk.answers.get((model.choice.name, upload.path, box and (*box, *drawings)), encode)


def _text(desk: Desk, model: Model, label: str, templates: tuple[str, ...]) -> Tensor:
    """float32[E]: a label in all templates, averaged as `evaluate` does; encoded once."""
    from adapt.models.clip.words import embedded

    encode = model.module.text_embedding
    return desk.answers.get((model.choice.name, label, templates), lambda: embedded([label], list(templates), encode)[0].cpu())


def _names(labels: str) -> list[str]:
    """The labels, each once."""
    if not labels.replace(",", "").strip():
        raise UserError("labels: none yet. Write two or more, with commas between them, such as apple, car.")
    names = Question("", text=labels if labels.lstrip().startswith("[") else labels.replace("\n", ",")).names()
    if len(names) < 2:
        raise UserError(f"labels: {names[0]!r} alone always has 100 %. Write a second one, with a comma between them.")
    return names


def _templates(text: str) -> tuple[str, ...]:
    """The templates, each once, each with one `{}`; none: the bare label."""
    given = list(dict.fromkeys(part.strip() for part in text.splitlines() if part.strip()))
    for template in given:
        if placed(template) is None:
            raise UserError(f"templates: {template!r} needs exactly one {{}}, where the label goes.")
    return tuple(placed(template) for template in given) or ("{}",)
