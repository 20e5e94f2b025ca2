"""Questions about pictures and their answers, one JSON object a line: big_vision's format for PaliGemma.

    {"image": "images/1.jpg", "prefix": "caption en", "suffix": "a cat on a mat"}
    {"image": "images/2.jpg", "prefix": "detect cat", "suffix": "<loc0256><loc0128><loc0767><loc0512> cat"}

The answers to questions `detect …` become `objects` as well, their words the classes, so that `evals.name: detection` can measure.
Lines of sentences that mean one of the boxes on a picture, for `evals.name: referring`, in two shapes:

    {"image": "3.jpg", "objects": {"bbox": [[10, 20, 60, 90], [70, 15, 120, 95]], "category": ["cat", "cat"]},
     "referring": [{"sentence": "the cat on the left", "object": 0}, {"sentence": "the grey one", "object": 1}]}
    {"file_name": "3.jpg", "bbox": [10, 20, 50, 70], "category": "cat", "sentences": [{"sent": "the cat on the left"}], "ann_id": 7}

In the first, boxes are left, top, right, bottom in pixels, and sentences may mean any of them, so all boxes that can be confused should stand
there; `category` may be left out. The second is RefCOCO's own, a line for each thing, its box as left, top, width, height, sentences as texts or as
{sent: …}: lines of one picture become one row, with the boxes of all of them. Either may bring `proposals`, boxes as left, top, right, bottom that
are chosen from with `candidates: proposals`.

Pictures lie in the file's own folder, or in `images`. `id` (a text) and `answers` (a list of texts, for `evals.name: vqa`) may
stand in a line as well; other keys are passed over. Rows hold paths; nothing is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapt.data.config import DrawnConfig
from adapt.data.places import existing, expanded
from adapt.plug import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from adapt.data.problems import Problem
    from adapt.data.scan import Finding

FILES = {"train": "path", "validation": "validation_path", "test": "test_path"}
"""Split → the option that names its file."""


class Config(DrawnConfig):
    """Where the lines and the pictures lie, and how the lines are split."""

    source: str = "jsonl"
    """This file."""
    path: str
    """The file of training lines."""
    images: str | None = None
    """The folder that the pictures' paths start from; none: the folder of `path`."""
    validation_path: str | None = None
    """A file of validation lines; none: a share of the training lines."""
    test_path: str | None = None
    """A file of test lines; none: a share of the training lines."""
    validation: float = Field(0.1, ge=0, le=0.9)
    """Share of pictures for validation, when there is no file for it; 0 = none."""
    test: float = Field(0.1, ge=0, le=0.9)
    """Share of pictures for the test, when there is no file for it; 0 = none."""
    limit: int | None = Field(None, ge=1)
    """The most lines of a split, drawn by `seed`; none: all."""

    def check_paths(self) -> None:
        """The files and the pictures' folder must be there."""
        _files(self)
        if self.images:
            existing(self.images, "data.images")


def load(config: Config):
    """Read the lines.

    Returns:
        `Splits` with train and, where there are any, validation and test: id, image, prefix, suffix, answers (the line's `answers`,
        or its suffix alone); if there are answers to `detect …`, objects (bbox float[N, 4] XYXY in pixels, category int[N]), which
        are none in other rows. Lines of sentences become a row a picture: objects, and referring (sentence, and object: the place
        of the box that it means).

    Raises:
        UserError: no such file; validation is the test; with `on_error: stop`, lines, boxes or pictures that cannot be used, each
            by its file and number.
    """
    from adapt.data.jsonl.lines import pictures, read
    from adapt.data.jsonl.referring import joined
    from adapt.data.problems import Report
    from adapt.data.scan import scan
    from adapt.data.split import Splits, apart, grouped, limited

    files = _files(config)
    root = existing(config.images, "data.images") if config.images else files["train"].parent
    lines: dict[str, list[dict]] = {}
    problems = []
    for split, file in files.items():
        lines[split], wrong = read(file, split, root)
        problems += wrong
    findings = scan(root, list(dict.fromkeys(line["image"] for part in lines.values() for line in part)))
    for split, file in files.items():
        lines[split], wrong = pictures(lines[split], file, findings)
        lines[split], off = joined(lines[split], file.name)
        problems += wrong + off
    report = Report(len(findings), problems)
    if config.on_error == "stop" and report.severe:
        raise report.error("data.path")
    for split, file in files.items():
        if not lines[split]:
            first = next(problem for problem in problems if problem.split == split)
            raise UserError(f"data: no line of {file.name!r} can be used. The first problem: {first}.")
    report.problems += _seen_again(lines, findings, files)
    lines, origin = _drawn(config, lines, files)
    groups = grouped(config, [line["image"] for part in lines.values() for line in part])
    report.problems += apart(groups, [split for split, part in lines.items() for _ in part])
    classes = _classes([line for part in lines.values() for line in part])
    parts = {split: _rows(lines[split], root, classes) for split in FILES if split in lines}
    return Splits(limited(config, parts), origin, report)


def _files(config: Config) -> dict[str, Path]:
    """The split's files, absolute.

    Raises:
        UserError: one is missing, or is the file of two splits.
    """
    from pathlib import Path

    found: dict[str, Path] = {}
    for split, option in FILES.items():
        path = config.values()[option]
        if path is None:
            continue
        file = expanded(path)
        if not file.is_file():
            raise UserError(
                f"data.{option}: no file {path!r}, looked in {Path.cwd()}. Give a .jsonl file: one JSON object on each line."
            )
        other = next((other for other, taken in found.items() if taken.samefile(file)), None)
        if other:
            raise UserError(
                f"data.{FILES[other]} and data.{option} are the same file, {path!r}. A score on data that taught or chose the model "
                f"says nothing: give another file, or leave data.{option} out and set data.{split}=0.1."
            )
        found[split] = file.resolve()
    return found


def _seen_again(lines: dict[str, list[dict]], findings: dict[str, Finding], files: dict[str, Path]) -> list[Problem]:
    """Pictures that two files share, pictures that are there twice, and what the pictures had to be converted from.

    Raises:
        UserError: validation and test have the same pictures.
    """
    from adapt.data.check import repeated
    from adapt.data.problems import Problem

    names = {split: list(dict.fromkeys(line["image"] for line in part)) for split, part in lines.items()}
    bytes_of = {split: {findings[name].digest for name in part} for split, part in names.items()}
    if {"validation", "test"} <= bytes_of.keys() and bytes_of["validation"] == bytes_of["test"]:
        raise UserError(
            f"data.validation_path and data.test_path: {files['validation'].name!r} and {files['test'].name!r} have the same pictures. "
            "Test pictures must not take part in a choice. Leave data.validation_path out for a share of the training lines."
        )
    seen: dict = {}
    problems = []
    for split, part in names.items():
        for name in part:
            problems += [Problem(name, split, *problem) for problem in findings[name].problems]
            problems += repeated(seen, findings[name], name, split, None)
    return problems


def _drawn(
    config: Config, lines: dict[str, list[dict]], files: dict[str, Path]
) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """The lines by split, a missing validation and test drawn from train; and where each comes from."""
    from adapt.data.split import drawn, grouped, missing, percent

    origin = {split: file.name for split, file in files.items()}
    shares = missing(config, lines)
    if not any(shares.values()):
        return lines, origin
    names, digests = ([line[name] for line in lines["train"]] for name in ("image", "digest"))
    places = drawn(config, names, [""] * len(names), digests, groups=grouped(config, names), also=lines)
    parts: dict[str, list[dict]] = {}
    for line, place in zip(lines["train"], places, strict=True):
        parts.setdefault(place, []).append(line)
    name = files["train"].name
    for split, share in shares.items():
        if share:
            origin[split] = f"{percent(share)} of the pictures of {name}, no data.{split}_path"
    return lines | parts, origin | {"train": f"what is left of {name}"}


def _classes(lines: list[dict]) -> list[str] | None:
    """Names of all objects, upper and lower case alike; none when no line has objects."""
    found = [line["found"] if line["things"] is None else line["things"] for line in lines]
    found = [objects for objects in found if objects is not None]
    return sorted({name.lower(): name for objects in found for _, name in objects}.values()) if any(found) else None


def _rows(lines: list[dict], root: Path, classes: list[str] | None):
    from datasets import ClassLabel, Dataset, Features, List, Value

    from adapt.data.jsonl.referring import column
    from adapt.vision.pictures import BOXES, RGB

    text = Value("string")
    features = {"id": text, "image": RGB()}
    columns = {"id": [line["id"] for line in lines]}
    columns["image"] = [{"path": str(root / line["image"]), "bytes": None} for line in lines]
    if any(line["things"] is None for line in lines):
        features |= {"prefix": text, "suffix": text, "answers": List(text)}
        columns |= {name: [line[name] for line in lines] for name in ("prefix", "suffix", "answers")}
    if classes:
        numbers = {name.lower(): number for number, name in enumerate(classes)}
        features["objects"] = {"bbox": BOXES, "category": [ClassLabel(names=classes)]}
        columns["objects"] = [_objects(line, numbers) for line in lines]
    if any(line["referring"] is not None for line in lines):
        features["referring"] = List({"sentence": text, "object": Value("int32")})
        columns["referring"] = [column(line["referring"]) for line in lines]
    if any(line["proposals"] for line in lines):
        features["proposals"], columns["proposals"] = BOXES, [line["proposals"] or [] for line in lines]
    return Dataset.from_dict(columns, Features(features))


def _objects(line: dict, numbers: dict[str, int]) -> dict[str, list] | None:
    """A line's boxes and categories; none where it asks another question."""
    from adapt.prompting.tokens import decode_box

    if line["things"] is not None:
        found = line["things"]
    elif line["found"] is not None:
        found = [(decode_box(locations, line["size"]), name) for locations, name in line["found"]]
    else:
        return None
    return {"bbox": [list(box) for box, _ in found], "category": [numbers[name.lower()] for _, name in found]}
