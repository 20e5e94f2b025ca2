"""A folder of plug-ins is the registry."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from adapt import plug
from adapt.cli import main
from adapt.plug import SECTIONS, Plugin, Spec, UserError, counted, load, names, nearest, schema

FOLDERS = sorted({folder for folder, _, _ in SECTIONS.values()})


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A registry of its own: the folder of methods with some files."""
    (tmp_path / "methods").mkdir()
    for name in ("_private.py", "__init__.py", "one.py", "two.py", "notes.txt"):
        (tmp_path / "methods" / name).touch()
    monkeypatch.setattr(plug, "ROOT", tmp_path)
    return tmp_path


def test_a_new_file_is_a_new_name(house):
    assert names("methods") == ["one", "two"]
    (house / "methods" / "three.py").touch()
    assert names("methods") == ["one", "three", "two"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_plug_in_has_a_schema_that_names_itself(folder):
    key = next(key for kind, key, _ in SECTIONS.values() if kind == folder)
    assert names(folder)
    for name in names(folder):
        config = schema(folder, name)
        assert issubclass(config, Spec)
        assert key in config.model_fields
        assert config.__module__ == f"adapt.{folder}.{name}"


@pytest.mark.parametrize("name", ["lorra", "_adapter", "__init__", "../plug", "os", "", "lora.py"])
def test_only_the_folders_own_names_are_imported(name):
    with pytest.raises(UserError, match=r"There is no method '.*'\..* Have: .*full, head, linear_text, lora, .*qlora"):
        load("methods", name)


@pytest.mark.parametrize("text", ["def apply(family, config, rows): ...", "Config = 3", "class Config: ..."])
def test_a_file_of_yours_without_a_config_is_named(text, tmp_path, monkeypatch, capsys):
    file = tmp_path / "methods" / "mine.py"
    file.parent.mkdir()
    file.write_text(text + "\n")
    monkeypatch.setenv("ADAPT_PLUGINS", str(tmp_path))
    said = f"{file}: a method needs a class `Config`"
    with pytest.raises(UserError, match=re.escape(said)):
        schema("methods", "mine")
    for command in (["options", "method", "mine"], ["finetune", "recipe=clip_lora", "method.name=mine"]):
        assert main(command) == 2
        assert said in capsys.readouterr().err
    assert load("students", "pixels"), "a kind of student has none"


def test_the_nearest_name_is_offered_when_one_is_near():
    assert nearest("lorra", ["full", "lora"]) == " Did you mean 'lora'? Have: full, lora."
    assert nearest("zzz", ["full", "lora"]) == " Have: full, lora."
    assert nearest(None, []) == " Have: none."
    assert nearest("x" * 10**6, ["full"]) == " Have: full.", "a long word takes no time"


def test_configs_are_frozen_strict_and_finite():
    class Config(Plugin):
        rate: float = 1.0
        """A number."""

    config = Config(name="x")
    assert Config.model_fields["rate"].description == "A number."
    for bad in ({"name": "x", "rat": 1}, {"name": "x", "rate": float("inf")}, {"name": "x", "rate": float("nan")}, {}):
        with pytest.raises(ValidationError):
            Config(**bad)
    with pytest.raises(ValidationError):
        config.rate = 2.0


def test_one_is_no_plural():
    assert [counted(number, "problem") for number in (0, 1, 2, 2000)] == [
        "0 problems",
        "1 problem",
        "2 problems",
        "2,000 problems",
    ]


def test_ipython_is_told_to_show_a_users_mistake_without_a_traceback():
    assert UserError("a: wrong.\nb: too.")._render_traceback_() == ["a: wrong.", "b: too."]
