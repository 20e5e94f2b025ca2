"""What a shell's line may become, from the schema."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapt.commands import TAKES
from adapt.completion import CHOICES, PLACES, own, script, words
from adapt.manual import PAGES, page
from adapt.plug import UserError
from adapt.recipe import Recipe


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("adapt fi", ["finetune"]),
        ("adapt finetune recipe=clip_l", ["recipe=clip_lora"]),
        ("adapt finetune recipe=clip_lora tr", ["tracker=", "train."]),
        ("adapt finetune recipe=clip_lora train.opt", ["train.optimizer="]),
        ("adapt finetune recipe=clip_lora train.optimizer=s", ["train.optimizer=sgd"]),
        ("adapt finetune recipe=clip_lora method.name=q", ["method.name=qlora"]),
        ("adapt finetune recipe=clip_lora method.ra", ["method.rank="]),
        ("adapt finetune recipe=clip_lora method.name=full method.ra", []),
        ("adapt finetune recipe=clip_lora evals.0.spl", ["evals.0.split="]),
        ("adapt finetune recipe=clip_lora strict=", ["strict=false", "strict=true"]),
        ("adapt convert to=y", ["to=yolo"]),
        ("adapt predict to=j", ["to=jsonl"]),
        ("adapt predict ov", ["overlap="]),
        ("adapt merge recipe=clip_lora scale=", ["scale=sweep"]),
        ("adapt merge recipe=clip_lora canary=so", ["canary=source_hands"]),
        ("adapt shots recipe=clip_lora methods=coop,ti", ["methods=coop,tip_adapter"]),
        ("adapt shots recipe=clip_lora base_to_new=t", ["base_to_new=true"]),
        ("adapt shots recipe=clip_lora shots=1 method.ra", ["method.rank="]),
        ("adapt runs remove y", ["yes="]),
        ("adapt recipes clip_lora --", ["--json"]),
        ("adapt evaluate recipe=clip_lora su", ["suite="]),
        ("adapt evaluate recipe=clip_lora suite=em", ["suite=embedded"]),
        ("adapt options distill lo", ["logits"]),
        ("adapt doctor d", ["data", "data.", "distill."]),
        ("adapt finetune recipe=nothing.yaml seed", ["seed="]),
    ],
)
def test_a_line_goes_on_as_the_schema_says(line, found):
    assert words(line) == found


def test_every_option_of_a_recipe_is_found_level_by_level():
    from adapt.options import leaves, options
    from adapt.recipe import Recipe

    for option in leaves([each for each in options(Recipe) if each.name in ("prompts", "seed")]):
        line = "adapt finetune recipe=clip_lora "
        for end in [place for place, sign in enumerate(option.path) if sign == "."]:
            assert option.path[: end + 1] in words(line + option.path[:end])
        assert f"{option.path}=" in words(line + option.path)


@pytest.mark.parametrize("verb", PAGES)
def test_what_a_verb_takes_is_what_its_help_names(verb):
    """Beside the recipe's options, and what every verb takes."""
    others = {"recipe", "run", "key", *Recipe.model_fields}
    named = set(re.findall(r"(?<![\w.])([a-z_]+)=", page(verb))) - others
    assert named == set(own(verb)) - others
    assert {f"{key}=" for key in own(verb)} <= set(words(f"adapt {verb} "))


def test_what_is_read_elsewhere_is_known_here():
    assert {verb: set(own(verb)) for verb in TAKES} == {verb: set(takes) for verb, takes in TAKES.items()}
    assert set(CHOICES) | set(PLACES) <= {key for verb in PAGES for key in own(verb)}


def test_paths_are_completed_and_folders_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "mine.yaml").touch()
    assert words("adapt init ph") == ["photos/"] and words("adapt road recipe=mi") == ["recipe=mine.yaml"]
    assert words("adapt init photos/") == ["photos/cats/"]
    assert words("adapt shots recipe=clip_lora splits=mi") == ["splits=mine.yaml"]
    assert words("adapt evaluate models=") == [] and words("adapt shots seeds=") == [], "no file is a model or a number"
    assert words("adapt finetune recipe=clip_lora train.lr=") == [], "nor of an option"
    assert words("adapt finetune recipe=clip_lora distill.student=mi") == ["distill.student=mine.yaml"], "a text may be one"
    assert words("adapt finetune recipe=clip_lora train.batch=") == ["train.batch=all"]
    assert words("adapt finetune recipe=sam_semantic_student distill.stride=1") == ["distill.stride=16"]
    assert words("adapt doctor data data.path=ph") == ["data.path=photos/"]
    assert words("adapt doctor data data.path=photos/") == ["data.path=photos/cats/"]


def test_bash_completes_behind_an_equals_sign(tmp_path):
    file = tmp_path / "completion.bash"
    file.write_text(script("bash"))
    call = 'adapt() { "$PY" -m adapt "$@"; }; source "$1"; COMP_LINE="$2"; COMP_POINT=${#COMP_LINE}; _adapt; echo "${COMPREPLY[@]}"'
    line = "adapt finetune recipe=clip_lora train.optimizer=s"
    path = {"PY": sys.executable, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        ["bash", "-c", call, "bash", str(file), line], capture_output=True, text=True, env=os.environ | path, check=True
    )
    assert done.stdout.split() == ["sgd"], done.stderr


@pytest.mark.skipif(
    not shutil.which("zsh"), reason="NO ZSH: completion for zsh is NOT tested here. On Debian: apt-get install zsh"
)
def test_zsh_completes_what_words_says(tmp_path):
    file = tmp_path / "completion.zsh"
    file.write_text(script("zsh"))
    call = (
        'adapt() { "$PY" -m adapt "$@" }; compdef() { }; compadd() { print -l -- "${@[5,-1]}" }; source "$1"; words=(${(z)2}); '
    )
    path = {"PY": sys.executable, "PYTHONPATH": str(Path(__file__).parents[1])}
    line = "adapt finetune recipe=clip_lora train.optimizer=s"
    done = subprocess.run(
        ["zsh", "-f", "-c", f"{call} CURRENT=$#words; _adapt", "zsh", str(file), line],
        capture_output=True,
        text=True,
        env=os.environ | path,
        check=True,
    )
    assert done.stdout.split() == ["train.optimizer=sgd"], done.stderr


def test_another_shell_is_refused():
    with pytest.raises(UserError, match=r"there is none for 'fish'\. Have: bash, zsh"):
        script("fish")
