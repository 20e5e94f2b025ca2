"""Doubtful labels: a linear probe on frozen features, asked about pictures that it has not learnt from, and cleanlab's judgement.

Each class is told from the others by logistic regression on standardised features, in five folds; `find_label_issues` compares what it
says of the pictures outside each fold with the labels (confident learning, Northcutt et al. 2021, arXiv:1911.00068).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt import plug
from adapt.plug import Plugin, UserError, counted
from adapt.progress import progress
from adapt.run import atomic
from adapt.verbs.doctoring.counts import few
from adapt.vision.pictures import cache_folder, digest

if TYPE_CHECKING:
    from datasets import DatasetDict

    from adapt.verbs.doctoring.pictures import Looks

FOLDS = 5
"""And the fewest pictures of a class that can be judged: each fold learns from four of five."""
STRENGTH = 0.01
"""Inverse strength of the regularisation. Of .001, .01, .1 and 1, on the embedded drawings with a tenth of the labels changed, this
finds them best."""
WEAK = 0.6
"""Share of the labels with which a probe agrees, below which its doubts say little."""
MODEL = ("dinov2", "dinov2-tiny")
"""Whose features are used where the recipe's model has no embedding of a picture, or no recipe is given."""
BATCH = 32


@dataclass(frozen=True)
class Doubt:
    """A label that may be wrong."""

    split: str
    row: int
    given: str
    suggested: str
    probability: float
    """Of the suggested class, 0–1."""
    own: float
    """Of the given one."""

    def __str__(self) -> str:
        return (
            f"{self.given!r}, {100 * self.own:.0f} % sure; looks like {self.suggested!r}, {100 * self.probability:.0f} % sure"
        )


@dataclass(frozen=True)
class Noise:
    """What the probe says."""

    doubts: list[Doubt]
    """The most doubtful first."""
    judged: int
    """Pictures."""
    agreement: float
    """Share of the labels that the probe would give too."""
    features: str
    """Of which checkpoint."""
    left_out: list[str]
    """Classes with too few pictures."""

    def sentences(self) -> list[str]:
        """What a user is told."""
        agreed = f"a linear probe on features of {self.features} agrees with {100 * self.agreement:.0f} % of all"
        lines = [f"labels: {len(self.doubts):,} of {self.judged:,} are doubtful; {agreed}"]
        if self.agreement < WEAK:
            lines.append(
                "labels: the probe agrees with too few for its doubts to say much. Give a model that knows such pictures: "
                "recipe=NAME model.checkpoint=…"
            )
        if self.left_out:
            lines.append(f"labels: not judged, fewer than {FOLDS} pictures: {few(self.left_out)}")
        return lines

    def document(self, ids: Mapping[str, list[str]]) -> dict[str, Any]:
        """The same as JSON."""
        doubts = [{"id": ids[one.split][one.row]} | asdict(one) for one in self.doubts]
        return {"judged": self.judged, "agreement": self.agreement, "features": self.features, "doubts": doubts} | {
            "left_out": self.left_out
        }


def refuse_without_labels(splits: DatasetDict) -> None:
    """Raises a `UserError` where there is nothing to doubt."""
    columns = splits["train"].column_names if "train" in splits else next(iter(splits.values())).column_names
    if "label" not in columns:
        raise UserError(
            f"noise: these data have no class for each picture, so there is no label to doubt; the columns are {', '.join(columns)}. "
            "Leave noise=true out."
        )


def doubtful(splits: DatasetDict, looks: Mapping[str, Looks], model: Plugin | None) -> Noise:
    """Judge all labels of all splits.

    Args:
        model: of a recipe, whose features are used if it has an image embedding; none: `MODEL`.

    Raises:
        UserError: fewer than two classes have enough pictures; the model cannot be loaded.
    """
    labelled = {split: rows for split, rows in splits.items() if "label" in rows.column_names}
    names = next(iter(labelled.values())).features["label"].names
    places = [(split, row) for split, rows in labelled.items() for row in range(len(rows))]
    given = [label for rows in labelled.values() for label in rows["label"][:]]
    labels = np.array([-1 if label is None else label for label in given])
    there = np.bincount(labels[labels >= 0], minlength=len(names))
    judged = np.flatnonzero((labels >= 0) & (there[labels] >= FOLDS))
    left_out = [names[i] for i in np.flatnonzero((there > 0) & (there < FOLDS))]
    if len(set(labels[judged])) < 2:
        raise UserError(
            f"noise: two classes or more need {FOLDS} pictures or more each, to doubt a label by the others; here "
            f"{counted(len(set(labels[judged])), 'class')} of {len(names)} have as many. Leave noise=true out."
        )
    features, called = _features(labelled, looks, model)
    classes, own = np.unique(labels[judged], return_inverse=True)
    probabilities = out_of_sample(features[judged], own)
    order = issues(own, probabilities)
    doubts = [
        Doubt(
            *places[judged[i]],
            names[classes[own[i]]],
            names[classes[probabilities[i].argmax()]],
            float(probabilities[i].max()),
            float(probabilities[i, own[i]]),
        )
        for i in order
    ]
    agreement = float((probabilities.argmax(1) == own).mean())
    return Noise(doubts, len(judged), agreement, called, left_out)


def out_of_sample(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What a linear probe says of rows that it has not learnt from: float64[N, C].

    Args:
        features: float[N, D].
        labels: int[N], 0 to C − 1, each of them `FOLDS` times or more.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    out = np.zeros((len(labels), labels.max() + 1))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with (
        progress("doubt labels", FOLDS) as tick,
        warnings.catch_warnings(action="ignore"),
    ):  # "did not converge": it ranks all the same
        for learnt, held in folds.split(features, labels):
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500))
            out[held] = probe.fit(features[learnt], labels[learnt]).predict_proba(features[held])
            tick()
    return out


def issues(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Rows whose label is doubtful, int[K], the least sure of its label first.

    Args:
        labels: int[N]; probabilities: out of sample, float[N, C].
    """
    from cleanlab.filter import find_label_issues

    found = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return found[probabilities[found].argmax(1) != labels[found]]


# ----------------------------------------------------------------------------------------------------------------- features


def _features(splits, looks: Mapping[str, Looks], model: Plugin | None) -> tuple[np.ndarray, str]:
    """An embedding of each picture float32[N, D], remembered by pictures and weights; and the checkpoint's name."""
    from datasets import concatenate_datasets

    from adapt.models.checkpoint import origin

    family, model = _family(model)
    pictures = [looks[split].digest.tobytes() for split in splits]
    made = digest(plug.settings(model), origin(model.checkpoint), family.input.__dict__, *(part.hex() for part in pictures))
    memory = cache_folder("embeddings") / f"{made}.npy"
    with suppress(OSError, ValueError):
        return np.load(memory, allow_pickle=False), model.checkpoint
    rows = concatenate_datasets([rows.select_columns(["id", "image"]) for rows in splits.values()])
    features = _embedded(family, rows)
    with suppress(UserError, OSError), atomic(memory) as temporary, open(temporary, "wb") as file:
        np.save(file, features)
    return features, model.checkpoint


def _family(model: Plugin | None):
    """A family with an image embedding, and its section."""
    if model is not None:
        family = plug.load("models", model.name).load(model)
        if "image_embedding" in family.predictors(None):
            return family, model
    own = plug.schema("models", MODEL[0])(name=MODEL[0], checkpoint=MODEL[1])
    return plug.load("models", own.name).load(own), own


def _embedded(family, rows) -> np.ndarray:
    from accelerate import Accelerator

    from adapt import hardware
    from adapt.train.predict import predict

    accelerator = Accelerator(cpu=hardware.device() == "cpu")
    family.to(accelerator.device)
    embed = family.predictors(None)["image_embedding"]
    return predict(embed, family, rows, BATCH, accelerator, "features", "image_embedding")
