"""A kept result is used again only when all that it was made of is as it was: contents, never names."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image
from safetensors.torch import load_file, save_file

from adapt import pipeline, plug
from adapt.models.checkpoint import EMBEDDED, origin
from adapt.plug import UserError
from adapt.provenance import changed, commit, digests, hash_path, of
from adapt.recipe import load_recipe
from adapt.verbs import kept, lineage, measuring
from adapt.verbs.session import Session
from adapt.vision.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("fewer")

QUICK = ["data.shots=1", "data.unlabelled=[]", "train.epochs=1", "export=[]", "tracker=none"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a base, a templates file and a run that was made of both; to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(EMBEDDED / "clip-tiny", folder / "base")
    (folder / "words.yaml").write_text("templates: ['an icon of a {}']\n")
    here = Path.cwd()
    os.chdir(folder)
    try:
        pipeline.finetune(recipe())
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def recipe(*more: str, student: str = "null"):
    given = ["model.checkpoint=base", "prompts.templates=words.yaml", f"distill={student}", *QUICK, *more]
    return load_recipe("clip_lora", given)


def top1(outcome, name: str = "zero-shot") -> float:
    return next(entry for entry in outcome.entries if entry["name"] == name)["metrics"]["top1"]


def zero(folder: Path) -> None:
    """All projections to nothing: the file has its size, and after this the time of its last change, too."""
    file = folder / "model.safetensors"
    status = file.stat()
    state = load_file(file)
    state = {name: value * 0 if "projection" in name else value for name, value in state.items()}
    save_file(state, file, metadata={"format": "pt"})
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size


def test_numbers_are_measured_again_when_words_or_weights_are_others(place, capsys):
    fresh = recipe("seed=9")  # not adapted, so nothing can be lost
    first = top1(pipeline.evaluate(fresh))
    (place / "words.yaml").write_text("templates: ['zzz qqq {} kkk']\n")
    second = pipeline.evaluate(fresh)
    assert top1(second) != first
    assert second.entries[0]["protocol"]["templates"] == ["zzz qqq {} kkk"]
    assert "measured again: words.templates changed" in capsys.readouterr().out
    zero(place / "base")
    assert top1(pipeline.evaluate(fresh)) < second.entries[0]["metrics"]["top1"]
    assert "measured again: base changed" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["words.templates", "base", "data.train"])
def test_an_adapter_of_other_contents_is_refused_and_left_alone(what, place, monkeypatch):
    if what == "words.templates":
        (place / "words.yaml").write_text("templates: ['zzz {}']\n")
    elif what == "base":
        zero(place / "base")
    else:
        monkeypatch.setattr("adapt.verbs.session.fingerprint", lambda rows: "other" if len(rows) == 49 else fingerprint(rows))
    adapter = next(place.glob("runs/*/adapter/adapter_model.safetensors"))
    before = adapter.stat().st_mtime_ns
    for verb in (pipeline.finetune, pipeline.evaluate, pipeline.merge):
        with pytest.raises(UserError) as error:
            verb(recipe())
        assert f"{what} changed since the adapter in runs/" in str(error.value)
        assert "begin another run with name=…, or delete runs/" in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    assert adapter.stat().st_mtime_ns == before


def test_a_test_split_that_changed_costs_a_measurement_and_no_adapter(place, monkeypatch, capsys):
    sizes = {split: len(rows) for split, rows in Session(recipe()).data.items()}
    monkeypatch.setattr(
        "adapt.verbs.session.fingerprint", lambda rows: "new" if len(rows) == sizes["test"] else fingerprint(rows)
    )
    outcome = pipeline.evaluate(recipe())
    assert {entry["protocol"]["data"] for entry in outcome.entries} == {"new"}
    assert capsys.readouterr().out.count("measured again: data.test changed") == 2


def test_a_finished_adaptation_measures_nothing_twice(place, monkeypatch):
    monkeypatch.setattr(measuring, "evaluated", lambda *given, **more: pytest.fail("it was measured before"))
    outcome = pipeline.finetune(recipe())
    assert [entry["name"] for entry in outcome.entries] == ["zero-shot", "adapted"]


def test_a_killed_adaptation_does_not_measure_zero_shot_again(place, monkeypatch):
    asked, whole = [], measuring.evaluated

    def counted(session, config, predict, split, *rest):
        asked.append(split)
        return whole(session, config, predict, split, *rest)

    monkeypatch.setattr(measuring, "evaluated", counted)
    monkeypatch.setattr("adapt.verbs.finetune.fit", lambda session: (_ for _ in ()).throw(KeyboardInterrupt))
    for expected in (["test", "validation"], []):
        asked.clear()
        with pytest.raises(KeyboardInterrupt):
            pipeline.finetune(recipe("seed=4"))
        assert asked == expected


def test_first_weights_are_the_seeds_whatever_was_measured_before(place, monkeypatch):
    """A kill between the measurement of zero-shot and the first state: the second time nothing is measured, and no number drawn."""
    drawn = []

    def first(session):
        drawn.append({name: value.clone() for name, value in session.family.named_parameters() if value.requires_grad})
        raise KeyboardInterrupt

    monkeypatch.setattr("adapt.verbs.finetune.fit", first)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pipeline.finetune(recipe("seed=4"))
    one, two = drawn
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any("lora_A" in name and value.any() for name, value in one.items())


@pytest.mark.parametrize(("kind", "name", "what"), [("evals", "zeroshot", "evals.zeroshot"), ("data", "emoji", "source")])
def test_what_is_of_another_definition_is_measured_again(kind, name, what, place, monkeypatch, capsys):
    config = plug.schema(kind, name)
    monkeypatch.setattr(config, "version", config.version + 1)
    pipeline.evaluate(recipe())
    assert capsys.readouterr().out.count(f"measured again: {what}.version changed") == 2


@pytest.mark.parametrize("kind", ["data", "evals", "distill"])
def test_every_source_eval_and_objective_has_a_version(kind):
    assert all(plug.schema(kind, name).version >= 1 for name in plug.names(kind))


def test_the_bank_of_an_eval_is_a_part_of_its_number(monkeypatch, tmp_path):
    config = load_recipe("dinov2_linear", ["evals=[{name: knn, split: test, bank_split: validation}]", "tracker=none"])
    before = lineage.entry(Session(config), "zero-shot")
    assert before["data"].keys() == {"test", "validation"}
    monkeypatch.setattr("adapt.verbs.session.fingerprint", lambda rows: of(len(rows), "other"))
    assert set(changed(before, lineage.entry(Session(config), "zero-shot"))) == {"data.test", "data.validation"}


def test_class_names_are_a_part_of_the_data():
    rows = {"id": ["a"], "label": [0]}
    one, other = (
        Dataset.from_dict(rows, Features(id=Value("string"), label=ClassLabel(names=names)))
        for names in (["x", "y"], ["y", "x"])
    )
    assert fingerprint(one) != fingerprint(other)


def test_labels_go_by_the_names_of_classes_and_by_the_weights_that_name_them(tmp_path, monkeypatch):
    for i in range(6):
        for folder, value in (("images", 40 * i), ("masks", 1 + i % 2)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("L", (40, 40), value).save(tmp_path / "set" / folder / f"{i}.png")
    shutil.copytree(EMBEDDED / "clip-tiny", tmp_path / "namer")
    names = tmp_path / "set" / "classes.yaml"
    names.write_text(yaml.safe_dump({0: "background", 1: "cat", 2: "dog"}))
    monkeypatch.chdir(tmp_path)
    given = [
        "data.source=masks",
        "data.path=set",
        "distill.clip=namer",
        "distill.pretrained=false",
        "distill.teacher=zero-shot",
    ]

    def made() -> dict:
        return lineage.labels(Session(load_recipe("sam_semantic_student", [*given, "tracker=none"])))

    first = made()
    names.write_text(yaml.safe_dump({0: "background", 1: "cow", 2: "dog"}))
    second = made()
    assert {"data.train", "teacher.words.classes"} <= set(changed(first, second))
    zero(tmp_path / "namer")
    assert changed(second, made()) == ["others.namer"]


@pytest.mark.parametrize("prefix", ["segment_anything:vit_b/", "open_clip:ViT-B-32/"])
def test_the_lineage_of_a_local_file_is_its_content(prefix, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"one")
    first = origin(f"{prefix}{file}")
    assert first == {"checkpoint": f"{prefix}{file}", "hash": hash_path(file)}
    file.write_bytes(b"two")
    assert origin(f"{prefix}{file}")["hash"] != first["hash"]


def test_a_model_card_is_no_part_of_its_weights(tmp_path):
    shutil.copytree(EMBEDDED / "clip-tiny", tmp_path / "base")
    before = origin(str(tmp_path / "base"))
    (tmp_path / "base" / "README.md").write_text("corrected")
    assert origin(str(tmp_path / "base")) == before
    zero(tmp_path / "base")
    assert origin(str(tmp_path / "base")) != before


def test_the_lineage_of_a_hub_checkpoint_is_its_commit(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert commit("openai/clip-vit-base-patch32") == ""
    ref = tmp_path / "models--openai--clip-vit-base-patch32" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    for revision in ("a" * 40, "b" * 40):
        ref.write_text(revision)
        assert origin("openai/clip-vit-base-patch32") == {"checkpoint": "openai/clip-vit-base-patch32", "commit": revision}
    laion = tmp_path / "models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K" / "refs" / "main"
    laion.parent.mkdir(parents=True)
    laion.write_text("c" * 40)
    assert origin("open_clip:ViT-B-16/laion2b_s34b_b88k")["commit"] == "c" * 40


def test_digests_are_remembered_and_follow_content_of_the_same_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("adapt.provenance.YOUNG", -1.0)
    read, files = [], [tmp_path / "a", tmp_path / "b"]
    import adapt.provenance as module

    whole = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda path: read.append(path) or whole(path))
    for file in files:
        file.write_bytes(b"12345")
    first = list(digests(files))
    assert list(digests(files)) == first
    assert read == files, "a second look reads nothing"
    status = files[0].stat()
    files[0].write_bytes(b"54321")
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files[0].stat().st_mtime_ns == status.st_mtime_ns
    assert list(digests(files)) == [whole(files[0]), first[1]]
    assert read == [*files, files[0]]


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, monkeypatch):
    """Two writes within a tick of the clock have the same stamp."""
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    import adapt.provenance as module

    tick = time.time_ns()
    monkeypatch.setattr(module, "stamp", lambda path: [1, 2, 3, tick, tick])
    file = tmp_path / "a"
    for content in (b"1", b"2"):
        file.write_bytes(content)
        assert list(digests([file])) == [module._sha256(file)]


def test_digests_are_kept_block_by_block_and_a_second_command_does_not_wait(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path))
    monkeypatch.setattr("adapt.provenance.YOUNG", -1.0)
    monkeypatch.setattr("adapt.provenance.BLOCK", 1)
    connect = partial(sqlite3.connect, timeout=0)
    monkeypatch.setattr(sqlite3, "connect", lambda place, **_: connect(place))
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text(file.name)
    expected, found = [hashlib.sha256(file.read_bytes()).digest() for file in files], digests(files)
    assert next(found) == expected[0]
    with closing(connect(tmp_path / "digests.sqlite")) as other:
        assert other.execute("SELECT digest FROM digests").fetchall() == [(expected[0],)], "a kill loses no block that is done"
        other.execute("INSERT INTO digests VALUES ('x', 'y')")  # another command's
        other.commit()
        other.execute("BEGIN EXCLUSIVE")
        assert next(found) == expected[1], "a memory that is locked costs time and nothing else"
        other.rollback()
        assert next(found) == expected[2]
        assert (expected[2],) in other.execute("SELECT digest FROM digests").fetchall(), "it goes on remembering"


def test_changed_names_what_differs():
    assert changed({"a": 1, "b": {"c": 1, "d": [1]}}, {"a": 1, "b": {"c": 2, "d": [1]}, "e": None}) == ["b.c"]
    assert changed({"e": 1}, {}) == ["e"]
    assert changed({}, {}) == []


def test_reloaded_students_answer_on_the_device_of_the_data(place, monkeypatch):
    """A kill between saving and measuring: the student comes from its file."""
    given = recipe(student="{name: logits, student: resnet10t, teacher: zero-shot, views: 1, train: {epochs: 1, batch: 16}}")
    pipeline.distill(given)
    session = Session(given)
    moved = []
    whole = torch.nn.Module.to
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda self, *a, **k: moved.append((type(self).__name__, a)) or whole(self, *a, **k)
    )
    student = kept.student(session)
    assert (type(student).__name__, (session.accelerator.device,)) in moved
