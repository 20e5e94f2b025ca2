"""The run folder: whole files or none, stages, lineage."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from adapt.data import emoji_scenes
from adapt.data.emoji import Config, load
from adapt.plug import UserError
from adapt.provenance import hash_path
from adapt.recipe import load_recipe
from adapt.run import HOST, Run, atomic
from adapt.verbs.session import Session
from adapt.vision.fingerprint import fingerprint


def begun(recipe, root: Path = Path("runs")) -> Run:
    return Run.open(recipe, root).begin(recipe)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        with atomic(tmp_path / "f") as folder:
            folder.mkdir()
            (folder / content).write_text(content)
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["two"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="No space left"), atomic(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_what_a_stage_recorded_is_kept_with_the_versions_it_ran_on():
    recipe = load_recipe("clip_lora")
    run = Run.open(recipe)
    assert run.facts("finetune") == {}
    run.record("finetune", data={"train": "x"})
    for found in (run.facts("finetune"), json.loads((run.path / "manifest.json").read_text())["stages"]["finetune"]):
        assert found["data"] == {"train": "x"}
        assert found["packages"]["torch"] != "missing"


def test_the_folder_is_named_after_settings_that_change_a_result_alone(monkeypatch):
    from adapt import recipe as module

    class Later(module.Train):
        later: int = 3

    before = load_recipe("clip_lora")
    idle = [
        load_recipe("clip_lora", [given]) for given in ("train.workers=2", "train.checkpoint_every=7", "train.schedule=cosine")
    ]
    grown = before.model_copy(update={"train": Later(**before.train.model_dump())})
    assert {Run.open(one).path for one in (*idle, grown)} == {Run.open(before).path}
    other = before.model_copy(update={"train": Later(**before.train.model_dump(), later=4)})
    assert Run.open(other).path != Run.open(before).path


@pytest.mark.parametrize(
    "other",
    [
        "name=mine",
        "model.train_templates=2",
        "data.shots=3",
        "method.rank=3",
        "prompts.templates=simple",
        "train.lr=1",
        "seed=1",
    ],
)
def test_distill_and_export_share_the_folder_and_what_decides_the_adapted_model_does_not(other):
    base, student, another = (load_recipe("clip_lora", o) for o in ([], ["distill.train.epochs=2"], [other]))
    assert Run.open(base).path == Run.open(student).path != Run.open(another).path


def test_the_recipe_in_the_folder_is_the_recipe():
    recipe = load_recipe("clip_lora", ["train.epochs=3"])
    run = begun(recipe)
    assert load_recipe(run.path / "recipe.yaml") == recipe


def test_a_folder_of_another_recipe_is_refused():
    path = begun(load_recipe("clip_lora")).path
    Run.from_folder(path, load_recipe("clip_lora"))
    with pytest.raises(UserError, match=r"method\.rank: 16 there, 3 here"):
        Run.from_folder(path, load_recipe("clip_lora", ["method.rank=3"]))
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        Run.from_folder(Path("nowhere"))


@pytest.mark.parametrize("idle", ["train.workers=0", "train.checkpoint_every=7", "train.schedule=cosine"])
def test_a_folder_is_its_recipes_also_with_other_settings_that_change_no_result(idle):
    path = begun(load_recipe("clip_lora")).path
    recipe = load_recipe("clip_lora", [idle])
    assert Run.from_folder(path, recipe).path == Run.open(recipe).path == path
    assert Run.from_folder(str(path)).path == path


def test_processes_that_do_not_write_write_nothing():
    run = Run.open(load_recipe("clip_lora"), writes=False)
    run.record("finetune")
    assert not run.path.exists()


def test_hashes_follow_content(tmp_path):
    (tmp_path / "a").write_text("1")
    before = hash_path(tmp_path)
    (tmp_path / "a").write_text("2")
    assert hash_path(tmp_path) != before


def test_fingerprints_follow_the_data_and_its_order():
    test = load(Config())["test"]
    assert fingerprint(test) == fingerprint(load(Config())["test"])
    assert fingerprint(test.select(range(10))) != fingerprint(test.select(range(9, -1, -1)))
    assert fingerprint(load(Config(hand="noto"))["test"]) != fingerprint(test)


def test_fingerprints_follow_what_is_true_of_a_picture():
    scenes = emoji_scenes.load(emoji_scenes.Config(size=64, train=2, validation=1, test=1))["train"]
    moved = scenes.map(lambda row: {"count": row["count"] + 1})
    assert fingerprint(moved) != fingerprint(scenes)


def killed() -> int:
    """The number of a process that has ended."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True).stdout)


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(tmp_path):
    dead = killed()
    (tmp_path / f".f.{HOST}.{dead}").mkdir()
    (tmp_path / f".f.{HOST}.{os.getpid()}").mkdir()  # a container's processes have the same numbers each time
    stays = {f".f.{HOST}.{os.getppid()}", f".other.{HOST}.{os.getpid()}", f".f.elsewhere.{dead}"}
    for name in stays:
        (tmp_path / name).mkdir()
    with atomic(tmp_path / "f") as folder:
        folder.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {"f", *stays}, "another machine's processes are not ours to judge"


def replaced_until(place: str) -> None:
    """A process replaces the folder `f`, and is killed at the call of `os.PLACE`, or of `shutil.PLACE`."""
    Path("f").mkdir()
    Path("f/old").touch()
    kill = "lambda *_, **__: os.kill(os.getpid(), 9)"
    code = [
        "import os, shutil",
        "from pathlib import Path",
        "from adapt.run import atomic",
        "with atomic(Path('f')) as folder:",
    ]
    code += ["  folder.mkdir()", "  (folder / 'new').touch()", f"  {place} = {kill}"]
    assert subprocess.run([sys.executable, "-c", "\n".join(code)], check=False).returncode == -9


@pytest.mark.parametrize(("place", "left"), [("os.rename", "old"), ("os.replace", "old"), ("shutil.rmtree", "new")])
def test_a_kill_while_a_folder_is_replaced_never_takes_both(place, left):
    replaced_until(place)
    with pytest.raises(KeyError), atomic(Path("f")) as folder:  # what sweeps, and writes nothing
        assert [path.name for path in Path("f").iterdir()] == [left]
        raise KeyError(folder)
    assert os.listdir() == ["f"]
    assert os.listdir("f") == [left]


def test_a_look_finds_what_a_kill_left_aside():
    session = Session(load_recipe("clip_lora", ["tracker=none"]))
    session.run.path.mkdir(parents=True)
    with contextlib.chdir(session.run.path):
        replaced_until("os.replace")
        assert not Path("f").exists()
    assert session.hash("f")
    assert os.listdir(session.run.path / "f") == ["old"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").touch()
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "f"):
        pass  # nothing was written
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "old"]


@pytest.mark.parametrize("write", ["text", "torch", "numpy", "parquet"])
def test_every_writer_on_a_full_disk_is_one_line(write, tmp_path, monkeypatch):
    """Each library is given the device that is always full; the disk of the run folder is said to be full, too."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet
    import torch

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    writers = {
        "text": lambda path: path.write_text("x" * 10**6),
        "torch": lambda path: torch.save({"a": torch.zeros(10**6)}, path),
        "numpy": lambda path: np.save(path, np.zeros(10**6)),
        "parquet": lambda path: pyarrow.parquet.write_table(pyarrow.table({"a": np.random.rand(10**6)}), path),
    }
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(UserError, match="No space left on device") as error, atomic(tmp_path / "a.npy") as temporary:
        temporary = temporary.with_name(temporary.name + ".npy") if write == "numpy" else temporary
        temporary.symlink_to("/dev/full")
        try:
            writers[write](temporary)
        finally:
            if write == "numpy":
                temporary.unlink()
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_by_its_words(tmp_path):
    from safetensors import SafetensorError

    with pytest.raises(UserError, match="No space left on device"), atomic(tmp_path / "a"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_bug_on_a_disk_with_room_stays_a_bug(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), atomic(tmp_path / "a"):
        raise RuntimeError("shape mismatch")


def test_a_place_that_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written: (Not a directory|File exists)"):
        begun(load_recipe("clip_lora"), tmp_path / "runs")


def test_a_spoiled_json_file_is_named():
    run = begun(load_recipe("clip_lora"))
    (run.path / "manifest.json").write_text("{half")
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):
        Run(run.path).facts("finetune")


def test_opening_again_rewrites_the_recipe_only_when_it_has_changed():
    before = begun(load_recipe("clip_lora")).path / "recipe.yaml"
    times = [before.stat().st_mtime_ns]
    for overrides in ([], ["distill.train.epochs=2"]):
        begun(load_recipe("clip_lora", overrides))
        times.append(before.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2]


def test_fingerprints_read_encoded_pictures_in_memory_or_by_path(tmp_path):
    from datasets import Dataset, Features, Image, Value
    from PIL import Image as Pillow

    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        Pillow.new("RGB", (4, 4), (i, 0, 0)).save(path)
    features = Features(id=Value("string"), image=Image())

    def rows(images):
        return Dataset.from_dict({"id": ["a", "b", "c"], "image": images}, features)

    by_path, in_memory = rows(paths), rows([{"bytes": Path(path).read_bytes(), "path": None} for path in paths])
    assert fingerprint(by_path) == fingerprint(in_memory)
    Pillow.new("RGB", (4, 4), (9, 9, 9)).save(paths[1])
    assert fingerprint(by_path) != fingerprint(in_memory)
