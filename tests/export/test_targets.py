"""A target only converts and runs; gate, proof and sizes are the same for all. Here is one of few lines: PyTorch's own exported programs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import nms

from adapt import contracts
from adapt.contracts import Artifact, Deployable, TargetConfig
from adapt.export import gate, onnx
from adapt.plug import UserError

SAMPLES = (np.random.default_rng(0).random((6, 3, 32, 32)) * 255).astype(np.float32)
SPOILT: list[float] = []
"""Not empty: by how much the toy's answers are wrong."""


class Config(TargetConfig):
    """No options of its own."""

    runtime = "torch.export"


def convert(config, deployable, samples, folder: Path, metadata, validation=None) -> list[Artifact]:
    parts = {name: save(part, part.samples[-1], folder / f"{name}.pt2") for name, part in deployable.parts.items()}
    path = save(deployable, (samples[:2],), folder / "model.pt2")
    note = folder / "nms.txt"
    note.write_text(" ".join(map(str, (deployable.nms or {}).values())))
    return [Artifact("fp32", path, (path, note, *parts.values()), parts)]


def save(deployable: Deployable, example, path: Path) -> Path:
    batch = torch.export.Dim("batch", min=1, max=99)
    shapes = tuple({0: batch} if deployable.dynamic is None else {} for _ in example)
    arrays = tuple(torch.from_numpy(array) for array in example)
    torch.export.save(torch.export.export(deployable.module.eval(), arrays, dynamic_shapes=shapes), path)
    return path


class Runner(contracts.Runner):
    def __init__(self, path: Path):
        super().__init__(path)
        self.module = torch.export.load(path).module()

    def __call__(self, *arrays):
        with torch.inference_mode():
            found = self.module(*(torch.from_numpy(array) for array in arrays))
        found = [value.numpy() + sum(SPOILT) for value in (found if isinstance(found, tuple) else (found,))]
        limits = [float(word) for word in (self.path.parent / "nms.txt").read_text().split()]
        if limits and self.path.stem == "model":
            return without_duplicates(*found, *limits)
        return found if len(found) > 1 else found[0]


def without_duplicates(boxes, scores, score: float, overlap: float) -> list[np.ndarray]:
    rows = []
    for row, (box, point) in enumerate(zip(boxes, scores, strict=True)):
        for label, values in enumerate(point):
            cells = np.flatnonzero(values > score)
            for cell in cells[nms(torch.from_numpy(box[cells]), torch.from_numpy(values[cells]), overlap).numpy()]:
                rows.append((*box[cell], values[cell], label, row))
    found = np.array(rows, np.float32).reshape(-1, 7)
    found = found[np.argsort(-found[:, 4], kind="stable")]
    return [found[:, :4], found[:, 4], found[:, 5].astype(np.int64), found[:, 6].astype(np.int64)]


TOY = SimpleNamespace(convert=convert, Runner=Runner)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 5)

    def forward(self, images):
        return self.fc(self.conv(images / 255).relu().mean((2, 3)))


class Detector(nn.Module):
    """Boxes float[N, 64, 4] and scores float[N, 2, 64], none above 0.5."""

    def __init__(self):
        super().__init__()
        self.box, self.score = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(3, 2, 4, 4)

    def forward(self, images):
        images = images / 255
        left, right = (32 * self.box(images).sigmoid()).flatten(2).transpose(1, 2).split(2, 2)
        return torch.cat([left, left + right], 2), 0.5 * self.score(images).sigmoid().flatten(2)


class Decoder(nn.Module):
    def forward(self, features, place):
        return features * place, features + place


def deployable(kind: str) -> Deployable:
    torch.manual_seed(0)
    if kind == "detector":
        return Deployable(Detector(), ("boxes", "scores"), nms={"score": 0.2, "nms": 0.6})
    if kind == "several":
        return Deployable(Detector(), ("boxes", "scores"))
    if kind == "parts":
        rng = np.random.default_rng(0)
        sets = [tuple(rng.normal(size=(1, 4)).astype(np.float32) for _ in range(2)) for _ in range(3)]
        part = Deployable(Decoder(), ("product", "sum"), {}, samples=sets)
        return Deployable(Classifier(), ("features",), parts={"decoder": part})
    return Deployable(Classifier())


@pytest.fixture(autouse=True)
def honest():
    SPOILT.clear()


@pytest.mark.parametrize("kind", ["classifier", "several", "detector", "parts"])
def test_what_a_target_writes_is_proven_and_weighed(kind, tmp_path):
    (artifact,) = gate.export(TOY, Config(name="toy"), deployable(kind), SAMPLES, tmp_path, {})
    proof = artifact.facts["proof"]
    proof = proof.get("nms", proof)
    assert proof["samples"] == len(SAMPLES) and proof["max_abs_error"] < 1e-4
    assert kind != "detector" or proof["detections"] > 10
    assert artifact.bytes == sum(path.stat().st_size for path in tmp_path.iterdir()), "all files of it"


@pytest.mark.parametrize("kind", ["classifier", "several", "detector", "parts"])
def test_what_is_wrong_is_refused_whoever_wrote_it(kind, tmp_path):
    SPOILT.append(0.01)
    with pytest.raises(UserError, match="export: refused"):
        gate.export(TOY, Config(name="toy", max_abs_error=1e-5), deployable(kind), SAMPLES, tmp_path, {})


@pytest.mark.parametrize("target", [TOY, onnx], ids=["toy", "onnx"])
def test_a_detector_that_finds_nothing_is_converted_once_more_with_a_lower_threshold(target, tmp_path):
    config = (Config if target is TOY else onnx.Config)(name="x", int8=False)
    high = Deployable(deployable("detector").module, ("boxes", "scores"), nms={"score": 0.9, "nms": 0.6})
    (artifact,) = gate.export(target, config, high, SAMPLES, tmp_path, {})
    assert len(target.Runner(artifact.path)(SAMPLES)[0]) == 0
    proof = artifact.facts["proof"]["nms"]
    assert proof["score"] < 0.5 and proof["detections"] > 10
