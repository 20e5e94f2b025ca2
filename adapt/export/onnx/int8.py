"""int8 by ONNX Runtime (static QDQ): what is quantised, with which ranges, and what stays in float.

Weights are symmetric and per channel, activations unsigned. An operator between two quantised ones is quantised too where the
runtime has it in int8: a ReLU6 that is left out makes its convolution spend its steps on values that nobody needs. Biases make up
for what the rounding of the weights does to the mean of each channel.

Source: Jacob et al. 2018, arXiv:1712.05877; Nagel et al. 2019, arXiv:1906.04721 (§4.2, bias correction).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from adapt.export.onnx.graphs import note, noted, optimised, session
from adapt.export.onnx.ranges import METHODS, Seen, cut, evenly, histograms, observe
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.export.onnx import Config

HEAVY = ("Conv", "Gemm", "MatMul")
"""What int8 is for."""
LIGHT = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Add", "Mul", "Concat", "Split", "Slice", "Resize")
LIGHT += ("MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather")
"""What else the runtime has in int8; but for Softmax, many of whose values are smaller than a step."""
FUSED = ("Relu", "Clip")
"""No operators in int8: the range of their output does their work."""
PLAIN = {"Gelu": "GELU", "BiasGelu": "GELU", "FastGelu": "GELU", "Erf": "GELU", "QuickGelu": "SiLU", "Softplus": "Mish"}
"""What else an operator of the runtime is called."""
GATES = {"Sigmoid": "SiLU", "HardSigmoid": "HardSwish"}
"""What they are when their input is multiplied by their output."""
JUDGED = 1.6e9
"""`calibrate: auto` looks at so many activations of pictures, at most: seconds."""


def quantize(fp32: Path, path: Path, config: Config, samples: np.ndarray, validation: np.ndarray | None = None) -> None:
    """Write the int8 file of a file that takes images; its metadata say how the ranges were found.

    Args:
        samples: float32[N, 3, H, W], by which ranges are found.
        validation: float32[M, 3, H, W], by which `calibrate: auto` chooses among them; none: the samples.

    Raises:
        UserError: no way of finding ranges gives finite outputs.
    """
    model = prepare(fp32)
    nodes, ranks = between(model.graph), _ranks(model.graph)
    constants = {one.name for one in model.graph.initializer}
    names = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output))
    names = [name for name in names if name in ranks and name not in constants]
    inputs = {node.input[0]: ranks[node.input[0]] for node in nodes if node.op_type in ("Conv", "Gemm")}
    seen = observe(model, names, inputs, samples)
    methods = METHODS if config.calibrate == "auto" else (config.calibrate,)
    counted = {"percentile", "entropy"} & set(methods)
    counts = histograms(model, seen, samples) if counted else dict.fromkeys(names)
    shown = samples if validation is None or not len(validation) else validation
    total = sum(one.size for one in seen.values())
    shown = evenly(shown, max(8, int(JUDGED / total)))
    wanted = _answers(fp32, shown)
    files, decibels = {}, {}
    for method in methods:
        cuts = {name: cut(method, seen[name], counts[name]) for name in names}
        files[method] = quantised(model, seen, cuts, nodes)
        onnx.save(files[method], path)
        decibels[method] = signal(wanted, _answers(path, shown))
    best = max(methods, key=decibels.get)
    if not np.isfinite(decibels[best]):
        raise UserError(f"export: int8: refused: on {len(shown)} pictures its outputs are not finite, or fp32's do not vary.")
    known = {method: value if np.isfinite(value) else None for method, value in decibels.items()}
    facts = {"ranges": best, "decibels": known, "pictures": len(shown)}
    onnx.save(files[best], path)
    note(path, noted(fp32) | {"int8": facts})


def signal(wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    """How far outputs stand above their error, dB, the mean over the outputs that vary; 120 at most, −inf where not finite."""
    values = []
    for ours, theirs in zip(wanted, got, strict=True):
        if ours.shape != theirs.shape or not np.isfinite(theirs).all():
            return float("-inf")
        if ours.size and ours.var() > 0:
            error = np.square(ours.astype(float) - theirs).mean()
            values.append(10 * np.log10(ours.astype(float).var() / max(error, 1e-12 * ours.var())))
    return round(float(np.mean(values)), 2) if values else float("-inf")


def _answers(path: Path, samples: np.ndarray) -> list[np.ndarray]:
    """A file's outputs for images."""
    runner = session(path)
    (images,) = (one.name for one in runner.get_inputs())
    parts = [runner.run(None, {images: samples[start : start + 8]}) for start in range(0, len(samples), 8)]
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


def between(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes to quantise: heavy ones, and light ones on a path of light ones from a heavy one to another."""
    makers = {name: node for node in graph.node for name in node.output}
    behind: set[str] = set()
    for node in graph.node:
        if node.op_type in HEAVY or (_light(node) and any(name in behind for name in node.input)):
            behind.update(node.output)
    before: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in HEAVY or (_light(node) and any(name in before for name in node.output)):
            before.update(node.input)
    return [
        node
        for node in graph.node
        if node.op_type in HEAVY
        or (node.output[0] in behind and any(name in before for name in node.output))
        or (node.op_type in FUSED and node.input[0] in makers and makers[node.input[0]].op_type in HEAVY)
    ]


def _light(node: onnx.NodeProto) -> bool:
    """Has the runtime this node in int8? Of resizings, it has the nearest neighbour's."""
    mode = next((one.s for one in node.attribute if one.name == "mode"), b"nearest")
    return node.op_type in LIGHT and not (node.op_type == "Resize" and mode != b"nearest")


def prepare(fp32: Path) -> onnx.ModelProto:
    """The file with batch norms folded, shapes known, every node named, and means over a picture as the pooling that they are."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "prepared.onnx"
        quant_pre_process(str(fp32), str(place), skip_symbolic_shape=True)
        model = onnx.load(place)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    _pool(model.graph)
    return model


def _pool(graph: onnx.GraphProto) -> None:
    """ReduceMean over height and width → GlobalAveragePool, which the runtime has in int8."""
    constants = {one.name: one for one in graph.initializer}
    ranks = _ranks(graph)
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != 4 or node.input[1] not in constants:
            continue
        axes = {int(axis) % 4 for axis in numpy_helper.to_array(constants[node.input[1]])}
        if axes != {2, 3}:
            continue
        flat = any(one.name == "keepdims" and not one.i for one in node.attribute)
        pooled = f"{node.output[0]}_pooled" if flat else node.output[0]
        nodes = [helper.make_node("GlobalAveragePool", node.input[:1], [pooled], node.name)]
        if flat:
            nodes.append(helper.make_node("Flatten", [pooled], node.output, f"{node.name}_flat"))
            graph.value_info.append(helper.make_tensor_value_info(pooled, onnx.TensorProto.FLOAT, ["N", "C", 1, 1]))
        graph.node.remove(node)
        for one in reversed(nodes):
            graph.node.insert(place, one)


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Numbers of dimensions, of float activations."""
    known = [*graph.value_info, *graph.input, *graph.output]
    kinds = (one for one in known if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)
    return {one.name: len(one.type.tensor_type.shape.dim) for one in kinds}


def quantised(
    model: onnx.ModelProto, seen: dict[str, Seen], ranges: dict[str, tuple], nodes: list[onnx.NodeProto]
) -> onnx.ModelProto:
    """The prepared model with these nodes in int8."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    quantizer = QDQQuantizer(
        onnx.ModelProto.FromString(model.SerializeToString()),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    small = quantizer.model.model
    correct(small.graph, model.graph, seen)
    answer_in_float(small.graph)
    return small


def correct(small: onnx.GraphProto, graph: onnx.GraphProto, seen: dict[str, Seen]) -> None:
    """Take from each bias what the rounded weights add to its channel's mean: (W_int8 − W) · E[x].  Nagel et al. 2019, eq. 17.

    Borders of padded pictures count like their inside.
    """
    floats = {one.name: one for one in graph.initializer}
    integers = {one.name: one for one in small.initializer}
    sources = {node.output[0]: node for node in small.node if node.op_type == "DequantizeLinear"}
    before = {node.name: node for node in graph.node}
    for node in small.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or not all(name in sources for name in node.input):
            continue
        old = before[node.name]
        weight, scale = (numpy_helper.to_array(integers[name]) for name in sources[node.input[1]].input[:2])
        bias, step = (integers[name] for name in sources[node.input[2]].input[:2])
        wide = (-1,) + (1,) * (weight.ndim - 1)
        error = weight * scale.reshape(wide) - numpy_helper.to_array(floats[old.input[1]])
        groups = next((one.i for one in node.attribute if one.name == "group"), 1)
        error = error.reshape(groups, len(error) // groups, error.shape[1], -1).sum(3)
        shift = np.einsum("goi,gi->go", error, seen[old.input[0]].mean.reshape(groups, -1)).ravel()
        value = numpy_helper.to_array(bias) - np.round(shift / numpy_helper.to_array(step)).astype(np.int32)
        bias.CopyFrom(numpy_helper.from_array(value, bias.name))


def answer_in_float(small: onnx.GraphProto) -> None:
    """A last Gemm, whose sums the runtime can give as they are, is not rounded to int8: logits would be ties."""
    makers = {name: node for node in small.node for name in node.output}
    for output in small.output:
        back = makers.get(output.name)
        rounded = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
        last = makers.get(rounded.input[0]) if rounded is not None else None
        if last is not None and last.op_type == "Gemm" and sum(rounded.output[0] in node.input for node in small.node) == 1:
            last.output[0] = output.name
            small.node.remove(back)
            small.node.remove(rounded)


def conversions(path: Path) -> dict[str, int]:
    """Where the runtime leaves int8 and comes back: the operator that it does in float → how often.

    Activations are called by the names that networks know: HardSwish, SiLU, GELU. What is done in float before the first and behind
    the last operator in int8 is not counted.
    """
    graph = optimised(path)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    returns: set[str] = set()  # tensors that become int8 again
    for node in reversed(graph.node):
        if node.op_type == "QuantizeLinear" or (node.op_type != "DequantizeLinear" and returns & set(node.output)):
            returns.update(node.input)
    found = Counter()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in returns:
            found[_called(users[node.output[0]][0], {node.input[0], node.output[0]}, users)] += 1
    return dict(found)


def _called(node: onnx.NodeProto, origin: set[str], users: dict[str, list[onnx.NodeProto]]) -> str:
    """The name of an operator done in float.

    Args:
        origin: names of the tensor that it takes, in int8 and in float.
        users: of each tensor.
    """
    if node.op_type in GATES:
        behind = users.get(node.output[0], [])
        behind = [*behind, *(one for other in behind if other.op_type == "QuantizeLinear" for one in users[other.output[0]])]
        if any(one.op_type.endswith("Mul") and origin & set(one.input) for one in behind):
            return GATES[node.op_type]
    return PLAIN.get(node.op_type, node.op_type)
