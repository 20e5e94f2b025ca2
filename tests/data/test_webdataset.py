"""Tars as webdataset's own writer, img2dataset and CLIP_benchmark make them, and tars that strangers could make."""

from __future__ import annotations

import io
import json
import tarfile
from threading import Barrier

import numpy as np
import pytest
from datasets import ClassLabel, List, Value
from datasets import Image as Stored
from PIL import Image
from webdataset import TarWriter

from adapt import ahead
from adapt.data.auto.layouts import recognise
from adapt.data.webdataset import Config, load, shard
from adapt.data.webdataset.tars import tars
from adapt.plug import UserError


def png(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(path, *samples: dict, start: int = 0) -> str:
    """Samples without `__key__` and `png`, which are added, by webdataset's own writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(path), encoder=False) as tar:
        for number, sample in enumerate(samples, start):
            content = {name: value if isinstance(value, bytes) else str(value).encode() for name, value in sample.items()}
            tar.write({"__key__": f"s{number:07}", "png": png(number)} | content)
    return str(path)


def members(path, *files: tuple[tarfile.TarInfo | str, bytes]) -> str:
    """A tar of these members, by hand."""
    with tarfile.open(path, "w") as tar:
        for info, data in files:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def benchmark(root) -> str:
    """A set as CLIP_benchmark's `webdataset_builder` writes it: 12 and 6 pictures of two classes."""
    for split, count in (("train", 12), ("test", 6)):
        half, start = count // 2, 0 if split == "train" else 100
        write(root / split / "0.tar", *({"cls": i % 2} for i in range(half)), start=start)
        write(root / split / "1.tar", *({"cls": i % 2} for i in range(half)), start=start + half)
        (root / split / "nshards.txt").write_text("2\n")
    (root / "classnames.txt").write_text("sports car\nold van\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    return str(root)


def test_a_set_of_clip_benchmark_is_read_with_its_splits_and_names(tmp_path):
    splits = load(Config(path=benchmark(tmp_path / "cars"), validation=0))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "test": 6}
    rows = splits["test"]
    assert rows.features["label"] == ClassLabel(names=["sports car", "old van"])
    assert rows["id"][0] == "test/0/s0000100" and rows.column_names == ["id", "image", "label"]
    assert rows["label"][:] == [0, 1, 0, 0, 1, 0]
    assert np.array_equal(np.asarray(rows[0]["image"]), np.asarray(Image.open(io.BytesIO(png(100)))))
    assert [str(problem) for problem in splits.report.problems] == [
        "'zeroshot_classification_templates.txt': passed over (its lines can be given as prompts.templates); "
        "nothing to do, if it is not needed"
    ]


def test_what_is_missing_is_drawn_by_class_and_by_seed(tmp_path):
    write(tmp_path / "a.tar", *({"cls": i % 3} for i in range(60)))
    splits = load(Config(path=str(tmp_path / "a.tar"), validation=0.1, test=0.2))
    assert {name: np.bincount(rows["label"]).tolist() for name, rows in splits.items()} == {
        "train": [14] * 3,
        "validation": [2] * 3,
        "test": [4] * 3,
    }
    again = load(Config(path=str(tmp_path / "a.tar"), validation=0.1, test=0.2))
    assert again["test"]["id"][:] == splits["test"]["id"][:]
    assert load(Config(path=str(tmp_path / "a.tar"), seed=1))["test"]["id"][:] != splits["test"]["id"][:]
    assert splits.origin["test"] == f"20 % drawn from the tars of {str(tmp_path / 'a.tar')!r}"


def test_equal_pictures_are_drawn_together(tmp_path):
    write(tmp_path / "a.tar", *({"cls": i % 2, "png": png(i // 4)} for i in range(40)))
    splits = load(Config(path=str(tmp_path / "a.tar"), test=0.3))
    pictures = {name: {np.asarray(image).tobytes() for image in rows["image"]} for name, rows in splits.items()}
    assert not pictures["train"] & pictures["test"] and splits.report.counts() == {"two classes": 20, "duplicate": 10}


@pytest.mark.parametrize("path", ["{00..02}.tar", "0{0,1,2}.tar", "*.tar", "", "{0,1}{0..2}.tar"])
def test_patterns_mean_what_a_shell_makes_of_them(tmp_path, path):
    for i in range(3):
        write(tmp_path / f"0{i}.tar", {"cls": 0}, {"cls": 1}, start=2 * i)
    config = Config(path=str(tmp_path / path), test=0, validation=0, on_error="skip")
    config.check_paths()
    splits = load(config)
    assert splits["train"]["id"][:] == [f"0{i // 2}/s{i:07}" for i in range(6)]
    assert splits.report.counts() == ({"unreadable": 3} if path.startswith("{0,1}") else {})


def test_the_words_of_a_name_are_its_split(tmp_path):
    for split, count in (("train", 6), ("validation", 4), ("test", 2)):
        write(tmp_path / f"birds-{split}-0000.tar", *({"cls": i % 2} for i in range(count)), start=ord(split[-1]))
    assert {name: len(rows) for name, rows in load(Config(path=str(tmp_path))).items()} == {
        "train": 6,
        "validation": 4,
        "test": 2,
    }


def test_captions_of_txt_and_of_img2dataset(tmp_path):
    write(
        tmp_path / "a.tar",
        {"txt": "a cat\n\n a grey cat \r\n"},
        {"json": json.dumps({"caption": "a dog", "url": "http://x", "status": "success"})},
        {"txt": "a cow", "json": json.dumps({"caption": "not this", "url": "http://y"})},
    )
    splits = load(Config(path=str(tmp_path / "a.tar"), test=0, validation=0))
    assert splits["train"].features["caption"] == List(Value("string")) and "label" not in splits["train"].features
    assert splits["train"]["caption"][:] == [["a cat", "a grey cat"], ["a dog"], ["a cow"]]
    assert [problem.detail for problem in splits.report.problems] == ["2 fields 'url' of .json", "1 fields 'status' of .json"]


def test_classes_are_numbers_or_names_and_json_has_them_too(tmp_path):
    write(tmp_path / "a.tar", {"cls": "10"}, {"cls": "2\n"}, {"json": '{"label": 2}'}, {"json": '{"label": "10"}'})
    assert load(Config(path=str(tmp_path / "a.tar"), test=0, validation=0))["train"].features["label"].names == ["2", "10"]
    write(tmp_path / "b.tar", {"cls": "ant"}, {"cls": "bee"}, {"cls": "1"}, {"cls": "0"})
    (tmp_path / "classnames.txt").write_bytes(b"\xef\xbb\xbfbee\r\nant\r\n")
    assert load(Config(path=str(tmp_path / "b.tar"), test=0, validation=0))["train"]["label"][:] == [1, 0, 1, 0]


def test_a_name_that_two_classes_share_gets_its_number(tmp_path):
    write(tmp_path / "a.tar", *({"cls": i} for i in range(3)))
    (tmp_path / "classnames.txt").write_text("crane\nowl\ncrane\n")  # ImageNet has two cranes
    splits = load(Config(path=str(tmp_path / "a.tar"), test=0, validation=0))
    assert splits["train"].features["label"].names == ["crane", "owl", "crane (2)"]
    assert splits.report.problems[0].detail == "line 3 has 'crane' again, and is called 'crane (2)'"


def test_classes_are_renamed_joined_and_left_out_by_name(tmp_path):
    path = benchmark(tmp_path / "cars")
    write(tmp_path / "cars" / "train" / "2.tar", *({"cls": 2} for _ in range(4)), start=50)
    write(tmp_path / "cars" / "test" / "2.tar", *({"cls": 3} for _ in range(2)), start=150)
    for split in ("train", "test"):
        (tmp_path / "cars" / split / "nshards.txt").write_text("3\n")
    (tmp_path / "cars" / "classnames.txt").write_text("sports car\nold van\nbus\ncoach\n")

    def opened(**classes):
        return load(Config(path=path, validation=0, classes=classes))

    splits = opened(coach="bus", bus="bus")  # a class of the test alone, joined with one that training sees
    assert splits["test"].features["label"].names == ["sports car", "old van", "bus"] and splits["test"]["label"][-2:] == [2, 2]
    assert [problem.problem for problem in splits.report.problems] == ["passed over"]
    splits = opened(bus=None, coach=None, **{"old van": "van"})
    assert splits["train"].features["label"].names == ["sports car", "van"]
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "test": 6}
    left = [(problem.id, problem.detail) for problem in splits.report.problems if problem.problem == "class left out"]
    assert left == [("bus", "4 pictures"), ("coach", "2 pictures")]
    with pytest.raises(UserError, match=r"data\.classes: the data have no class 'van'\. Did you mean 'old van'\?"):
        opened(van=None)
    with pytest.raises(UserError, match="only one class, 'car'"):
        opened(bus="car", coach="car", **{"sports car": "car", "old van": "car"})


def test_numbers_without_names_are_called_by_classes(tmp_path):
    write(tmp_path / "a.tar", *({"cls": i % 4} for i in range(12)))
    splits = load(Config(path=str(tmp_path / "a.tar"), validation=0, test=0, classes={0: "cat", 2: "cat", 1: "dog", 3: None}))
    assert splits["train"].features["label"].names == ["cat", "dog"] and splits["train"]["label"][:] == [0, 1, 0] * 3
    write(tmp_path / "b.tar", {"txt": "a cat"}, {"txt": "a dog"})
    with pytest.raises(UserError, match=r"data\.classes: no sample has a class"):
        load(Config(path=str(tmp_path / "b.tar"), classes={"cat": "dog"}))


def test_other_members_are_counted_and_never_read(tmp_path):
    write(tmp_path / "a.tar", *({"cls": i, "pyd": b"cos\nsystem\n.", "npy": b"x", "seg.png": b"y"} for i in range(2)))
    write(tmp_path / "b.tar", *({"cls": i, "npy": b"x"} for i in range(2)), start=2)
    report = load(Config(path=str(tmp_path), test=0, validation=0)).report
    assert [problem.detail for problem in report.problems] == ["4 files .npy", "2 files .pyd", "2 files .seg.png"]


def test_several_classes_a_picture_are_refused_by_name(tmp_path):
    path = write(tmp_path / "a.tar", {"npy": b"x"}, {"npy": b"x"})
    with pytest.raises(UserError, match=r"arrays \(2 files \.npy\): several classes a picture cannot be learnt") as error:
        load(Config(path=path))
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------------------------------- on the disk, once


def test_pictures_stay_on_the_disk_and_a_tar_is_read_once(tmp_path, monkeypatch):
    path = benchmark(tmp_path / "cars")
    first = load(Config(path=path))
    files = {file["filename"].rpartition("/")[2] for file in first["train"].cache_files}
    assert files == {file.name for file in (tmp_path / "cache" / "webdataset").iterdir()} and len(files) == 4
    read = []
    look = shard.inspect
    monkeypatch.setattr(shard, "inspect", lambda value: read.append(1) or look(value))
    again = load(Config(path=path))
    assert not read and again["train"]["id"][:] == first["train"]["id"][:] and again.report == first.report
    write(tmp_path / "cars" / "test" / "1.tar", {"cls": 0}, {"cls": 1}, start=500)
    assert load(Config(path=path))["test"]["id"][3:] == ["test/1/s0000500", "test/1/s0000501"] and len(read) == 2


def test_pictures_are_looked_at_by_threads_with_the_rows_of_one_by_one(tmp_path, monkeypatch):
    broken = [{"cls": 0, "png": b"no picture"}, {"cls": 0}, {"png": b"", "cls": 1}]
    path = write(tmp_path / "a.tar", *broken, *({"cls": i % 2} for i in range(37)))
    inspect, another = shard.inspect, Barrier(2)

    def rows(cache: str) -> list[dict]:
        monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / cache))
        (tar,) = tars(path)[1]
        return shard.kept(tar).cast_column("image", Stored(decode=False)).to_list()

    with monkeypatch.context() as alone:
        alone.setattr(shard, "ahead", lambda jobs, most: (job() for job in jobs))
        wanted = rows("alone")
    monkeypatch.setattr(ahead, "threads", lambda: 2)
    monkeypatch.setattr(shard, "inspect", lambda value: another.wait(10) + 1 and inspect(value))
    assert rows("together") == wanted and len(wanted) == 41


def test_a_disk_without_room_is_said_before_anything_is_copied(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tar", {"cls": 0}, {"cls": 1})
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("", (), {"free": 9}))
    with pytest.raises(UserError, match=r"are copied once into .*webdataset, whose disk has 0\.0 GB free\. .*ADAPT_CACHE"):
        load(Config(path=path))


# ------------------------------------------------------------------------------------------------------------------ strangers


def linked(name: str, kind: bytes, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_nothing_in_a_tar_leads_out_of_it(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(9))
    good = [(f"{i}.{ending}", data) for i in range(2) for ending, data in (("png", png(i)), ("cls", str(i).encode()))]
    path = members(
        tmp_path / "a.tar",
        *good,
        ("/etc/evil.png", png(5)),
        ("../evil.png", png(6)),
        ("a/../../evil.png", png(7)),
        (linked("x.png", tarfile.SYMTYPE, str(tmp_path / "secret.png")), b""),
        (linked("y.png", tarfile.LNKTYPE, "0.png"), b""),
        (linked("z.png", tarfile.CHRTYPE, ""), b""),
        (".hidden.png", png(8)),
        ("__meta__/info.json", b"{}"),
    )
    splits = load(Config(path=path, test=0, validation=0))
    assert splits["train"]["id"][:] == ["a/0", "a/1"]
    assert [problem.detail for problem in splits.report.problems] == [
        "3 files whose names lead out of the tar",
        "3 links, devices and sparse files",
        "2 files without a key, such as .hidden or __meta__",
    ]
    assert {item.name for item in tmp_path.rglob("*.png")} == {"secret.png"}


def test_a_tar_that_is_a_link_out_of_the_folder_is_followed_only_when_asked(tmp_path):
    write(tmp_path / "other" / "a.tar", {"cls": 0}, {"cls": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.tar").symlink_to(tmp_path / "other" / "a.tar")
    with pytest.raises(UserError, match=r"'a\.tar': leads outside"):
        load(Config(path=str(tmp_path / "mine")))
    config = Config(path=str(tmp_path / "mine"), follow_links=True, test=0, validation=0)
    assert len(load(config)["train"]) == 2


@pytest.mark.parametrize(
    ("cut", "said", "left"),
    [
        (
            lambda data, infos: data[: infos[5].offset_data + 100],
            r"truncated \(it ends inside 's0000002\.png', which begins at byte .*; the last",
            2,
        ),
        (
            lambda data, infos: data[: infos[5].offset],
            r"truncated \(it ends at byte [\d,]+ without the mark of its end; the last whole",
            2,
        ),
        (lambda data, infos: data[: infos[4].offset + 100], r"truncated \(it ends at byte [\d,]+ without the mark", 1),
        (lambda data, infos: data[: infos[4].offset + 700], r"truncated \(.* after byte [\d,]+; the last whole", 1),
        (
            lambda data, infos: data[: infos[4].offset] + b"x" * 9000,
            r"unreadable \(a broken header at byte [\d,]+; the last",
            1,
        ),
        (lambda data, infos: b"\x1f\x8b" + b"x" * 9000, r"unreadable \(it is no tar, or a compressed one: ", 0),
        (lambda data, infos: b"", r"unreadable \(it is no tar, or a compressed one: empty file; there is no whole sample", 0),
    ],
)
def test_a_tar_that_breaks_off_is_one_line_and_what_was_whole_is_kept(tmp_path, cut, said, left):
    write(tmp_path / "whole.tar", *({"cls": i % 2} for i in range(4)))
    with tarfile.open(tmp_path / "whole.tar") as tar:
        infos = list(tar)
    (tmp_path / "cut.tar").write_bytes(cut((tmp_path / "whole.tar").read_bytes(), infos))
    write(tmp_path / "more.tar", {"cls": 0}, {"cls": 1}, start=50)
    (tmp_path / "whole.tar").unlink()
    with pytest.raises(UserError, match=rf"^data\.path: 'cut\.tar': {said}") as error:
        load(Config(path=str(tmp_path)))
    assert "\n" not in str(error.value)
    splits = load(Config(path=str(tmp_path), test=0, validation=0, on_error="skip"))
    assert splits["train"]["id"][:] == [*(f"cut/s{i:07}" for i in range(left)), "more/s0000050", "more/s0000051"]


def test_a_header_that_says_gigabytes_takes_no_memory(tmp_path, monkeypatch):
    """A member of 3 GB that is one hole, and a PAX header that says that it has 3 GB."""
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE):
        with open(tmp_path / f"{kind[0]}.tar", "wb") as file:
            for name, data in (("0.png", png(0)), ("0.cls", b"0"), ("1.png", png(1)), ("1.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.write(info.tobuf() + data + b"\0" * (-len(data) % 512))
            info = linked("2.png", kind, "")
            info.size = 3 << 30
            file.write(info.tobuf())
            file.truncate(file.tell() + info.size + 1024)
    said = {
        "48": "2': bad entry (.png has 3,221,225,472 bytes; up to 268,435,456",
        "120": "120.tar': truncated (a header of 3,",
    }
    for name, words in said.items():
        with pytest.raises(UserError) as error:
            load(Config(path=str(tmp_path / f"{name}.tar")))
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("2.png", b"no picture"), ("2.cls", b"0")], "'a/2': unreadable (not an image"),
        ([("2.cls", b"0"), ("2.txt", b"x")], "'a/2': bad entry (no picture (.jpg, .png, .webp, …); it has .cls, .txt)"),
        ([("2.png", png(2))], "'a/2': no class"),
        ([("2.png", png(2)), ("2.cls", b"-1")], "'a/2': no class (its number is -1)"),
        ([("2.png", png(2)), ("2.cls", b"\xff\xfe")], "'a/2': bad entry (.cls is not UTF-8 text)"),
        ([("2.png", png(2)), ("2.cls", b"7" * 5000)], "'a/2': bad entry (.cls has 5,000 bytes; up to 4,096 are read)"),
        ([("2.png", png(2)), ("2.json", b'{"label": 1')], "'a/2': bad entry (.json is not JSON: Expecting"),
        ([("2.png", png(2)), ("2.json", b"[1]")], "'a/2': bad entry (.json must hold an object, got '[1]')"),
        ([("2.png", png(2)), ("2.json", b"[" * 9999)], "'a/2': bad entry (.json is nested too deeply"),
        (
            [("2.png", png(2)), ("2.json", b'{"label": [1, 2]}')],
            "'a/2': bad entry (its label must be a number or a name, got '[1,",
        ),
        (
            [("2.png", png(2)), ("2.json", b'{"caption": {}}')],
            "'a/2': bad entry (its caption must be a text or a list of texts",
        ),
        ([("2.png", png(2)), ("2.png", png(3)), ("2.cls", b"0")], "'a/2': bad entry (two files .png)"),
        ([("0.png", png(2))], "'a/0': bad entry (its files do not lie one after the other; tar --sort=name puts them so)"),
    ],
)
def test_a_sample_that_cannot_be_used_is_one_line_and_is_left_out(tmp_path, files, said):
    good = [(f"{i}.{ending}", data) for i in (0, 1, 8, 9) for ending, data in (("png", png(i)), ("cls", b"01"[i % 2 :][:1]))]
    path = members(tmp_path / "a.tar", *good, *files)
    with pytest.raises(UserError) as error:
        load(Config(path=path))
    assert str(error.value).startswith(f"data.path: {said}") and "\n" not in str(error.value)
    splits = load(Config(path=path, on_error="skip", test=0, validation=0))
    assert len(splits.report.severe) == 1
    assert splits["train"]["id"][:] == [name for name in ("a/0", "a/1", "a/8", "a/9") if f"{name!r}" not in said]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "no .tar in"),
        (lambda root: (root / "a.tar.gz").write_bytes(b"x"), "'a.tar.gz' is compressed: unpack it to a .tar first"),
        (lambda root: write(root / "test" / "0.tar", {"cls": 0}, {"cls": 1}), "has tars for test alone, and none for train"),
        (lambda root: write(root / "0.tar", {"cls": 0}, {"cls": 0}), "only one class, '0'"),
        (lambda root: members(root / "0.tar"), "no sample of"),
        (
            lambda root: (write(root / "0.tar", {"cls": 5}), (root / "classnames.txt").write_text("a\nb")),
            "unknown category ('5';",
        ),
        (lambda root: (write(root / "0.tar", {"cls": 0}), (root / "classnames.txt").write_text("a\n\nb")), "line 2 is empty"),
        (
            lambda root: (write(root / "0.tar", {"cls": 0}), (root / "nshards.txt").write_text("5")),
            "it says 5 tars, and there is 1",
        ),
        (
            lambda root: (write(root / "train" / "0.tar", {"cls": 0}, {"cls": 1}), write(root / "test" / "0.tar", {"cls": 2})),
            "test: '2': unseen class",
        ),
    ],
)
def test_what_a_set_lacks_is_one_clear_line(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(UserError) as error:
        load(Config(path=str(tmp_path)))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.tar", "data.path: no folder 'nowhere.tar'"),
        ("{0..99999999999}.tar", "means more than 100,000 files"),
        ("{a}.tar", "must be a range"),
        ("none-{0..3}.tar", "no tar 'none-0.tar'"),
    ],
)
def test_a_path_that_means_no_tar_is_one_clear_line(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        Config(path=path).check_paths()
    assert said in str(error.value) and "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------------------------- found by its files


@pytest.mark.parametrize("path", ["cars", "cars/train/0.tar", "cars/train", "cars/train/{0..1}.tar"])
def test_a_path_alone_is_enough(tmp_path, path):
    benchmark(tmp_path / "cars")
    assert recognise(str(tmp_path / path)).source == "webdataset"
