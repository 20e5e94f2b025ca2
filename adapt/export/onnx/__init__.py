"""ONNX, fp32 and int8 (static QDQ, calibrated on real samples), run by ONNX Runtime.

A file can be used alone: it takes images float32[N, 3, H, W], RGB, 0–255, normalises inside, and its metadata say how an image
is resized and cropped, what the outputs are called, on what it was proven, and how its int8 was found.

A target offers what this one does: `FILES`, `RUNTIME`, `Config`, `Runner`, `export`, `tower`, `parts`, `facts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from adapt.plug import Plugin

if TYPE_CHECKING:
    import numpy as np
    from onnx import GraphProto
    from onnxruntime import InferenceSession
    from torch import nn

FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
"""What a target writes: name → file."""
RUNTIME = "onnxruntime"
"""What runs them."""


class Config(Plugin):
    """fp32 always, int8 if asked."""

    int8: bool = True
    """Write a quantised file too."""
    calibration: int = Field(512, ge=1)
    """Training images by which the int8 ranges are found."""
    calibrate: Literal["auto", "minmax", "average", "percentile", "entropy"] = "auto"
    """How they are found: all that is seen, the mean of groups of images, all but the outermost values, or what loses the least
    information; auto: whichever keeps int8 closest to fp32 on validation images."""
    max_abs_error: float = Field(1e-4, gt=0)
    """The gate of the fp32 file against torch."""
    budget: float = Field(0.01, ge=0, le=1)
    """Of the main metric, what int8 may lose against fp32 before the guard fires."""
    keep: float | None = Field(None, gt=0, le=1)
    """The share of fp32's main metric that int8 must keep; when given, in place of `budget`."""
    bench: float = Field(1.5, gt=0)
    """Seconds for which each file, and the teacher, is timed; what takes longer for a single call is called once."""


def session(path: Path, optimised: Path | None = None) -> InferenceSession:
    """An exported file in ONNX Runtime, on one thread; `optimised`: where to write what it really runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Runner:
    """An exported file: numpy in, numpy out."""

    def __init__(self, path: Path):
        self.path, self.session = path, session(path)
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """float32[N, 3, H, W] 0–255 → the output, such as logits float32[N, C]; a list where the file has several."""
        outputs = self.session.run(None, {"images": images})
        return outputs[0] if len(outputs) == 1 else outputs


def export(
    config: Config,
    module: nn.Module,
    samples: np.ndarray,
    folder: Path,
    metadata: dict[str, Any],
    validation: np.ndarray | None = None,
) -> None:
    """Write the `FILES` into `folder`; the fp32 file has passed the gate when this returns.

    Args:
        module: images 0–255 → logits; or, where it names its `OUTPUTS`, those of a detector, or an embedding and its `parts`.
        samples: float32[N, 3, H, W] of the training split: calibration, and the gate's comparison.
        metadata: kept in the file, values as JSON; its `outputs`, if any, name the outputs.
        validation: float32[M, 3, H, W] of the validation split, by which `calibrate: auto` chooses; none: the samples.

    Raises:
        UserError: the gate refuses the file; the layer that differs is named.
    """
    from adapt.export import gate
    from adapt.export.onnx import detector, graphs
    from adapt.export.onnx.int8 import quantize

    outputs = getattr(module, "OUTPUTS", None)
    if outputs:
        special = detector.export if outputs == ("boxes", "scores") else graphs.export
        return special(config, module, samples, folder, metadata, validation)
    fp32 = folder / FILES["fp32"]
    convert(module, samples[:2], fp32, metadata)
    proof = gate.gate(module, Runner(fp32), samples[:64], config.max_abs_error, partial(layer_outputs, fp32))
    note(fp32, metadata | {"proof": proof})
    if config.int8:
        quantize(fp32, folder / FILES["int8"], config, samples, validation)


def tower(config: Config, family: nn.Module, function: Callable, samples: np.ndarray, folder: Path) -> Runner:
    """A teacher's function of images, to be timed as the files are; proven on each sample by itself.

    Args:
        family: what the function's weights belong to.
        function: float[1, 3, H, W] 0–255 → a tensor.
        folder: temporary; the file lies there.

    Raises:
        Exception: whatever the exporter raises; UserError: the gate refuses the file.
    """
    import torch

    from adapt.export.onnx.graphs import Tower, convert, gate

    path = folder / "tower.onnx"
    module = Tower(family, function)
    convert(module, (torch.from_numpy(samples[:1]),), path, {})
    gate(module, path, [(samples[i : i + 1],) for i in range(len(samples))], config.max_abs_error)
    return Runner(path)


def parts(path: Path) -> list[Path]:
    """Files beside one that it is used with, such as a mask decoder."""
    return [path.parent / name for name in noted(path).get("parts", [])]


def facts(path: Path) -> dict[str, Any]:
    """What is known of a file beside its numbers: size_bytes of all it needs; proof, on what it was compared; of int8 how its ranges
    were found, and its conversions to float."""
    from adapt.export.onnx.int8 import conversions

    known = noted(path)
    found = {name: known[name] for name in ("proof", "int8") if name in known}
    size = sum(file.stat().st_size for file in (path, *parts(path)))
    return {"size_bytes": size} | found | ({"conversions": conversions(path)} if "int8" in found else {})


def noted(path: Path) -> dict[str, Any]:
    """What is noted in a file."""
    import onnx

    return {entry.key: json.loads(entry.value) for entry in onnx.load(path, load_external_data=False).metadata_props}


def note(path: Path, facts: dict[str, Any]) -> None:
    """Note these facts in a file, in the place of what is noted there: name → what is kept as JSON."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.save(model, path)


def convert(module: nn.Module, example: np.ndarray, path: Path, metadata: dict[str, Any]) -> None:
    """Write a module as fp32 ONNX with a dynamic batch."""
    import onnx
    import torch

    program = torch.onnx.export(
        module.eval(),
        (torch.from_numpy(example),),
        dynamo=True,
        input_names=["images"],
        output_names=metadata.get("outputs", ["logits"]),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def optimised(path: Path) -> GraphProto:
    """What ONNX Runtime really runs, after its own optimisation."""
    import tempfile

    import onnx

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "optimised.onnx"
        session(path, place)
        return onnx.load(place).graph


def operators(path: Path) -> dict[str, int]:
    """Operators that ONNX Runtime really runs: `QLinearConv` and not `Conv` when int8 is int8."""
    from collections import Counter

    return dict(Counter(node.op_type for node in optimised(path).node))


def layer_outputs(path: Path, names: list[str], inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What the exported file computes for each torch module of these names; modules that were folded away are left out.

    Args:
        inputs: of the file, in its order.

    The exporter notes in each node from which module it came (`pkg.torch.onnx.name_scopes`); a module's output is that of its
    last node.
    """
    import ast

    import onnx

    model = onnx.load(path)
    last: dict[str, str] = {}
    for node in model.graph.node:
        props = {entry.key: entry.value for entry in node.metadata_props}
        for scope in ast.literal_eval(props.get("pkg.torch.onnx.name_scopes", "[]")):
            if scope in names:
                last[scope] = node.output[0]
    return _run_with(model, last, inputs)


def _run_with(model, wanted: dict[str, str], inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    import onnx
    import onnxruntime as ort

    have = {output.name for output in model.graph.output}
    for output in dict.fromkeys(wanted.values()):
        if output not in have:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = dict(zip([one.name for one in session.get_inputs()], inputs, strict=True))
    values = dict(zip([output.name for output in session.get_outputs()], session.run(None, given), strict=True))
    return {name: values[output] for name, output in wanted.items()}
