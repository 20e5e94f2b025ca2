"""A teacher's labels: found once by all processes, and not again after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture

from adapt.distill import labels
from adapt.distill.labels import Labels, build
from adapt.plug import UserError

ROWS = 100
ALONE = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)
SCRIPT = """
import time
from pathlib import Path
from tests.distill.test_labels import ALONE, ROWS, dataset, label
from adapt.distill.labels import build

def slowly(rows):
    time.sleep(0.3)
    return label(rows)

build(Path("labels"), slowly, dataset(), ALONE)
"""


def dataset() -> Dataset:
    pictures = [Picture.new("RGB", (4, 4), (number, 0, 0)) for number in range(ROWS)]
    columns = {"id": list(map(str, range(ROWS))), "image": pictures, "label": [0] * ROWS}
    return Dataset.from_dict(columns, Features(id=Value("string"), image=Image(), label=Value("int64")))


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return dataset()


def label(rows: Dataset) -> Dataset:
    """The red of each picture, and as many boxes as its last digit says."""
    red = [row["image"].getpixel((0, 0))[0] for row in rows]
    return Dataset.from_dict({"red": red, "boxes": [[[0.5] * 4] * (value % 10) for value in red]})


def right(found: Dataset) -> bool:
    same = found["red"][:] == [image.getpixel((0, 0))[0] for image in found["image"]] == list(range(ROWS))
    return same and [len(boxes) for boxes in found["boxes"]] == [number % 10 for number in range(ROWS)]


@pytest.fixture
def small(monkeypatch):
    """Shards of three parts of eight rows."""
    monkeypatch.setattr(labels, "PART", 8)
    monkeypatch.setattr(labels, "SHARD", 3)


def test_rows_come_back_with_their_labels_and_without_what_people_wrote(rows, tmp_path, small):
    shuffled = rows.select([*range(50, 100), *range(50)]).select([*range(50, 100), *range(50)])  # with a map of indices
    found = build(tmp_path, label, shuffled, ALONE)
    assert right(found) and found.column_names == ["id", "image", "red", "boxes"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [*(f"{shard:06d}.arrow" for shard in range(5)), "lock", "manifest.json"], "joined"


def test_all_processes_label_and_none_labels_what_another_does(rows, tmp_path, small):
    barrier, asked = Barrier(2), {0: [], 1: []}

    def process(rank: int) -> bool:
        accelerator = SimpleNamespace(is_main_process=rank == 0, wait_for_everyone=lambda: barrier.wait(30))
        mine = asked[rank]
        return right(build(tmp_path, lambda rows: mine.append(len(rows)) or label(rows), rows, accelerator, place=(rank, 2)))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(process, range(2)))
    assert sum(asked[0]) + sum(asked[1]) == ROWS and abs(len(asked[0]) - len(asked[1])) <= 1


def test_what_is_whole_is_not_labelled_again(rows, tmp_path, small):
    build(tmp_path, label, rows, ALONE)
    assert right(build(tmp_path, None, rows, ALONE))


@pytest.mark.parametrize("harm", ["missing", "cut short"])
def test_a_shard_that_is_missing_or_cut_short_is_made_again_and_a_line_says_so(rows, tmp_path, small, capsys, harm):
    build(tmp_path, label, rows, ALONE)
    path, asked = tmp_path / "000001.arrow", []
    content = path.read_bytes()
    capsys.readouterr()
    path.unlink()
    if harm == "cut short":
        path.write_bytes(content[: len(content) // 2])
    assert right(build(tmp_path, lambda rows: asked.append(len(rows)) or label(rows), rows, ALONE))
    again, room = capsys.readouterr().out.splitlines()
    assert again == f"teacher: {path} is {harm}; it is made again"
    assert room == "teacher: the labels of 16 more pictures, judged by the first 8, take 0.0 MB on disk"
    assert asked == [8, 8, 8], "that shard alone"


def test_a_second_command_in_the_same_folder_is_one_line(rows, tmp_path, small):
    refused = []

    def again(part: Dataset) -> Dataset:
        with pytest.raises(UserError, match=r"lock: another command is filling it\. Wait") as error:
            build(tmp_path, label, rows, ALONE)
        return refused.append(error) or label(part)

    assert right(build(tmp_path, again, rows, ALONE)) and len(refused) == 13
    assert right(build(tmp_path, None, rows, ALONE)), "what is whole is for all"


def stopping(calls: int):
    """A `label` that is stopped in the call after so many."""
    turns = iter(range(calls))

    def answer(rows: Dataset) -> Dataset:
        if next(turns, None) is None:
            raise KeyboardInterrupt
        return label(rows)

    return answer


def test_another_batch_after_a_kill_loses_nothing_and_mixes_no_rows(rows, tmp_path, small):
    """Of 56 rows, 24 or 32 at a time, the second part has 24: other ones."""
    few, asked = rows.select(range(56)), []
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, stopping(2), few, ALONE, batch=24)
    found = build(tmp_path, lambda rows: asked.append(len(rows)) or label(rows), few, ALONE, batch=32)
    assert found["red"][:] == list(range(56)) and asked == [8]


def test_parts_that_a_kill_has_left_behind_a_whole_shard_go(rows, tmp_path, small, monkeypatch):
    def killed(path):
        if path.name == "000000":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(labels.shutil, "rmtree", lambda path, ignore_errors=False: killed(path))
        build(tmp_path, label, rows, ALONE)
    assert len(list(tmp_path.rglob("parts/000000/*.arrow"))) == 3
    assert right(build(tmp_path, None, rows, ALONE))
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(
    "text", ["{broken", "[]", '{"rows": 9, "batch": 1, "whole": true}', '{"rows": 100, "batch": 0, "whole": true}']
)
def test_without_a_manifest_that_can_be_read_nothing_is_believed(rows, tmp_path, small, text):
    build(tmp_path, label, rows, ALONE)
    (tmp_path / "manifest.json").write_text(text)
    asked = []
    assert right(build(tmp_path, lambda rows: asked.append(len(rows)) or label(rows), rows, ALONE))
    assert sum(asked) == ROWS


def test_the_space_is_said_when_it_is_known_and_a_small_disk_is_refused(rows, tmp_path, small, capsys, monkeypatch):
    folder = tmp_path / "labels"

    def free(amount: float) -> None:
        monkeypatch.setattr(labels.shutil, "disk_usage", lambda folder: SimpleNamespace(free=amount))

    def asked() -> list[int]:
        """Rows of the parts that are labelled, until the end or a refusal."""
        found = []
        with suppress(UserError):
            assert right(build(folder, lambda rows: found.append(len(rows)) or label(rows), rows, ALONE))
        return found

    free(0)
    with pytest.raises(
        UserError, match=r"labels of 92 more pictures, judged by the first 8, need 0\.0 GB more in .* Make room"
    ):
        build(folder, label, rows, ALONE)
    need = (folder / "parts" / "000000" / "000.arrow").stat().st_size * (12 + 3)
    shutil.rmtree(folder)
    free(need - 1)
    assert asked() == [8]
    capsys.readouterr()
    free(2 * need)
    assert asked() == [8] * 11 + [4], "nothing was lost"
    assert capsys.readouterr().out.startswith(
        "teacher: the labels of 84 more pictures, judged by the first 8, take 0.0 MB on disk\n"
    )


class Noted:
    """Rows that note which of them have been asked for."""

    def __init__(self):
        self.asked: list[int] = []

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, number: int) -> int:
        self.asked.append(number)
        return number


def test_pictures_are_decoded_while_the_teacher_works_and_few_before_their_turn():
    rows = Noted()
    for turn, row in enumerate(labels.samples(rows)):
        until = time.monotonic() + 5
        while len(rows.asked) < min(turn + 2, ROWS) and time.monotonic() < until:
            time.sleep(0.001)
        assert row == turn, "in their order"
        assert min(turn + 2, ROWS) <= len(rows.asked) <= turn + 1 + 16, "two for each thread, of which there are eight at most"
    assert sorted(rows.asked) == list(range(ROWS))


def test_a_part_has_whole_batches():
    assert [Labels(Path(), 1000, batch).each for batch in (1, 16, 24, 100)] == [32, 32, 48, 100]


@pytest.mark.slow
def test_a_killed_labelling_goes_on_where_it_was(rows, tmp_path):
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=here)
    until = time.monotonic() + 60
    while child.poll() is None and len(list(tmp_path.glob("labels/parts/*/*.arrow"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = [32 for _ in tmp_path.glob("labels/parts/*/[0-9]*.arrow")]
    asked = []
    assert right(build(tmp_path / "labels", lambda rows: asked.append(len(rows)) or label(rows), rows, ALONE))
    assert sum(done) >= 64 and sum(asked) == ROWS - sum(done)
    assert right(build(tmp_path / "labels", None, rows, ALONE))
