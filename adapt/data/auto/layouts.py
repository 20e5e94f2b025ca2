"""Layouts of data by their files: names, and the first bytes of a few. A look is a guess; the source itself reads with care."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adapt.data.places import DICT, INFO, STATE, existing, expanded, saved
from adapt.data.scan import SPLIT_FOLDERS
from adapt.data.table.rows import PATHS
from adapt.plug import UserError
from adapt.vision.pictures import SUFFIXES

HEAD = 1 << 16
"""Bytes of a file that are looked at."""
MOST = 20_000
"""Folders that are looked at."""
SOME = 100
"""Files of one kind in one folder that are listed."""
IN_DATA = re.compile(r"data/[^/]+\.parquet$", re.IGNORECASE)
"""Files of a data set as the hub has it."""
NAMED = re.compile(r"(train|training|val|valid|validation|dev|test|testing)[-_.]")
"""Names by which `datasets` tells splits."""
EACH = 3
"""Files of one kind in one folder that are opened."""


@dataclass(frozen=True)
class Guess:
    """What a folder or file is taken for."""

    source: str
    why: str
    options: dict[str, str] = field(default_factory=dict)
    """Of that source: `path`, and what else it needs."""


@dataclass(frozen=True)
class Look:
    """What lies in a folder."""

    root: Path
    typed: str
    """The folder as the user wrote it."""
    files: tuple[str, ...]
    """Paths below it, sorted; hidden ones left out."""

    def ending(self, *suffixes: str) -> list[str]:
        """The files that end so."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def few(self, *suffixes: str) -> list[str]:
        """Some of each folder."""
        seen: dict[str, int] = {}
        found = []
        for name in self.ending(*suffixes):
            folder = name.rpartition("/")[0]
            seen[folder] = seen.get(folder, 0) + 1
            found += [name] if seen[folder] <= EACH else []
        return found

    def joined(self, name: str) -> str:
        """A path below the folder as the user would write it."""
        return (Path(self.typed) / name).as_posix()


def recognise(path: str) -> Guess:
    """What a folder or a file is.

    Raises:
        UserError: nothing that is known, or several things; with what was seen.
    """
    place = expanded(path)
    if place.is_file():
        return _file(place, path)
    if path.endswith(".tar") and not place.exists():
        return Guess("webdataset", "a pattern of tars", {"path": path})
    place = existing(path, "data.path")
    look = Look(place, path, tuple(_without_tables_of_tars(_walked(place))))
    found = [guess for layout in LAYOUTS for guess in layout(look)]
    if len(found) > 1:
        things = "; ".join(f"{guess.source} ({guess.why})" for guess in found)
        raise UserError(
            f"data.path: {path!r} could be {things}. Say which: data.source={found[0].source} data.path={found[0].options['path']}"
        )
    if found:
        return found[0]
    pictures = look.ending(*SUFFIXES)
    if pictures:
        folders = sorted({name.split("/")[0] for name in pictures if "/" in name})
        why = f"pictures in the folders {', '.join(folders[:4])}{' …' * (len(folders) > 4)}, and no annotations"
        return Guess("folder", why if folders else "pictures, and no annotations", {"path": path})
    if any(item.is_symlink() and item.is_dir() for item in place.iterdir()):
        return Guess("folder", "links to folders, which are not followed here", {"path": path})
    have = ", ".join(sorted({Path(name).suffix.lower() or name for name in look.files})[:12]) or "nothing"
    raise UserError(
        f"data.path: {path!r} has no pictures, and no annotations that are known. Have: {have}. "
        "Name the source: data.source=NAME (adapt options data lists them)."
    )


def _walked(root: Path) -> list[str]:
    """Paths of some files of each kind in each folder below one, links to folders not followed."""
    names: list[str] = []
    for number, (place, folders, files) in enumerate(os.walk(root), 1):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        start, kinds = Path(place).relative_to(root), Counter()
        for name in sorted(files):
            kind = os.path.splitext(name)[1].lower()
            kinds[kind] += not name.startswith(".")
            if not name.startswith(".") and kinds[kind] <= SOME:
                names.append((start / name).as_posix())
        if number >= MOST:
            break
    return sorted(names)


def _without_tables_of_tars(names: list[str]) -> list[str]:
    """The files but for those that img2dataset writes beside each tar: 00000.parquet and 00000_stats.json of 00000.tar."""
    tars = {name.removesuffix(".tar") for name in names if name.endswith(".tar")}
    return [name for name in names if name.removesuffix(".parquet").removesuffix("_stats.json") not in tars]


def _head(file: Path) -> str:
    """The first bytes of a file as text; empty when it cannot be read, or is no regular file."""
    if not file.is_file():
        return ""
    try:
        with open(file, "rb") as stream:
            return stream.read(HEAD).decode("utf-8-sig", "replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------------------- one file


def _file(file: Path, typed: str) -> Guess:
    """What a file is."""
    suffix, name = file.suffix.lower(), file.name
    if suffix == ".jsonl":
        return Guess("jsonl", f"{name} has JSON lines", {"path": typed})
    if suffix == ".tar":
        return Guess("webdataset", f"{name} is a tar", {"path": typed})
    if suffix in (".csv", ".tsv", ".parquet"):
        column = _table(file)
        if suffix == ".parquet" and not column:
            return Guess("hub", f"{name} holds the pictures themselves", {"path": typed})
        return Guess("table", f"{name} has {f'a column {column}' if column else 'rows'}", {"path": typed})
    if suffix in (".yaml", ".yml") and _yolo(_head(file)):
        return Guess("yolo", f"{name} names train and the classes", {"path": typed})
    if suffix == ".json" and (kind := _json(_head(file))):
        # a LabelMe file is one picture's: its folder is the data
        return Guess(kind, f"{name} is of that form", {"path": Path(typed).parent.as_posix() if kind == "labelme" else typed})
    raise UserError(
        f"data.path: {typed!r} is no file that is known: a table (.csv, .tsv, .parquet), JSON lines (.jsonl), an export of Label Studio or "
        "COCO's annotations (.json), YOLO's data.yaml, a tar of samples (.tar). Name the source: data.source=NAME."
    )


def _json(head: str) -> str | None:
    """Whose JSON it is, by its first bytes."""
    keys = set(re.findall(r'"(\w+)"\s*:', head))
    if head.lstrip().startswith("["):
        whole = "data" in keys and keys & {"annotations", "completions", "predictions"}
        return "labelstudio" if whole or keys & {"annotation_id", "annotator", "lead_time"} else None
    if {"shapes", "imagePath"} <= keys or {"shapes", "flags"} <= keys:
        return "labelme"
    return "coco" if len(keys & {"images", "annotations", "categories", "licenses", "file_name", "category_id"}) > 1 else None


def _yolo(head: str) -> bool:
    return all(re.search(rf"^{key}\s*:", head, re.MULTILINE) for key in ("names", "train"))


def _table(file: Path) -> str | None:
    """The column of paths that a table has."""
    if not file.is_file():
        return None
    if file.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError):
            return None
        names = [name for name in schema.names if not pa.types.is_nested(schema.field(name).type)]
    else:
        first = next((line for line in _head(file).splitlines() if line.strip()), "")
        names = [name.strip(" \"'") for name in re.split("[,;\t]", first)]
    return next((name for name in names if name.lower() in PATHS), None)


# -------------------------------------------------------------------------------------------------------------- layouts


def _masks(look: Look) -> Iterator[Guess]:
    folders = {tuple(name.split("/")[:-1]) for name in look.ending(*SUFFIXES)}
    for start in ((), *(parts[:1] for parts in folders if parts and parts[0].lower() in SPLIT_FOLDERS)):
        depth = len(start)
        inside = {parts[depth] for parts in folders if parts[:depth] == start and len(parts) > depth}
        if {"images", "masks"} <= inside:
            where = "/".join((*start, ""))
            yield Guess("masks", f"pictures in {where}images and {where}masks", {"path": look.typed})
            return


def _lines(look: Look) -> Iterator[Guess]:
    tops = [name for name in look.ending(".jsonl") if "/" not in name]
    if hub := [name for name in look.files if _describes(name)]:
        yield Guess("hub", f"{hub[0]} describes the pictures as datasets' imagefolder does", {"path": look.typed})
        return
    by_split = {SPLIT_FOLDERS[Path(name).stem.lower()]: name for name in tops if Path(name).stem.lower() in SPLIT_FOLDERS}
    if "train" in by_split:
        options = {"train": "path", "validation": "validation_path", "test": "test_path"}
        files = {options[split]: look.joined(name) for split, name in by_split.items()}
        yield Guess("jsonl", f"{by_split['train']} has JSON lines", files)
    else:
        yield from (Guess("jsonl", f"{name} has JSON lines", {"path": look.joined(name)}) for name in tops[:EACH])


def _describes(name: str) -> bool:
    """Is it the metadata of an imagefolder, of all its pictures or of a split's?"""
    folder, _, file = name.rpartition("/")
    return file in ("metadata.jsonl", "metadata.csv", "metadata.parquet") and folder.lower() in ("", *SPLIT_FOLDERS)


def _saved(look: Look) -> Iterator[Guess]:
    if saved(look.root):
        known = next(name for name in (DICT, STATE) if name in look.files)
        yield Guess("hub", f"{known} is of a folder that datasets' save_to_disk wrote", {"path": look.typed})


def _tables(look: Look) -> Iterator[Guess]:
    tops = [name for name in look.ending(".csv", ".tsv", ".parquet") if "/" not in name and not name.startswith("metadata.")]
    for name in tops[:EACH]:
        column = _table(look.root / name)
        if column:
            yield Guess("table", f"{name} has a column {column}", {"path": look.joined(name)})
    held = [name for name in tops if name.endswith(".parquet")] or [
        name for name in look.ending(".parquet") if IN_DATA.match(name)
    ]
    if held and len(held) >= len(tops) and not any(_table(look.root / name) for name in held[:EACH]):
        card = "data_files:" in _head(look.root / "README.md")  # says which files are which split
        split = card or any(NAMED.match(name.rpartition("/")[2].lower()) for name in held)
        path = look.typed if split or "/" in held[0] else look.joined("*.parquet")
        yield Guess("hub", f"{held[0]} holds the pictures themselves", {"path": path})


def _jsons(look: Look) -> Iterator[Guess]:
    kinds: dict[str, list[str]] = {}
    for name in look.few(".json"):
        if name.rpartition("/")[2] in (STATE, INFO, DICT) and saved(look.root):  # names of columns, and no annotations
            continue
        if kind := _json(_head(look.root / name)):
            kinds.setdefault(kind, []).append(name)
    for kind in ("coco", "labelme"):
        if kind in kinds:
            yield Guess(kind, f"{kinds[kind][0]} is of that form", {"path": look.typed})
    for name in kinds.get("labelstudio", [])[:EACH]:
        images = {"images": look.typed} if "/" in name else {}
        yield Guess("labelstudio", f"{name} is of that form", {"path": look.joined(name)} | images)


def _yamls(look: Look) -> Iterator[Guess]:
    found = [name for name in look.ending(".yaml", ".yml") if "/" not in name and _yolo(_head(look.root / name))]
    for name in found[:EACH]:
        # data.yaml and dataset.yaml are what the source itself looks for
        path = look.typed if len(found) == 1 else look.joined(name)
        yield Guess("yolo", f"{name} names train and the classes", {"path": path})


def _xml(look: Look) -> Iterator[Guess]:
    found = [name for name in look.few(".xml") if "<annotation" in _head(look.root / name)]
    if found:
        yield Guess("voc", f"{found[0]} is of that form", {"path": look.typed})


def _tars(look: Look) -> Iterator[Guess]:
    folders = {"", *(name for name in {name.partition("/")[0] for name in look.files} if name.lower() in SPLIT_FOLDERS)}
    found = [name for name in look.ending(".tar") if name.rpartition("/")[0] in folders]
    if found and not look.ending(*SUFFIXES):  # a tar among pictures is a copy of them
        yield Guess("webdataset", f"{found[0]} is a tar, and no picture lies beside it", {"path": look.typed})


LAYOUTS: tuple[Callable[[Look], Iterator[Guess]], ...] = (_saved, _masks, _lines, _tables, _jsons, _yamls, _xml, _tars)
"""Layouts with annotations; a folder of pictures without any is one of classes."""
