"""A student that is always there: the embedded CNN with a last layer that takes seconds, and its files in fp32 and int8.

The CNN ships without a last layer. Here it gets one in closed form, by the training pictures of the embedded world: linear discriminant
analysis, a mean a class and one covariance, whose logits are divided by the temperature that fits the validation pictures best (Guo et al.
2017, arXiv:1706.04599). What `adapt distill` teaches is better; this shows what a student is before any training.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.plug import ROOT, load, schema
from adapt.provenance import of
from adapt.run import atomic
from adapt.vision.pictures import cache_folder

if TYPE_CHECKING:
    import numpy as np

    from adapt.students.classifier import Student
    from adapt.verbs.session import Session

NAME, ARCHITECTURE = "cnn-tiny", "resnet10t"
VERSION = 1
"""To be raised when what is kept would be made otherwise."""
CALIBRATION = 64
"""Pictures by which int8 ranges are found."""
TEMPERATURES = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24)
BATCH = 64


def place() -> Path:
    """Where the student is kept, whether it is made yet or not; its files lie where a run folder would have them."""
    size = (ROOT / "assets" / "students" / NAME / "model.safetensors").stat().st_size
    return cache_folder("students") / of(VERSION, size) / "student" / NAME


def make(session: Session) -> None:
    """Write the student of the embedded world's classes to `place()`, and its files to `export/NAME/onnx` beside `student/`."""
    from adapt.export import gate
    from adapt.students.classifier import Student
    from adapt.students.cnn import seen_by
    from adapt.verbs.export import samples

    spec = seen_by(ARCHITECTURE, session.family.input)
    student = Student(ARCHITECTURE, spec, session.labels, pretrained=NAME).eval()
    _fit(student, session)
    config = schema("export", "onnx")(name="onnx", int8=True, calibrate="minmax")
    views = samples(session, student, CALIBRATION)
    with atomic(place().parents[1] / "export" / NAME / "onnx") as folder:
        folder.mkdir()
        gate.export(load("export", "onnx"), config, student.deployed(), views, folder, student.about())
    with atomic(place()) as folder:
        student.save(folder)


def _fit(student: Student, session: Session) -> None:
    """Give the student its last layer."""
    import numpy as np
    import torch
    from scipy.special import log_softmax
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    seen = {split: _features(student, session.data[split]) for split in ("train", "validation")}
    labels = {split: np.array(session.data[split]["label"][:]) for split in seen}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of classes with one picture
        found = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(seen["train"], labels["train"])
    known = np.isin(labels["validation"], found.classes_)
    logits, truth = found.decision_function(seen["validation"])[known], labels["validation"][known]
    places = np.searchsorted(found.classes_, truth)
    losses = [-log_softmax(logits / each, 1)[np.arange(len(places)), places].mean() for each in TEMPERATURES]
    temperature = TEMPERATURES[int(np.argmin(losses))]
    head = student.net.get_classifier()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(logits.min() / temperature)  # of a class without a picture
        head.weight[found.classes_] = torch.from_numpy(found.coef_ / temperature).float()
        head.bias[found.classes_] = torch.from_numpy(found.intercept_ / temperature).float()


def _features(student: Student, rows) -> np.ndarray:
    """What the last layer gets, float32[N, D]."""
    import torch

    found, net = [], student.net
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            numbers = range(start, min(start + BATCH, len(rows)))
            views = torch.stack([student.preprocess(rows[number], False)["image"] for number in numbers]).float()
            found.append(net.forward_head(net.forward_features(student.normalise(views)), pre_logits=True))
    return torch.cat(found).numpy()
