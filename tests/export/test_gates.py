"""The gates: a file that answers nothing, always the same or what is not finite is refused, whatever it is a file of."""

from __future__ import annotations

import copy
import functools
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from adapt.contracts import Deployable
from adapt.export import gate as gates
from adapt.export import onnx as target
from adapt.export.onnx import nms
from adapt.export.onnx.graphs import write
from adapt.plug import UserError

SAMPLES = (np.random.default_rng(0).random((6, 3, 32, 32)) * 255).astype(np.float32)


class Classifier(nn.Module):
    """images → logits float[N, 5]."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 5)

    def forward(self, images):
        return self.fc(self.conv(images / 255).relu().mean((2, 3)))


class Encoder(nn.Module):
    """As SAM's: images → one map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 4)

    def forward(self, images):
        return self.conv(images / 255)


class Detector(nn.Module):
    """images → boxes float[N, 64, 4] and scores float[N, 2, 64], which never pass the threshold."""

    def __init__(self):
        super().__init__()
        self.box, self.score = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(3, 2, 4, 4)

    def forward(self, images):
        images = images / 255
        left, right = (32 * self.box(images).sigmoid()).flatten(2).transpose(1, 2).split(2, 2)
        return torch.cat([left, left + right], 2), 0.5 * self.score(images).sigmoid().flatten(2)


OPTIONS = {"score": 0.9, "nms": 0.6}
OUTPUTS = {Classifier: ("logits",), Encoder: ("image_embeddings",), Detector: ("boxes", "scores")}


def deployable(module: nn.Module) -> Deployable:
    return Deployable(module, OUTPUTS[type(module)])


def answering(path, what: str, outputs: int | None = None) -> None:
    """The file with its first outputs made NaN, zero, or of no sample; any other word leaves it as it is."""
    if what not in ("NaN", "constants", "nothing"):
        return
    model = onnx.load(path)
    graph = model.graph
    for output in list(graph.output)[:outputs]:
        for node in graph.node:
            for i, name in enumerate(node.output):
                node.output[i] = f"{name}_told" if name == output.name else name
            for i, name in enumerate(node.input):
                node.input[i] = f"{name}_told" if name == output.name else name
        told, number = f"{output.name}_told", {"NaN": np.nan, "constants": 0.0}.get(what)
        if number is None:
            limits = {f"{told}_{name}": np.array([value]) for name, value in (("from", 0), ("to", 0), ("axis", 0))}
            graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in limits.items())
            graph.node.append(helper.make_node("Slice", [told, *limits], [output.name]))
        else:
            graph.initializer.append(numpy_helper.from_array(np.float32(number), f"{told}_times"))
            graph.node.append(helper.make_node("Mul", [told, f"{told}_times"], [output.name]))
    onnx.save(model, path)


@functools.cache
def written(kind: type[nn.Module]) -> tuple[nn.Module, bytes]:
    """A module and its file."""
    torch.manual_seed(0)
    module = kind()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        return module, write(deployable(module), (SAMPLES[:2],), path, {}).read_bytes()


def classifier(folder, what):
    module, content = written(Classifier)
    path = folder / "model.onnx"
    path.write_bytes(content)
    answering(path, what)
    return gates.gate(module, target.Runner(path), SAMPLES, 1e-4, target.Runner(path).layers)


def encoder(folder, what, kind=Encoder):
    module, content = written(kind)
    path = folder / "model.onnx"
    path.write_bytes(content)
    answering(path, what)
    return gates.gate_outputs(deployable(module), target.Runner(path), [(SAMPLES,)], 1e-4)


dense = partial(encoder, kind=Detector)


def detected(folder, what):
    _, content = written(Detector)
    path = folder / "dense.onnx"
    path.write_bytes(content)

    def file(score):
        nms.append(path, folder / "model.onnx", score, OPTIONS["nms"])
        answering(folder / "model.onnx", what, None if what == "nothing" else 2)
        return target.Runner(folder / "model.onnx")

    return gates.gate_detections(target.Runner(path)(SAMPLES), file(OPTIONS["score"]), SAMPLES, OPTIONS, 1e-4, file)


@pytest.mark.parametrize("gate", [classifier, encoder, dense, detected])
@pytest.mark.parametrize("what", ["NaN", "constants", "nothing"])
def test_a_file_that_answers_nothing_worth_is_refused(gate, what, tmp_path):
    with pytest.raises(UserError, match="refused"):
        gate(tmp_path, what)


@pytest.mark.parametrize("gate", [classifier, encoder, dense, detected])
def test_an_honest_file_passes_and_it_is_said_on_how_much(gate, tmp_path):
    result = gate(tmp_path, "what it is")
    assert result["samples"] == len(SAMPLES)
    assert result["max_abs_error"] < 1e-4


def test_what_nms_never_finds_is_proven_with_a_lower_threshold(tmp_path):
    result = detected(tmp_path, "what it is")
    assert result["score"] < OPTIONS["score"]
    assert result["detections"] > 10


@pytest.mark.parametrize("kind", [Classifier, Encoder])
def test_a_module_that_is_not_finite_is_no_proof(kind, tmp_path):
    """NaN on both sides is no agreement."""
    whole, content = written(kind)
    module, model, path = copy.deepcopy(whole), onnx.load_from_string(content), tmp_path / "model.onnx"
    with torch.no_grad():
        module.conv.bias[0] = torch.nan
    own = next(weight for weight in model.graph.initializer if weight.name.endswith("conv.bias"))
    own.CopyFrom(numpy_helper.from_array(module.conv.bias.detach().numpy(), own.name))
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"of torch is not finite for 6 of 6 samples\. First layer that differs: conv"):
        if kind is Classifier:
            gates.gate(module, target.Runner(path), SAMPLES, 1e-4, target.Runner(path).layers)
        else:
            gates.gate_outputs(deployable(module), target.Runner(path), [(SAMPLES,)], 1e-4)


def test_a_comparison_of_nothing_is_refused(tmp_path):
    module, content = written(Encoder)
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for samples in ([], [(SAMPLES[:0],)]):
        with pytest.raises(UserError, match="nothing was compared"):
            gates.gate_outputs(deployable(module), target.Runner(path), samples, 1e-4)
    with pytest.raises(UserError, match="nothing was compared"):
        gates.gate(Classifier(), lambda images: images, SAMPLES[:0], 1e-4)


class Pixels(nn.Module):
    """images → logits float[N, 2, H, W] that are the first two channels."""

    def forward(self, images):
        return images[:, :2] / 255


def test_only_where_the_two_best_are_close_may_argmax_differ():
    module, tolerance = Pixels(), 1e-4
    samples = SAMPLES.copy()
    samples[:, 1] = 200 - samples[:, 0]  # far apart, but for one pixel in six pictures
    for gap, passes in ((0.5e-4, True), (1.5e-4, False)):
        samples[3, :2, 4, 5] = 100, 100 - 255 * gap

        def file(images, gap=gap):
            out = module(torch.from_numpy(images)).numpy().copy()
            out[3, 0, 4, 5] -= 0.55 * gap
            out[3, 1, 4, 5] += 0.55 * gap
            return out

        assert gates.check(module, file, samples)["argmax_agreement"] < 1
        if passes:
            assert gates.gate(module, file, samples, tolerance)["max_abs_error"] < tolerance
        else:
            with pytest.raises(UserError, match=r"where it differs the two best are up to 1\.50e-04 apart"):
                gates.gate(module, file, samples, tolerance)
