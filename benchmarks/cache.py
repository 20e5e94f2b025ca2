"""An epoch from the cache against an epoch with the frozen network in the loop, in one run, in turn.

    python -m benchmarks.cache             # the student of recipe clip_lora; the mask decoder of SAM at ViT-B shapes
    python -m benchmarks.cache sam         # one of them: clip, large or sam

Weights are random or embedded: times do not depend on their values. The losses of both ways are compared as well.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from adapt import hardware, plug
from adapt.contracts import Augment, Train
from adapt.distill import cache as caches
from adapt.recipe import load_recipe
from adapt.train.loop import fit
from adapt.train.views import Views


def clip(rows: int = 2048, checkpoint: str = "clip-tiny", weights: str = "pretrained") -> None:
    """The distillation of `clip_lora`: a CNN learns from CLIP's class logits."""
    from datasets import concatenate_datasets

    from adapt.prompting.text import words

    recipe = load_recipe("clip_lora")
    data = plug.load("data", recipe.data.source).load(recipe.data)
    parts = [data["train"].select_columns(["image", "label"]), data["unlabelled"].select_columns(["image"])]
    images = concatenate_datasets(parts).select(range(rows))
    torch.manual_seed(0)
    model = recipe.model.model_copy(update={"checkpoint": checkpoint, "weights": weights})
    teacher = plug.load("models", "clip").load(model)
    teacher.set_classes(**words(recipe.prompts, data["train"].features["label"].names).told)
    function = torch.inference_mode()(teacher.predictors()["class_logits"])
    target, config = plug.load("distill", "logits"), recipe.distill
    train = config.train.model_copy(update={"epochs": 1})

    def epoch(folder: Path, extra, live) -> tuple[float, list[float]]:
        torch.manual_seed(0)
        learner = target.learner(config, teacher, live)
        return _epoch(learner, Views(images, learner.preprocess, 0, 1, extra), train, folder)

    with tempfile.TemporaryDirectory() as place:
        views = Views(images, teacher.preprocess, 0, 1)
        cache = caches.build(Path(place) / "cache", function, views, train.augment, 64, Accelerator())
        size = "×".join(map(str, teacher.input["size"]))
        name = f"CNN student ({config.student}, {size} px) from {Path(checkpoint).name}, {rows} rows"
        _report(name, epoch, cache, function, place)


def large() -> None:
    """The same at the shapes of CLIP ViT-B/16, with random weights and the words of clip-tiny; 128 rows."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor

    from adapt.models.checkpoint import EMBEDDED

    words = AutoTokenizer.from_pretrained(EMBEDDED / "clip-tiny")
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "patch_size": 16,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "CLIP ViT-B∕16"
        config = CLIPConfig(vision_config=vision, text_config=ends | {"vocab_size": len(words)})
        for part in (words, CLIPImageProcessor(), config):
            part.save_pretrained(folder)
        clip(128, str(folder), "random")


def sam() -> None:
    """SAM's mask decoder on its encoder's features, at ViT-B shapes with random weights; 4 scenes.

    What the cache saves is the encoder. What is left grows with the prompts, so three are measured: one prompt a picture without
    clicks, as MedSAM trains, one click, as `sam_lora` does, and the recipe's own.
    """
    for prompts in ({"objects": 1, "clicks": 0}, {"clicks": 1}, {}):
        _sam(prompts)


def _sam(prompts: dict[str, int]) -> None:
    from transformers import SamConfig, SamImageProcessor

    recipe = load_recipe("sam_decoder", ["data.train=4", "data.validation=1", "data.test=1"])
    rows = plug.load("data", recipe.data.source).load(recipe.data)["train"]
    train = Train(epochs=1, batch=1, lr=1e-4, augment=Augment(crop=1, flip=0, colour=0))

    def build(place: str):
        torch.manual_seed(0)
        config = recipe.model.model_copy(update={"checkpoint": place, "weights": "random"} | prompts)
        family = plug.load("models", "sam").load(config)
        plug.load("methods", recipe.method.name).apply(family, recipe.method)
        return family

    def epoch(folder: Path, extra, live) -> tuple[float, list[float]]:
        family = build(place)
        return _epoch(family, Views(rows, family.preprocess, 0, 1, extra), train, folder)

    with tempfile.TemporaryDirectory() as place:
        for part in (SamConfig(), SamImageProcessor()):
            part.save_pretrained(place)
        first = build(place)
        views = Views(rows, first.preprocess, 0, 1)
        cache = caches.build(Path(place) / "cache", first.frozen_features(), views, None, 1, Accelerator(), "features")
        asked = recipe.model.model_copy(update=prompts)
        title = f"SAM ViT-B mask decoder, at most {asked.objects} prompts a picture, {asked.clicks} clicks"
        _report(title, epoch, cache, None, place)


def _epoch(module, views: Views, train: Train, folder: Path) -> tuple[float, list[float]]:
    """Seconds of one epoch, and its losses."""
    began = time.perf_counter()
    history = fit(module, views, train, 0, folder, Accelerator(), title=folder.name)
    return time.perf_counter() - began, [row["loss"] for row in history if "loss" in row]


def _report(name: str, epoch, cache, live, place: str) -> None:
    """Each way three times, in turn, so that noise falls on both; the best of each is told."""
    seconds: dict[str, list[float]] = {"cache": [], "loop": []}
    losses = {}
    for turn in range(3):
        for way, extra, teacher in (("cache", cache, None), ("loop", None, live)):
            took, losses[way] = epoch(Path(place) / f"{way}-{turn}", extra, teacher)
            seconds[way].append(took)
    cached, looped = min(seconds["cache"]), min(seconds["loop"])
    apart = max(abs(a - b) for a, b in zip(losses["cache"], losses["loop"], strict=True))
    print(
        f"{name}: an epoch takes {looped:.1f} s in the loop, {cached:.1f} s from the cache: {looped / cached:.1f}×; "
        f"losses differ by at most {apart:.1e}"
    )


if __name__ == "__main__":
    hardware.guard()
    for name in sys.argv[1:] or ["clip", "large", "sam"]:
        {"clip": clip, "large": large, "sam": sam}[name]()
