"""What DINOv2 sees: its patches in colours; and which patches, here and in a second picture, are like the one clicked on.

Colours: the first three principal components of the patches of both pictures together, so that one colour means one thing in both
(Oquab et al. 2023, arXiv:2304.07193, figure 1).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from adapt.demo import parts
from adapt.demo.desk import Desk
from adapt.demo.parts import QUIET, TYPED, Upload, line
from adapt.plug import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture
    from torch import Tensor

FAMILY = "dinov2"
PATCHES = (8, 16, 24, 32, 48)
"""Of the longer side: a picture is enlarged or reduced until it has so many."""
CUT = 0.02
"""Of the values of a colour, the share at each end that is fully dark or fully bright."""
VEIL = 0.75
"""Of a map over its picture."""
EMPTY = line("Upload a picture, or two that show like things; then click on a part of one.")


@dataclass(frozen=True)
class Spot:
    """What was clicked on."""

    upload: Upload
    x: float
    y: float
    """In pixels of the picture."""


def build(desk: Desk) -> None:
    """The tab."""
    names = desk.names(FAMILY)
    if not names:
        gr.HTML(line("No model here has features of patches. Start the demo with checkpoint=dinov2-tiny."))
        return
    with gr.Row():
        model = gr.Dropdown(names, value=names[0], label="Model", min_width=140)
        patches = gr.Dropdown(PATCHES, value=24, label="Patches of the longer side", min_width=140, elem_id="features-patches")
    spot = gr.State(None)
    shown = []
    with gr.Row():
        for number, title in enumerate(("Picture: click on a part of it", "A second picture"), 1):
            with gr.Column(min_width=300):
                part, upload, said = parts.upload(desk, title, f"features-picture-{number}")
                parts.example(desk, model, part, upload, said)
                seen = parts.image("Its patches", interactive=False, height=420, elem_id=f"features-map-{number}")
                shown.append((part, upload, seen))
    said = gr.HTML(EMPTY, elem_id="features-said", min_height=40)
    again = gr.Button("Colours again", size="sm")
    uploads, maps = [upload for _, upload, _ in shown], [seen for _, _, seen in shown]
    changed = [part.change for part in (model, patches, *uploads, spot)]
    gr.on(changed, functools.partial(_maps, desk), [model, patches, *uploads, spot], [*maps, said], **TYPED)
    for part, upload, seen in shown:
        part.select(_clicked(), upload, spot, **QUIET)
        seen.select(_clicked(), upload, spot, **QUIET)
    again.click(lambda: None, None, spot, **QUIET)


def _clicked() -> Callable:
    """A click on a picture, or on its map."""

    @parts.told
    def clicked(upload: Upload | None, click: gr.SelectData) -> Spot:
        if upload is None:
            raise UserError("Upload a picture first.")
        return Spot(upload, *upload.place(click))

    return clicked


def _maps(
    desk: Desk, name: str, patches: int, first: Upload | None, second: Upload | None, spot: Spot | None
) -> tuple[Any, Any, str]:
    """Both maps as the page shows them, and the line below."""
    uploads = [first, second]
    there = [upload for upload in uploads if upload]
    if not there:
        return None, None, EMPTY
    try:
        found = [features(desk, name, upload, patches) for upload in there]
    except UserError as error:
        return None, None, line(str(error), wrong=True)
    if spot and spot.upload in there:
        scores = alike(found, there.index(spot.upload), (spot.x, spot.y), spot.upload.size)
        drawn = [_heat(desk, upload, each) for upload, each in zip(there, scores, strict=True)]
        said = _best(scores, there, spot)
    else:
        drawn = [_painted(desk, upload, each) for upload, each in zip(there, colours(found), strict=True)]
        grids = " and ".join(f"{each.shape[2]} × {each.shape[1]}" for each in found)
        said = f"{grids} patches of {found[0].shape[0]} numbers. One colour, one kind of thing, in both pictures."
    known = dict(zip((upload.key for upload in there), drawn, strict=True))
    return *(known.get(upload.key) if upload else None for upload in uploads), line(said)


# ---------------------------------------------------------------------------------------------------------------- answers


def features(desk: Desk, name: str, upload: Upload, patches: int) -> Tensor:
    """A picture's patch features less their mean, float32[D, h, w]: the whole picture in its own shape, encoded once.

    Without what all its patches share, such as the ground, like things in two pictures are nearer to each other.

    Args:
        patches: of the longer side.

    Raises:
        UserError: there is no such model, or it is not asked with so many patches.
    """
    import numpy as np
    import torch

    if patches not in PATCHES:
        raise UserError(f"patches: {patches!r} is none of {', '.join(map(str, PATCHES))}.")
    picture = desk.picture(upload.path)

    def encode() -> Tensor:
        with desk.using(name) as model, torch.inference_mode():
            family = model.module
            size = [max(1, round(side * patches / max(picture.size))) * family.stride for side in picture.size]
            view = torch.from_numpy(np.array(picture.resize(size, reducing_gap=2.0))).permute(2, 0, 1)[None].float()
            found = family.patch_features(view.to(model.device))[0].float().cpu()
            return found - found.mean((1, 2), keepdim=True)

    return desk.answers.get((name, upload.path, "patches", patches), encode)


def colours(found: list[Tensor]) -> list[np.ndarray]:
    """Patch features float[D, h, w] of pictures, of mean 0 → their colours, uint8[h, w, 3]: the first three principal components."""
    import numpy as np
    import torch

    rows = torch.cat([each.flatten(1).T for each in found])
    _, directions = torch.linalg.eigh(rows.T @ rows)  # the largest last
    values = rows @ directions[:, -3:].flip(1)
    values = values * values.pow(3).sum(0).sign()  # a component has no sign of its own: the rarer side is bright
    low, high = torch.quantile(values, torch.tensor([CUT, 1 - CUT]), dim=0) if len(values) > 1 else (values[0], values[0])
    shares = ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    pixels = (255 * shares).round().byte().split([each[0].numel() for each in found])
    return [np.asarray(part.unflatten(0, each.shape[1:])) for part, each in zip(pixels, found, strict=True)]


def alike(found: list[Tensor], which: int, place: tuple[float, float], size: tuple[int, int]) -> list[Tensor]:
    """How alike each patch is to the one at a place, by cosine, −1–1: float[h, w] for each picture.

    Args:
        found: patch features float[D, h, w] of the pictures.
        which: the picture of the place.
        place: x, y in pixels of a picture of `size` (width, height).
    """
    import torch.nn.functional as F

    unit = [F.normalize(each, dim=0) for each in found]
    row, column = patch(place, size, found[which].shape[1:])
    return [(each * unit[which][:, row, column, None, None]).sum(0) for each in unit]


def patch(place: tuple[float, float], size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the patch at x, y of a picture of `size` (width, height), in a grid of rows and columns."""
    column, row = (
        min(int(value * count / side), count - 1) for value, side, count in zip(place, size, grid[::-1], strict=True)
    )
    return row, column


# ---------------------------------------------------------------------------------------------------------------- drawings


def _painted(desk: Desk, upload: Upload, pixels: np.ndarray) -> Picture.Image:
    """Colours of patches in the size that the page shows."""
    from PIL import Image

    shown = parts.shown(desk.picture(upload.path))
    return Image.fromarray(pixels).resize(shown.size, Image.Resampling.NEAREST)


def _heat(desk: Desk, upload: Upload, scores: Tensor) -> Picture.Image:
    """Similarity over the picture: what is unlike is dark, what is alike is bright."""
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    shown = parts.shown(desk.picture(upload.path))
    heat = Image.fromarray((255 * colormaps["inferno"](scores.clamp(0, 1).numpy())[..., :3]).astype(np.uint8))
    return Image.blend(shown, heat.resize(shown.size, Image.Resampling.NEAREST), VEIL)


def _best(scores: list[Tensor], uploads: list[Upload], spot: Spot) -> str:
    """The map of the clicked patch in words."""
    said = [f"Clicked: {spot.x:.0f}, {spot.y:.0f}."]
    for upload, each in zip(uploads, scores, strict=True):
        where = "here" if upload == spot.upload else "in the other picture"
        near = int((each > 0.5).sum()) - (upload == spot.upload)
        best = "" if upload == spot.upload else f", the best one {each.max():.2f}"
        said.append(f"{near:,} of {each.numel():,} patches {where} have a cosine above 0.5{best}.")
    return " ".join(said)
