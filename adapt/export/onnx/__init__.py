"""ONNX, fp32 and int8 (static QDQ, calibrated on real samples), run by ONNX Runtime.

A file can be used alone: it takes images float32[N, 3, H, W], RGB, 0–255, normalises inside, and its metadata say how an image
is resized and cropped, what the outputs are called, on what it was proven, and how its int8 was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapt import contracts
from adapt.contracts import Artifact, Deployable, TargetConfig

if TYPE_CHECKING:
    import numpy as np

FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
"""Precision → file."""


class Config(TargetConfig):
    """fp32 always, int8 if asked."""

    runtime = "onnxruntime"

    calibrate: Literal["auto", "minmax", "average", "percentile", "entropy"] = "auto"
    """How the int8 ranges are found: all that is seen, the mean of groups of images, all but the outermost values, or what loses the
    least information; auto: whichever keeps int8 closest to fp32 on validation images."""


def convert(
    config: Config,
    deployable: Deployable,
    samples: np.ndarray,
    folder: Path,
    metadata: Mapping[str, Any],
    validation: np.ndarray | None = None,
) -> list[Artifact]:
    """Write the files of a module that takes images, and of its parts.

    Args:
        samples: float32[N, 3, H, W] of the training split: the first are the example, by all of them int8 ranges are found.
        metadata: kept in the files, values as JSON.
        validation: float32[M, 3, H, W] of the validation split, by which `calibrate: auto` chooses; none: the samples.

    Raises:
        UserError: int8's outputs are not finite.
    """
    from adapt.export.onnx import nms
    from adapt.export.onnx.graphs import noted, write
    from adapt.export.onnx.int8 import conversions, quantize

    names = {name: f"{name}.onnx" for name in deployable.parts}
    outputs = nms.OUTPUTS if deployable.nms else deployable.outputs
    known = {**metadata, "outputs": list(outputs)}
    known |= {"nms": dict(deployable.nms)} if deployable.nms else {}
    known |= {"parts": list(names.values())} if names else {}
    parts = {
        name: write(part, part.samples[-1], folder / names[name], known | {"outputs": list(part.outputs)})
        for name, part in deployable.parts.items()
    }
    example = deployable.samples[-1] if deployable.samples else (samples[:2],)
    artifacts = []
    for precision, file in FILES.items() if config.int8 else [("fp32", FILES["fp32"])]:
        path = folder / file
        plain = path.with_name(f"before_nms.{file}") if deployable.nms else path
        facts: dict[str, Any] = {}
        if precision == "fp32":
            first = write(deployable, example, plain, known)
        else:
            quantize(first, plain, config, samples, validation)
            facts = {"int8": noted(plain)["int8"]}
        if deployable.nms:
            nms.append(plain, path, **deployable.nms)
        if precision == "int8":
            facts["conversions"] = conversions(path)
        before = plain if deployable.nms else None
        artifacts.append(Artifact(precision, path, (path, *parts.values()), parts, before, facts, _remark(facts)))
    return artifacts


def _remark(facts: Mapping[str, Any]) -> str:
    """How int8 was found; empty for fp32."""
    if "int8" not in facts:
        return ""
    found = facts["int8"]
    ranges = found["ranges"]
    return f"ranges by {ranges}, {found['decibels'][ranges]:.0f} dB above the error on {found['pictures']} images."


class Runner(contracts.Runner):
    """An exported file in ONNX Runtime."""

    def __init__(self, path: Path):
        from adapt.export.onnx.graphs import session

        super().__init__(path)
        self.session = session(path)
        self.metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | list[np.ndarray]:
        outputs = self.session.run(None, dict(zip(self.inputs, arrays, strict=True)))
        return outputs[0] if len(outputs) == 1 else outputs

    def layers(self, names: Sequence[str], arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        from adapt.export.onnx.graphs import layer_outputs

        return layer_outputs(self.path, list(names), arrays)

    def note(self, facts: Mapping[str, Any]) -> None:
        from adapt.export.onnx.graphs import note, noted

        note(self.path, noted(self.path) | dict(facts))
