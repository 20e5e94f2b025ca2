"""Sets in the layout that CLIP_benchmark publishes: columns, counts, and what is refused before a picture is read."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from datasets import ClassLabel, List, Value
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from webdataset import WebDataset

from adapt.data.clip_benchmark import Beside, Config, Found, beside, load, look
from adapt.data.webdataset import shard
from adapt.plug import UserError
from tests.suite_trees import COLOURS, NAMES, SETS, TEMPLATES, write_set


def of(root: Path, name: str, **options) -> Config:
    """The config of one of the sets, which is written."""
    one = next(one for one in SETS if one.name == name)
    place = root / one.folder
    if not place.exists():
        write_set(root, one)
    given = {"path": str(place), "labels": one.asked.get("labels", "class"), "group": one.asked.get("group")}
    return Config(**given | options)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))


def changed(tar: Path, change) -> None:
    """Write a tar again, each member as `change(name, data)` says: a list of (name or header, data)."""
    with tarfile.open(tar) as old:
        members = [(info.name, old.extractfile(info).read()) for info in old]
    with tarfile.open(tar, "w") as new:
        for name, data in members:
            for given, content in change(name, data):
                info = tarfile.TarInfo(given) if isinstance(given, str) else given
                info.size = len(content)
                new.addfile(info, io.BytesIO(content))


# ------------------------------------------------------------------------------------------------------------ what is read


def test_a_picture_has_its_class_by_the_line_of_classnames(tmp_path):
    splits = load(of(tmp_path, "cups"))
    rows = splits["test"]
    assert set(splits) == {"test"} and splits.origin["test"].startswith("as given in")
    assert rows.features["label"] == ClassLabel(names=NAMES[:4]) and rows.column_names == ["id", "image", "label"]
    assert rows["label"][:] == [i % 4 for i in range(12)] and rows["id"][:2] == ["test/0/s0000000", "test/0/s0000001"]
    for row in rows:
        assert np.abs(np.asarray(row["image"]).mean((0, 1)) - COLOURS[NAMES[row["label"]]]).max() < 8
    assert len(load(of(tmp_path, "cups", train=True))["train"]) == 8


def test_numbers_are_lines_also_where_names_are_numbers(tmp_path):
    """SVHN's class 0 is called 0, but of a set that sorts its names otherwise, a number is still a line."""
    config = of(tmp_path, "petals")
    Path(config.path, "classnames.txt").write_text("2\n0\n1\n")
    rows = load(config)["test"]
    assert [rows.features["label"].int2str(label) for label in rows["label"][-3:]] == ["0", "1", "1"]


def test_several_classes_are_the_ones_of_the_array(tmp_path):
    config = of(tmp_path, "voc2007_multilabel")
    rows = load(config)["test"]
    wanted = [[0], [1, 2], [2], [0, 3]] * 3
    assert rows["labels"][:] == wanted and rows.features["labels"] == List(ClassLabel(names=NAMES[:4]))

    def numbers(name, data):
        if not name.endswith(".npy"):
            return [(name, data)]
        out = io.BytesIO()
        np.save(out, np.flatnonzero(np.load(io.BytesIO(data))))
        return [(name, out.getvalue())]

    changed(Path(config.path, "test", "0.tar"), numbers)
    assert load(config)["test"]["labels"][:] == wanted


def test_captions_are_lines_and_of_a_choice_the_right_one_is_first(tmp_path):
    rows = load(of(tmp_path, "flickr8k"))["test"]
    assert rows["caption"][3] == [
        "a yellow square",
        "something yellow",
        "yellow all over",
        "one yellow thing",
        "yellow, number 3",
    ]
    assert rows.features["caption"] == List(Value("string")) and rows.column_names == ["id", "image", "caption"]
    rows = load(of(tmp_path, "sugar_crepe/swap_obj"))["test"]
    assert rows["caption"][1] == ["a green square", "a blue square"]


@pytest.mark.parametrize(
    ("name", "said", "column"),
    [
        ("cups", "cls", "label"),
        ("voc2007_multilabel", "npy", "labels"),
        ("shapes", "cls", "label"),
        ("mscoco_captions", "txt", "caption"),
    ],
)
def test_rows_are_what_clip_benchmark_reads(tmp_path, name, said, column):
    """Its `build_wds_dataset`: all tars through webdataset, decoded; labels as they are, captions by `splitlines`."""
    config = of(tmp_path, name)
    tars = [str(path) for path in sorted(Path(config.path, "test").glob("*.tar"))]
    theirs = WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("png;webp", said)
    as_theirs = {
        "label": int,
        "labels": lambda classes: [float(place in classes) for place in range(4)],
        "caption": list,
    }[column]
    ours = load(config)["test"]
    for row, (image, label) in zip(ours, theirs, strict=True):
        assert np.array_equal(np.asarray(row["image"]), np.asarray(image))
        wanted = label.splitlines() if said == "txt" else label.tolist() if said == "npy" else label
        assert as_theirs(row[column]) == wanted


def test_groups_are_what_wilds_knows_of_a_picture(tmp_path):
    assert load(of(tmp_path, "wilds/fmow"))["test"]["group"][::4] == ["Asia", "Americas", "Other"]
    assert load(of(tmp_path, "dollar_street"))["test"]["group"][::4] == ["0", "1", "2", "3"]
    assert load(of(tmp_path, "dollar_street", group="region"))["test"]["group"][:4] == ["0", "1", "2", "3"]
    assert load(of(tmp_path, "wilds/fmow", group="2"))["test"]["group"][:4] == ["0", "1", "2", "0"]
    assert "group" not in load(of(tmp_path, "wilds/iwildcam"))["test"].column_names


@pytest.mark.parametrize(("name", "found"), [
    ("cups", Found(12, NAMES[:4], 4, 0)),
    ("wilds/iwildcam", Found(9, NAMES[:6], 5, 0)),
    ("voc2007_multilabel", Found(12, NAMES[:4], 4, 0)),
    ("flickr8k", Found(10, [], 0, 50)),
    ("mscoco_captions", Found(9, [], 0, 22)),
])  # fmt: skip
def test_a_look_counts_and_reads_no_picture(tmp_path, monkeypatch, name, found):
    monkeypatch.setattr(shard, "inspect", lambda value: pytest.fail("a picture was read"))
    config = of(tmp_path, name)
    assert look(config) == found
    monkeypatch.setattr(shard, "headers", lambda path: pytest.fail("the tar was read again"))
    assert look(config) == found


def test_what_lies_beside_the_tars_is_told(tmp_path):
    assert beside(of(tmp_path, "cups").path) == Beside(NAMES[:4], TEMPLATES, "")
    assert beside(of(tmp_path, "voc2007_multilabel").path).kind == "multilabel"
    assert beside(of(tmp_path, "flickr8k").path) == Beside([], [], "retrieval")


def test_the_hub_is_asked_for_the_split_and_the_texts_alone(tmp_path, monkeypatch):
    one, asked = SETS[0], []
    write_set(tmp_path / "hub", one)

    def fetch(name, repo_type, allow_patterns):
        asked.append((name, repo_type, allow_patterns))
        return str(tmp_path / "hub" / one.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    config = Config(path="clip-benchmark/wds_cups")
    config.check_paths()
    assert len(load(config)["test"]) == 12 and beside(config.path).templates == TEMPLATES
    assert {name for name, *_ in asked} == {config.path} and {kind for _, kind, _ in asked} == {"dataset"}
    assert [patterns for *_, patterns in asked if "train/*" in patterns] == []
    assert asked[-1][2] == ["*.txt"]

    def offline(*_, **__):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        UserError, match=r"^data\.path: 'clip-benchmark/wds_cups': there is no folder here, and the hub cannot be reached"
    ):
        load(config)


# --------------------------------------------------------------------------------------------------------- what is refused


def refused(config: Config) -> str:
    """The one line that `check_paths` or `load` says."""
    with pytest.raises(UserError) as error:
        config.check_paths()
        load(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def link(kind: bytes, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("link.png")
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(("member", "said"), [
    (("/etc/passwd.png", b"x"), "'/etc/passwd.png', a name that leads out of the tar"),
    (("../../evil.png", b"x"), "'../../evil.png', a name that leads out of the tar"),
    (("a/../../evil.cls", b"0"), "'a/../../evil.cls', a name that leads out of the tar"),
    ((link(tarfile.SYMTYPE, "/etc/passwd"), b""), "'link.png', a link or a device, and no plain file"),
    ((link(tarfile.LNKTYPE, "s0000000.png"), b""), "'link.png', a link or a device, and no plain file"),
    ((link(tarfile.FIFOTYPE, ""), b""), "'link.png', a link or a device, and no plain file"),
])  # fmt: skip
def test_a_tar_with_a_link_or_a_name_that_leads_out_is_not_read(tmp_path, monkeypatch, member, said):
    monkeypatch.setattr(shard, "inspect", lambda value: pytest.fail("a picture was read"))
    config = of(tmp_path, "cups")
    changed(Path(config.path, "test", "0.tar"), lambda name, data: [(name, data), *([member] if "0005.cls" in name else [])])
    text = refused(config)
    assert text.startswith("data.path: 'test/0.tar': unsafe tar (it has ") and said in text
    assert look(config).why == text
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == []


@pytest.mark.parametrize(("name", "options", "said"), [
    ("cups", {"labels": "classes"}, r"^data\.labels: got 'classes', but '.*wds_cups' has no dataset_type\.txt, .* Write data\.labels=class\.$"),
    ("voc2007_multilabel", {"labels": "class"}, r"^data\.labels: got 'class', but .*dataset_type\.txt says 'multilabel'\. Write data\.labels=classes\.$"),
    ("flickr8k", {"labels": "class"}, r"says 'retrieval'\. Write data\.labels=captions\.$"),
    ("cups", {"split": "tset"}, r"^data\.split: '.*' has no folder 'tset'\. Have: test, train\.$"),
    ("cups", {"group": "region"}, r"^data\.group: nothing says where 'region' is .* Fields are known of fmow, .* data\.group='0'\.$"),
    ("wilds/fmow", {"group": "regoin"}, r"^data\.group: nothing says where 'regoin' is .* Have: region, year, y\."),
    ("cups", {"group": "0"}, r"'test/0/s0000000': bad entry \(no array \(\.npy\) beside its class, and '0' is its number 0, from 0\)"),
    ("wilds/fmow", {"group": "9"}, r"an array of 3 numbers beside its class, and '9' is its number 9"),
])  # fmt: skip
def test_what_the_set_is_not_is_one_line(tmp_path, name, options, said):
    assert re.search(said, refused(of(tmp_path, name, **options)))


def without(ending: str, number: str = ""):
    return lambda root: changed(
        root / "test" / "0.tar", lambda name, data: [] if name.endswith(ending) and number in name else [(name, data)]
    )


def replaced(ending: str, data: bytes, new: str = ""):
    return lambda root: changed(
        root / "test" / "0.tar",
        lambda name, old: [(name.replace(ending, new or ending), data) if name.endswith(ending) else (name, old)],
    )


def array(*values, dtype=np.float32) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array(values, dtype), allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(("name", "break_it", "said"), [
    ("mscoco_captions", without(".txt", "0003"), "'test/0/s0000003': bad entry (no captions (.txt))"),
    ("flickr8k", without(".txt"), "no captions (.txt)); correct it, or delete it. The same or other things are wrong with 9 others."),
    ("flickr8k", replaced(".txt", b"1", ".cls"), "no captions (.txt), but one class (.cls)"),
    ("sugar_crepe/swap_obj", replaced(".txt", b"only one"), "one caption alone; to choose there must be two, the right one first"),
    ("cups", replaced(".cls", array(0, 1, 0, 0), ".npy"), "no class (.cls), but several classes (.npy)"),
    ("cups", replaced(".cls", b"a cup", ".txt"), "no class (.cls), but captions (.txt)"),
    ("cups", replaced(".cls", b"4"), "class '4', but classnames.txt has 4 lines, for 0 to 3"),
    ("cups", replaced(".cls", b"mug"), "class 'mug', but classnames.txt has 4 lines"),
    ("cups", replaced(".cls", b"-1"), "class '-1', but classnames.txt has 4 lines"),
    ("voc2007_multilabel", replaced(".npy", b"1", ".cls"), "no classes (.npy), but one class (.cls)"),
    ("voc2007_multilabel", replaced(".npy", array(0, 7)), ".npy has 7 among 2 numbers, but classnames.txt has 4 lines"),
    ("voc2007_multilabel", replaced(".npy", array(0.5, 1, 0, 0)), ".npy has 0.5 among 4 numbers"),
    ("voc2007_multilabel", replaced(".npy", array({}, dtype=object)), ".npy is no array of numpy: Object arrays cannot be loaded"),
    ("voc2007_multilabel", replaced(".npy", array([0, 1], [1, 0])), ".npy must hold a row of finite numbers, got float32 of shape (2, 2)"),
    ("voc2007_multilabel", replaced(".npy", array(np.nan, 0, 0, 1)), ".npy must hold a row of finite numbers"),
    ("voc2007_multilabel", replaced(".npy", b"no array"), ".npy is no array of numpy"),
    ("cups", lambda root: (root / "classnames.txt").unlink(), "classnames.txt is missing. Write one class a line"),
    ("cups", lambda root: (root / "classnames.txt").write_text("\n"), "classnames.txt is empty. Write one class a line"),
    ("cups", lambda root: (root / "classnames.txt").write_text("red\ngreen\n"), "class '2', but classnames.txt has 2 lines, for 0 to 1"),
    ("shapes", lambda root: (root / "test" / "2.tar").unlink(), "nshards.txt says 3 tars, and 2.tar cannot be found. Get the set again"),
    ("shapes", lambda root: [(root / "test" / f"{i}.tar").unlink() for i in (0, 2)], "says 3 tars, and 0.tar and 1 other cannot be found"),
    ("shapes", lambda root: (root / "test" / "nshards.txt").unlink(), "nshards.txt is missing. It must hold the number of tars"),
    ("shapes", lambda root: (root / "test" / "nshards.txt").write_text("all"), "nshards.txt says 'all'. It must hold the number"),
    ("cups", replaced(".png", b"no picture"), "'test/0/s0000000': unreadable (not an image"),
    ("cups", without(".png", "0002"), "'test/0/s0000002': bad entry (no picture (.jpg, .png, .webp, …); it has .cls)"),
    ("cups", without(""), "data.path: its tars hold no samples."),
    ("cups", lambda root: (root / "test" / "0.tar").write_bytes((root / "test" / "0.tar").read_bytes()[:9000]), "'test/0.tar': truncated"),
])  # fmt: skip
def test_what_cannot_be_used_is_one_line(tmp_path, name, break_it, said):
    config = of(tmp_path, name)
    break_it(Path(config.path))
    text = refused(config)
    assert said in text and text.startswith("data.")


def test_a_tar_that_is_a_link_out_of_the_set_is_not_read_but_the_set_may_be_one(tmp_path):
    config = of(tmp_path / "elsewhere", "cups")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "wds_cups").symlink_to(config.path)
    linked = Config(path=str(tmp_path / "tree" / "wds_cups"))
    assert len(load(linked)["test"]) == 12
    tar = Path(config.path, "test", "0.tar")
    tar.rename(tmp_path / "other.tar")
    tar.symlink_to(tmp_path / "other.tar")
    assert "0.tar is a link that leads out of the set, to " in refused(linked)


def test_a_thin_picture_counts_as_the_others_do(tmp_path):
    """Objects of VOC 2007 are cut out by their boxes: of a number of the literature none is left out."""
    out = io.BytesIO()
    Image.new("RGB", (3, 400)).save(out, "PNG")
    config = of(tmp_path, "cups")
    changed(Path(config.path, "test", "0.tar"), lambda name, data: [(name, out.getvalue() if "0004.png" in name else data)])
    rows = load(config)["test"]
    assert len(rows) == 12 and rows[4]["image"].size == (3, 400)


@pytest.mark.parametrize(("path", "said"), [
    ("wds_cup", "no folder 'wds_cup'. Did you mean 'wds_cups'? Give the folder that has test/"),
    ("wds_cups/classnames.txt", "is a file. Give the folder that has test/"),
    ("/nowhere/at/all", "no folder '/nowhere/at/all'"),
])  # fmt: skip
def test_a_wrong_path_is_one_line(tmp_path, path, said):
    of(tmp_path, "cups")
    assert said in refused(Config(path=path))
