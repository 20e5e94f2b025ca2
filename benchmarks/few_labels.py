"""What a distilled CNN is worth to somebody with few labels: fine-tuned with 5 images a class, against the same CNN from random weights.

    adapt distill recipe=dinov2_distill
    python -m benchmarks.few_labels runs/dinov2_distill-…               # the recipe's classes: the groups of things that were drawn
    python -m benchmarks.few_labels runs/dinov2_distill-… labels=10     # another number of labels
    python -m benchmarks.few_labels runs/dinov2_distill-… from=cnn-tiny,random seeds=1    # the embedded student; one trial each
    python -m benchmarks.few_labels runs/dinov2_distill-… task=things   # which of 341 things? Four labels each, by other hands; slow

All weights learn by AdamW with five learning rates, of which the best on validation is kept; three times with other seeds. What is
distilled gets its last layer first, by logistic regression on its embedding (Kumar et al. 2022, arXiv:2202.10054), and keeps the statistics of
its batch norms, which are of more pictures than the few; random features would only be misled by both (top-1 11.9 in place of 20.8 %).
"""

from __future__ import annotations

import sys
import tempfile
from operator import itemgetter
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import ClassLabel, concatenate_datasets
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from adapt import hardware, plug
from adapt.contracts import Augment, Train
from adapt.data.emoji import Hand
from adapt.data.world import read
from adapt.distill.taught import Taught
from adapt.recipe import load_recipe
from adapt.students.classifier import Student
from adapt.students.cnn import seen_by, weights_file
from adapt.train.loop import fit
from adapt.train.predict import predict
from adapt.train.views import Views

RATES = (2e-5, 1e-4, 5e-4, 2e-3, 5e-3)


def main(run: Path, labels: int, task: str, starts: list[str], seeds: int) -> None:
    recipe = load_recipe(str(run / "recipe.yaml"))
    family = plug.load("models", recipe.model.name).load(recipe.model)
    data = plug.load("data", recipe.data.source).load(recipe.data.model_copy(update={"shots": labels}))
    data = things(data, labels) if task == "things" else data
    classes = data["train"].features["label"].names
    weights = {"random": False, "distilled": str(run / "student" / recipe.distill.called)}

    def learn(start: bool | str, lr: float, seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        arch = recipe.distill.student
        student = Student(arch, seen_by(arch, family.input), classes, start)
        if start:
            first_head(student, data["train"], weights_file(start))
        learner = (Few if start else Taught)(student, family, loss=objective)
        views = Views(data["train"], learner.preprocess, seed)
        augment = Augment(crop=0.6, rotate=10, colour=0.2)
        train = Train(epochs=30, batch=32, lr=lr, weight_decay=0.02, augment=augment)
        with tempfile.TemporaryDirectory() as place:
            fit(learner, views, train, seed, Path(place), Accelerator(), title=f"lr {lr}")
        return tuple(top1(student, data[split]) for split in ("validation", "test"))

    print(f"{len(data['train'])} pictures, at most {labels} a class, {len(classes)} classes; {len(data['test'])} test pictures")
    for name in starts:
        trials = (max((learn(weights.get(name, name), lr, seed) for lr in RATES), key=itemgetter(0)) for seed in range(seeds))
        scores = [test for _, test in trials]
        said = ", ".join(f"{100 * score:.1f}" for score in scores)
        print(f"{name}: top-1 {100 * sum(scores) / seeds:.1f} % ({said})", flush=True)


def things(data, labels: int):
    """The validation's and test's things as classes: their pictures by other hands are labelled, those of the recipe's hand asked for."""
    own, splits = data["test"][0]["id"].split("/")[0], {name: data[name] for name in ("validation", "test")}
    names = sorted(row.split("/")[1] for split in splits.values() for row in split["id"])
    hands = [hand for hand in get_args(Hand) if hand != own][:labels]
    splits["train"] = concatenate_datasets([read(hand) for hand in hands])
    label, known = ClassLabel(names=names), set(names)

    def named(rows):
        rows = rows.filter(lambda name: name.split("/")[1] in known, input_columns="id")
        return rows.add_column("thing", [label.str2int(name.split("/")[1]) for name in rows["id"]], feature=label)

    return {name: named(rows.remove_columns("label")).rename_column("thing", "label") for name, rows in splits.items()}


class Few(Taught):
    """A student that learns, and whose batch norms keep their statistics while it learns."""

    def train(self, mode: bool = True) -> Few:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eval()
        return self


def first_head(student: Student, rows, file: Path) -> None:
    """Put logistic regression on the standardised embedding of rows into the last layer.

    The embedding is that of the student's `file`: a linear map of the pooled features where it has one, or these themselves.
    """

    def features(images: torch.Tensor) -> torch.Tensor:
        return student.net.forward_head(student.net.forward_features(student.normalise(images)), pre_logits=True)

    x, labels = predict(features, student, rows, 256, Accelerator()), np.array(rows["label"])
    to = load_file(file).get("to_global.weight", torch.eye(x.shape[1])).numpy()  # a bias is no matter
    x = x @ to.T
    mean, scale = x.mean(0), x.std(0) + 1e-6
    found = LogisticRegression(C=0.1, max_iter=1000).fit((x - mean) / scale, labels)
    head = student.net.get_classifier()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(found.intercept_.min())  # classes without a row
        weight = found.coef_ / scale
        head.weight[found.classes_] = torch.from_numpy(weight @ to).float()
        head.bias[found.classes_] = torch.from_numpy(found.intercept_ - weight @ mean).float()


def objective(logits: torch.Tensor, teacher: None, batch: dict) -> tuple[torch.Tensor, dict]:
    return F.cross_entropy(logits, batch["label"]), {}


def top1(student: Student, rows) -> float:
    logits = predict(student.forward, student, rows, 256, Accelerator())
    return float((logits.argmax(1) == np.array(rows["label"])).mean())


if __name__ == "__main__":
    hardware.guard()
    options = dict(pair.split("=") for pair in sys.argv[2:])
    starts = options.get("from", "random,distilled").split(",")
    main(Path(sys.argv[1]), int(options.get("labels", 5)), options.get("task", "groups"), starts, int(options.get("seeds", 3)))
