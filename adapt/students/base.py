"""What every student is: a network with its input, class words and outputs, which opens from its own folder.

    config.json         kind, architecture, classes, input, and the options that its network is built with
    model.safetensors   the network's weights

A kind of student is a file of `adapt/students` with a class `Student`, derived from the one here. It knows neither loss nor teacher:
those are its objective's (`adapt/distill`), whose learner has the student as a part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapt import plug
from adapt.contracts import Asked, Deployable, Input, Predictor
from adapt.plug import UserError
from adapt.vision.images import Normalise, collate, view

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Student(Asked, nn.Module):
    """Base of a kind of student. `images` are float[B, 3, H, W], RGB, 0–255, as `preprocess` gives them; normalisation is inside.

    Args:
        architecture: a timm model name.
        input: what is known of its images; see `adapt/vision/images.py`.
        classes: names of what it tells apart, in the order of their numbers; empty without any.
        options: what else the network is built with, as JSON can write it: a student is built again with `cls(architecture, input,
            classes, **options)`.
    """

    net: nn.Module
    """The network, whose weights are what is saved."""

    def __init__(self, architecture: str, input: Mapping[str, Any], classes: Sequence[str], **options: Any):
        super().__init__()
        self.architecture, self.classes, self.options = architecture, list(classes), options
        self.input = Input(**input)
        self.normalise = Normalise(input)

    @property
    def kind(self) -> str:
        """The name of its file in `adapt/students`."""
        return type(self).__module__.rpartition(".")[2]

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → its view, `image` uint8[3, H, W]."""
        return {"image": view(sample["image"], self.input)}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items → a batch."""
        return collate(items)

    def predictors(self, texts: None = None) -> Mapping[str, Predictor]:
        """What it can be asked, in fp32, as its exported file computes."""
        raise NotImplementedError

    def deployed(self) -> Deployable:
        """What is exported."""
        raise NotImplementedError

    def file_predictors(self, runner: Callable[..., Any]) -> Mapping[str, Predictor]:
        """The same predictors, as far as its exported file can answer: `runner` runs what `deployed` gives, numpy in and out."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """What an exported file's user must know, as its metadata say it."""
        names = {"classes": self.classes} if self.classes else {}
        return {"kind": self.kind, "architecture": self.architecture, "input": told(self.input)} | names

    # ------------------------------------------------------------------------------------------------------------- folder

    def save(self, folder: Path) -> None:
        """Write the network's weights, and what it is built with."""
        config = {"kind": self.kind, "architecture": self.architecture, "classes": self.classes, "input": dict(self.input)}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.net.state_dict().items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config | {"options": self.options}, indent=1))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The student that `save` wrote, ready to answer.

        Raises:
            UserError: with what is missing or does not fit.
        """
        config = _config(folder)
        given = config["input"]
        given |= {name: tuple(given[name]) for name in ("size", "resize") if isinstance(given[name], list)}
        student = cls(config["architecture"], given, config["classes"], **config["options"])
        try:
            student.net.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            why = str(error).split("\n\t")[1 if "\n\t" in str(error) else 0]  # of torch's list, the first
            raise UserError(
                f"student: the weights in {str(folder / WEIGHTS)!r} do not fit its config.json ({why[:160]}). Put both files back "
                "as adapt distill wrote them."
            ) from None
        return student.eval()


def open_student(folder: Path) -> Student:
    """The student in a folder, of whichever kind it is; see `adapt.students.open_student`."""
    return plug.load("students", _config(folder)["kind"]).Student.open(folder)


def _config(folder: Path) -> dict[str, Any]:
    """What a student is built with."""
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"student: there is no {CONFIG} in {str(folder)!r}. Give the folder that adapt distill wrote: runs/…/student/NAME."
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"student: {str(folder / CONFIG)!r} cannot be read: {error}.") from None
    needed = ("kind", "architecture", "classes", "input", "options")
    if lacking := [name for name in needed if name not in config]:
        raise UserError(
            f"student: {str(folder / CONFIG)!r} lacks {', '.join(lacking)}: it is not of this version. Distil it again."
        )
    return config


# --------------------------------------------------------------------------------------------------------------- deployed


class Deployed(nn.Module):
    """A network as it is exported: images float[N, 3, H, W] 0–255 → its outputs, normalisation inside."""

    def __init__(self, normalise: nn.Module, net: nn.Module):
        super().__init__()
        self.normalise, self.net = normalise, net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.normalise(images))


def of_images(runner: Callable[[np.ndarray], np.ndarray]) -> Predictor:
    """A file with one output, as a predictor of images."""
    return Predictor(lambda images: torch.from_numpy(runner(images.cpu().numpy())))


def told(spec: dict[str, Any]) -> dict[str, Any]:
    """An `input` as a file's user must know it, in words and as numbers; mean and std are not there, since the file applies them."""
    height, width = spec["size"]
    about = {"size": [height, width], "resize": spec["resize"], "interpolation": spec["interpolation"], "crop": spec["crop"]}
    if spec["resize"] == "longest":
        padding = [round(255 * value, 3) for value in spec["mean"]]
        words = (
            f"longer side to {width} pixels, {spec['interpolation']}, then filled up on the right and below with RGB {padding}"
        )
        about["padding"] = padding
    elif isinstance(spec["resize"], int):
        words = f"shorter side to {spec['resize']} pixels, {spec['interpolation']}"
    elif spec["resize"] is not None:
        words = (
            f"to {spec['resize'][1]}×{spec['resize'][0]} pixels (width × height), {spec['interpolation']}, whatever its shape"
        )
    else:
        words = "not resized"
    words += f", then the centre {width}×{height}" if spec["crop"] else ""
    values = {"range": [0, 255], "layout": "NCHW", "channels": "RGB", "normalisation": "inside the file: give it values 0–255"}
    return {"preparation": words} | about | values
