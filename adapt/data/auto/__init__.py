"""The source that only chooses: looks at what lies there, says what it takes it for, and hands over to that source.

    data: {source: auto, path: photos}
    data.path=photos                                # of a recipe of the embedded world: the same

Known by their files: coco, folder, hub (Parquet with pictures, metadata.jsonl, folders of save_to_disk), jsonl, labelme, labelstudio,
masks, table, voc, webdataset (tars), yolo. What could be two is refused with both named. Options that are not here belong to one source
alone: name it in `data.source`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.contracts import SourceConfig
from adapt.data.config import Renamed
from adapt.data.places import existing, expanded
from adapt.plug import UserError, settings


class Config(SourceConfig):
    """Where the data lie; the options that most sources have, which are handed over."""

    source: str = "auto"
    """This file."""
    path: str
    """A folder, or a file such as labels.csv, export.json, train.jsonl, data.yaml."""
    images: str | None = None
    """The pictures' folder, for sources that have this option."""
    unlabelled_path: str | None = None
    """A folder of pictures without labels, for sources that have this option."""
    validation: float | None = Field(None, ge=0, le=0.9)
    """Share for validation, where none is given; none: the source's default."""
    test: float | None = Field(None, ge=0, le=0.9)
    """Share for the test, where none is given; none: the source's default."""
    test_from: Literal["train", "val"] = "train"
    """Where a missing test comes from, for sources that have this option."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the split."""
    classes: Renamed = {}
    """Name of a class → another name; null leaves it out; for sources that have this option."""
    group: str | None = None
    """What is drawn into one split, as the source says it: a regular expression, or a column."""
    limit: int | None = Field(None, ge=1)
    """The most pictures of a split, for sources that have this option; none: all."""
    follow_links: bool = False
    """Follow links to folders and files, for sources that have this option."""
    on_error: Literal["stop", "skip"] = "stop"
    """What cannot be used: stop and name it, or leave it out and list it in `report`."""

    def check_paths(self) -> None:
        """The path and the folders must be there."""
        place = expanded(self.path)
        if not (place.is_file() or self.path.endswith(".tar")):  # a pattern of tars is looked at by its source
            existing(self.path, "data.path")
        for option in ("images", "unlabelled_path"):
            if self.values()[option]:
                existing(self.values()[option], f"data.{option}")


def load(config: Config):
    """Hand over to the source that the files are for, and say so.

    Raises:
        UserError: nothing is known there, or it could be several; an option that the chosen source does not have; and what that raises.
    """
    import os

    from adapt import plug

    config.check_paths()
    own, said = chosen(config)
    if os.environ.get("RANK", "0") == "0":  # of a launcher's processes, one speaks
        print(said)
    return plug.load("data", own.source).load(own)


def chosen(config: Config) -> tuple[SourceConfig, str]:
    """The chosen source's `Config`, and a line that says what was chosen and why.

    Raises:
        UserError: nothing is known there, or it could be several; an option that the chosen source does not have.
    """
    from pydantic import ValidationError

    from adapt import plug
    from adapt.data.auto.layouts import recognise

    guess = recognise(config.path)
    schema = plug.schema("data", guess.source)
    given = {name: value for name, value in settings(config).items() if name not in ("source", "path")}
    for name in given:
        if name not in schema.options():
            raise UserError(
                f"data.{name}: {config.path!r} looks like data.source={guess.source} ({guess.why}), which has no such option. "
                f"Leave it out, or name another source: data.source=NAME."
            )
    try:
        own = schema.model_validate(guess.options | given | {"source": guess.source})
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(f"data.{place}: {problem['msg']}; {config.path!r} was taken for data.source={guess.source}.") from None
    more = "".join(f" data.{name}={value}" for name, value in guess.options.items() if value != config.path)
    said = f"data: {config.path!r} is taken for source={guess.source}: {guess.why}. The same by name: data.source={guess.source}{more}"
    return own, said
