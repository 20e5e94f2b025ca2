"""What the tabs are built of: a picture to upload and click on, a line that says what is wrong, bars, and an endpoint for scripts."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.processing_utils import save_bytes_to_cache
from PIL import Image as Picture

from adapt.demo.desk import Desk
from adapt.plug import UserError
from adapt.report.html import data_uri
from adapt.vision.pictures import encoded

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""No script calls it, and nothing is veiled while it runs."""
QUIET: dict[str, Any] = PRIVATE | {"trigger_mode": "multiple", "concurrency_limit": 1}
"""Of every event of a tab: no click is lost, and each finds what the one before has left in the states."""
TYPED: dict[str, Any] = PRIVATE | {"trigger_mode": "always_last"}
"""Of what is typed: while an answer is made, the last change alone waits. One such handler a part: gradio's page starts all handlers of an
event again when one of them has waited, so that two would wake each other for ever."""
SIDES = 512, 1024
"""Pixels of the longer side of a picture as the page shows it, at least and at most: a finger must find its place on a small one, and
a click must not wait for a large one to be sent."""


@dataclass(frozen=True)
class Upload:
    """A picture that was uploaded: whoever has it, has the picture. It lives in a `gr.State`, which each visitor has alone."""

    path: str
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    """Another one at each upload, also of the same file."""

    @property
    def scale(self) -> float:
        """Its pixels for one that is shown."""
        return _scale(self.size)

    @property
    def told(self) -> str:
        """What the page says of it."""
        return f"{self.size[0]:,} × {self.size[1]:,} pixels"

    def place(self, click: gr.SelectData) -> tuple[float, float]:
        """Where a click on the shown picture is on the picture itself: x, y in its pixels."""
        x, y = (min(max(0.0, (value + 0.5) * self.scale), side) for value, side in zip(click.index, self.size, strict=True))
        return x, y


def shown(picture: Picture.Image) -> Picture.Image:
    """A picture in the size that the page shows. What is drawn on this one lies at a place in the picture divided by `Upload.scale`."""
    scale = _scale(picture.size)
    if scale == 1:
        return picture
    method = Picture.Resampling.NEAREST if scale < 0.25 else Picture.Resampling.BICUBIC
    return picture.resize(
        [max(1, round(side / scale)) for side in picture.size], method, reducing_gap=2.0 if scale > 1 else None
    )


def _scale(size: tuple[int, int]) -> float:
    side = max(size)
    return side / min(max(side, SIDES[0]), SIDES[1])


def image(label: str, **options: Any) -> gr.Image:
    """A `gr.Image` whose handlers get the path of the file as it was uploaded, which gradio has not opened, and may return a PIL
    picture, which is sent as PNG. An update of its options (`gr.update`) would forget this: return values alone."""
    options = {"type": "filepath", "format": "png", "buttons": ["fullscreen"], "sources": ["upload", "clipboard"]} | options
    part = gr.Image(label=label, **options)
    part.preprocess = lambda payload: payload.path if payload else None
    part.postprocess = functools.partial(_sent, part.GRADIO_CACHE)
    return part


def _sent(cache: str, value: Picture.Image | str | Path | None) -> ImageData | None:
    """A picture or a file's path → what the browser fetches."""
    if value is None or isinstance(value, str | Path):
        return value and ImageData(path=str(value), orig_name=Path(value).name)
    data = encoded(value)["bytes"]  # quickly; gradio's own way takes three times as long
    return ImageData(path=save_bytes_to_cache(data, "picture.png", cache), orig_name="picture.png")


def upload(desk: Desk, label: str, elem_id: str) -> tuple[gr.Image, gr.State, gr.HTML]:
    """A picture to upload, paste and click on.

    Returns:
        the picture, whose `select` is a click (see `Upload.place`) and to which drawings may be returned; the state with its `Upload`,
        or none, whose `change` says that there is another picture; and the line below, for what is wrong.
    """
    part = image(label, height=420, elem_id=elem_id)
    said, state = gr.HTML(), gr.State(None)
    read = functools.partial(_uploaded, desk)
    part.upload(read, part, [part, state, said], **QUIET)
    part.clear(lambda: (None, ""), None, [state, said], **QUIET)
    return part, state, said


def _uploaded(desk: Desk, path: str | None) -> tuple[Picture.Image | None, Upload | None, str]:
    """A file → the picture as it is shown, what is known of it, and the line."""
    if path is None:
        return None, None, ""
    try:
        picture = desk.picture(path)
    except UserError as error:
        return None, None, line(str(error), wrong=True)
    found = Upload(path, picture.size)
    return shown(picture), found, line(found.told)


def example(desk: Desk, name: gr.Dropdown, part: gr.Image, state: gr.State, said: gr.HTML) -> gr.Button:
    """A button that brings a picture of the data of the model that `name` names, another one at each click."""
    button, number = gr.Button("An example", size="sm"), gr.State(0)

    @told
    def bring(name: str, number: int) -> tuple:
        path = save_bytes_to_cache(encoded(desk.example(name, number))["bytes"], "example.png", part.GRADIO_CACHE)
        return *_uploaded(desk, path), number + 1

    button.click(bring, [name, number], [part, state, said, number], **QUIET)
    return button


# ------------------------------------------------------------------------------------------------------------------ words


def told(handler: Callable) -> Callable:
    """A handler whose mistakes (`UserError`) appear on the page as one line, for ten seconds: of clicks and buttons."""

    @functools.wraps(handler)
    def wrapped(*given: Any, **named: Any) -> Any:
        try:
            return handler(*given, **named)
        except UserError as error:
            raise gr.Error(_one_line(error), print_exception=False) from None

    return wrapped


def line(text: str, wrong: bool = False) -> str:
    """A line of plain text for a `gr.HTML`: for what is typed, whose mistakes stand there until they are corrected."""
    return f'<p class="said{" wrong" if wrong else ""}">{escape(_one_line(text))}</p>'


def _one_line(text: object) -> str:
    first, *more = str(text).splitlines() or [""]
    return f"{first} (and {len(more)} more)" if more else first


def bars(shares: Sequence[tuple[str, float]], most: int = 12, note: str = "") -> str:
    """Names with shares 0–1, in this order, as bars for a `gr.HTML`; of more than `most`, how many are left out."""
    rows = "".join(
        f'<div class="bar" title="{escape(name)}"><span>{escape(name)}</span><i><b style="width:{100 * share:.1f}%"></b></i>'
        f"<em>{share:.1%}</em></div>"
        for name, share in shares[:most]
    )
    notes = [f"and {len(shares) - most} more"] * (len(shares) > most) + [note] * bool(note)
    return f'<div class="bars">{rows}</div>' + "".join(f'<p class="said">{escape(text)}</p>' for text in notes)


def pictures(titled: Sequence[tuple[str, Picture.Image]], side: int = 240) -> str:
    """Small pictures in a row, each with its title, for a `gr.HTML`; `side`: the most pixels of each that are sent."""
    figures = []
    for title, picture in titled:
        small = picture.copy()
        small.thumbnail((side, side))
        source = data_uri(encoded(small)["bytes"])
        figures.append(f'<figure><img src="{source}" alt="{escape(title)}"><figcaption>{escape(title)}</figcaption></figure>')
    return f'<div class="pictures">{"".join(figures)}</div>'


# ---------------------------------------------------------------------------------------------------------------- scripts


def endpoint(name: str, function: Callable, inputs: Sequence[Any], output: Any) -> None:
    """A function that scripts call by name with `gradio_client`; its arguments' names and types are those of the parts.

    Args:
        inputs: parts made with `visible=False`, `image(…)` for a picture; a script's values come in them.
        output: likewise, such as `gr.JSON(visible=False)`.
    """
    button = gr.Button(name, visible=False)
    button.click(told(function), list(inputs), output, api_name=name, api_description=function.__doc__)
