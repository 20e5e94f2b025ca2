"""Rows that are asked about texts of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from adapt.plug import UserError

ROWS = 1024
"""Rows that are asked together: each is asked about its own texts and those of these rows, no others."""


def scored(predict: Callable, dataset, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """How well each row goes with its own texts.

    Args:
        predict: (a data set, texts=…) → similarities float32[N, len(texts)].
        texts: for each row one or more.

    Returns:
        for each row float32[its texts].
    """
    found = []
    for start in range(0, len(texts), ROWS):
        part = texts[start : start + ROWS]
        place = {text: number for number, text in enumerate(dict.fromkeys(text for each in part for text in each))}
        scores = predict(dataset.select(range(start, start + len(part))), texts=list(place))
        found += [row[[place[text] for text in each]] for row, each in zip(scores, part, strict=True)]
    return found


def columns(dataset, name: str, wanted: Sequence[str]) -> list[list]:
    """Columns of a data set, each of which has a value in every row.

    Args:
        name: the eval that wants them.

    Raises:
        UserError: one of them is not there, or a row has nothing in it.
    """
    lacking = [column for column in wanted if column not in dataset.column_names]
    if lacking:
        raise UserError(
            f"evals: {name} needs the columns {', '.join(wanted)}, and {', '.join(lacking)} is not there. "
            f"Have: {', '.join(dataset.column_names)}."
        )
    found = [dataset[column][:] for column in wanted]
    for column, values in zip(wanted, found, strict=True):
        for row, value in zip(dataset["id"], values, strict=True):
            if value is None or value == "":
                raise UserError(f"evals: row {row!r} has no {column}, and {name} needs it. Write it, or leave the row out.")
    return found
