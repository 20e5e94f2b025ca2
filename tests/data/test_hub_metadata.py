"""Lines of metadata.jsonl: what is wrong with one is said with its number."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt.data.hub import Config, load
from adapt.plug import UserError

LINE = '{"file_name": "0000.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [0]}}'
"""A good line."""


@pytest.fixture
def folder(tmp_path, make):
    """An imagefolder of one picture, and of lines as they are."""

    def write(*lines: str) -> str:
        (tmp_path / "set" / "train").mkdir(parents=True)
        (tmp_path / "set" / "train" / "0000.png").write_bytes(make.encode(make.picture(), "PNG"))
        (tmp_path / "set" / "train" / "metadata.jsonl").write_text("\n".join(lines))
        return str(tmp_path / "set")

    return write


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE, LINE[:60]], "line 2: it is not JSON"),
        ([LINE, "[1]"], "line 2: it is not a JSON object"),
        ([LINE.replace("[0]", '["cat"]'), LINE], r"line 2: objects\.categories\[\] holds a number, and a text in line 1"),
        (
            [LINE, '{"file_name": "0000.png", "objects": [{"bbox": [1, 2, 3, 4]}]}'],
            "line 2: objects holds a list, and an object",
        ),
        ([LINE, LINE.replace("3", "1e999")], r"line 2: objects\.bbox\[\]\[\] holds an endless number, and a number in line 1"),
        ([LINE.replace("file_name", "name")], "line 1: it has no file_name; have: name, objects"),
        ([LINE.replace("0000.png", "../../secret.png")], r"line 1: file_name '\.\./\.\./secret\.png' leads outside"),
        ([LINE.replace("0000.png", "/etc/passwd")], "line 1: file_name '/etc/passwd' leads outside"),
        ([LINE.replace("0000.png", "https://a.b/c.png")], "line 1: file_name 'https://a.b/c.png' leads outside"),
        ([LINE.replace("[0]", '["\\ud800"]')], "line 1: half a character"),
        ([LINE.replace("[0]", "[" * 1500 + "]" * 1500)], "line 1: nested too deeply"),
        ([], "train/metadata.jsonl is empty"),
    ],
)
def test_a_bad_line_of_metadata_is_named_by_its_number(folder, lines, message):
    path = folder(*lines)
    with pytest.raises(
        UserError, match=rf"^data\.path: train/metadata\.jsonl.*{message.removeprefix('train/metadata.jsonl')}"
    ) as error:
        load(Config(path=path))
    assert "\n" not in str(error.value)


def test_a_line_of_two_gigabytes_is_not_read(folder):
    path = folder(LINE)
    with open(f"{path}/train/metadata.jsonl", "ab") as file:
        file.truncate(1 << 31)
    with pytest.raises(UserError, match=r"train/metadata\.jsonl, line 1: longer than 67,108,864 bytes"):
        load(Config(path=path))


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_read(folder):
    path = folder(LINE, LINE)
    first = load(Config(path=path, boxes="xywh"))["train"]["objects"][:]
    file = Path(path, "train", "metadata.jsonl")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load(Config(path=path, boxes="xywh"))["train"]["objects"][:] == first
