"""ONNX files: written from torch, noted in, and looked into."""

from __future__ import annotations

import ast
import inspect
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from adapt.contracts import Deployable


def write(deployable: Deployable, example: Sequence[np.ndarray], path: Path, metadata: dict[str, Any]) -> Path:
    """Write a module as fp32 ONNX, without its parts and before NMS; inputs are called as the arguments of its forward.

    Args:
        example: inputs with which it is traced.
        metadata: kept in the file, values as JSON.

    Returns:
        `path`.
    """
    module = deployable.module.eval()
    names = list(inspect.signature(module.forward).parameters)
    dynamic = deployable.dynamic if deployable.dynamic is not None else {name: {0: "batch"} for name in names}
    dims = {word: torch.export.Dim(word, min=1, max=4096) for one in dynamic.values() for word in one.values()}
    shapes = tuple({place: dims[word] for place, word in dynamic.get(name, {}).items()} for name in names)
    # "axis name will not be used", where two inputs share one
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        program = torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in example),
            dynamo=True,
            input_names=names,
            output_names=list(deployable.outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def session(path: Path, optimised: Path | None = None) -> ort.InferenceSession:
    """An exported file in ONNX Runtime, on one thread; `optimised`: where to write what it really runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def noted(path: Path) -> dict[str, Any]:
    """What is noted in a file."""
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path, load_external_data=False).metadata_props}


def note(path: Path, facts: dict[str, Any]) -> None:
    """Note these facts in a file, in the place of what is noted there: name → what is kept as JSON."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.save(model, path)


def optimised(path: Path) -> onnx.GraphProto:
    """What ONNX Runtime really runs, after its own optimisation."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "optimised.onnx"
        session(path, place)
        return onnx.load(place).graph


def operators(path: Path) -> dict[str, int]:
    """Operators that ONNX Runtime really runs: `QLinearConv` and not `Conv` when int8 is int8."""
    return dict(Counter(node.op_type for node in optimised(path).node))


def layer_outputs(path: Path, names: list[str], inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What the exported file computes for each torch module of these names; modules that were folded away are left out.

    Args:
        inputs: of the file, in its order.

    The exporter notes in each node from which module it came (`pkg.torch.onnx.name_scopes`); a module's output is that of its
    last node.
    """
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

    have = {output.name for output in model.graph.output}
    for output in dict.fromkeys(wanted.values()):
        if output not in have:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = dict(zip([one.name for one in session.get_inputs()], inputs, strict=True))
    values = dict(zip([output.name for output in session.get_outputs()], session.run(None, given), strict=True))
    return {name: values[output] for name, output in wanted.items()}
