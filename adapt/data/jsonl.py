"""Questions about pictures and their answers, one JSON object a line: big_vision's format for PaliGemma.

    {"image": "images/1.jpg", "prefix": "caption en", "suffix": "a cat on a mat"}
    {"image": "images/2.jpg", "prefix": "detect cat", "suffix": "<loc0256><loc0128><loc0767><loc0512> cat"}

The answers to questions `detect …` become `objects` as well, their words the classes, so that `evals.name: detection` can measure.
Pictures lie in the file's own folder, or in `images`. `id` (a text) and `answers` (a list of texts, for `evals.name: vqa`) may
stand in a line as well; other keys are passed over. Rows hold paths; nothing is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapt.plug import Spec, UserError

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1
"""Raised when the rows it makes change, so that kept results are made again."""


class Config(Spec):
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
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the split: all lines of a picture are in the same."""


def load(config: Config):
    """Read the lines.

    Returns:
        `DatasetDict` with train and, where there are any, validation and test: id, image, prefix, suffix, answers (the line's
        `answers`, or its suffix alone); if there are answers to `detect …`, objects (bbox float[N, 4] XYXY in pixels, category
        int[N]), which are none in other rows.

    Raises:
        UserError: no such file; a line that is no JSON object, lacks a key or has an empty suffix; locations that cannot be read; a
            picture that is missing, lies outside the folder, or cannot be read. The message names the file and the line.
    """
    from pathlib import Path

    from datasets import DatasetDict

    from adapt.data._scan import existing
    from adapt.data._split import stratified

    paths = {"train": config.path, "validation": config.validation_path, "test": config.test_path}
    files = {split: _file(path, split) for split, path in paths.items() if path}
    root = existing(config.images, "data.images") if config.images else Path(files["train"]).parent
    lines = {split: _lines(file, root) for split, file in files.items()}
    shares = {split: 0 if split in lines else getattr(config, split) for split in ("validation", "test")}
    if any(shares.values()):
        pictures = list(dict.fromkeys(line["image"] for line in lines["train"]))
        drawn = stratified(pictures, [0] * len(pictures), shares["validation"], shares["test"], config.seed)
        place = dict(zip(pictures, drawn, strict=True))
        parts: dict[str, list[dict]] = {}
        for line in lines["train"]:
            parts.setdefault(place[line["image"]], []).append(line)
        lines |= parts
    classes = _classes([line for part in lines.values() for line in part])
    return DatasetDict({split: _rows(lines[split], root, classes) for split in paths if lines.get(split)})


def _file(path: str, split: str) -> Path:
    from pathlib import Path

    file = Path(path).expanduser()
    place = "data.path" if split == "train" else f"data.{split}_path"
    if not file.is_file():
        raise UserError(f"{place}: no file {path!r}, looked in {Path.cwd()}. Give a .jsonl file: a JSON object a line.")
    return file.resolve()


def _lines(file: Path, root: Path) -> list[dict]:
    """The checked lines of a file; pictures are paths below `root`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"data: {file.name} cannot be read as UTF-8 text ({' '.join(str(error).split())[:100]}).") from None
    lines = [
        {"id": f"{file.stem}/{number}", "line": number} | _line(content, f"data: {file.name}, line {number}", root)
        for number, content in enumerate(text.split("\n"), 1)
        if content.strip()
    ]
    if not lines:
        raise UserError(f"data: {file.name} has no lines. Write a JSON object a line, with image, prefix and suffix.")
    _readable(lines, file, root)
    return lines


def _line(content: str, place: str, root: Path) -> dict:
    """One line → image, prefix, suffix, answers, and its id, if it has one; `place` begins the messages."""
    import json

    try:
        line = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deep")
        raise UserError(f"{place}, is no JSON: {reason}. Write one JSON object a line.") from None
    if not isinstance(line, dict):
        raise UserError(f"{place}, is no JSON object but {str(line)[:60]!r}. Write image, prefix and suffix.")
    for key in ("image", "prefix", "suffix"):
        if not isinstance(line.get(key), str):
            raise UserError(
                f"{place}: {key!r} must be a text, got {str(line.get(key))[:60]!r}. Have: {', '.join(line) or 'none'}."
            )
    if not line["suffix"].strip():
        raise UserError(f"{place}: the suffix is empty. A model learns nothing from it: fill it in, or delete the line.")
    answers = line.get("answers", [line["suffix"]])
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{place}: 'answers' must be a list of texts, got {str(answers)[:60]!r}.")
    name = line.get("id")
    if not isinstance(name, str | None) or name == "":
        raise UserError(f"{place}: 'id' must be a text, got {str(name)[:60]!r}.")
    return ({"id": name} if name else {}) | {
        "image": _picture(line["image"], place, root),
        "prefix": line["prefix"],
        "suffix": line["suffix"],
        "answers": answers,
        "found": _found(line["prefix"], line["suffix"], place),
    }


def _found(prefix: str, suffix: str, place: str) -> list[tuple[tuple, str]] | None:
    """Locations and name of each object in an answer to `detect …`; none for other questions, and in Florence-2's own words.

    Raises:
        UserError: it has locations that are not four a box, or a box without a name.
    """
    from adapt.prompting.tasks import named
    from adapt.prompting.tokens import parse

    if prefix.split(" ")[0] != "detect" or "<loc_" in suffix:
        return None
    found, unread = parse(suffix)
    if unread or suffix.count("<loc") != 4 * len(found):
        raise UserError(
            f"{place}: the suffix {suffix[:80]!r} has locations that cannot be read. Write four a box, each 0000 to 1023: top, left, "
            "bottom, right, with top < bottom and left < right, then its name, and ';' between objects: <loc0256><loc0128><loc0767><loc0512> cat."
        )
    asked = named(prefix)
    names = [each.name or (asked[0] if len(asked) == 1 else "") for each in found]
    if not all(names):
        raise UserError(f"{place}: the suffix {suffix[:80]!r} has a box without a name. Write one after its four locations.")
    return [(each.locations, name) for each, name in zip(found, names, strict=True)]


def _picture(name: str, place: str, root: Path) -> str:
    """A picture's path below the folder, which it must not leave."""
    try:
        path = (root / name).resolve()
        inside, there = path.is_relative_to(root), path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, or with a zero byte
        inside, there = True, False
    if not inside:
        raise UserError(f"{place}: {name!r} lies outside {root}. Pictures must lie in that folder; data.images names another.")
    if not there:
        raise UserError(
            f"{place}: there is no picture {name[:200]!r} in {root}. Check the name, or name the folder in data.images."
        )
    return path.relative_to(root).as_posix()


def _readable(lines: list[dict], file: Path, root: Path) -> None:
    """Each line's `size` of its picture; pictures that cannot be used are found before training and not in its middle."""
    from adapt.data._check import KINDS
    from adapt.data._scan import scan

    numbers = {line["image"]: line["line"] for line in reversed(lines)}
    findings = scan(root, list(numbers))
    for name, finding in findings.items():
        for kind, detail in finding.problems:
            severe, todo = KINDS[kind]
            if severe:
                what = f"{kind}{f' ({detail})' if detail else ''}"
                raise UserError(f"data: {file.name}, line {numbers[name]}: picture {name!r} is {what}; {todo}.")
    for line in lines:
        line["size"] = findings[line["image"]].size


def _classes(lines: list[dict]) -> list[str] | None:
    """Names of all objects, upper and lower case alike; none when no line asks for objects."""
    found = [line["found"] for line in lines if line["found"] is not None]
    return sorted({name.lower(): name for objects in found for _, name in objects}.values()) if any(found) else None


def _rows(lines: list[dict], root: Path, classes: list[str] | None):
    from datasets import ClassLabel, Dataset, Features, List, Value

    from adapt.data._images import BOXES, RGB
    from adapt.prompting.tokens import decode_box

    text = Value("string")
    features = {"id": text, "image": RGB(), "prefix": text, "suffix": text, "answers": List(text)}
    columns = {name: [line[name] for line in lines] for name in ("id", "prefix", "suffix", "answers")}
    columns["image"] = [{"path": str(root / line["image"]), "bytes": None} for line in lines]
    if classes:
        numbers = {name.lower(): number for number, name in enumerate(classes)}
        features["objects"] = {"bbox": BOXES, "category": [ClassLabel(names=classes)]}
        columns["objects"] = [
            None
            if line["found"] is None
            else {
                "bbox": [decode_box(locations, line["size"]) for locations, _ in line["found"]],
                "category": [numbers[name.lower()] for _, name in line["found"]],
            }
            for line in lines
        ]
    return Dataset.from_dict(columns, Features(features))
