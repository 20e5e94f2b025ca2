"""Texts against texts: what rows are asked, how words are compared, CIDEr and the VQA rule."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel

from adapt.plug import UserError

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)} | {"none": "0"}
ARTICLES = {"a", "an", "the"}
LONGEST, SIGMA = 4, 6.0


def rows(dataset, own: tuple[str, ...], column: str, prefix: str, classes: Sequence[str] = ()):
    """What is asked, and the right answers.

    Args:
        own: how the `prefix` of rows begins that ask this themselves; they are right with their `answers`, or their `suffix`.
        column: that holds the answers where the data has it; then every row is asked `prefix`.
        classes: the words of a column of labels; none: the labels' own names.

    Returns:
        (the rows with `prefix` as it is asked, a list of right answers for each); rows that ask something else are left out.

    Raises:
        UserError: no row asks this, or a row has no right answer.
    """
    have = dataset.column_names
    if column in have:
        values = dataset[column][:]
        if isinstance(label := dataset.features[column], ClassLabel):
            names = classes or label.names
            values = [None if value is None or value < 0 else names[value] for value in values]
        asked = dataset.remove_columns([name for name in ("prefix",) if name in have])
        asked = asked.add_column("prefix", [prefix] * len(dataset))
        return asked, _there(dataset, column, values)
    questions = dataset["prefix"][:] if "prefix" in have else []
    chosen = [i for i, question in enumerate(questions) if question and question.startswith(own)]
    if not chosen:
        raise UserError(
            f"evals: no column {column!r}, and no row whose prefix begins with {own[0]!r}. Have: {', '.join(have)}. Measure what "
            "the rows ask, such as evals=[{name: caption}], [{name: detection}] or [{name: vqa}]."
        )
    asked = dataset if len(chosen) == len(dataset) else dataset.select(chosen)
    column = "answers" if "answers" in have else "suffix"
    return asked, _there(asked, column, asked[column][:])


def _there(dataset, column: str, values: Sequence) -> list[list[str]]:
    """The right answers of each row, as texts.

    Args:
        values: of the column, one or several a row.

    Raises:
        UserError: a row has none, or blank ones alone.
    """
    found = []
    for name, value in zip(dataset["id"][:], values, strict=True):
        texts = [str(text) for text in (value if isinstance(value, list) else [value]) if text is not None]
        if not any(text.strip() for text in texts):
            raise UserError(f"evals: row {name!r} has no {column}, and its eval asks for it. Write one, or leave the row out.")
        found.append(texts)
    return found


def plain(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", text.lower())


def normal(answer: str) -> str:
    """An answer as the VQA evaluation compares it: lower case, no punctuation, no articles, number words as digits.

    Source: visualqa.org/evaluation; its list of contractions is left out.
    """
    return " ".join(DIGITS.get(word, word) for word in plain(answer) if word not in ARTICLES)


def vqa_accuracy(answer: str, right: Sequence[str]) -> float:
    """The rule of VQA: mean over all but one of the right answers of min(1, how many of them agree / 3).

    Source: Antol et al. 2015, arXiv:1505.00468, and visualqa.org/evaluation. A single right answer is matched or not; with two or
    three, all others must agree.
    """
    said = normal(answer)
    agree = [said == normal(text) for text in right]
    if len(agree) == 1:
        return float(agree[0])
    needed = min(3, len(agree) - 1)
    return float(np.mean([min(1.0, (sum(agree) - one) / needed) for one in agree]))


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each candidate against its references, float[N], 0–10: 10 for the reference's own words.

    Source: Vedantam et al. 2015, arXiv:1411.5726 §3 and eq. 5, as coco-caption computes it: n-grams of 1 to 4 words, document
    frequencies over the references, lengths compared by their bigrams with σ = 6, times 10. Words: `plain`, not the Stanford
    tokeniser that coco-caption starts in Java.
    """
    texts = [[_ngrams(text) for text in each] for each in references]
    frequency = Counter(gram for each in texts for gram in {gram for text in each for gram in text})
    total = math.log(max(len(texts), 1))

    def weigh(counts: Counter) -> tuple[list[dict], list[float], int]:
        parts: list[dict] = [{} for _ in range(LONGEST)]
        for gram, count in counts.items():
            parts[len(gram) - 1][gram] = count * (total - math.log(max(1, frequency[gram])))
        norms = [math.sqrt(sum(value**2 for value in part.values())) for part in parts]
        return parts, norms, sum(count for gram, count in counts.items() if len(gram) == 2)

    scores = []
    for candidate, each in zip(candidates, texts, strict=True):
        ours = weigh(_ngrams(candidate))
        scores.append(10 * float(np.mean([_similarity(ours, weigh(text)) for text in each])))
    return np.array(scores)


def _ngrams(text: str) -> Counter:
    words = plain(text)
    return Counter(tuple(words[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(words) - n + 1))


def _similarity(ours, theirs) -> float:
    """Mean over n of the clipped cosine of two weighted texts, times the penalty of their lengths."""
    penalty = math.exp(-((ours[2] - theirs[2]) ** 2) / (2 * SIGMA**2))
    cosines = []
    for part, other, norm, size in zip(ours[0], theirs[0], ours[1], theirs[1], strict=True):
        shared = sum(min(value, other.get(gram, 0.0)) * other.get(gram, 0.0) for gram, value in part.items())
        cosines.append(shared / (norm * size) if norm and size else 0.0)
    return penalty * sum(cosines) / LONGEST
