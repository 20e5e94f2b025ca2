"""Questions about pictures and their answers, one JSON object a line: big_vision's format for PaliGemma.

    {"image": "images/1.jpg", "prefix": "caption en", "suffix": "a cat on a mat"}
    {"image": "images/2.jpg", "prefix": "detect cat", "suffix": "<loc0256><loc0128><loc0767><loc0512> cat"}

Pictures lie in the file's own folder, or in `images`. `id` (a text) and `answers` (a list of texts, for `evals.name: vqa`) may
stand in a line as well; other keys are passed over. Rows hold paths; nothing is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapt.plug import Spec, UserError

if TYPE_CHECKING:
    from pathlib import Path


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
        `answers`, or its suffix alone).

    Raises:
        UserError: no such file; a line that is no JSON object, lacks a key or has an empty suffix; a picture that is missing, lies
            outside the folder, or cannot be read. The message names the file and the line.
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
    return DatasetDict({split: _rows(lines[split], root) for split in paths if lines.get(split)})


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
    }


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
    """Refuse pictures that cannot be used, found before training and not in its middle."""
    from adapt.data._check import KINDS
    from adapt.data._scan import scan

    numbers = {line["image"]: line["line"] for line in reversed(lines)}
    for name, finding in scan(root, list(numbers)).items():
        for kind, detail in finding.problems:
            severe, todo = KINDS[kind]
            if severe:
                what = f"{kind}{f' ({detail})' if detail else ''}"
                raise UserError(f"data: {file.name}, line {numbers[name]}: picture {name!r} is {what}; {todo}.")


def _rows(lines: list[dict], root: Path):
    from datasets import Dataset, Features, List, Value

    from adapt.data._images import RGB

    text = Value("string")
    columns = {name: [line[name] for line in lines] for name in ("id", "prefix", "suffix", "answers")}
    columns["image"] = [{"path": str(root / line["image"]), "bytes": None} for line in lines]
    return Dataset.from_dict(columns, Features(id=text, image=RGB(), prefix=text, suffix=text, answers=List(text)))
