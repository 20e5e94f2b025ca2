"""The student: a timm CNN that takes the teacher's views and offers the surface that loop, evals and export know."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from adapt import hardware
from adapt.contracts import Augment
from adapt.plug import ROOT, UserError, nearest
from adapt.provenance import commit, hash_path
from adapt.train.learner import Learner
from adapt.train.precision import full
from adapt.vision.augment import augment
from adapt.vision.images import Normalise, collate, view

EMBEDDED = ROOT / "assets" / "students"


class Student(Learner):
    """A CNN with the loss of its objective.

    Args:
        arch: a timm model name.
        outputs: width of the last layer.
        spec: the teacher's `input`, so that both see the same view; mean and std are the student's own.
        objective: (student's output, batch) → (loss, logs).
        pretrained: start from timm's weights for this architecture (needs the hub or its cache), or from those of an embedded
            student, a folder or a safetensors file.
        teacher: live teacher; none when the batch brings its outputs from the cache.
    """

    def __init__(
        self,
        arch: str,
        outputs: int,
        spec: dict[str, Any],
        objective: Callable[[Tensor, dict], tuple[Tensor, dict]],
        pretrained: bool | str = False,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.net = create(arch, outputs, pretrained)
        own = resolve_model_data_config(self.net)
        self.input = dict(spec) | {"mean": list(own["mean"]), "std": list(own["std"])}
        self.normalise = Normalise(self.input)
        self.objective = objective
        self.live = [teacher] if teacher else []  # in a list, so that it is no submodule: never saved, never in train mode

    def outputs(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, outputs]."""
        return self.net(self.normalise(images))

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.live:
            with torch.no_grad():
                batch["teacher"] = self.live[0](batch["image"])
        return self.objective(self.outputs(batch["image"]), batch)

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → its view, and for training its label; −1 stands for no label."""
        label = sample.get("label") if train else None
        return {"image": view(sample["image"], self.input)} | ({"label": -1 if label is None else label} if train else {})

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return collate(items)

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        return batch | {"image": augment(batch["image"], batch["seed"], config)}

    def predictors(self, texts: None = None) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"class_logits": full()(self.outputs)}  # in fp32, as its file computes

    def about(self, labels: list[str]) -> dict[str, Any]:
        """What the exported file's outputs are called, and the classes that its channels stand for."""
        return {"outputs": ["logits"], "classes": labels}

    def deployed(self) -> nn.Module:
        """What is exported."""
        return Deployed(self)

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable[[Tensor], Tensor]]:
        """The predictors, by an exported file."""
        return {"class_logits": lambda images: torch.from_numpy(runner(images.cpu().numpy()))}


class Deployed(nn.Module):
    """What is exported: images float[N, 3, H, W] 0–255 → outputs, normalisation inside."""

    def __init__(self, student: Student):
        super().__init__()
        self.normalise, self.net = student.normalise, student.net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.normalise(images))


def create(arch: str, outputs: int, pretrained: bool | str) -> nn.Module:
    """A timm CNN with a fresh last layer.

    Raises:
        UserError: no such architecture, or its weights cannot be had.
    """
    if arch not in timm.list_models():
        raise UserError(f"distill.student: {arch!r} is not a model of timm.{_near(arch)}")
    if isinstance(pretrained, str):
        return _filled(timm.create_model(arch, num_classes=outputs), arch, weights_file(pretrained))
    try:
        return timm_model(arch, pretrained, num_classes=outputs, pretrained=pretrained)
    except (OSError, RuntimeError) as error:
        raise no_weights(arch, error) from None


def timm_model(arch: str, fetch: bool, **options: Any) -> nn.Module:
    """timm's model; `fetch`: its weights may have to come from the hub."""
    with hardware.hub() if fetch else nullcontext():
        return timm.create_model(arch, **options)


def no_weights(arch: str, error: Exception) -> UserError:
    """What to tell a user whose student's weights cannot be had."""
    return UserError(
        f"distill.pretrained: no weights of {arch!r} to be had ({shorten(str(error), 120, placeholder=' …')}). "
        f"Set distill.pretrained=false, or give a safetensors file, or an embedded student: {', '.join(embedded())}."
    )


def embedded() -> list[str]:
    """Names of the students that ship with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def weights_file(pretrained: str) -> Path:
    """The safetensors file that an embedded name, a folder or a path stands for."""
    path = EMBEDDED / pretrained if pretrained in embedded() else Path(pretrained).expanduser()
    return path / "model.safetensors" if path.is_dir() else path


def origin(arch: str, pretrained: bool | str) -> str | None:
    """What a student starts from: the hash of a file's content, or timm's name and the commit of its weights' copy in the hub's cache."""
    if isinstance(pretrained, str):
        path = weights_file(pretrained)
        return hash_path(path) if path.exists() else None
    if not pretrained:
        return None
    repository = timm.get_pretrained_cfg(arch).hf_hub_id
    return f"{repository} {commit(repository)}"


def _filled(cnn: nn.Module, arch: str, path: Path) -> nn.Module:
    """Put in the weights of a safetensors file: timm's, or those of a student of `logits` or `features`; a head that fits is taken."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"distill.pretrained: {str(path)!r} cannot be read ({error}). "
            f"Give a safetensors file, a folder with one, or an embedded student: {', '.join(embedded())}."
        ) from None
    state = {name.removeprefix("cnn."): value for name, value in state.items()}
    own, last = cnn.state_dict(), cnn.pretrained_cfg["classifier"]
    heads = tuple(f"{name}." for name in ([last] if isinstance(last, str) else last))
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    wrong = [name for name in own if name not in fitting and not name.startswith(heads)]
    if wrong:
        raise UserError(
            f"distill.pretrained: {str(path)!r} is of another network than {arch}: {len(wrong)} of its weights do not fit, such as "
            f"{wrong[0]}. Set distill.student to the architecture that its config.json names, or distill.pretrained=true for timm's "
            "weights, or false for none."
        )
    cnn.load_state_dict(fitting, strict=False)
    return cnn


def _near(arch: str) -> str:
    family = [name for name in timm.list_models() if name[:6] == arch[:6]]
    return (
        nearest(arch, family[:12])
        if family
        else nearest(arch, ["resnet18", "resnet10t", "efficientnet_lite0", "mobilenetv4_conv_small"])
    )
