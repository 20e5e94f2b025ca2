"""The shell: verbs, exit statuses, one line an error, quickly."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapt.cli import VERBS, main
from adapt.recipe import available


def test_help_names_every_verb(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


def test_recipes_lists_each_with_a_line(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == available("recipes")
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["finetun"], "Did you mean 'finetune'?"),
        (["finetune"], "recipe: missing"),
        (["finetune", "recipe=clip_lorra"], "Did you mean 'clip_lora'?"),
        (["finetune", "recipe=clip_lora", "train.epoch=1"], "Did you mean 'epochs'?"),
        (["finetune", "recipe=clip_lora", "oops"], "'oops' is no override"),
        (["distill", "run=nowhere"], "no run folder"),
        (["report", "run=nowhere"], "no run folder"),
        (["doctor", "dta"], "'dta' is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_an_error_comes_within_a_second_and_without_torch():
    code = (
        "import sys; from adapt.cli import main; status = main(['finetune', 'recipe=clip_lora', 'train.epoch=1']);"
        "assert not {'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules), 'heavy import'; sys.exit(status)"
    )
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - began)
        assert done.returncode == 2, done.stderr
    assert min(times) < 1.0


def test_finetune_script_runs_from_any_folder_by_its_path():
    script = Path(__file__).parents[1] / "adapt" / "finetune.py"
    done = subprocess.run(
        [sys.executable, str(script), "recipe=clip_lora", "train.epoch=1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Did you mean 'epochs'?" in done.stderr


def test_data_that_are_wrong_are_lines_and_status_2(tmp_path, capsys):
    assert main(["finetune", "recipe=clip_lora", "data.path=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["finetune", "recipe=clip_lora", "data.path=empty", "prompts.classes=null"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_verbs_out_of_order_say_what_comes_first(capsys):
    assert main(["export", "recipe=clip_lora", "tracker=none"]) == 2
    assert "First: adapt distill" in capsys.readouterr().err
