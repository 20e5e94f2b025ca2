"""Boxes and polygons in YOLO's text files, a line an object, which a data.yaml describes.

    data: {source: yolo, path: shelf/data.yaml}   # or the folder that it lies in

    names: [cup, plate]               # or {0: cup, 1: plate}; nc may stand beside
    path: .                           # where the others start; none: the yaml's folder
    train: images/train               # a folder, a list of pictures (.txt), or several of them
    val: [images/val, more.txt]

images/train/a.jpg has labels/train/a.txt: the last `images` of its path becomes `labels`; without one, the text lies beside it. A line is
`class x y width height`, the centre and the size as shares of the picture's, or `class x y x y x y …`, a polygon, which is mask and box.
Where every object has a polygon, there are masks. With `kpt_shape`, as for poses, the box of a line is read, and its keypoints are passed
over and counted. No text, or an empty one: nothing is there.

Oriented boxes are refused where the yaml says `task: obb`. A line of one is that of a polygon of four points too, so without `task` it is
read as such, and where all polygons of the data are like that, the report says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.data.config import AnnotatedConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.data.listing import Listing, Places
    from adapt.data.objects import Objects
    from adapt.data.split import Splits

MOST = 1 << 24
"""Bytes of a text; what is larger is refused."""
ROUNDED = 1e-5
"""Of a number with six digits or more: so far it may lie outside of 0 to 1."""
BOX = 2
"""Corners of a line that is a box: centre and size."""
KEYS = {"train": "train", "val": "validation", "test": "test"}


class Config(AnnotatedConfig):
    """Where the data.yaml lies, and how what it names is split."""

    source: str = "yolo"
    """This file."""
    path: str
    """A data.yaml, or the folder that it lies in."""


def load(config: Config) -> Splits:
    """Read the files.

    Returns:
        `Splits` with train and, where there are any, validation and test: id (path below the yaml's folder), image, objects (bbox
        float[N, 4] XYXY in pixels, category int[N], iscrowd int[N], and mask: COCO RLE, where every object has a polygon).

    Raises:
        UserError: no data.yaml, or a wrong one; with `on_error: stop`, pictures or lines that cannot be used, by file and line.
    """
    from adapt.data.annotated import load_listed

    file, content = _yaml(config.path)
    listing, numbers, points = _listing(config, file, content)
    return load_listed(config, listing, lambda objects: _read(objects, numbers, points, bool(content.get("task"))))


# --------------------------------------------------------------------------------------------------------------- listing


def _yaml(path: str) -> tuple[Path, dict]:
    """The data.yaml and its content."""
    from adapt.data.places import present
    from adapt.overrides import parse_yaml

    file = present(path)
    if file.is_dir():
        found = sorted(one for end in ("yaml", "yml") for one in file.glob(f"*.{end}"))
        named = [one for one in found if one.stem in ("data", "dataset")]
        if len(named or found) != 1:
            have = ", ".join(one.name for one in found) or "none"
            raise UserError(f"data.path: {path!r} needs a data.yaml. Have: {have}. Name the file itself in data.path.")
        file = (named or found)[0]
    content = parse_yaml(_text(file), file.name)
    if not isinstance(content, dict) or not content.get("train"):
        raise UserError(f"data.path: {file.name} must name the classes and the pictures, such as train: images, names: [cup].")
    return file, content


def _text(file: Path) -> str:
    """A text file, with or without a byte order mark.

    Raises:
        UserError: it is too large, or no UTF-8.
    """
    try:
        if file.stat().st_size > MOST:
            raise UserError(
                f"data.path: {file.name}: more than {MOST >> 20} MB, and no such text is that large. Check the file."
            )
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"data.path: {file.name}: it is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"data.path: {file.name}: it cannot be read: {error.strerror}.") from None


def _names(file: Path, content: dict) -> dict[int, str]:
    """Number → name."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None and type(content.get("nc")) is int and 0 < content["nc"] < 10_000:
        names = {number: str(number) for number in range(content["nc"])}
    if isinstance(names, dict):
        names = {int(key) if isinstance(key, str) and key.isdecimal() else key: str(name) for key, name in names.items()}
    if not isinstance(names, dict) or not names or not all(type(key) is int for key in names):
        raise UserError(f"data.path: {file.name}: names must be a list of names, or {{0: cup, 1: plate}}.")
    return names


def _keypoints(file: Path, content: dict) -> int:
    """Numbers of keypoints at the end of each line.

    Raises:
        UserError: the yaml says that the lines are of oriented boxes, or of poses and not of which.
    """
    if content.get("task") == "obb":
        raise UserError(
            f"data.path: {file.name}: task: obb, and oriented boxes cannot be learnt. Write task: segment, and each is a polygon of four "
            "points with an upright box around it; for these boxes alone, set data.masks=false too."
        )
    shape = content.get("kpt_shape")
    if shape is None and content.get("task") != "pose":
        return 0
    numbers = isinstance(shape, list) and len(shape) == 2 and all(type(each) is int for each in shape)
    if not numbers or not 0 < shape[0] < 1000 or shape[1] not in (2, 3):
        raise UserError(
            f"data.path: {file.name}: kpt_shape: {str(shape)[:60]} must be the number of keypoints and 2 or 3, such as [17, 3]: x, y and, "
            "with 3, whether it is seen."
        )
    return shape[0] * shape[1]


def _listing(config: Config, file: Path, content: dict) -> tuple[Listing, dict[int, int], int]:
    """The pictures that the yaml names, and their texts; a class's number → its place; the numbers of keypoints in each line."""
    from adapt.data.listing import Listed, Listing, Places, passed_over
    from adapt.data.problems import Problem

    root = file.parent
    names = _names(file, content)
    numbers, points = {number: place for place, number in enumerate(sorted(names))}, _keypoints(file, content)
    listing = Listing(root, names=[names[number] for number in numbers], made_of=[file])
    places = Places(root, config.follow_links)
    start = places.below(str(content.get("path") or ".")) or "."
    start = start if (root / start).is_dir() else "."  # written on another machine
    taken: dict[str, str] = {}
    again = 0
    for key, split in KEYS.items():
        given = content.get(key) or []
        entries = given if isinstance(given, list) else [given]
        found = [one for entry in entries for one in _pictures(config, places, file, key, start, entry)]
        if found and all(taken.get(name, split) != split for name, _ in found):
            other = next(key for key, value in KEYS.items() if value == taken[found[0][0]])
            raise UserError(
                f"data.path: {file.name}: {key} names the pictures of {other} again. A score on data that taught or chose the model says "
                f"nothing: leave {key} out, and it is drawn from train."
            )
        for name, problem in found:
            if name in taken:
                again += taken[name] == split
                if taken[name] != split:
                    listing.problems.append(Problem(name, split, "picture twice", f"in {taken[name]} too"))
                continue
            taken[name] = split
            listing.pictures.append(Listed(name, name, split, _label(name)))
            listing.problems += [Problem(name, split, *problem)] if problem else []
        if entries:
            listing.origin[split] = f"{key}: {', '.join(map(str, entries))}"
    listing.problems += passed_over(file.name, {"pictures named twice": again})
    _texts(listing, places)
    return listing, numbers, points


def _pictures(config, places: Places, file: Path, key: str, start: str, entry: Any) -> Iterator[tuple[str, tuple | None]]:
    """The pictures of an entry, a folder or a list: the path below the root, and what is wrong with it."""
    from adapt.data.scan import walk

    if not isinstance(entry, str):
        raise UserError(f"data.path: {file.name}: {key} must name folders or lists of pictures, and has {str(entry)[:60]!r}.")
    inner = entry.replace("\\", "/")
    # what Roboflow writes, ../train/images, lies beside the yaml
    tried = [places.below(inner, start), places.below(inner.removeprefix("../"), start), places.below(inner)]
    found = next((path for path in tried if path and (places.root / path).exists()), None)
    if found is None:
        outside = all(path is None for path in tried)
        why = f"leads out of {str(places.root)!r}" if outside else "is not there"
        raise UserError(f"data.path: {file.name}: {key}: {entry!r} {why}. Name a folder or a list below the yaml's folder.")
    here = places.root / found
    if not config.follow_links and not here.resolve().is_relative_to(places.root):
        raise UserError(f"data.path: {file.name}: {key}: {entry!r} leads to {here.resolve()}. Set data.follow_links=true.")
    if here.is_dir():
        names, wrong = walk(here, config.follow_links)
        yield from (((Path(found) / name).as_posix(), None) for name in names)
        yield from (((Path(found) / name).as_posix(), (kind, detail)) for name, kind, detail in wrong)
        return
    for number, line in enumerate(_text(here).splitlines(), 1):
        if line.strip():
            path = _listed(places, line, Path(found).parent.as_posix(), start)
            yield path or line.strip(), places.wrong(path) if path else ("leads outside", f"{here.name}, line {number}")


def _listed(places: Places, line: str, beside: str, start: str) -> str | None:
    """A line of a list → the path below the root; it starts from the list's folder, or from `path`."""
    tried = [path for folder in (beside, start) if (path := places.below(line, folder))]
    return next((path for path in tried if (places.root / path).exists()), tried[0] if tried else None)


def _label(name: str) -> str:
    """images/train/a.jpg → labels/train/a.txt, as ultralytics has it: the last `images` counts."""
    before, found, after = f"/{name}".rpartition("/images/")
    stem = Path(f"{before}/labels/{after}" if found else name).with_suffix(".txt")
    return stem.as_posix().removeprefix("/")


def _texts(listing: Listing, places: Places) -> None:
    """Look for the pictures' texts, and note those that have none.

    Raises:
        UserError: none has any.
    """
    from adapt.data.problems import Problem

    before = len(listing.made_of)
    for picture in listing.pictures:
        wrong = places.wrong(picture.key)
        if wrong is None:
            listing.made_of.append(listing.root / picture.key)
        elif wrong[0] == "missing picture":
            listing.problems.append(Problem(picture.id, picture.split, "no labels", f"no file {picture.key}"))
        else:
            listing.problems.append(Problem(picture.id, picture.split, wrong[0], f"its labels, {wrong[1]}"))
    lacking = [problem for problem in listing.problems if problem.problem == "no labels"]
    if lacking and len(listing.made_of) == before:
        raise UserError(
            f"data.path: none of {len(lacking):,} pictures has labels, such as {lacking[0].id!r} ({lacking[0].detail}). "
            "Pictures in images/ have their texts in labels/, under the same names; others beside them."
        )


# ----------------------------------------------------------------------------------------------------------------- texts


def _read(objects: Objects, numbers: dict[int, int], points: int, said: bool) -> None:
    """Add the objects of all texts.

    Args:
        said: does the yaml say which task they are for? Else polygons may be oriented boxes.
    """
    from collections import Counter

    from adapt.data.listing import passed_over
    from adapt.data.problems import Bad, Problem
    from adapt.plug import counted
    from adapt.progress import progress

    over: Counter[str] = Counter()
    corners: Counter[int] = Counter()
    with progress("read labels", len(objects.pictures)) as tick:
        for row, picture in enumerate(objects.pictures):
            tick()
            file = objects.root / picture.key
            try:
                text = _text(file) if file.is_file() else ""
            except UserError as error:
                objects.wrong(row, picture.key, Bad("unreadable annotations", str(error).partition(": ")[2].rstrip(".")))
                continue
            for number, line in enumerate(text.splitlines(), 1):
                if not line.strip():
                    continue
                where = f"{picture.key}, line {number}"
                words = line.split()
                try:
                    category, box, mask = _object(words, objects.sizes[row], numbers, points, objects.masks)
                    objects.add(row, category, where, box, mask)
                    over["keypoints"] += bool(points) and len(words) == 5 + points
                    corners[len(words) // 2] += 1
                except Bad as wrong:
                    objects.wrong(row, where, wrong)
    objects.problems += passed_over("labels", over)
    if set(corners) - {BOX} == {4} and not said and not points:
        objects.problems.append(Problem("labels", "", "four corners", counted(corners[4], "polygon")))


def _object(
    words: list[str], size: tuple[int, int], numbers: dict[int, int], points: int, masks: bool
) -> tuple[int, list, Any]:
    """A line → the class's number in the listing, the box XYXY in pixels, the mask."""
    from math import isfinite

    from adapt.data.outlines import polygons, short
    from adapt.data.problems import Bad

    line = short(" ".join(words))
    try:
        category, *values = map(float, words)
    except ValueError:
        raise Bad("bad label", f"{line}: not all are numbers") from None
    if category not in numbers:
        raise Bad("unknown category", f"class {words[0][:20]}; the yaml has {', '.join(map(str, list(numbers)[:5]))} …")
    if points and len(values) == 4 + points:
        values = values[:4]
    if not all(map(isfinite, values)) or not all(-ROUNDED <= value <= 1 + ROUNDED for value in values):
        raise Bad("bad label", f"{line}: not all are from 0 to 1")
    width, height = size
    if len(values) == 4:
        x, y, w, h = values
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        return numbers[int(category)], box, None
    if len(values) < 6 or len(values) % 2 or points:
        raise Bad("bad label", f"{line}: {len(words)} numbers")
    xs, ys = [value * width for value in values[::2]], [value * height for value in values[1::2]]
    polygon = [number for point in zip(xs, ys, strict=True) for number in point]
    return numbers[int(category)], [min(xs), min(ys), max(xs), max(ys)], polygons([polygon], size) if masks else None
