"""Lines of questions and answers: what is read, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt.data.check import check
from adapt.data.jsonl import Config, load
from adapt.data.split import described
from adapt.plug import UserError


@pytest.fixture
def folder(tmp_path, make):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for i in range(10):
        (root / "images" / f"{i}.jpg").write_bytes(make.encode(make.picture(i)))
    return root


def write(root, *lines, name: str = "train.jsonl") -> str:
    path = root / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def line(number: int = 0, **other) -> dict:
    return {"image": f"images/{number}.jpg", "prefix": "caption en", "suffix": f"thing {number}"} | other


def test_lines_become_rows(folder):
    path = write(folder, line(0), "", line(1, answers=["a", "b"], more=3), line(2, id="mine"))
    rows = load(Config(path=path, validation=0, test=0))["train"]
    assert rows["id"] == ["train/1", "train/3", "mine"]
    assert rows[0]["suffix"] == "thing 0"
    assert rows["answers"] == [["thing 0"], ["a", "b"], ["thing 2"]]
    assert rows[1]["image"].size == (24, 16)


BOX = "<loc0256><loc0128><loc0767><loc0512>"


def test_answers_to_detect_become_objects(folder):
    both = f"{BOX} cat ; <loc0000><loc0000><loc1023><loc1023> Dog"
    path = write(
        folder,
        line(0, prefix="detect cat ; dog", suffix=both),
        line(1),
        line(2, prefix="detect dog", suffix=f"{BOX}"),
        line(3, prefix="detect cat", suffix="none"),
    )
    rows = load(Config(path=path, validation=0, test=0))["train"]
    assert rows.features["objects"]["category"].feature.names == ["cat", "dog"]
    first, other, unnamed, nothing = rows["objects"]
    assert np.allclose(first["bbox"], [np.array([128 * 24, 256 * 16, 512 * 24, 767 * 16]) / 1023, [0, 0, 24, 16]])
    assert first["category"] == [0, 1] and unnamed["category"] == [1]
    assert other is None and nothing == {"bbox": [], "category": []}
    assert check(rows).problems == []


def test_lines_without_detect_have_no_objects(folder):
    path = write(folder, line(0), line(1, prefix="detect cat", suffix="cat<loc_1><loc_2><loc_30><loc_40>"))  # Florence-2's own
    assert "objects" not in load(Config(path=path, validation=0, test=0))["train"].column_names


SHORT, REVERSED, ODD = "<loc0256><loc0128><loc0767>", "<loc0767><loc0128><loc0256><loc0512>", "<loc1><loc2><loc3><loc4>"
EMPTY = "<loc0364><loc0602><loc0365><loc0602>"


@pytest.mark.parametrize(
    ("suffix", "box", "reason"),
    [
        (f"{SHORT} cat", SHORT, "it has 3 of four locations"),
        (f"{REVERSED} cat", REVERSED, "its top, 767, is not above its bottom, 256"),
        (f"{BOX} cat ; {EMPTY} dog", EMPTY, "its left, 602, is not left of its right, 602"),
        (f"{BOX} cat ; <loc0000><loc0000><loc1024><loc0003> dog", "<loc0000><loc0000><loc1024><loc0003>", "1024 is above 1023"),
        (f"{BOX} cat ; {ODD} dog", ODD, "a location has four digits"),
        (f"{BOX} cat ; {BOX}", BOX, "it has no name"),
        (f"{BOX} cat ; {BOX}<seg001> dog", BOX, "its <seg> words are not sixteen of 000 to 127"),
    ],
)
def test_a_box_that_cannot_be_read_is_named_with_its_line_and_the_reason(folder, suffix, box, reason):
    path = write(folder, line(0), line(1, prefix="detect cat ; dog", suffix=suffix))
    with pytest.raises(UserError) as error:
        load(Config(path=path))
    said = str(error.value)
    assert said.startswith(f"data.path: 'train.jsonl, line 2': wrong locations ({box!r}: {reason}); write four for each box"), (
        said
    )
    assert "\n" not in said


def test_with_skip_bad_boxes_go_and_the_rest_of_their_line_stays(folder):
    path = write(
        folder,
        line(0, prefix="detect cat ; dog", suffix=f"{BOX} cat ; {EMPTY} dog;{BOX} dog"),
        line(1, prefix="detect dog", suffix=f"{EMPTY} dog"),
        line(2, prefix="detect cat ; dog", suffix=f"{BOX} cat;{BOX}  dog"),
        line(3, prefix="detect cat ; dog", suffix=f"{EMPTY} cat {BOX} dog"),
    )
    splits = load(Config(path=path, validation=0, test=0, on_error="skip"))
    rows = splits["train"]
    assert rows["suffix"][:] == [f"{BOX} cat ; {BOX} dog", f"{BOX} cat;{BOX}  dog", f"{BOX} dog"], "a good line stays as it is"
    assert rows["answers"][:] == [[text] for text in rows["suffix"]]
    assert [len(objects["bbox"]) for objects in rows["objects"]] == [2, 2, 1]
    assert [(problem.id, problem.problem) for problem in splits.report.problems] == [
        (f"train.jsonl, line {number}", "wrong locations") for number in (1, 2, 4)
    ]
    assert described(splits)[0]["left_out"] == 3


def test_with_skip_lines_without_json_or_picture_go_and_are_listed(folder, make):
    (folder / "images" / "broken.jpg").write_bytes(b"no picture")
    lines = [
        line(0),
        "{no json",
        line(99),
        line(1, image="../secret.jpg"),
        line(1, image="images/broken.jpg"),
        line(1, suffix=""),
    ]
    path = write(folder, *lines, line(2))
    with pytest.raises(UserError) as error:
        load(Config(path=path))
    assert [text.split("line ")[1][0] for text in str(error.value).splitlines()[:-1]] == ["2", "3", "4", "6", "5"]
    splits = load(Config(path=path, validation=0, test=0, on_error="skip"))
    assert splits["train"]["id"][:] == ["train/1", "train/7"]
    assert [(problem.id.split("line ")[1][0], problem.problem) for problem in splits.report.severe] == [
        ("2", "bad line"),
        ("3", "no picture"),
        ("4", "leads outside"),
        ("6", "bad line"),
        ("5", "unreadable"),
    ]
    (folder / "train.jsonl").write_text("{no json\n")
    with pytest.raises(UserError, match=r"no line of 'train\.jsonl' can be used.*not JSON"):
        load(Config(path=path, on_error="skip"))


def test_pictures_that_two_files_share_are_leaks(folder):
    (folder / "images" / "copy.jpg").write_bytes((folder / "images" / "0.jpg").read_bytes())
    train = write(folder, line(0), line(0), line(1), line(2))
    validation = write(folder, line(image="images/copy.jpg"), line(3), name="validation.jsonl")
    test = write(folder, line(1), line(4), name="test.jsonl")
    report = load(Config(path=train, validation_path=validation, test_path=test)).report
    found = [(problem.split, problem.id, problem.problem, problem.detail) for problem in report.problems]
    assert found == [
        ("validation", "images/copy.jpg", "leak", "same bytes as 'images/0.jpg' in train"),
        ("test", "images/1.jpg", "leak", "same bytes as 'images/1.jpg' in train"),
    ]
    assert not report.severe


def test_pictures_with_the_same_bytes_are_drawn_together(folder):
    for i in range(10):
        (folder / "images" / f"copy of {i}.jpg").write_bytes((folder / "images" / f"{i}.jpg").read_bytes())
    path = write(folder, *(line(i) for i in range(10)), *(line(i, image=f"images/copy of {i}.jpg") for i in range(10)))
    splits = load(Config(path=path, validation=0.2, test=0.3))
    sides = {split: set(rows["suffix"]) for split, rows in splits.items()}
    assert not sides["train"] & (sides["validation"] | sides["test"])
    assert not sides["validation"] & sides["test"]
    assert splits.report.counts() == {"duplicate": 10}


def test_validation_is_not_the_test(folder):
    train, other = write(folder, line(0)), write(folder, line(1), line(2), name="other.jsonl")
    with pytest.raises(UserError, match=r"data\.validation_path and data\.test_path are the same file"):
        load(Config(path=train, validation_path=other, test_path=str(folder / "images" / ".." / "other.jsonl")))
    with pytest.raises(UserError, match=r"data\.path and data\.test_path are the same file"):
        load(Config(path=train, test_path=train))
    again = write(folder, line(2, prefix="another question"), line(1), name="again.jsonl")
    with pytest.raises(UserError, match=r"'other\.jsonl' and 'again\.jsonl' have the same pictures"):
        load(Config(path=train, validation_path=other, test_path=again))


def test_each_split_says_where_its_lines_come_from(folder):
    path, test = write(folder, *(line(i) for i in range(8))), write(folder, line(9), name="mine.jsonl")
    rows = described(load(Config(path=path, test_path=test, validation=0.25)))
    assert {row["split"]: (row["pictures"], row["origin"]) for row in rows} == {
        "train": (6, "what is left of train.jsonl"),
        "validation": (2, "25 % of the pictures of train.jsonl, no data.validation_path"),
        "test": (1, "mine.jsonl"),
    }


def test_all_lines_of_a_picture_are_in_one_split(folder):
    path = write(folder, *(line(i, prefix=f"question {j}") for i in range(10) for j in range(3)))
    splits = load(Config(path=path, validation=0.2, test=0.3))
    pictures = {split: {id.split("/")[1] for id in rows["id"]} for split, rows in splits.items()}
    names = {split: {row["suffix"] for row in rows.remove_columns("image")} for split, rows in splits.items()}
    assert {split: len(part) for split, part in names.items()} == {"train": 5, "validation": 2, "test": 3}
    assert not names["train"] & (names["validation"] | names["test"])
    assert sum(map(len, pictures.values())) == 30


def test_splits_may_have_their_own_files(folder):
    train, test = write(folder, line(0)), write(folder, line(1), name="test.jsonl")
    splits = load(Config(path=train, test_path=test, validation=0))
    assert {split: rows["id"] for split, rows in splits.items()} == {"train": ["train/1"], "test": ["test/1"]}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("{no json", ["line 2", "not JSON"]),
        ("[1]", ["line 2", "not a JSON object"]),
        ({"image": "images/1.jpg", "prefix": "x"}, ["line 2", "'suffix'"]),
        (line(1, suffix=" "), ["line 2", "suffix is empty"]),
        (line(1, image="images/99.jpg"), ["line 2", "images/99.jpg"]),
        (line(1, image="../secret.jpg"), ["line 2", "outside"]),
        (line(1, image="/etc/hostname"), ["line 2", "outside"]),
        (line(1, image="a" * 5000), ["line 2", "no picture"]),
        (line(1, image="a\0b"), ["line 2", "no picture"]),
        (line(1, answers="x"), ["line 2", "'answers'"]),
        (line(1, image="images/broken.jpg"), ["line 2", "broken.jpg"]),
        (line(1, image="images/thin.png"), ["line 2", "thin.png", "too thin (1 × 300)"]),
    ],
)
def test_bad_lines_are_one_clear_line(folder, make, wrong, words):
    (folder.parent / "secret.jpg").write_bytes(make.encode(make.picture(1)))
    (folder / "images" / "broken.jpg").write_bytes(b"no picture")
    make.picture(0, (1, 300)).save(folder / "images" / "thin.png")
    with pytest.raises(UserError) as error:
        load(Config(path=write(folder, line(0), wrong)))
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_a_link_that_leads_outside_is_refused(folder, make):
    (folder.parent / "secret.jpg").write_bytes(make.encode(make.picture(1)))
    (folder / "images" / "link.jpg").symlink_to(folder.parent / "secret.jpg")
    with pytest.raises(UserError, match="outside"):
        load(Config(path=write(folder, line(image="images/link.jpg"))))


def test_a_missing_or_empty_file_is_one_clear_line(folder):
    with pytest.raises(UserError, match=r"data\.path: no file 'nowhere\.jsonl'"):
        load(Config(path="nowhere.jsonl"))
    with pytest.raises(UserError, match="has no lines"):
        load(Config(path=write(folder, "")))
    (folder / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load(Config(path=str(folder / "bytes.jsonl")))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_fuzz_lines_never_end_in_a_traceback(folder, text):
    (folder / "fuzz.jsonl").write_text(text, encoding="utf-8", errors="replace")
    try:
        load(Config(path=str(folder / "fuzz.jsonl")))
    except UserError as error:
        assert str(error)


# ---------------------------------------------------------------------------------------------------- which box is meant


def meant(number: int = 0, **other) -> dict:
    """A line of sentences; pictures are 24 × 16."""
    objects = {"bbox": [[0, 0, 10, 10], [12, 2, 24, 16]], "category": ["cat", "dog"]}
    said = [{"sentence": "the one on the right", "object": 1}, {"sentence": "the cat", "object": 0}]
    return {"image": f"images/{number}.jpg", "objects": objects, "referring": said} | other


def test_lines_of_sentences_become_objects_and_what_means_them(folder):
    rows = load(Config(path=write(folder, meant(0), meant(1, id="mine")), validation=0, test=0))["train"]
    assert rows.column_names == ["id", "image", "objects", "referring"]
    assert rows["id"][:] == ["train/1", "mine"]
    assert rows.features["objects"]["category"].feature.names == ["cat", "dog"]
    assert rows[0]["objects"] == {"bbox": [[0, 0, 10, 10], [12, 2, 24, 16]], "category": [0, 1]}
    assert rows[1]["referring"] == meant()["referring"]
    assert check(rows).problems == []


def test_refcocos_lines_of_one_picture_become_one_row(folder):
    """Its boxes are left, top, width, height, its sentences {sent: …}."""
    said = [{"sent": "cat on the left", "raw": "Cat on the left!", "tokens": ["cat"], "sent_id": 1}, "the grey one"]
    lines = [
        {"file_name": "images/0.jpg", "bbox": [1, 2, 10, 8], "sentences": said, "ann_id": 5, "ref_id": 1, "category": "cat"},
        {"file_name": "images/1.jpg", "bbox": [0, 0, 24, 16], "sentences": ["all"]},
        {"image": "images/0.jpg", "bbox": [12, 2, 12, 14], "sentences": [{"raw": "right cat"}], "category": "cat"},
        {"image": "images/0.jpg", "bbox": [1, 2, 10, 8], "sentences": ["the first", "the grey one"], "category": "cat"},
    ]
    rows = load(Config(path=write(folder, *lines), validation=0, test=0))["train"]
    assert rows["id"][:] == ["train/1", "train/2"]
    assert rows[0]["objects"]["bbox"] == [[1, 2, 11, 10], [12, 2, 24, 16]]
    assert [(each["sentence"], each["object"]) for each in rows[0]["referring"]] == [
        ("cat on the left", 0),
        ("the grey one", 0),
        ("right cat", 1),
        ("the first", 0),
    ]
    assert rows.features["objects"]["category"].feature.names == ["cat", "thing"]


def test_proposals_are_boxes_to_choose_from(folder):
    lines = [meant(0, proposals=[[0, 0, 9, 9], [1, 1, 24, 16.5]]), meant(0, proposals=[[0, 0, 9, 9]]), meant(1)]
    rows = load(Config(path=write(folder, *lines), validation=0, test=0))["train"]
    assert rows["proposals"][:] == [[[0, 0, 9, 9], [1, 1, 24, 16]], []]
    assert len(rows[0]["objects"]["bbox"]) == len(rows[0]["referring"]) == 2


def test_sentences_and_questions_may_stand_in_one_file(folder):
    rows = load(Config(path=write(folder, meant(0), line(1)), validation=0, test=0))["train"]
    assert rows["suffix"][:] == [None, "thing 1"]
    assert rows["objects"][1] is None and rows["referring"][1] is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (meant(1, referring=[]), ["'referring' must be a list of sentences"]),
        (meant(1, referring=[{"sentence": "it"}]), ["object: the number of its box"]),
        (meant(1, referring=[{"sentence": "it", "object": 2}]), ["'it' means object 2 of 2, counted from 0"]),
        (meant(1, referring=[{"sentence": " ", "object": 0}]), ["a sentence must be a text"]),
        (meant(1, objects=None), ["'referring' needs 'objects'"]),
        (meant(1, objects={"bbox": [[0, 0, 1]]}), ["box unreadable"]),
        (
            meant(1, objects={"bbox": [[9, 0, 1, 5]]}, referring=[{"sentence": "it", "object": 0}]),
            ["box reversed", "9, 0, 1, 5"],
        ),
        (
            meant(1, objects={"bbox": [[0, 0, 30, 5]]}, referring=[{"sentence": "it", "object": 0}]),
            ["box off the image", "24 × 16"],
        ),
        (
            meant(1, objects={"bbox": [[0, 0, 9, 5]], "category": [3]}, referring=[{"sentence": "it", "object": 0}]),
            ["'category'"],
        ),
        (meant(1, proposals=[[0, 0, 30, 5]]), ["box off the image"]),
        (meant(1, proposals=7), ["'proposals' must be a list of boxes"]),
        ({"image": "images/1.jpg", "sentences": ["it"]}, ["box unreadable"]),
        ({"bbox": [0, 0, 3, 3], "sentences": ["it"]}, ["'image' must be a text"]),
    ],
)
def test_bad_lines_of_sentences_are_one_clear_line(folder, wrong, words):
    with pytest.raises(UserError) as error:
        load(Config(path=write(folder, meant(0), wrong)))
    said = str(error.value)
    assert "line 2" in said and "\n" not in said
    assert all(word in said for word in words), said
