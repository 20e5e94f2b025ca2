"""Other people's loops, each in an environment of its own that is given by the path of its Python; none is a dependency of ours.

    PYTHON -m benchmarks.speed.peers clip_benchmark '{"data": …}'

LightlyTrain is under the AGPL: it is called, in its own process, and nothing of it is here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def asked(python: str, name: str, given: dict) -> dict[str, float]:
    """What a peer's process says: who → seconds.

    Raises:
        SystemExit: it has failed; with the last lines that it wrote.
    """
    command = [python, "-m", "benchmarks.speed.peers", name, json.dumps(given)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}={python} failed: {' '.join(done.stderr.splitlines()[-3:])}")
    return json.loads(done.stdout.splitlines()[-1])


def clip_benchmark(data: str, checkpoint: str, device: str, workers: int) -> dict[str, float]:
    """CLIP_benchmark's zero-shot evaluation: words, pictures and metrics; loading the model is not counted."""
    import time

    import torch
    from clip_benchmark.metrics import zeroshot_classification
    from torch import nn
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    class Towers(nn.Module):
        """The two functions by which it asks."""

        def __init__(self, net: nn.Module):
            super().__init__()
            self.net = net

        def encode_image(self, images):
            return self.net.get_image_features(pixel_values=images).pooler_output

        def encode_text(self, tokens):
            return self.net.get_text_features(input_ids=tokens).pooler_output

    if list(Path(checkpoint).glob("*.safetensors")):
        net = AutoModel.from_pretrained(checkpoint, dtype=torch.float32)
    else:
        net = AutoModel.from_config(AutoConfig.from_pretrained(checkpoint), dtype=torch.float32)
    tokenizer, about = (
        AutoTokenizer.from_pretrained(checkpoint),
        json.loads(Path(checkpoint, "preprocessor_config.json").read_text()),
    )
    scaled = [
        transforms.Resize(about["size"]["shortest_edge"], transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(about["crop_size"]["height"]),
        transforms.ToTensor(),
        transforms.Normalize(about["image_mean"], about["image_std"]),
    ]
    rows = ImageFolder(data, transforms.Compose([lambda image: image.convert("RGB"), *scaled]))
    model = Towers(net).eval().to(device)
    began = time.perf_counter()
    loader = torch.utils.data.DataLoader(rows, batch_size=64, num_workers=workers)

    def tokens(texts):
        return tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")["input_ids"]

    def accuracy(output, target, topk):  # its own, but for a conversion that numpy 2.4 refuses
        right = output.topk(max(topk), 1).indices.eq(target[:, None])
        return [float(right[:, :k].sum()) / len(target) for k in topk]

    zeroshot_classification.accuracy = accuracy
    words = (rows.classes, ["a photo of a {c}."])
    zeroshot_classification.evaluate(model, loader, tokens, *words, device, amp=device == "cuda")
    return {f"CLIP_benchmark, {workers} workers": time.perf_counter() - began}


def lightly(data: str, batch: int, epochs: int, epoch: int, side: int) -> dict[str, float]:
    """LightlyTrain's distillation into a resnet18; the teacher's weights are left random, which takes the same time."""
    from unittest import mock

    import lightly_train
    from lightly_train._models.dinov2_vit import dinov2_vit_package

    from benchmarks.speed import clock

    random = mock.patch.object(dinov2_vit_package.dinov2_helper, "load_weights", lambda model, **_: model)
    with random, clock.steps(epoch) as ends:
        lightly_train.pretrain(
            out="lightly",
            data=data,
            model="torchvision/resnet18",
            method="distillation",
            method_args={"teacher": "dinov2/vits14-noreg"},
            transform_args={"image_size": (side, side)},
            epochs=epochs,
            batch_size=batch,
            overwrite=True,
        )
    return {"LightlyTrain": clock.later(ends)}


PEERS = {"clip_benchmark": clip_benchmark, "lightly": lightly}

if __name__ == "__main__":
    print(json.dumps(PEERS[sys.argv[1]](**json.loads(sys.argv[2]))))
