"""What is wrong with a data set, found before anything learns from it.

    report = check("photos")                      # a folder, a `Dataset` or a `DatasetDict`
    report.write("problems.csv")                  # or .json

Severe problems stop a training or leave the picture out (`data.on_error`); the others are only told.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path

import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Image

from adapt.data._images import cache_folder, digest, stamp
from adapt.data._scan import VERSION, Finding, existing, inspect, layout, scan, walk
from adapt.masks import unrle
from adapt.plug import UserError
from adapt.run import atomic
from adapt.train.progress import progress

# problem → (is it severe, what to do)
KINDS = {
    "unreadable": (True, "replace the file by one that opens in an image viewer, or delete it"),
    "truncated": (True, "copy or download the file again, or delete it"),
    "zero-size": (True, "copy or download the file again, or delete it"),
    "decompression bomb": (True, "scale the picture down, or delete it"),
    "too thin": (True, "crop the picture, or delete it"),
    "leads outside": (True, "copy the file into the folder in place of the link"),
    "no class": (True, "give the picture a class; of a folder, put it into the folder of its class"),
    "empty class": (True, "give the class pictures, or delete it"),
    "unseen class": (True, "give the class pictures in train, or delete it here"),
    "bad line": (True, "write a JSON object a line, with the texts image, prefix and suffix, or delete the line"),
    "no picture": (True, "correct the name, or name the pictures' folder in data.images"),
    "wrong locations": (
        True,
        "write four a box, each 0000 to 1023: top, left, bottom, right, with top < bottom and left < right, then its name, and ';' "
        "between objects: <loc0256><loc0128><loc0767><loc0512> cat",
    ),
    "box unreadable": (True, "give each box four numbers and a category"),
    "box reversed": (True, "write boxes as left, top, right, bottom with left < right and top < bottom"),
    "box off the image": (True, "clip the box to the image"),
    "mask off the image": (True, "give the mask the height and width of its image, and at least one pixel"),
    "no mask": (True, "draw a mask for the picture, or move the picture away"),
    "unreadable mask": (True, "save the mask as a grey, palette or 16-bit PNG with a number a pixel"),
    "grey mask": (True, "threshold the mask at 128 and set data.ignore=null, or number its objects"),
    "mask of another size": (True, "scale the mask to its picture, nearest neighbour"),
    "unknown class": (True, "name the number in classes.yaml, or correct the mask"),
    "empty mask": (False, "nothing to do, if there is really nothing in the picture"),
    "mask alone": (False, "add its picture, or delete the mask"),
    "two classes": (False, "delete it in the wrong class"),
    "leak": (False, "delete it in one of the splits, or the score is too kind"),
    "duplicate": (False, "delete one of the two, unless it should count twice"),
    "unused class": (False, "nothing to do, if no picture of it is expected"),
    "wrong mode": (False, "nothing to do: converted to RGB when read"),
    "turned": (False, "nothing to do: turned upright when read"),
    "many frames": (False, "nothing to do: the first frame is used"),
    "link": (False, "links to folders are not followed: copy the folder to this place"),
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one picture, object or class."""

    id: str
    split: str
    problem: str
    """A key of `KINDS`."""
    detail: str = ""

    @property
    def severe(self) -> bool:
        """It stops a training, or leaves the picture out."""
        return KINDS[self.problem][0]

    @property
    def todo(self) -> str:
        """What to do about it."""
        return KINDS[self.problem][1]

    def __str__(self) -> str:
        where = f"{self.split}: " if self.split and not self.id.startswith((f"{self.split}/", f"{self.split}.")) else ""
        return f"{where}{self.id!r}: {self.problem}{f' ({self.detail})' if self.detail else ''}; {self.todo}"


@dataclass
class Report:
    """All that was found."""

    pictures: int = 0
    """How many were looked at."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def severe(self) -> list[Problem]:
        """What stops a training; with `data.on_error: skip`, what was left out."""
        return [problem for problem in self.problems if problem.severe]

    def counts(self) -> dict[str, int]:
        """Problem → how often, the most frequent first."""
        return dict(Counter(problem.problem for problem in self.problems).most_common())

    def rows(self) -> list[dict]:
        """A dictionary a problem: id, split, problem, detail, severe, todo."""
        return [asdict(problem) | {"severe": problem.severe, "todo": problem.todo} for problem in self.problems]

    def write(self, path: str | Path) -> Path:
        """Write the list as CSV, or as JSON when the name ends in .json."""
        path = Path(path)
        with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            if path.suffix == ".json":
                json.dump({"pictures": self.pictures, "problems": self.rows()}, file, indent=1, ensure_ascii=False)
            else:
                writer = csv.DictWriter(file, ["id", "split", "problem", "detail", "severe", "todo"])
                writer.writeheader()
                writer.writerows(self.rows())
        return path

    def error(self, place: str, most: int = 10) -> UserError:
        """The severe problems, one a line, to be raised; `place` is the field of the recipe."""
        severe = self.severe
        lines = [f"{place}: {problem}." for problem in severe[:most]]
        if len(severe) > most:
            lines.append(
                f"{place}: … and {len(severe) - most} more; see them all with: adapt doctor data, and the same recipe and overrides"
            )
        if len(severe) == 1:
            return UserError(f"{lines[0]} data.on_error=skip would leave it out.")
        return UserError("\n".join([*lines, "data.on_error=skip would leave all these out."]))


def check(data: str | Path | Dataset | DatasetDict) -> Report:
    """Look at every picture, box, mask and class, one row at a time.

    Args:
        data: a folder of pictures, in class folders or not, or rows with the standard columns.

    Raises:
        UserError: the folder is missing or has no pictures.
    """
    if isinstance(data, str | Path):
        return check_folder(existing(data, "data.path"), "data.path")[0]
    splits = data if isinstance(data, dict) else {"": data}
    report = Report()
    seen: dict = {}
    with progress("check pictures", sum(map(len, splits.values()))) as tick:
        for split, rows in splits.items():
            report.pictures += len(rows)
            report.problems += _rows(split, rows, seen, tick)
    report.problems += _classes(splits)
    return report


def check_rows(splits: DatasetDict) -> Report:
    """`check` of rows; those that have not changed since the last time are not opened again."""
    files: set[str] = set()
    for rows in splits.values():
        column = rows.data.column("image")
        files |= set(pc.struct_field(column, "path").filter(pc.is_null(pc.struct_field(column, "bytes"))).to_pylist())
    stamps = [(path, *stamp(path)) for path in sorted(files)]
    memory = (
        cache_folder("scans") / f"{digest(VERSION, [(name, rows._fingerprint) for name, rows in splits.items()], stamps)}.json"
    )
    try:
        known = json.loads(memory.read_text())
        return Report(known["pictures"], [Problem(*each) for each in known["problems"]])
    except (OSError, ValueError):
        report = check(splits)
    with (
        suppress(UserError, OSError),
        atomic(memory) as temporary,
    ):  # a memory that cannot be written costs time and nothing else
        temporary.write_text(json.dumps({"pictures": report.pictures, "problems": list(map(astuple, report.problems))}))
    return report


def check_folder(root: Path, place: str, split: str = "") -> tuple[Report, list[dict]]:
    """Look at a folder of pictures.

    Args:
        root: absolute.
        place: the field of the recipe, for messages.
        split: that all pictures belong to; then folders inside mean nothing. By default they are splits and classes.

    Returns:
        What is wrong, and a row for each picture that can be used: id (path below `root`), split ('' when folders do not say),
        class (a folder's name, or none), digest of the bytes.

    Raises:
        UserError: there are no pictures.
    """
    ids, wrong = walk(root)
    if not ids and not wrong:
        raise UserError(f"{place}: {str(root)!r} has no pictures (.jpg, .png, .webp, …). Give a folder that has some.")
    report = Report(0, [Problem(name, split, kind, detail) for name, kind, detail in wrong])
    places, folders = ([(split, None)] * len(ids), []) if split else layout(root, ids)
    data = {name: where for name, where in zip(ids, places, strict=True) if where[0] != "-"}
    seen: dict = {}
    rows = []
    for name, finding in scan(root, list(data)).items():
        where, label = data[name]
        report.pictures += 1
        problems = [Problem(name, where, *problem) for problem in finding.problems]
        problems += repeated(seen, finding, name, where, label)
        if folders and label is None:
            problems.append(Problem(name, where, "no class"))
        report.problems += problems
        if not any(problem.severe for problem in problems):
            rows.append({"id": name, "split": where, "class": label, "digest": finding.digest})
    known = {row["class"] for row in rows if row["split"] not in ("validation", "test")}
    alive = {(row["split"], row["class"]) for row in rows}
    for where, label in folders:
        if label not in known:
            kind = "unseen class" if (where, label) in alive else "empty class"
            report.problems.append(Problem(label, where, kind))
    return report, [row for row in rows if row["class"] in known]


def repeated(seen: dict, finding: Finding, name: str, split: str, label) -> Iterator[Problem]:
    """The problem, if the same bytes have been seen; else remember them."""
    if not finding.digest:
        return
    if finding.digest not in seen:
        seen[finding.digest] = (name, split, label)
        return
    other, where, what = seen[finding.digest]
    if where != split and {where, split} & {"validation", "test"}:
        yield Problem(name, split, "leak", f"same bytes as {other!r} in {where}")
    if what != label and what is not None and label is not None:
        yield Problem(name, split, "two classes", f"same bytes as {other!r}")
    elif where == split:
        yield Problem(name, split, "duplicate", f"same bytes as {other!r}")


def _rows(split: str, rows: Dataset, seen: dict, tick: Callable[[], None]) -> Iterator[Problem]:
    """Problems of pictures, boxes and masks."""
    rows = rows.select_columns([name for name in ("id", "image", "label", "objects") if name in rows.column_names])
    if "image" in rows.column_names:
        rows = rows.cast_column("image", Image(decode=False))
    for index, row in enumerate(rows):
        name = str(row.get("id") or f"{split or 'row'}/{index}")
        finding = inspect(row["image"] or {"bytes": None, "path": None}) if "image" in row else Finding("", None, [])
        yield from (Problem(name, split, *problem) for problem in finding.problems)
        yield from repeated(seen, finding, name, split, row.get("label"))
        yield from (Problem(name, split, *problem) for problem in _objects(row.get("objects") or {}, finding.size))
        tick()


def _objects(objects: dict, size: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    """Kinds and details of wrong boxes float[N, 4] XYXY and masks (COCO RLE) on an image of `size` (width, height)."""
    for number, (left, top, right, bottom) in enumerate(objects.get("bbox") or []):
        where = f"object {number}: {left:g}, {top:g}, {right:g}, {bottom:g}"
        if not (left < right and top < bottom):
            yield "box reversed", where
        # half a pixel is rounding
        elif size and (left < -0.5 or top < -0.5 or right > size[0] + 0.5 or bottom > size[1] + 0.5):
            yield "box off the image", f"{where}; the image is {size[0]} × {size[1]}"
    for number, code in enumerate(objects.get("mask") or []):
        height, width = code["size"]
        if size and (width, height) != size:
            yield "mask off the image", f"object {number}: {width} × {height}; the image is {size[0]} × {size[1]}"
        elif not _drawn(code):
            yield "mask off the image", f"object {number}: no pixel, or no run lengths"


def _drawn(code: dict) -> bool:
    """Has the mask (COCO RLE) a pixel?"""
    try:
        return bool(unrle(code).any())
    except ValueError:
        return False


def _classes(splits: dict[str, Dataset]) -> Iterator[Problem]:
    """Classes that training does not see."""
    train = splits.get("train", splits.get(""))
    if train is None or not isinstance(train.features.get("label"), ClassLabel):
        return
    names = train.features["label"].names
    missing = set(range(len(names))) - set(train["label"][:])
    empty = set(missing)
    for split, rows in splits.items():
        here = missing & set(rows["label"][:]) if "label" in rows.column_names else set()
        yield from (Problem(names[label], split, "unseen class") for label in sorted(here))
        empty -= here
    yield from (Problem(names[label], "train", "unused class") for label in sorted(empty))
