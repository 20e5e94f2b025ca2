"""One tar → its samples, read in one pass, nothing unpacked; and the Arrow file that keeps them.

What a tar says is believed as far as it can be checked: a name never becomes a path, only plain files are read, each up to a size, and an
archive that ends early is said to.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from webdataset.tariterators import base_plus_ext, group_by_keys

from adapt.data.listing import printable
from adapt.data.scan import inspect, quiet
from adapt.data.webdataset.tars import Shard
from adapt.provenance import stamp
from adapt.vision.pictures import RGB, SUFFIXES, cache_folder, cached, digest

VERSION = 1
"""To be raised when the rows of a tar change, so that those that are kept are made again."""
PICTURES = tuple(suffix[1:] for suffix in SUFFIXES)
MOST = {**dict.fromkeys(PICTURES, 1 << 28), "cls": 1 << 12, "txt": 1 << 20, "json": 1 << 20}
"""Members that are read, by what follows their key, and the bytes that each may have."""
BLOCK = tarfile.BLOCKSIZE
KINDS = 30
"""Endings of members, and fields of JSON, that are counted each by itself."""
BUFFER = 1 << 26
"""Bytes of pictures that are held before they are written."""
META = re.compile(r"__[^/]*__($|/)")
"""Members of webdataset's own, which are no samples (`tar_file_iterator`)."""
FEATURES = Features(
    id=Value("string"),
    image=RGB(),
    label=Value("string"),
    caption=List(Value("string")),
    digest=Value("string"),
    problems=List({"kind": Value("string"), "detail": Value("string"), "count": Value("int64")}),
)
"""Of what is kept: a row a sample, without picture where it cannot be used, and a last one for what is wrong with the tar itself."""


class Bounded(FileIO):
    """A file of which no more is read at once than a member may have, whatever the headers in it say."""

    def read(self, size: int = -1) -> bytes:
        if size > max(MOST.values()):
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size)


class Damaged(Exception):
    """A tar cannot be read further: a kind of `problems.KINDS` and a detail."""


def kept(shard: Shard) -> Dataset:
    """The rows of a tar, `FEATURES`, memory-mapped; a tar that has not changed is not read again."""

    def build(path: Path) -> None:
        with ArrowWriter(path=str(path), features=FEATURES, writer_batch_size=1000) as writer:
            held = 0
            for row in _Reader(shard).rows():
                writer.write(row)
                held += len((row["image"] or {"bytes": b""})["bytes"])
                if held > BUFFER:
                    writer.write_examples_on_file()
                    held = 0
            writer.finalize()

    return cached(cache_folder("webdataset") / f"{digest(VERSION, shard.name, stamp(shard.path))}.arrow", build)


class _Reader:
    """One pass over a tar."""

    def __init__(self, shard: Shard):
        self.shard = shard
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
        for sample in group_by_keys(members):
            yield self._row(sample)
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
            for info, tar in self._infos():
                own, ending = self._named(info)
                if not own:
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
                elif info.size > MOST[ending]:
                    self._note(own, "bad entry", f".{ending} has {info.size:,} bytes; up to {MOST[ending]:,} are read")
                else:
                    endings.add(ending)
                    yield {"fname": f"{own}.{ending}", "data": self._data(tar, info), "__url__": self.shard.name}
        except Damaged as damaged:
            after = f"the last whole sample is {self.whole!r}" if self.whole else "there is no whole sample"
            kind, detail = damaged.args
            told.append((kind, f"{detail}; {after}"))
            if key:
                yield {"fname": f"{key}.__bad__", "data": b"1", "__url__": self.shard.name}

    def _infos(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        """The members' headers, to the tar's own end.

        Raises:
            Damaged: it ends before, or is no tar.
        """
        last = -1
        try:
            # "r:" is no compressed tar: what a small one unpacks to has no bound
            with Bounded(self.shard.path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                while info := tar.next():
                    if info.size < 0 or not last < info.offset < tar.offset:
                        raise Damaged("unreadable", f"the header at byte {info.offset:,} leads back")
                    last = info.offset
                    yield info, tar
                    tar.members.clear()
                self._ended(file, tar.offset)
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            words = " ".join(str(error).split())[:100]
            if last < 0:
                raise Damaged("unreadable", f"it is no tar, or a compressed one: {words}") from None
            raise Damaged("truncated", f"{words} after byte {last:,}") from None

    @staticmethod
    def _ended(file: FileIO, offset: int) -> None:
        """Raises `Damaged` where the tar does not end with a block of zeros: tarfile stops there without a word."""
        file.seek(offset)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise Damaged("truncated", f"it ends at byte {offset:,} without the mark of its end")
        if block.strip(b"\0"):
            raise Damaged("unreadable", f"a broken header at byte {offset:,}")

    def _named(self, info: tarfile.TarInfo) -> tuple[str, str]:
        """A member's key and ending; empty where it is not read, which is counted."""
        if info.isdir():
            return "", ""
        name = info.name.removeprefix("./")
        key, ending = base_plus_ext(name)
        why = ""
        if not info.isreg() or info.issparse():
            why = "links, devices and sparse files"
        elif name.startswith("/") or ".." in name.split("/"):
            why = "files whose names lead out of the tar"
        elif printable(name) != name:
            why = "files whose names are not UTF-8"
        elif META.match(name) or key is None:
            why = "files without a key, such as .hidden or __meta__"
        elif ending.lower() not in MOST:
            why = f"files .{ending.lower()[:20]}"
        if not why:
            return key, ending.lower()
        self._count(why)
        return "", ""

    def _count(self, what: str) -> None:
        """Something was passed over; of what strangers name, only so many kinds are told apart."""
        self.over[what if what in self.over or len(self.over) < KINDS else "files and fields of other kinds"] += 1

    @staticmethod
    def _data(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
        """A member's content; `Damaged` where the tar ends inside it."""
        try:
            return tar.extractfile(info).read(info.size)
        except tarfile.ReadError:
            where = f"it ends inside {info.name!r}, which begins at byte {info.offset_data:,}"
            raise Damaged("truncated", where) from None

    def _note(self, key: str, kind: str, detail: str) -> None:
        if key not in self.wrong:
            self.wrong[key] = [(kind, detail)]

    # --------------------------------------------------------------------------------------------------------------- rows

    def _empty(self, name: str) -> dict:
        return {"id": name, "image": None, "label": None, "caption": None, "digest": "", "problems": []}

    def _bad(self, key: str, wrong: list[tuple[str, str]]) -> dict:
        """The row of a sample that cannot be used."""
        problems = [{"kind": kind, "detail": detail, "count": 1} for kind, detail in wrong]
        return self._empty(f"{self.shard.name}/{key}") | {"problems": problems}

    def _row(self, sample: dict) -> dict:
        """A sample's row."""
        key = sample["__key__"]
        if key in self.wrong:
            return self._bad(key, self.wrong.pop(key))
        pictures = [ending for ending in PICTURES if ending in sample]
        if not pictures:
            have = ", ".join(f".{name}" for name in sample if name in MOST)
            return self._bad(key, [("bad entry", f"no picture (.jpg, .png, .webp, …); it has {have}")])
        try:
            label, captions = self._said(sample)
        except ValueError as error:
            return self._bad(key, [("bad entry", str(error))])
        for _ in pictures[1:]:
            self._count("second pictures of a sample")
        data = sample[pictures[0]]
        with quiet():
            finding = inspect({"bytes": data, "path": None})
        row = self._bad(key, finding.problems) | {"digest": finding.digest}
        if finding.size is None:
            return row
        image = {"bytes": data, "path": f"{row['id']}.{pictures[0]}"}
        return row | {"image": image, "label": label, "caption": captions}

    def _said(self, sample: dict) -> tuple[str | None, list[str] | None]:
        """A sample's class, a number or a name, and its captions; none where nothing says them.

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
        return label or None, captions or None


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
