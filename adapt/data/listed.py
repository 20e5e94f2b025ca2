"""Pictures that files list, with what people have said about them → splits: what tables and labelling tools' exports share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.data.places import located
from adapt.data.problems import Bad, Problem, Report
from adapt.plug import UserError, counted

if TYPE_CHECKING:
    from adapt.data.outlines import Shape
    from adapt.data.split import Splits

FEW = 1 << 30
"""Most bytes of a JSON file that is read at once."""


@dataclass
class Item:
    """A picture, and what is said of it."""

    id: str
    """Of the row."""
    place: str
    """Where it is said, for messages: 'labels.csv, line 3'."""
    picture: str
    """The picture's path below the root."""
    split: str = ""
    """As given; '' where nothing says it."""
    group: str = ""
    """Pictures of one group are drawn into one split; '' is a group of its own."""
    label: str | None = None
    """Its class."""
    caption: str | None = None
    """A text on it."""
    shapes: Callable[[tuple[int, int]], list[Shape]] | None = None
    """(width, height) of the picture → what is drawn on it, or a `Bad`; none: nobody has looked for things on it."""
    objects: list[Shape] | None = None
    """What `shapes` has made."""
    size: tuple[int, int] | None = None
    """Width and height of the picture in pixels."""
    digest: str = ""
    """Of the picture's bytes."""

    @property
    def labelled(self) -> bool:
        """Has anybody said anything of it?"""
        return any(said is not None for said in (self.label, self.caption, self.shapes))


def below(root: Path, name: str) -> str:
    """A picture's path below the folder, which it must not leave; Windows' backslashes are read as slashes.

    Raises:
        Bad: it leads outside, is an address of the web, or no file.
    """
    if "://" in name[:16]:
        raise Bad("web address", f"{name[:200]!r}; nothing is fetched")
    for spelt in dict.fromkeys((name, name.replace("\\", "/"))):
        path, inside = located(root, spelt)
        if not inside:
            raise Bad("leads outside", f"{name[:200]!r} lies outside {root}; data.images names another folder")
        if path:
            return path.relative_to(root).as_posix()
    raise Bad("no picture", f"no picture {name[:200]!r} in {root}")


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        Bad: too large, no text, or no JSON; with the line.
    """
    import json

    try:
        size = file.stat().st_size
        if size > FEW:
            raise Bad("bad annotation", f"{size / FEW:.1f} GB; files of up to {FEW / FEW:.0f} GB are read")
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text)
        if "\\u" in text:  # an escape can be half a character, which no file and no table can hold
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except json.JSONDecodeError as error:
        raise Bad("bad annotation", f"line {error.lineno}: it is not JSON: {error.msg}") from None
    except RecursionError:
        raise Bad("bad annotation", "nested too deeply") from None
    except UnicodeEncodeError as error:
        raise Bad("bad annotation", f"half a character, {error.object[error.start]!r}") from None
    except UnicodeDecodeError:
        raise Bad("bad annotation", "it is not UTF-8 text") from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise Bad("bad annotation", "a number with thousands of digits") from None
    except OSError as error:
        raise Bad("bad annotation", f"it cannot be read: {error.strerror}") from None


def passed_over(place: str, counts: dict[str, int]) -> list[Problem]:
    """What was not read, a problem a kind: {'points': 3} of a file or folder `place`."""
    return [Problem(place, "", "passed over", f"{count:,} {what}") for what, count in sorted(counts.items()) if count]


# ----------------------------------------------------------------------------------------------------------------- splits


def gathered(config, root: Path, items: Iterable[Item], problems: list[Problem]) -> Splits:
    """Items → splits, as given or drawn; pictures are looked at, and what is wrong is in the report.

    Args:
        config: with path, validation, test, seed and on_error.
        problems: what has been found wrong so far; more is added.

    Raises:
        UserError: nothing can be used, nothing is for train, or there is a single class; with `on_error: stop`, what cannot be used.
    """
    items = list(items)
    good = _looked(root, items, problems)
    report = Report(len(items), problems)
    told = [item for item in good if item.labelled]
    if told and not any(item.split in ("", "train") for item in told):
        raise UserError(
            f"data.path: {config.path!r} has no picture for train, only for {told[0].split}. Give some the split train."
        )
    if any(item.label is not None for item in told):
        told = _known(told, problems)
    if config.on_error == "stop" and report.severe:
        raise report.error("data.path")
    if not told:
        reason = f" The first problem: {report.severe[0]}." if report.severe else " No picture has a label."
        raise UserError(f"data.path: nothing in {config.path!r} can be used.{reason}")
    if 0 < len({item.label for item in told} - {None}) < 2:
        raise UserError(f"data.path: only one class, {told[0].label!r}, in {config.path!r}. A classifier needs two or more.")
    split, origin = _drawn(config, told, report)
    return _rows(root, told, split, origin, [item for item in good if not item.labelled], report)


def _looked(root: Path, items: Sequence[Item], problems: list[Problem]) -> list[Item]:
    """The items whose picture and shapes can be used, with size, digest and objects."""
    from adapt.data.check import repeated
    from adapt.data.scan import scan

    findings = scan(root, list(dict.fromkeys(item.picture for item in items)))
    seen: dict = {}
    good, ids = [], {}
    for item in items:
        finding = findings[item.picture]
        wrong = [Problem(f"{item.place}, {item.picture}", item.split, *problem) for problem in finding.problems]
        item.size, item.digest = finding.size, finding.digest
        if item.id in ids:
            wrong.append(Problem(item.place, item.split, "named twice", f"{item.id!r} is in {ids[item.id]} already"))
        elif not any(problem.severe for problem in wrong):
            ids[item.id] = item.place
            wrong += _outlined(item)
            wrong += repeated(seen, finding, item.picture, item.split, item.label)
        problems += wrong
        if not any(problem.severe for problem in wrong):
            good.append(item)
    return good


def _outlined(item: Item) -> list[Problem]:
    """Make the item's objects; the problem, if they cannot be made."""
    try:
        item.objects = item.shapes(item.size) if item.shapes else None
    except Bad as bad:
        return [Problem(item.place, item.split, *bad.args)]
    return []


def _known(items: list[Item], problems: list[Problem]) -> list[Item]:
    """The items of classes that training sees."""
    known = {item.label for item in items if item.split not in ("validation", "test")}
    unseen = sorted({(item.label, item.split) for item in items if item.label not in known and item.label is not None})
    problems += [Problem(label, split, "unseen class") for label, split in unseen]
    return [item for item in items if item.label in known]


def _drawn(config, items: Sequence[Item], report: Report) -> tuple[list[str], dict[str, str]]:
    """A split for each item, its own or drawn from train, groups and equal pictures together; and where each comes from."""
    from adapt.data.split import percent, stratified

    present = {item.split for item in items} - {""}
    shares = {split: 0.0 if split in present else config.values()[split] for split in ("validation", "test")}
    pool = [item for item in items if item.split in ("", "train")]
    clusters = _clusters(pool)
    first = {cluster: item for item, cluster in reversed(list(zip(pool, clusters, strict=True)))}
    drawn = stratified(
        [item.id for item in first.values()], [item.label for item in first.values()], **shares, seed=config.seed
    )
    chosen = dict(zip(first, drawn, strict=True))
    places = iter(chosen[cluster] for cluster in clusters)
    split = [next(places) if item.split in ("", "train") else item.split for item in items]
    groups = defaultdict(set)
    for item, place in zip(items, split, strict=True):
        groups[item.group].add(place)
    report.problems += [
        Problem(group, "", "group in two splits", ", ".join(sorted(found)))
        for group, found in sorted(groups.items())
        if group and len(found) > 1
    ]
    things = "groups" if any(item.group for item in pool) else "pictures"
    source = "the rows of train" if "train" in present else repr(config.path)
    origin = {name: f"{percent(share)} of the {things} of {source}, drawn" for name, share in shares.items() if share}
    origin |= dict.fromkeys(present, f"as given in {config.path!r}")
    if any(shares.values()):
        origin["train"] = f"what is left of {source}"
    return split, {"train": source} | origin


def _clusters(items: Sequence[Item]) -> list[int]:
    """A number for each item, the same for those that must stay together: of one group, or with the same bytes."""
    parent: dict = {}

    def top(key):
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for item in items:
        if item.group:
            parent[top(("group", item.group))] = top(("bytes", item.digest))
    numbers: dict = {}
    return [numbers.setdefault(top(("bytes", item.digest)), len(numbers)) for item in items]


# ------------------------------------------------------------------------------------------------------------------- rows


def _rows(
    root: Path, items: list[Item], split: list[str], origin: dict[str, str], others: list[Item], report: Report
) -> Splits:
    """The splits' rows: id, image, and of label, caption, objects what there is; `unlabelled`: id, image."""
    from datasets import ClassLabel, Dataset, Features, List, Value

    from adapt.data.split import Splits, by_split
    from adapt.vision.pictures import BOXES, MASKS, RGB

    base = {"id": Value("string"), "image": RGB()}
    features, columns = dict(base), _columns(root, items)
    if any(item.label is not None for item in items):
        features["label"] = ClassLabel(names=sorted({item.label for item in items}))
        columns["label"] = [item.label for item in items]
    if any(item.caption is not None for item in items):
        features["caption"] = Value("string")
        columns["caption"] = [item.caption for item in items]
    if any(item.objects is not None for item in items):
        names = sorted({shape.category for item in items for shape in item.objects or ()}) or ["object"]
        outlined = any(shape.mask for item in items for shape in item.objects or ())
        features["objects"] = {"bbox": BOXES, "category": List(ClassLabel(names=names))} | ({"mask": MASKS} if outlined else {})
        columns["objects"] = [_objects(item, outlined) for item in items]
        if outlined:
            boxes = sum(shape.mask is None for item in items for shape in item.objects or ())
            report.problems += [Problem("objects", "", "boxes as masks", f"{counted(boxes, 'box')} among outlines")] * (
                boxes > 0
            )
    parts = by_split(Dataset.from_dict(columns, Features(features)), split)
    if others:
        parts["unlabelled"] = Dataset.from_dict(_columns(root, others), Features(base))
    return Splits(parts, origin | {"unlabelled": "the pictures without a label"}, report)


def _columns(root: Path, items: Sequence[Item]) -> dict[str, list]:
    images = [{"path": str(root / item.picture), "bytes": None} for item in items]
    return {"id": [item.id for item in items], "image": images}


def _objects(item: Item, outlined: bool) -> dict[str, list]:
    """Objects of a row; where other pictures have outlines, a box is its own mask."""
    from adapt.data.outlines import whole

    shapes = item.objects or []
    found = {"bbox": [shape.bbox for shape in shapes], "category": [shape.category for shape in shapes]}
    return found | ({"mask": [shape.mask or whole(shape.bbox, item.size) for shape in shapes]} if outlined else {})
