"""What a verb leaves behind, for Python: numbers as a table, the adapted model, the student, and answers for new pictures.

outcome = finetune(load_recipe("clip_lora"))        # or Outcome.open("runs/clip_lora-1a2b3c4d")
outcome.table                                        # a pandas DataFrame
outcome.predict(["cat.jpg", picture, array])         # [{"label": "cat", "probability": 0.97}, …]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.run import Run
from adapt.verbs import guards, kept
from adapt.verbs.answers import ANSWERS, offered

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from PIL import Image as Picture

    from adapt.students.base import Student

BATCH = 64
COLUMNS = {"name": "string", "title": "string", "metric": "string", "value": "float64", "low": "float64", "high": "float64"}
COLUMNS |= {"change": "float64", "change_low": "float64", "change_high": "float64", "against": "string"}
COLUMNS |= {"latency_ms": "float64", "size_mb": "float64", "split": "string"}
"""Of `Outcome.table`, with their types in Arrow."""


@dataclass(repr=False)
class Outcome:
    """What a verb leaves behind."""

    path: Path
    """The run folder."""
    entries: list[dict]
    """The measured models: the rows of the table."""
    guards: list[dict]
    """Promises: name, state, message; see `adapt/verbs/guards.py`."""

    @classmethod
    def open(cls, folder: str | Path) -> Outcome:
        """The outcome that lies in a run folder, given by its path or by its name in `runs`.

        Raises:
            UserError: it is not a run folder.
        """
        run = Run.from_folder(folder)
        numbers = run.read_json("metrics.json", {})
        return cls(run.path, numbers.get("entries", []), numbers.get("guards", []))

    @property
    def ok(self) -> bool:
        """No promise is broken."""
        return all(guard["state"] != guards.BROKEN for guard in self.guards)

    # ---------------------------------------------------------------------------------------------------------- numbers

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Entry (`zero-shot`, `adapted`, `student NAME`, `onnx int8 NAME` …) → its metrics, 0–1."""
        return {entry["name"]: entry["metrics"] for entry in self.entries}

    @property
    def table(self):
        """The entries as a pandas `DataFrame`, a row each, by name.

        Columns: title; metric (the main one), its value, low and high (95 % interval), 0–1; change (against the entry `against`) with
        its interval; latency_ms (median, one picture); size_mb; split. What was not measured is missing.
        """
        import pyarrow as pa

        rows = []
        for entry in self.entries:
            low, high = entry.get("intervals", {}).get(entry["main"], (None, None))
            change = entry.get("change") or (None, None, None)
            size, latency = entry.get("size_bytes"), entry.get("latency") or {}
            words = {name: entry.get(name) for name in ("name", "title", "against", "split")}
            numbers = dict(zip(("change", "change_low", "change_high"), change, strict=True)) | {"low": low, "high": high}
            numbers |= {"value": entry["metrics"][entry["main"]], "latency_ms": latency.get("p50_ms")}
            rows.append(words | numbers | {"metric": entry["main"], "size_mb": size / 1e6 if size else None})
        return pa.Table.from_pylist(rows, pa.schema(COLUMNS)).to_pandas().set_index("name")

    def __str__(self) -> str:
        rows, told = self._shown()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *told, f"Run: {self.path}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        rows, told = self._shown()
        tags = ["th", *["td"] * len(rows[1:])]
        body = "".join(
            f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>" for tag, row in zip(tags, rows, strict=True)
        )
        return f"<table>{body}</table>" + "".join(f"<p>{escape(line)}</p>" for line in [*told, f"Run: {self.path}"])

    def _shown(self) -> tuple[list[list[str]], list[str]]:
        """The table's cells, its head first, and a line a guard."""
        from adapt.report.table import grid, parse, road, verdict

        numbers = parse({"entries": self.entries, "guards": self.guards}, self.path / "metrics.json")
        rows = grid(road(numbers.entries)) if numbers.entries else []
        return rows, [" ".join(verdict(guard)).strip() for guard in numbers.guards]

    # ----------------------------------------------------------------------------------------------------------- models

    @cached_property
    def _session(self):
        """The run's recipe at work; the one place that loads."""
        from adapt.verbs.session import Session

        recipe = load_recipe(self.path / "recipe.yaml", ["tracker=none"])
        Run(self.path).at_home(recipe)
        return Session(recipe)

    def model(self):
        """The adapted model: the family, with the run's adapter in it.

        Raises:
            UserError: the run has no adapter.
        """
        return kept.adapted(self._session)

    def student(self) -> Student:
        """The distilled student of the run's recipe; see `adapt.students.open_student`. Others lie beside it, in `student/NAME/`.

        Raises:
            UserError: the run has no student.
        """
        return kept.student(self._session)

    def predict(self, images: Sequence[str | os.PathLike | Picture.Image | np.ndarray]) -> list[dict[str, Any]]:
        """Answers for new pictures, by the run's student if it has one, else by its adapted model.

        Args:
            images: paths, PIL images, or arrays uint8[H, W, 3] in RGB or uint8[H, W].

        Returns:
            One dictionary a picture. Of classes: `label`, `probability`. Of objects: `objects`, a list of `name`, `box` (left, top,
            right, bottom in pixels of the picture) and `score`. Of pixels: `classes`, uint8[H, W] (0 is the background), and `names`.
            Of words: `text`. Of an embedding: `embedding`, float32[D].

        Raises:
            UserError: a picture cannot be read, or the model needs a prompt to answer.
        """
        from adapt.train.predict import predict

        session = self._session
        taught = session.recipe.distill and kept.taught(session)
        module = kept.student(session) if taught else kept.adapted(session)
        have = offered(module)
        name = next((name for name in ANSWERS if name in have), None)
        if name is None:
            raise UserError(
                f"predict: this model answers prompts. Ask it with: adapt prompt run={self.path} image=FILE point=X,Y"
            )
        rows = _rows(images)
        found = predict(have[name], module, rows, BATCH, session.accelerator, name=name, workers=session.recipe.train.workers)
        sizes = [lambda i=i: rows[i]["image"].size for i in range(len(rows))]
        return [ANSWERS[name](answer, size, session.labels) for answer, size in zip(found, sizes, strict=True)]


def _rows(images: Sequence) -> Dataset:
    """Pictures of any kind → rows with `id` and `image`.

    Raises:
        UserError: nobody can say what a picture looks like; see `vision/depth.py`.
    """
    from datasets import Dataset, Features, Value

    from adapt.vision.depth import Refused
    from adapt.vision.pictures import RGB, encoded, held

    rows: dict[str, list] = {"id": [], "image": []}
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            path = str(Path(image).expanduser())
            rows["id"].append(path)
            rows["image"].append({"path": path, "bytes": None})
            continue
        rows["id"].append(str(number))
        try:
            rows["image"].append(encoded(held(image)))
        except Refused as refused:
            raise UserError(f"predict: picture {number}: {refused}.") from None
    return Dataset.from_dict(rows, features=Features(id=Value("string"), image=RGB()))
