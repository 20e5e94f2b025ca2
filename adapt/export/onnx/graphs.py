"""ONNX files of modules with several inputs or outputs: written, run and compared by the names of their forward's arguments."""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from adapt.export.gate import comparable, first_difference
from adapt.export.onnx import layer_outputs, note, session
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.export.onnx import Config


class Tower(nn.Module):
    """A family's function of images as a module with one output, for one image at a time."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("answers",)
    DYNAMIC: ClassVar[dict[str, dict[int, str]]] = {"images": {}}

    def __init__(self, family: nn.Module, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.family, self.function = family, function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


EXAMPLES = Path(__file__).parent.parent / "examples"
"""How exported files are used without this package."""


class Runner:
    """An exported file: arrays in, in the order of its inputs; arrays out."""

    def __init__(self, path: Path):
        self.path, self.session = path, session(path)
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, dict(zip(self.inputs, arrays, strict=True)))


def convert(module: nn.Module, example: Sequence[torch.Tensor], path: Path, metadata: dict[str, Any]) -> None:
    """Write a module as fp32 ONNX; inputs are called as the arguments of its forward.

    Args:
        module: with `OUTPUTS`, the names of what it returns, and optionally `DYNAMIC`, argument → {dimension: its name}; an
            argument of which `DYNAMIC` says nothing keeps its shape. Without `DYNAMIC`, every first dimension is the batch.
        metadata: kept in the file, values as JSON.
    """
    names = list(inspect.signature(module.forward).parameters)
    dynamic = getattr(module, "DYNAMIC", None) or {name: {0: "batch"} for name in names}
    words = {word for one in dynamic.values() for word in one.values()}
    dims = {word: torch.export.Dim(word, min=1, max=4096) for word in words}
    shapes = tuple({place: dims[word] for place, word in dynamic.get(name, {}).items()} for name in names)
    with warnings.catch_warnings(
        action="ignore", category=UserWarning
    ):  # "axis name will not be used", where two inputs share one
        program = torch.onnx.export(
            module.eval(),
            tuple(example),
            dynamo=True,
            input_names=names,
            output_names=list(module.OUTPUTS),
            dynamic_shapes=shapes,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def export(
    config: Config,
    module: nn.Module,
    samples: np.ndarray,
    folder: Path,
    metadata: dict[str, Any],
    validation: np.ndarray | None = None,
) -> None:
    """Write a module of images, fp32 and int8, and beside it what its `parts` are: name → (module, example inputs), in fp32.

    The script of `examples/` that the module names as its `EXAMPLE` lies beside them.

    Args:
        samples: float32[N, 3, H, W] of the training split.
        validation: the same of the validation split; see `quantize`.

    Raises:
        UserError: the gate refuses a file.
    """
    from adapt.export.onnx import FILES
    from adapt.export.onnx.int8 import quantize

    fp32 = folder / FILES["fp32"]
    parts = module.parts()
    metadata = metadata | {"outputs": list(module.OUTPUTS), "parts": [f"{name}.onnx" for name in parts]}
    convert(module, (torch.from_numpy(samples[:2]),), fp32, metadata)
    note(fp32, metadata | {"proof": gate(module, fp32, [(samples[:16],)], config.max_abs_error)})
    for name, (part, example) in parts.items():
        path = folder / f"{name}.onnx"
        about = metadata | {"outputs": list(part.OUTPUTS)}
        convert(part, example, path, about)
        note(path, about | {"proof": gate(part, path, part.samples(), config.max_abs_error)})
    if config.int8:
        quantize(fp32, folder / FILES["int8"], config, samples, validation)
    shutil.copy(EXAMPLES / module.EXAMPLE, folder)


@torch.inference_mode()
def check(module: nn.Module, runner: Runner, samples: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
    """Compare outputs on several sets of inputs.

    Returns:
        max_abs_error of each output by its name, as a fraction of the output's largest value where that is above 1.

    Raises:
        UserError: there is nothing to compare, or an output is not finite, whichever side gives it.
    """
    if not sum(len(arrays[0]) for arrays in samples):
        raise UserError("export: refused: there are no inputs, so nothing was compared.")
    worst = dict.fromkeys(module.OUTPUTS, 0.0)
    module.eval()
    for arrays in samples:
        expected = module(*(torch.from_numpy(array) for array in arrays))
        expected = expected if isinstance(expected, tuple) else (expected,)
        got = runner(*arrays)
        if len(got) != len(expected):
            raise UserError(f"export: refused: the file has {len(got)} outputs, the module {', '.join(module.OUTPUTS)}.")
        for name, ours, theirs in zip(module.OUTPUTS, expected, got, strict=True):
            comparable(ours.numpy(), theirs, name)
            error = np.abs(ours.numpy() - theirs).max() / max(1.0, float(ours.abs().max()))
            worst[name] = max(worst[name], float(error))
    return worst


def gate(module: nn.Module, path: Path, samples: Sequence[Sequence[np.ndarray]], tolerance: float) -> dict[str, float]:
    """`check`, and refuse a file that differs.

    Returns:
        max_abs_error, as `check` gives it, the largest; samples (how many were compared).

    Raises:
        UserError: with the numbers and the layer.
    """
    try:
        worst = check(module, Runner(path), samples)
        bad = {name: error for name, error in worst.items() if not error < tolerance}
        if not bad:
            return {"max_abs_error": max(worst.values()), "samples": sum(len(arrays[0]) for arrays in samples)}
        said = ", ".join(f"{name} differs by {error:.2e}" for name, error in bad.items())
        raise UserError(f"export: refused: {said} (allowed {tolerance:.0e}).")
    except UserError as error:
        inputs = next((arrays for arrays in samples if len(arrays[0])), None)
        where = first_difference(module, partial(layer_outputs, path), inputs, tolerance) if inputs else ""
        raise UserError(f"{error} {where}".strip()) from None
