"""What `adapt demo` takes, and what it refuses before anything heavy is loaded."""

from __future__ import annotations

import io
import re

import pytest

from adapt.cli import main
from adapt.demo.request import Request, parse_request
from adapt.plug import UserError


def test_its_own_arguments_are_taken_out_of_a_recipes(tmp_path):
    (tmp_path / "people.txt").write_text("anna:a:long one\n\nben:b\n")
    arguments = ["recipe=clip_lora", "port=0", "host=0.0.0.0", "auth=people.txt", "seed=1"]
    request = parse_request(arguments)
    assert request == Request(None, None, 0, "0.0.0.0", (("anna", "a:long one"), ("ben", "b")))
    assert arguments == ["recipe=clip_lora", "seed=1"]


def test_a_page_that_others_reach_without_a_password_is_open():
    assert not Request().open and not Request(host="::1").open and not Request(host="localhost").open
    assert Request(host="0.0.0.0").open and Request(host="vision.example").open
    assert not Request(host="0.0.0.0", people=(("anna", "long"),)).open


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["port=http"], "port: 'http' is not a number from 0 to 65535"),
        (["port=1", "port=2"], "port: given twice"),
        (["auth=nobody.txt"], "auth: cannot read 'nobody.txt': No such file"),
        (["auth=empty.txt"], "auth: 'empty.txt' has no line name:password"),
        (["auth=bad.txt"], "auth: line 2 of 'bad.txt' is not name:password"),
        (["auth=ask"], "auth: there is no terminal to ask in"),
        (["checkpoint=clip-tiny", "recipe=clip_lora"], "checkpoint: given with recipe=. Give one of them"),
        (["checkpoint=clip-tiny", "file=model.onnx"], "checkpoint: given with file=. Give one of them"),
        (["checkpoint="], "checkpoint: empty"),
        (["train.epochs=5"], "'train.epochs=5' is unknown; overrides need a recipe= or run= before them"),
        (["photo.jpg"], "demo: 'photo.jpg' is unknown"),
        (["checkpont=clip-tiny"], "Did you mean 'checkpoint'?"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(given, told, tmp_path, monkeypatch):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bad.txt").write_text("anna:long\nsecret\n")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UserError, match=re.escape(told)) as error:
        parse_request(given)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_checkpoint_that_is_none_is_told_in_a_shell(capsys):
    assert main(["demo", "checkpoint=nothing"]) == 2
    assert capsys.readouterr().err.startswith("model.checkpoint: 'nothing' is neither a folder nor a hub id")
    assert main(["demo", "file=nothing.onnx"]) == 2
    assert capsys.readouterr().err.startswith("file: there is no ")
