"""Tables of pictures: what is read, and one clear line for each way to be wrong."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapt.data.split import described
from adapt.data.table import Config, load
from adapt.plug import UserError


@pytest.fixture
def folder(tmp_path, make):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for i in range(24):
        (root / "images" / f"{i}.jpg").write_bytes(make.encode(make.picture(i)))
    return root


def rows(count: int = 20, mark: str = ",") -> str:
    return "".join(f"images/{i}.jpg{mark}{'cat' if i % 2 else 'dog'}\n" for i in range(count))


def write(root, text: str | bytes, name: str = "labels.csv") -> str:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_rows_become_splits_drawn_by_class(folder):
    splits = load(Config(path=write(folder, "path,label\n" + rows())))
    assert {split: len(part) for split, part in splits.items()} == {"train": 12, "validation": 4, "test": 4}
    train = splits["train"]
    assert train.features["label"].names == ["cat", "dog"]
    assert all((int(row["id"][7:-4]) % 2 == 0) == row["label"] for row in train), "dog is 1"
    assert train[0]["image"].size == (24, 16)
    assert splits.report.problems == []
    again = load(Config(path=write(folder, "path,label\n" + rows())))
    assert {split: part["id"][:] for split, part in again.items()} == {split: part["id"][:] for split, part in splits.items()}


def test_absolute_paths_through_a_link_are_those_of_the_folder(folder, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    text = "path,label\n" + rows().replace("images/", f"{tmp_path}/link/data/images/")
    write(folder, text)
    splits = load(Config(path=f"{tmp_path}/link/data/labels.csv"))
    assert sum(map(len, splits.values())) == 20 and splits["train"][0]["id"].startswith("images/")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_separators_line_ends_and_a_byte_order_mark_mean_the_same(folder, mark, end, start):
    text = f"file{mark}class\n{rows(mark=mark)}\n".replace("\n", end)
    splits = load(Config(path=write(folder, start + text.encode()), validation=0, test=0))
    assert len(splits["train"]) == 20 and splits["train"].features["label"].names == ["cat", "dog"]


def test_quotes_hold_separators_and_line_breaks(folder):
    text = 'path,label,note\n"images/0.jpg","cat, small","two\nlines"\nimages/1.jpg,"a ""dog""",\nimages/99.jpg,x,\n'
    splits = load(Config(path=write(folder, text), validation=0, test=0, on_error="skip"))
    assert splits["train"].features["label"].names == ['a "dog"', "cat, small"]
    assert [problem.id for problem in splits.report.severe] == ["labels.csv, line 5"], "lines are the file's, not the rows'"


def test_splits_as_given_and_what_is_missing_is_drawn_from_train(folder):
    given = ["train"] * 16 + ["VAL"] * 2 + ["test"] * 2
    lines = [f"{line},{split}" for line, split in zip(rows().splitlines(), given, strict=True)]
    path = write(folder, "path,label,split\n" + "\n".join(lines))
    splits = load(Config(path=path))
    assert {split: len(part) for split, part in splits.items()} == {"train": 16, "validation": 2, "test": 2}
    path = write(folder, "path,label,split\n" + "\n".join(lines[:16] + lines[18:]))
    splits = load(Config(path=path))
    assert splits["test"]["id"][:] == ["images/18.jpg", "images/19.jpg"]
    assert len(splits["validation"]) == 2 and splits.origin["validation"].startswith("15 % drawn from the rows train of")


def test_a_group_and_equal_pictures_stay_together(folder):
    (folder / "images" / "1.jpg").write_bytes((folder / "images" / "0.jpg").read_bytes())
    lines = [f"{line},patient {i // 4}" for i, line in enumerate(rows().splitlines())]
    splits = load(Config(path=write(folder, "path,label,group\n" + "\n".join(lines)), test=0.4, validation=0.2))
    where = {row["id"]: split for split, part in splits.items() for row in part.remove_columns("image")}
    assert len(where) == 20 and len(set(where.values())) == 3
    for first in range(0, 20, 4):
        assert len({where[f"images/{first + i}.jpg"] for i in range(4)}) == 1


def test_a_group_that_is_given_two_splits_is_told(folder):
    lines = [
        f"{line},{split},same" for line, split in zip(rows(4).splitlines(), ["train", "train", "test", "test"], strict=True)
    ]
    splits = load(Config(path=write(folder, "path,label,split,group\n" + "\n".join(lines)), validation=0))
    (problem,) = splits.report.problems
    assert (problem.id, problem.problem, problem.detail) == ("same", "group in two splits", "test and train")


def test_rows_without_a_label_are_unlabelled(folder):
    splits = load(Config(path=write(folder, "path,label\n" + rows() + "images/20.jpg,\nimages/21.jpg,  \n")))
    assert splits["unlabelled"]["id"][:] == ["images/20.jpg", "images/21.jpg"]
    assert splits["unlabelled"].column_names == ["id", "image"]


def test_other_columns_are_passed_over_and_named(folder):
    text = "path,label,width,author\n" + "".join(f"{line},24,me\n" for line in rows().splitlines())
    (problem,) = load(Config(path=write(folder, text))).report.problems
    assert (problem.problem, problem.detail) == ("passed over", "the columns width, author")


def test_parquet_reads_as_a_table_of_text_does(folder):
    names = [f"images\\{i}.jpg" for i in range(20)]
    table = pa.table({"filename": names, "species": [i % 2 for i in range(20)], "extra": [[1]] * 20})
    pq.write_table(table, folder / "labels.parquet")
    splits = load(Config(path=str(folder / "labels.parquet"), label="species"))
    assert len(splits["train"]) == 12 and splits["train"].features["label"].names == ["0", "1"]


def test_pictures_may_lie_elsewhere(folder, tmp_path):
    path = write(tmp_path, "path,label\n" + rows().replace("images/", ""))
    assert len(load(Config(path=path, images=str(folder / "images")))["train"]) == 12


BAD_ROWS = {
    "no picture": ("images/99.jpg,cat", "no picture (no picture 'images/99.jpg' in"),
    "parent": ("../secret.jpg,cat", "leads outside ('../secret.jpg' lies outside"),
    "absolute": ("/etc/passwd,cat", "leads outside ('/etc/passwd' lies outside"),
    "web": ("https://example.org/1.jpg,cat", "web address ('https://example.org/1.jpg'; nothing is fetched)"),
    "twice": ("images/0.jpg,cat", "named twice ('images/0.jpg' is in line 2 already)"),
    "many fields": ("images/20.jpg,cat,big,old", "bad row (4 fields instead of the head's 2; texts with a separator inside"),
    "other separator": ("images/20.jpg;cat", "bad row (1 field instead of the head's 2; it is separated by semicolons, and"),
    "no path": (",cat", "bad row (the column 'path' is empty)"),
    "no image": ("images/broken.jpg,cat", "unreadable (labels.csv, line 22: not an image in a known format"),
    "empty file": ("images/empty.jpg,cat", "zero-size"),
    "bomb": ("images/bomb.png,cat", "decompression bomb"),
    "long name": (f"{'a' * 5000},cat", "no picture ("),
}


@pytest.mark.parametrize("way", BAD_ROWS)
def test_a_row_that_cannot_be_used_is_one_line_and_skip_goes_on(folder, make, way):
    for name, data in (("broken.jpg", b"no picture"), ("empty.jpg", b""), ("bomb.png", make.bomb())):
        (folder / "images" / name).write_bytes(data)
    row, said = BAD_ROWS[way]
    path = write(folder, f"path,label\n{rows()}{row}\n")
    with pytest.raises(UserError) as error:
        load(Config(path=path))
    text = str(error.value)
    assert "labels.csv, line 22" in text and said in text and "\n" not in text
    splits = load(Config(path=path, on_error="skip"))
    assert sum(map(len, splits.values())) == 20 and len(splits.report.severe) == 1
    assert described(splits)[0]["left_out"] == 1


def test_a_wrong_word_for_a_split_is_named_with_its_line(folder):
    path = write(folder, "path,label,split\nimages/0.jpg,cat,train\nimages/1.jpg,dog,trian\n")
    with pytest.raises(
        UserError, match=r"'labels.csv, line 3': bad row \(the column 'split' is 'trian'; write train, val or test\)"
    ):
        load(Config(path=path))


BAD_TABLES = {
    "no head": ("images/0.jpg,cat\nimages/1.jpg,dog\n", "data.image: labels.csv, line 1 names no column path or image"),
    "no label": (
        "path,kind\nimages/0.jpg,cat\n",
        "data.label: labels.csv, line 1 names no column label or class. Have: path, kind.",
    ),
    "two labels": ("path,label,class\na,b,c\n", "data.label: labels.csv has several columns that could be it: label, class."),
    "numbered labels": ("path,label1,label2\na,b,c\n", "several columns that could be it: label1, label2."),
    "two paths": ("path,file,label\na,b,c\n", "data.image: labels.csv has several columns of paths: path, file."),
    "column twice": ("path,label,label\na,b,c\n", "labels.csv, line 1: the column 'label' is there twice"),
    "empty": ("", "labels.csv is empty"),
    "only a head": ("path,label\n", "labels.csv has no rows below its head"),
    "open quote": ('path,label\nimages/0.jpg,"cat\nimages/1.jpg,dog\n', "labels.csv, line 2: unexpected end of data"),
    "not UTF-8": (b"path,label\nimages/0.jpg,caf\xe9\n", "labels.csv, line 2: not UTF-8 text"),
    "UTF-16": ("path,label\n".encode("utf-16"), "labels.csv is UTF-16"),
    "old line ends": ("path,label\rimages/0.jpg,cat\r", "labels.csv, line 1: lines end in a carriage return alone"),
    "long name": ("path,label," + "a" * 200_000, "labels.csv, line 1: a name of more than 131,072 characters"),
    "zero byte": (b"path,label\nimages/0.jpg,c\0at\n", "labels.csv, line 2: a zero byte"),
    "one class": ("path,label\nimages/0.jpg,cat\nimages/1.jpg,cat\n", "only one class, 'cat'"),
    "no labels": ("path,label\nimages/0.jpg,\n", "No picture has a label"),
    "no train": ("path,label,split\nimages/0.jpg,a,test\nimages/1.jpg,b,test\n", "no picture for train, only for test"),
}


@pytest.mark.parametrize("way", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_one_line(folder, way):
    text, said = BAD_TABLES[way]
    with pytest.raises(UserError) as error:
        load(Config(path=write(folder, text)))
    assert said in str(error.value).splitlines()[0], error.value


def test_a_line_of_two_gigabytes_is_refused_without_being_read(folder):
    path = write(folder, "path,label\n")
    with open(path, "r+b") as stream:
        stream.truncate(2 << 30)
    with pytest.raises(UserError, match=r"labels\.csv, line 2: longer than 1,048,576 bytes"):
        load(Config(path=path))


def test_a_parquet_that_is_cut_is_one_line(folder):
    pq.write_table(pa.table({"path": ["images/0.jpg"], "label": ["a"]}), folder / "t.parquet")
    whole = (folder / "t.parquet").read_bytes()
    (folder / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"t\.parquet cannot be read as Parquet"):
        load(Config(path=str(folder / "t.parquet")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "lable"}, "data.label: labels.csv has no column 'lable'. Did you mean 'label'?"),
        ({"group": "patient"}, "data.group: labels.csv has no column 'patient'."),
        ({"path": "nowhere.csv"}, "data.path: 'nowhere.csv' is no file"),
        ({"path": "."}, "data.path: '.' is a folder"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(folder, options, said):
    path = write(folder, "path,label\n" + rows())
    with pytest.raises(UserError) as error:
        load(Config(**{"path": path} | options))
    assert str(error.value).startswith(said)
