"""WinoGAViL: a word and 5 to 12 candidate pictures, some of which go with it; which are they?

    data: {source: winogavil}                               # nlphuji/winogavil on the hub
    data: {source: winogavil, path: winogavil}              # a folder of `save_to_disk`, or of Parquet, with the same columns

The text is 'A cue', or 'An cue' before a vowel, in small letters, as DataComp asks (eval_utils/wino_eval.py of mlfoundations/datacomp, MIT).
Source: Bitton et al. 2022, arXiv:2207.12576.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.data.config import MeasuredConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.data.split import Splits

COLUMNS = ("cue", "candidates", "associations", "candidate_images")


class Config(MeasuredConfig):
    """Where the cues lie."""

    source: str = "winogavil"
    """This file."""
    path: str = "nlphuji/winogavil"
    """A hub id, or a folder of `save_to_disk` or of Parquet with columns cue, candidates, associations, candidate_images."""


def load(config: Config) -> Splits:
    """Read the cues.

    Returns:
        `Splits` with test, a row a candidate picture, those of a cue one after the other: id, image, caption (the text of its cue), cue (int,
        from 0), associated (bool: does it go with the cue).

    Raises:
        UserError: it cannot be found or read, lacks a column or a picture, or a cue has no word or nothing that goes with it.
    """
    from datasets import Value

    from adapt.data.hub.measured import only, pictures
    from adapt.data.split import Splits

    cues = only(config, COLUMNS)
    columns = {"id": [], "caption": [], "cue": [], "associated": []}
    for number, (word, names, right) in enumerate(zip(*(cues[name][:] for name in COLUMNS[:3]), strict=True)):
        there = [name in set(right or ()) for name in names or ()]
        if not (word or "").strip() or not any(there):
            what = "no word" if any(there) else "no candidate that goes with it"
            raise UserError(f"data.path: {config.path!r}: cue {number} ({word!r}) has {what}. Correct its line.")
        columns["id"] += [f"{number:04}/{place:02}" for place in range(len(there))]
        columns["caption"] += [text_of(word)] * len(there)
        columns["cue"] += [number] * len(there)
        columns["associated"] += there
    images = pictures(_flat(cues), "candidate_images")
    if len(images) != len(columns["id"]):
        raise UserError(
            f"data.path: {config.path!r} has {len(images):,} pictures for {len(columns['id']):,} candidates. Get it again."
        )
    kinds = {"id": Value("string"), "caption": Value("string"), "cue": Value("int64"), "associated": Value("bool")}
    for name, kind in kinds.items():
        images = images.add_column(name, columns[name], feature=kind)
    rows = images.select_columns(["id", "image", *list(kinds)[1:]])
    return Splits({"test": rows}, {"test": f"all of {config.path!r}"})


def text_of(cue: str) -> str:
    """The text that is asked of a cue."""
    cue = cue.strip().lower()
    return f"{'An' if cue[0] in 'aeiou' else 'A'} {cue}"


def _flat(cues: Dataset) -> Dataset:
    """The candidate pictures of all cues, a row each; their bytes are not copied."""
    import pyarrow as pa
    from datasets import Dataset, Features

    lists = cues.with_format("arrow")[:].column("candidate_images")
    flat = pa.chunked_array([chunk.flatten() for chunk in lists.chunks], lists.type.value_type)
    return Dataset(pa.table({"candidate_images": flat})).cast(
        Features(candidate_images=cues.features["candidate_images"].feature)
    )
