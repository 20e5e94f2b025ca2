"""Exported files: equal, really int8, usable alone; a broken one is refused and its layer named."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from adapt.contracts import Artifact, Deployable
from adapt.export import bench, gate
from adapt.export import onnx as target
from adapt.export.onnx.graphs import noted, operators, write
from adapt.plug import UserError
from adapt.students.classifier import Student

SPEC = {"size": (48, 48), "resize": 48, "interpolation": "bicubic", "crop": "floor", "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    student = Student("resnet10t", SPEC, list("abcdefg"))
    student.train()
    with torch.no_grad():  # running statistics of a network that has seen images
        for layer in student.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # timm starts residual branches at zero, where no mistake would show
                layer.weight.uniform_(0.5, 1.5)
        for _ in range(20):
            student(torch.rand(16, 3, 48, 48) * 255)
    return student.deployed().module.eval()


@pytest.fixture(scope="module")
def samples():
    return (np.random.default_rng(0).random((64, 3, 48, 48)) * 255).astype(np.float32)


@pytest.fixture(scope="module")
def artifacts(module, samples, tmp_path_factory):
    """precision → Artifact."""
    about = Student("resnet10t", SPEC, list("abcdefg")).about()
    config, folder = target.Config(name="onnx"), tmp_path_factory.mktemp("export")
    found = gate.export(target, config, Deployable(module), samples, folder, about)
    return {artifact.precision: artifact for artifact in found}


@pytest.fixture(scope="module")
def files(artifacts):
    return {precision: artifact.path for precision, artifact in artifacts.items()}


def test_fp32_equals_torch_at_any_batch(module, samples, files):
    result = gate.check(module, target.Runner(files["fp32"]), samples)
    assert result["max_abs_error"] < 1e-4
    assert result["argmax_agreement"] == 1
    runner = target.Runner(files["fp32"])
    for batch in (1, 3, 7):
        np.testing.assert_allclose(runner(samples[:batch]), runner(samples)[:batch], atol=1e-5)


def test_int8_is_really_int8(files):
    found = operators(files["int8"])
    assert found["QLinearConv"] >= 10
    assert "Conv" not in found
    assert files["int8"].stat().st_size < 0.3 * files["fp32"].stat().st_size


def test_int8_is_faster_at_one_thread(files, samples):
    runners = {name: target.Runner(path) for name, path in files.items()}
    assert {runner.session.get_session_options().intra_op_num_threads for runner in runners.values()} == {1}
    times = bench.compare(runners, samples[:1], seconds=1)
    assert times["int8"]["p50_ms"] < times["fp32"]["p50_ms"]
    assert times["int8"]["p50_ms"] <= times["int8"]["p99_ms"]
    assert times["int8"]["calls"] == times["fp32"]["calls"] >= 50


def test_the_bench_keeps_to_its_budget_and_leaves_the_slow_behind():
    """Three runners: one that takes longer than its seconds, one that cannot make its calls in them, one that is fast."""
    called = {"stuck": 0, "slow": 0, "fast": 0}

    def runner(name, seconds):
        def run(example):
            called[name] += 1
            time.sleep(seconds)

        return run

    began = time.perf_counter()
    runners = {"stuck": runner("stuck", 0.5), "slow": runner("slow", 0.05), "fast": runner("fast", 0.001)}
    times = bench.compare(runners, None, seconds=0.3, least=10)
    assert time.perf_counter() - began < 3 * 0.3 + 0.5 + 0.2
    assert times["stuck"]["calls"] == called["stuck"] == 1
    assert times["stuck"]["p50_ms"] == pytest.approx(500, rel=0.2)
    assert 1 <= times["slow"]["calls"] < 10 < times["fast"]["calls"]
    assert times["fast"]["p50_ms"] < times["slow"]["p50_ms"] < times["stuck"]["p50_ms"]


def test_a_size_counts_all_files_that_one_needs(files, tmp_path):
    paths = tuple(tmp_path / name for name in ("model.onnx", "decoder.onnx"))
    for path in paths:
        shutil.copy(files["fp32"], path)
    alone = paths[0].stat().st_size
    assert Artifact("fp32", paths[0], paths[:1]).bytes == alone
    assert Artifact("fp32", paths[0], paths).bytes == 2 * alone


def test_a_file_says_on_how_much_it_was_proven(artifacts):
    assert artifacts["fp32"].facts["proof"]["samples"] == 64
    assert noted(artifacts["fp32"].path)["proof"] == artifacts["fp32"].facts["proof"]
    facts = artifacts["int8"].facts
    assert "proof" not in facts and "proof" not in noted(artifacts["int8"].path)
    assert noted(artifacts["int8"].path)["int8"] == facts["int8"]
    assert facts["conversions"] == {}
    assert facts["int8"]["ranges"] in facts["int8"]["decibels"]


def test_metadata_say_how_to_use_the_file_alone(files):
    for path in files.values():
        metadata = target.Runner(path).metadata
        assert json.loads(metadata["classes"]) == list("abcdefg")
        about = json.loads(metadata["input"])
        assert about["preparation"] == "shorter side to 48 pixels, bicubic, then the centre 48×48"
        assert (about["size"], about["resize"], about["range"]) == ([48, 48], 48, [0, 255])
        assert json.loads(metadata["kind"]) == "classifier"
        assert not {"mean", "std"} & {*about, *metadata}, "the file applies them; a user who did so again would be wrong"
        assert about["normalisation"].startswith("inside the file")


def broken(path, out, layer: str):
    """The file with the weights of one layer turned round."""
    model = onnx.load(path)
    (weight,) = [w for w in model.graph.initializer if w.name == f"{layer}.weight"]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
    onnx.save(model, out)
    return out


@pytest.mark.parametrize("layer", ["net.layer2.0.conv1", "net.fc"])
def test_a_swapped_layer_is_refused_and_named(module, samples, files, tmp_path, layer):
    path = broken(files["fp32"], tmp_path / "broken.onnx", layer)
    with pytest.raises(UserError, match="refused") as error:
        gate.gate(module, target.Runner(path), samples, 1e-4, target.Runner(path).layers)
    named = str(error.value).split("differs: ")[1].rstrip(".")
    assert named == layer or named == layer.replace("conv1", "bn1"), named


class Twice(nn.Module):
    """One layer for two scales, as a detector's head."""

    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, images):
        scales = self.shared(images), self.shared(images[..., ::2, ::2])
        return self.last(sum(scale.mean((2, 3)) for scale in scales))


def test_a_layer_that_runs_twice_is_not_blamed(tmp_path):
    samples = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    module, path = Twice(), tmp_path / "model.onnx"
    write(Deployable(module), (samples[:2],), path, {})
    broken(path, path, "last")
    with pytest.raises(UserError, match=r"First layer that differs: last\."):
        gate.gate(module, target.Runner(path), samples, 1e-4, target.Runner(path).layers)


def test_an_export_that_is_refused_leaves_nothing(module, samples, tmp_path, monkeypatch):
    from adapt.run import atomic

    monkeypatch.setattr(target.Runner, "__call__", lambda self, images: np.zeros((len(images), 7), np.float32))
    with pytest.raises(UserError, match="refused"), atomic(tmp_path / "out") as folder:
        folder.mkdir()
        gate.export(target, target.Config(name="onnx"), Deployable(module), samples, folder, {})
    assert list(tmp_path.iterdir()) == []
