"""Data sets in other formats: `adapt convert`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapt.contracts import SourceConfig
from adapt.plug import UserError, counted, load
from adapt.run import atomic
from adapt.verbs.converting.request import Request


@dataclass(frozen=True)
class Converted:
    """What `convert` leaves behind."""

    out: Path
    pictures: dict[str, int]
    """Split → its pictures."""
    left_out: int
    """Pictures and entries that could not be used, and pictures of which nothing is said."""
    notes: list[str]
    """Sentences on what the format could not hold."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"out": str(self.out)}

    def sentences(self) -> list[str]:
        """For the user."""
        parts = ", ".join(f"{split} {number}" for split, number in self.pictures.items())
        lost = f"; {self.left_out} left out: see adapt doctor data" if self.left_out else ""
        return [
            f"Converted: {counted(sum(self.pictures.values()), 'picture')} ({parts}){lost}.",
            *self.notes,
            f"Files: {self.out}",
        ]


def convert(config: SourceConfig, request: Request) -> Converted:
    """Write the data of a source in another format.

    COCO's files become COCO's files word by word, for the pictures and classes that are kept; see `data/coco/again.py`.

    Raises:
        UserError: the folder has files, the format holds nothing of what these data say, or they cannot be used.
    """
    from adapt.data.auto import chosen
    from adapt.verbs.converting.rows import Rows
    from adapt.verbs.converting.writers import About, pictures, writer
    from adapt.verbs.formats.told import FOLDER_OF

    out = Path(request.out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out: {request.out!r} is there and not empty. Give a new folder.")
    if config.source == "auto":
        config, said = chosen(config)
        print(said)
    splits = load("data", config.source).load(config)
    rows = Rows(splits, request.copy)
    write = writer(request.to, rows)
    with atomic(out) as folder:
        folder.mkdir()
        if config.source == "coco" and request.to == "coco":
            from adapt.data.coco.again import file_names, write_again

            rows.rename(file_names(config))
            kept = {line["row"]["id"]: (line["split"], line["id"]) for line in rows.lines()}
            write_again(config, folder / "annotations", kept)
            pictures(folder, rows)
            notes: list[str] = []
        else:
            notes = write(folder, rows, About(f"converted from {config.source}", out.resolve()))
    found = {FOLDER_OF[split]: len(splits[split]) for split in rows.splits_told()}
    unsaid = len(splits["unlabelled"]) if "unlabelled" in splits else 0
    return Converted(out, found, len(splits.report.severe) + unsaid, notes)
