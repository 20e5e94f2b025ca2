"""int8: what is quantised, with which ranges, what stays in float, and what is said of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization.calibrate import HistogramCollector
from torch import nn
from torchvision.models import MobileNetV2

from adapt.contracts import Deployable
from adapt.export import gate
from adapt.export import onnx as target
from adapt.export.onnx import int8 as quantising
from adapt.export.onnx import ranges
from adapt.export.onnx.graphs import noted, operators
from adapt.plug import UserError

BLOCKS = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]
"""Of a MobileNetV2: expansion, channels, repetitions, stride."""
ACTIVATIONS = 11


class Narrow(nn.Module):
    """A small MobileNetV2 with another activation: images 0–255 → logits float[N, 7]."""

    def __init__(self, activation: type[nn.Module]):
        super().__init__()
        torch.manual_seed(0)
        self.net = MobileNetV2(num_classes=7, inverted_residual_setting=BLOCKS)
        for part in list(self.net.modules()):
            for name, child in part.named_children():
                if isinstance(child, nn.ReLU6):
                    setattr(part, name, activation())

    def forward(self, images):
        return self.net(images / 128 - 1)


@pytest.fixture(scope="module")
def pictures(emoji):
    """float32[64, 3, 64, 64]."""
    rows = emoji["train"].select(range(64))
    return np.stack([np.asarray(image.convert("RGB").resize((64, 64))).transpose(2, 0, 1) for image in rows["image"]]).astype(
        "f"
    )


@pytest.fixture(scope="module")
def files(pictures, tmp_path_factory):
    """name of the activation → fp32 and int8 file."""
    made = {}
    for kind in (nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU):
        folder, module = tmp_path_factory.mktemp(kind.__name__), Narrow(kind).train()
        with torch.no_grad():
            for _ in range(20):  # running statistics of a network that has seen images
                module(torch.from_numpy(pictures[:32]))
        config = target.Config(name="onnx", calibrate="minmax", max_abs_error=1e-3)
        found = gate.export(target, config, Deployable(module.eval()), pictures[:48], folder, {"classes": list("abcdefg")})
        made[kind.__name__] = [artifact.path for artifact in found]
        for artifact in found[1:]:
            assert artifact.facts["conversions"] == quantising.conversions(artifact.path)
    return made


def test_a_network_of_relu6_is_quantised_behind_its_activations(files, pictures):
    fp32, int8 = files["ReLU6"]
    assert "Clip" in {node.op_type for node in onnx.load(fp32).graph.node}
    found = operators(int8)
    assert not {"Conv", "Clip", "Gemm", "GlobalAveragePool", "ReduceMean"} & set(found)
    assert found["QLinearConv"] == 16
    assert found["QuantizeLinear"] == 1, "the pictures"
    assert quantising.conversions(int8) == {}
    ours, theirs = target.Runner(fp32)(pictures), target.Runner(int8)(pictures)
    assert quantising.signal([ours], [theirs]) > 20
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.9


def test_silu_is_int8_too_and_other_activations_are_told_of(files):
    assert quantising.conversions(files["SiLU"][1]) == {}
    assert operators(files["SiLU"][1])["QLinearSigmoid"] == ACTIVATIONS
    for name, called in (("Hardswish", "HardSwish"), ("GELU", "GELU")):
        assert quantising.conversions(files[name][1]) == {called: ACTIVATIONS}
        assert "Conv" not in operators(files[name][1])


def test_int8_is_found_by_each_way_and_auto_keeps_the_best_on_validation(files, pictures, tmp_path):
    fp32, _ = files["ReLU6"]
    samples, validation = pictures[:48], pictures[48:]
    ours = target.Runner(fp32)(validation)
    signals = {}
    for way in (*ranges.METHODS, "auto"):
        path = tmp_path / f"{way}.onnx"
        quantising.quantize(fp32, path, target.Config(name="onnx", calibrate=way), samples, validation)
        facts = noted(path)["int8"]
        signals[way] = quantising.signal([ours], [target.Runner(path)(validation)])
        assert facts["decibels"][facts["ranges"]] == signals[way]
        assert facts["pictures"] == 16
        assert noted(path)["classes"] == list("abcdefg")
    assert signals["auto"] == max(signals.values())
    assert facts["decibels"] == {way: signals[way] for way in ranges.METHODS}
    assert len(set(signals.values())) > 2, "the ways differ"


def test_the_bias_makes_up_for_the_rounding_of_the_weights(files, pictures, tmp_path, monkeypatch):
    fp32, path = files["ReLU6"][0], tmp_path / "int8.onnx"
    config, ours = target.Config(name="onnx", calibrate="minmax"), target.Runner(fp32)(pictures)
    quantising.quantize(fp32, path, config, pictures)
    corrected = target.Runner(path)(pictures)
    monkeypatch.setattr(quantising, "correct", lambda *_: None)
    quantising.quantize(fp32, path, config, pictures)
    plain = target.Runner(path)(pictures)
    assert np.abs((corrected - ours).mean(0)).mean() < np.abs((plain - ours).mean(0)).mean()


def test_logits_are_not_rounded(files, pictures):
    """A last Gemm answers in float: 256 steps would make ties of logits."""
    _, int8 = files["ReLU6"]
    logits = target.Runner(int8)(pictures)
    steps = np.unique(np.diff(np.sort(logits.ravel())))
    assert len(steps) > 100
    assert "DequantizeLinear" not in operators(int8)


def test_an_int8_file_of_a_network_that_is_not_finite_is_refused(files, pictures, tmp_path):
    model = onnx.load(files["ReLU6"][0])
    (last,) = (node for node in model.graph.node if node.op_type == "Gemm")
    (weight,) = (one for one in model.graph.initializer if one.name == last.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(np.nan), weight.name))
    onnx.save(model, tmp_path / "fp32.onnx")
    with pytest.raises(UserError, match="int8: refused: the values of 'logits' are not finite"):
        quantising.quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", target.Config(name="onnx"), pictures)


# ------------------------------------------------------------------------------------------------------------------ ranges


def identity(shape: list) -> onnx.ModelProto:
    """A model whose activation `x` is its input."""
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("images", "x")]
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["x"])], "identity", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_ranges_are_those_of_their_formulas():
    samples = np.random.default_rng(0).normal(size=(80, 3, 16, 16)).astype(np.float32)
    samples[7] *= 5
    model = identity(["N", 3, 16, 16])
    seen = ranges.observe(model, ["x"], {"x": 4}, samples)["x"]
    np.testing.assert_allclose(seen.mean, samples.mean((0, 2, 3)), atol=1e-6)
    assert seen.size == 3 * 16 * 16
    assert ranges.cut("minmax", seen) == (samples.min(), samples.max())
    groups = np.array_split(samples, [32, 64])
    expected = np.mean([group.min() for group in groups]), np.mean([group.max() for group in groups])
    np.testing.assert_allclose(ranges.cut("average", seen), expected, rtol=1e-6)
    counts = ranges.histograms(model, {"x": seen}, samples)["x"]
    assert counts.sum() == ranges.PICTURES * 3 * 16 * 16
    chosen = samples[np.linspace(0, 79, ranges.PICTURES).astype(int)]
    expected = np.quantile(chosen, [ranges.TAIL / 2, 1 - ranges.TAIL / 2])
    np.testing.assert_allclose(ranges.cut("percentile", seen, counts), expected, rtol=0.05)


@pytest.mark.parametrize("kind", ["normal", "laplace", "clipped"])
def test_the_entropys_cut_is_onnx_runtimes_own(kind):
    random = np.random.default_rng(0)
    values = random.normal(2, 3, 200_000).clip(0, 6) if kind == "clipped" else getattr(random, kind)(size=200_000)
    most = np.abs(values).max()
    counts, edges = np.histogram(values.astype(np.float32), 1024, range=(-most, most))
    collector = HistogramCollector("entropy", False, 1024, 128, 99.99, "same")
    low, high = collector.get_entropy_threshold((counts, edges.astype(np.float32), values.min(), values.max(), most), 128)
    ours = most * ranges._least_lost(counts[512:] + counts[511::-1], 64)
    assert ours == pytest.approx(max(-low, high), rel=0.1)  # the minimum is flat


def test_the_second_passes_memory_and_work_are_bounded(monkeypatch):
    """Tensors that do not fit together are counted one after the other; of many values only some are."""
    samples = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    model = identity(["N", 3, 16, 16])
    seen = ranges.observe(model, ["images", "x"], {}, samples)
    whole = ranges.histograms(model, seen, samples)
    monkeypatch.setattr(ranges, "BYTES", 4 * 3 * 16 * 16 + 1)
    assert list(ranges._groups(seen)) == [["images"], ["x"]]
    np.testing.assert_array_equal(ranges.histograms(model, seen, samples)["x"], whole["x"])
    monkeypatch.setattr(ranges, "VALUES", 1000)
    assert 500 < ranges.histograms(model, seen, samples)["x"].sum() <= 1000
