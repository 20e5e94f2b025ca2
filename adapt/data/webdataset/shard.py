"""One tar → its samples, read in one pass, nothing unpacked; and the Arrow file that keeps them."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tarfile import TarFile, TarInfo

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from webdataset.tariterators import group_by_keys

from adapt.ahead import ahead
from adapt.data.listing import printable
from adapt.data.scan import inspect, quiet
from adapt.data.webdataset.members import LINKS, MOST, OUTSIDE, PICTURES, Damaged, content, headers, named
from adapt.data.webdataset.tars import Shard
from adapt.provenance import stamp
from adapt.vision.pictures import RGB, cache_folder, cached, digest

VERSION = 1
"""To be raised when the rows of a tar change, so that those that are kept are made again."""
KINDS = 30
"""Endings of members, and fields of JSON, that are counted each by itself."""
BAD = {LINKS: "a link or a device, and no plain file", OUTSIDE: "a name that leads out of the tar"}
"""Why a tar that is looked at strictly is refused for a member."""
FEW = 8
"""Samples that are looked at before their turn."""
BUFFER = 1 << 26
"""Bytes of pictures that are held before they are written."""
FEATURES = Features(
    id=Value("string"),
    image=RGB(),
    label=Value("string"),
    caption=List(Value("string")),
    digest=Value("string"),
    problems=List({"kind": Value("string"), "detail": Value("string"), "count": Value("int64")}),
)
"""Of what is kept: a row a sample, without picture where it cannot be used, and a last one for what is wrong with the tar itself."""
ARRAYS = {"npy": 1 << 20}
"""Read too where the tar is looked at strictly, and the bytes it may have."""
NUMBERS = {"numbers": List(Value("float64"))}
"""The column of them."""


def kept(shard: Shard, strict: bool = False) -> Dataset:
    """The rows of a tar, `FEATURES`, memory-mapped; a tar that has not changed is not read again.

    Args:
        strict: arrays (.npy) are read too, into `numbers`; and a link, or a name that leads out of the tar, is a problem of the tar.
    """
    return _kept(_Reader(shard, strict), "strict" if strict else "")


def told(shard: Shard) -> Dataset:
    """As `kept` with `strict`, of the headers and the labels alone: no picture is read, and `image` is none in every row."""
    return _kept(_Reader(shard, strict=True, pictures=False), "told")


def _kept(reader: _Reader, how: str) -> Dataset:
    def build(path: Path) -> None:
        with quiet(), ArrowWriter(path=str(path), features=reader.features, writer_batch_size=1000) as writer:
            held = 0
            for row in reader.rows():
                writer.write(row)
                held += len((row["image"] or {"bytes": b""})["bytes"])
                if held > BUFFER:
                    writer.write_examples_on_file()
                    held = 0
            writer.finalize()

    shard = reader.shard
    parts = (VERSION, shard.name, stamp(shard.path), *([how] if how else []))
    return cached(cache_folder("webdataset") / f"{digest(*parts)}.arrow", build)


class _Reader:
    """One pass over a tar."""

    def __init__(self, shard: Shard, strict: bool = False, pictures: bool = True):
        self.shard, self.strict, self.pictures = shard, strict, pictures
        self.most = MOST | (ARRAYS if strict else {})
        self.features = Features(FEATURES | (NUMBERS if strict else {}))
        self.over: Counter[str] = Counter()
        """What was passed over."""
        self.wrong: dict[str, list[tuple[str, str]]] = {}
        """Key → kinds and details of what is wrong with its files."""
        self.whole = ""
        """The last key that ended before the tar did."""

    def rows(self) -> Iterator[dict]:
        """A row a sample, then one for the tar."""
        told: list[tuple[str, str]] = []
        members = self._members(told)
        yield from ahead(map(self._row, group_by_keys(members)), FEW)
        for key, wrong in self.wrong.items():  # of these nothing was left to make a sample of
            yield self._bad(key, wrong)
        counts = [{"kind": "passed over", "detail": what, "count": number} for what, number in self.over.items()]
        problems = [{"kind": kind, "detail": detail, "count": 1} for kind, detail in told]
        yield self._empty(f"{self.shard.name}.tar") | {"problems": problems + counts}

    # ------------------------------------------------------------------------------------------------------------ members

    def _members(self, told: list[tuple[str, str]]) -> Iterator[dict]:
        """The members that are read, as webdataset hands them on: fname, data. Where the tar breaks off, its last sample is marked as
        bad, since nobody knows whether it is whole."""
        key = ""
        seen: dict[str, set[str]] = {}
        try:
            for info, tar in headers(self.shard.path):
                own, ending, why = named(info, self.most)
                if self.strict and why in (LINKS, OUTSIDE):
                    raise Damaged("unsafe tar", f"it has {printable(info.name)[:100]!r}, {BAD[why]}")
                if not own:
                    self._count(why)
                    continue
                if own != key:
                    self.whole, key = key, own
                    if own in seen:
                        self._note(own, "bad entry", "its files do not lie one after the other; tar --sort=name puts them so")
                if own in self.wrong:
                    continue
                endings = seen.setdefault(own, set())
                if ending in endings:
                    self._note(own, "bad entry", f"two files .{ending}")
                elif info.size > self.most[ending]:
                    self._note(own, "bad entry", f".{ending} has {info.size:,} bytes; up to {self.most[ending]:,} are read")
                else:
                    endings.add(ending)
                    yield {"fname": f"{own}.{ending}", "data": self._data(tar, info, ending), "__url__": self.shard.name}
        except Damaged as damaged:
            kind, detail = damaged.args
            if kind != "unsafe tar":
                after = f"the last whole sample is {self.whole!r}" if self.whole else "there is no whole sample"
                detail = f"{detail}; {after}"
            told.append((kind, detail))
            if key:
                yield {"fname": f"{key}.__bad__", "data": b"1", "__url__": self.shard.name}

    def _data(self, tar: TarFile, info: TarInfo, ending: str) -> bytes:
        """A member's content, empty of a picture that is not read; `Damaged` where the tar ends inside it."""
        return content(tar, info) if self.pictures or ending not in PICTURES else b""

    def _count(self, what: str) -> None:
        """Something was passed over; of what strangers name, only so many kinds are told apart."""
        if what:
            self.over[what if what in self.over or len(self.over) < KINDS else "files and fields of other kinds"] += 1

    def _note(self, key: str, kind: str, detail: str) -> None:
        if key not in self.wrong:
            self.wrong[key] = [(kind, detail)]

    # --------------------------------------------------------------------------------------------------------------- rows

    def _empty(self, name: str) -> dict:
        row = {"id": name, "image": None, "label": None, "caption": None, "digest": "", "problems": []}
        return row | ({"numbers": None} if self.strict else {})

    def _bad(self, key: str, wrong: list[tuple[str, str]]) -> dict:
        """The row of a sample that cannot be used."""
        problems = [{"kind": kind, "detail": detail, "count": 1} for kind, detail in wrong]
        return self._empty(f"{self.shard.name}/{key}") | {"problems": problems}

    def _row(self, sample: dict) -> Callable[[], dict]:
        """What gives a sample's row, in any thread: its picture is still to be looked at."""
        key = sample["__key__"]
        if key in self.wrong:
            return partial(self._bad, key, self.wrong.pop(key))
        pictures = [ending for ending in PICTURES if ending in sample]
        if not pictures:
            have = ", ".join(f".{name}" for name in sample if name in self.most)
            return partial(self._bad, key, [("bad entry", f"no picture (.jpg, .png, .webp, …); it has {have}")])
        try:
            said = self._said(sample)
        except ValueError as error:
            return partial(self._bad, key, [("bad entry", str(error))])
        for _ in pictures[1:]:
            self._count("second pictures of a sample")
        if not self.pictures:
            return partial(dict, self._empty(f"{self.shard.name}/{key}") | said)
        return partial(self._looked, key, pictures[0], sample[pictures[0]], said)

    def _looked(self, key: str, ending: str, data: bytes, said: dict) -> dict:
        """The row of a sample with a picture, when that has been looked at."""
        finding = inspect({"bytes": data, "path": None})
        row = self._bad(key, finding.problems) | {"digest": finding.digest}
        if finding.size is None:
            return row
        return row | {"image": {"bytes": data, "path": f"{row['id']}.{ending}"}} | said

    def _said(self, sample: dict) -> dict:
        """A sample's `label`, a number or a name, its `caption` and, where they are read, `numbers`; none where nothing says them.

        Raises:
            ValueError: what says them cannot be read.
        """
        more = _json(sample["json"]) if "json" in sample else {}
        label = _text(sample["cls"], "cls").strip() if "cls" in sample else more.get("label")
        captions = _text(sample["txt"], "txt").split("\n") if "txt" in sample else more.get("caption")
        for name in more:
            if name not in ("label", "caption"):
                self._count(f"fields {_plain(name)[:20]!r} of .json")
        if label is not None and (isinstance(label, bool) or not isinstance(label, int | str)):
            raise ValueError(f"its label must be a number or a name, got {str(label)[:60]!r}")
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(captions, list | None) or not all(isinstance(text, str) for text in captions or ()):
            raise ValueError(f"its caption must be a text or a list of texts, got {str(captions)[:60]!r}")
        captions = [plain for text in captions or () if (plain := _plain(text))]
        label = None if label is None else _plain(str(label))
        if label and re.fullmatch(r"-?[0-9]+", label):
            label = str(int(label))
        found = {"label": label or None, "caption": captions or None}
        return found | ({"numbers": _numbers(sample["npy"]) if "npy" in sample else None} if self.strict else {})


def _numbers(data: bytes) -> list[float]:
    """The numbers of an array of one dimension, or of one number.

    Raises:
        ValueError: it is none.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError, OverflowError, TypeError) as error:
        raise ValueError(f".npy is no array of numpy: {' '.join(str(error).split())[:100]}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim > 1 or not np.isfinite(array).all():
        what = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise ValueError(f".npy must hold a row of finite numbers, got {what}")
    return array.astype(np.float64).reshape(-1).tolist()


def _text(data: bytes, ending: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f".{ending} is not UTF-8 text") from None


def _json(data: bytes) -> dict:
    text = _text(data, "json")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f".json is not JSON: {error.msg}, line {error.lineno}") from None
    except (ValueError, RecursionError):
        raise ValueError(".json is nested too deeply, or has a number of thousands of digits") from None
    if not isinstance(content, dict):
        raise ValueError(f".json must hold an object, got {str(content)[:60]!r}")
    return content


def _plain(text: str) -> str:
    """A text without blanks at its ends and without halves of characters, which JSON can spell and no file can hold."""
    return printable(text.strip())
