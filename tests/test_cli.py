"""The shell: verbs, exit statuses, one line an error, quickly."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapt import pipeline
from adapt.cli import VERBS, main, parse
from adapt.commands import TAKES
from adapt.lists import described
from adapt.manual import PAGES
from adapt.options import lookup
from adapt.overrides import parse_yaml
from adapt.plug import UserError
from adapt.recipe import available, find, load_recipe
from adapt.run import Run
from adapt.verbs.searching.request import OWN as SEARCHED
from adapt.verbs.shooting.request import OWN
from adapt.verbs.suiting.request import OWN as SUITED


def begun(recipe) -> Run:
    return Run.open(recipe).begin(recipe)


def test_help_names_every_verb(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_a_verb_in_three_lines_with_examples_on_one_screen(verb, capsys):
    assert main(["help", verb]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out == text
    assert lines[0].startswith(f"adapt {verb}: ")
    assert [bool(line) for line in lines[:4]] == [True, True, True, False]
    assert lines[4].startswith(f"  adapt {verb}")
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40, "a screen"


def test_help_has_a_row_for_each_option_of_merge(capsys):
    assert main(["help", "merge"]) == 0
    rows = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ") and "=" in line.split()[0]
    ]
    assert {row.partition("=")[0] for row in rows} == set(TAKES["merge"])


def test_the_examples_of_help_are_recipes_and_options_that_there_are():
    for verb, text in PAGES.items():
        for line in text.splitlines()[4:]:
            words = shlex.split(line.partition(" > ")[0])
            assert words[:2] == ["adapt", verb]
            if names := [word.partition("=")[2] for word in words if word.startswith("recipe=")]:
                own = {
                    "prompt": ("image", "text"),
                    "merge": ("scale", "keep"),
                    "shots": OWN,
                    "workbench": SEARCHED,
                    "evaluate": SUITED,
                }.get(verb, ())
                given = [word for word in words[2:] if word.partition("=")[0] not in (*own, "recipe")]
                load_recipe(names[0], given)
            elif verb == "options":
                assert lookup(words[2:])


def test_a_student_that_cannot_be_had_is_told_of_before_the_training(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["road", "recipe=clip_lora", "distill.student=resnet18", "distill.pretrained=cnn-tiny"]) == 2
    said = capsys.readouterr()
    assert "is of another network than resnet18" in said.err
    assert "zero-shot" not in said.out
    assert not (tmp_path / "runs").exists()


def test_recipes_lists_each_with_a_line(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == available("recipes")
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_a_terminal_gets_recipes_as_a_table_of_80_columns_with_what_was_measured(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")  # no colours
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["recipe", "family", "method", "data", "student", "min"]
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == available("recipes")
    row = next(line for line in lines if line.startswith("clip_lora "))
    assert row.split() == ["clip_lora", "clip", "lora", "emoji", "resnet10t", "3.1"]
    assert max(map(len, lines)) <= 80


def test_a_measured_recipe_names_its_command_and_has_its_figures_from_the_benchmarks():
    """None is invented: each number stands in BENCHMARKS.md too, and so does the time."""
    benchmarks = (Path(__file__).parents[1] / "BENCHMARKS.md").read_text()
    found = {recipe["name"]: recipe for recipe in described() if recipe["figures"]}
    assert "clip_lora" in found and not [name for name in found if "/" in name]
    raw = parse_yaml(find("published", "recipes").read_text(), "recipes")["recipes"]
    assert list(raw) == list(found), "no recipe that there is not"
    for name, recipe in found.items():
        assert f"recipe={name}" in recipe["measured_by"] and recipe["machine"]
        for number in re.findall(r"\d+\.\d", recipe["figures"]):
            assert number in benchmarks, f"{name}: {number}"
        if "seconds" in raw[name]:
            minutes, seconds = divmod(raw[name]["seconds"], 60)
            assert f"{minutes} min {seconds} s" in benchmarks, name
            assert recipe["minutes"] == round(raw[name]["seconds"] / 60, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["finetun"], "There is no verb 'finetun'. Did you mean 'finetune'?"),
        (["finetune"], "recipe: missing"),
        (["finetune", "recipe=clip_lorra"], "Did you mean 'clip_lora'?"),
        (["finetune", "recipe=clip_lora", "train.epoch=1"], "Did you mean 'epochs'?"),
        (["finetune", "recipe=clip_lora", "oops"], "'oops' is not an override"),
        (["distill", "run=nowhere"], "not a run folder"),
        (["report", "run=nowhere"], "not a run folder"),
        (["help", "finetun"], "Did you mean 'finetune'?"),
        (["doctor", "dta"], "'dta' is unknown"),
        (["doctor", "data"], "which pictures?"),
        (["doctor", "data", "data.path=nowhere"], "no folder 'nowhere'"),
        (["doctor", "data", "data.path=x", "wrte=y"], "Did you mean 'write'?"),
        (["doctor", "data", f"data.path={'x' * 300}"], "File name too long"),
        (["report", f"run={'x' * 300}"], "File name too long"),
        (["report", "recipe=clip_lora"], "not a run folder"),
        (["recipes", f"{'x' * 300}.yaml"], "no file"),
        (["recipes", "~nobody-of-that-name/x.yaml"], "no file"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_of_several_processes_the_first_tells_a_mistake():
    """Both have the same one; torchrun kills what is left when one has failed, so it need not be the main process."""
    code = "import sys; from adapt.cli import main; sys.exit(main(['finetune', 'recipe=clip_lora', 'train.epoch=1']))"
    Path("script.py").write_text(code)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"]
    done = subprocess.run([sys.executable, *launch], capture_output=True, text=True, check=False)
    assert done.returncode
    assert done.stderr.count("Did you mean 'epochs'?") == 1


def test_a_process_that_alone_has_a_mistake_tells_it(tmp_path, monkeypatch, capsys):
    for rank, verb in enumerate(("finetun", "finetun", "evaluat")):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank) / "error.json"))
        assert main([verb]) == 2
    assert [line.split()[4] for line in capsys.readouterr().err.splitlines()] == ["'finetun'.", "'evaluat'."]


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


def test_a_printed_recipe_has_every_default(capsys):
    assert main(["recipes", "clip_lora", "train.epochs=3"]) == 0
    Path("mine.yaml").write_text(capsys.readouterr().out)
    assert load_recipe("mine.yaml") == load_recipe("clip_lora", ["train.epochs=3"])
    assert "weight_decay: 0.01" in Path("mine.yaml").read_text()


def test_a_run_is_its_recipe_with_other_students_and_nothing_else(tmp_path, monkeypatch):
    path = begun(load_recipe("clip_lora", ["train.epochs=3"])).path
    assert parse([f"run={path}"]).train.epochs == 3
    assert parse([f"run={path}", "distill.train.epochs=2"]).distill.train.epochs == 2
    with pytest.raises(UserError, match=r"belongs to another recipe: train\.epochs: 3 there, 4 here\. Leave run= out"):
        parse([f"run={path}", "train.epochs=4"])
    with pytest.raises(UserError, match=r"belongs to another recipe: train\.epochs: 3 there, 6 here\."):
        parse([f"run={path}", "recipe=clip_lora"])
    with pytest.raises(
        UserError, match=r"method\.name: 'lora' there, 'head' here; method\.checkpointing: False there, not set here; .* more\."
    ):
        parse([f"run={path}", "method={name: head}"])
    monkeypatch.chdir(tmp_path / "runs")
    with pytest.raises(UserError, match="Go to the folder that holds runs/"):
        parse([f"run={path.name}"])


def test_a_run_is_found_by_its_name_alone(capsys):
    path = begun(load_recipe("clip_lora", ["train.epochs=3"])).path
    assert parse([f"run={path.name}"]).train.epochs == 3
    assert main(["report", f"run={path.name}"]) == 2
    assert f"First: adapt evaluate run={path}" in capsys.readouterr().err
    with pytest.raises(
        UserError,
        match=rf"'clip_lora-1' is not a run folder: there is no recipe\.yaml in it, here or in runs/\. Did you mean '{path.name}'\? Have: {path.name}",
    ):
        parse(["run=clip_lora-1"])


HEAVY = "assert not {'torch', 'transformers', 'datasets', 'numpy', 'timm'} & set(sys.modules), 'heavy import'"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["data.path=nowhere"], "data.path: no folder 'nowhere'"),
        (["data.source=masks", "data.path=nowhere"], "data.path: no folder 'nowhere'"),
        (["data.source=jsonl", "data.path=nowhere.jsonl"], "data.path: no file 'nowhere.jsonl'"),
        (["data.source=hub", "data.path=nowhere/*.parquet"], "data.path: no file or folder 'nowhere/*.parquet'"),
        (["data.path=~nobody-of-that-name/x"], "data.path: no folder '~nobody-of-that-name/x'"),
        (["data.source=hub", "data.path=~nobody-of-that-name/x"], "data.path: no file or folder"),
        (["data.source=jsonl", "data.path=~nobody-of-that-name"], "data.path: no file"),
        (["distill.student=resnet81"], "Did you mean 'resnet18'?"),
        (["epochs=5"], "Did you mean train.epochs?"),
        (["prompts.templates=[a photo]"], "prompts.templates.0: 'a photo' needs exactly one {}"),
        (["prompts.templates=clip/eurosatt"], "Did you mean 'clip/eurosat'?"),
        (["prompts={templates: clip/eurosat, classes: coop/dtd}"], "are of two families of lists"),
        (["prompts={descriptions: {x: [y]}, random: {}}"], "in the place of descriptions"),
    ],
)
def test_paths_and_names_are_looked_up_before_anything_heavy_is_loaded(given, words):
    code = f"import sys; from adapt.cli import main; status = main({['finetune', 'recipe=clip_lora', *given]}); {HEAVY}; sys.exit(status)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert time.perf_counter() - began < 3


def test_a_verb_says_once_what_other_data_change(tmp_path, capsys, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(pipeline, "finetune", lambda recipe: pipeline.Outcome(Path("runs/x"), [], []))
    assert main(["finetune", "recipe=clip_lora", "data.path=photos"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("=")[0] for line in lines[:2]] == ["data.source", "model.checkpoint"]
    for plain in ([], ["plain=true"]):
        assert main(["recipes", "clip_lora", "data.path=photos", *plain]) == 0
        printed = parse_yaml(capsys.readouterr().out, "printed")
        assert printed == load_recipe("clip_lora", ["data.path=photos"]).model_dump(mode="json"), "what is printed is a recipe"


@pytest.mark.parametrize("wrong", ["data.path=nowhere", "model.checkpoint=dinov2-tiny"])
def test_a_refused_run_leaves_no_folder(tmp_path, wrong):
    assert main(["finetune", "recipe=clip_lora", "tracker=none", wrong]) == 2
    assert not list(tmp_path.iterdir())


def test_a_report_needs_numbers(capsys):
    path = begun(load_recipe("clip_lora")).path
    assert main(["report", f"run={path}"]) == 2
    assert f"First: adapt evaluate run={path}" in capsys.readouterr().err


def test_a_report_of_broken_numbers_is_one_line_with_the_file(capsys):
    path = begun(load_recipe("clip_lora")).path
    (path / "metrics.json").write_text('{"entries": [')
    for verb in ("report", "evaluate"):
        assert main([verb, f"run={path}"]) == 2
        error = capsys.readouterr().err
        assert f"{path / 'metrics.json'}: cannot be read" in error
        assert len(error.splitlines()) == 1


def test_doctor_finds_bad_pictures_and_writes_the_list(tmp_path, capsys):
    from PIL import Image

    for name, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / "photos" / name / "good.png")
    assert main(["doctor", "data", "data.path=photos"]) == 0
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"no picture")
    for arguments in (["data.path=photos"], ["recipe=clip_lora", "data.path=photos"]):
        assert main(["doctor", "data", *arguments, "write=bad.csv"]) == 2
        assert "cat/bad.png" in capsys.readouterr().out
        assert "cat/bad.png" in Path("bad.csv").read_text()


def test_doctor_counts_what_is_not_severe_and_the_list_has_it_all(tmp_path, capsys):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGBA", (8, 8), (12 * i, len(name) * ord(name[0]) % 256, 0, 255)).save(
                tmp_path / "photos" / name / f"{i}.png"
            )
    assert main(["doctor", "data", "data.path=photos", "write=all.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data: 'photos' is taken for source=folder: pictures in the folders cat, dog")
    assert lines[1:3] == [
        "wrong mode: 40; nothing to do: converted to RGB when read",
        "40 pictures, 40 problems, none of them severe",
    ]
    assert lines[3:6] == [
        "train: 28; what is left of 'photos'",
        "validation: 6; 15 % drawn from 'photos', which has no validation folder",
        "test: 6; 15 % drawn from 'photos', which has no test folder",
    ]
    assert len(Path("all.csv").read_text().splitlines()) == 41


def test_doctor_looks_at_any_source_without_a_recipe(tmp_path, capsys):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "else" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (80 * i, len(name) * ord(name[0]) % 256, 0)).save(tmp_path / "else" / name / f"{i}.png")
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "else" / name)
    assert main(["doctor", "data", "data.path=photos"]) == 2
    assert "'cat': linked class or split" in capsys.readouterr().out
    assert main(["doctor", "data", "data.path=photos", "data.follow_links=true"]) == 0
    (tmp_path / "else" / "lines.jsonl").write_text('{"image": "cat/0.png", "prefix": "caption en", "suffix": "a cat"}\n{')
    assert main(["doctor", "data", "data={source: jsonl, path: else/lines.jsonl, test: 0, validation: 0}"]) == 2
    out = capsys.readouterr().out
    assert "'lines.jsonl, line 2': bad line (it is not JSON" in out
    assert "1 picture, 1 problem, 1 of them severe" in out
    assert main(["doctor", "data", "data.pth=photos", "data.path=x"]) == 2
    assert "Did you mean 'path'?" in capsys.readouterr().err


def test_doctor_refuses_the_folders_that_training_refuses(tmp_path, capsys):
    from PIL import Image

    (tmp_path / "one" / "cat").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (8, 8), (80 * i, 0, 0)).save(tmp_path / "one" / "cat" / f"{i}.png")
    for arguments in (["data.path=one"], ["recipe=clip_lora", "data.source=folder", "data.path=one"]):
        assert main(["doctor", "data", *arguments]) == 2
        assert "data.path: only one class, 'cat', in 'one'. A classifier needs two" in capsys.readouterr().out
    assert main(["doctor", "data", "data.path=one/cat"]) == 2
    assert "pictures without a class go to data.unlabelled_path" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "Run the same command again: it continues where this run stopped."),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2, "runs/x: No space left on device. Make room"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 2, "runs: Permission denied."),
    ],
)
def test_what_stops_a_verb_is_one_line(error, status, words, monkeypatch, capsys):
    def verb(recipe):
        raise error

    monkeypatch.setattr(pipeline, "finetune", verb)
    assert main(["finetune", "recipe=clip_lora"]) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    if status == 2:
        monkeypatch.setenv("ADAPT_DEBUG", "1")
        with pytest.raises(OSError):
            main(["finetune", "recipe=clip_lora"])


def test_a_bug_keeps_its_traceback(monkeypatch):
    def verb(recipe):
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "finetune", verb)
    with pytest.raises(ZeroDivisionError):
        main(["finetune", "recipe=clip_lora"])


@pytest.mark.parametrize(("strict", "status"), [("true", 1), ("false", 0)])
def test_a_guard_decides_the_status_when_strict(strict, status, monkeypatch, capsys):
    guards = [
        {"name": "no worse", "ok": False, "state": "broken", "message": "it is"},
        {"name": "surely better", "ok": True, "state": "not shown", "message": "37 pictures are too few"},
        {"name": "fast", "ok": True, "state": "kept", "message": ""},
    ]
    monkeypatch.setattr(pipeline, "finetune", lambda recipe: pipeline.Outcome(Path("runs/x"), [], guards))
    assert main(["finetune", "recipe=clip_lora", f"strict={strict}"]) == status
    assert capsys.readouterr().out.splitlines() == [
        "✗ Guard broken: no worse. It is.",
        "? Guard not shown: surely better. 37 pictures are too few.",
        "✓ Guard kept: fast.",
        "Run: runs/x",
    ]


def test_a_verb_ends_with_its_data_and_what_to_know_of_the_numbers(monkeypatch, capsys):
    path = begun(load_recipe("clip_lora")).path
    entry = {
        "name": "zero-shot",
        "title": "zero-shot CLIP",
        "main": "top1",
        "metrics": {"top1": 0.5},
        "notes": ["half are right"],
    }
    splits = [{"split": "test", "pictures": 1200, "origin": "test/"}]
    (path / "metrics.json").write_text(json.dumps({"entries": [entry], "guards": [], "splits": splits}))
    monkeypatch.setattr(pipeline, "evaluate", lambda recipe: pipeline.Outcome(path, [entry], []))
    assert main(["evaluate", "recipe=clip_lora"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "50.0 %" in lines[-4]
    assert lines[-3:] == ["Data: test 1,200 pictures (test/).", "zero-shot CLIP: half are right.", f"Run: {path}"]


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "adapt.cli", "recipes"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# ------------------------------------------------------------------------------------------------------------------- JSON


def document(capsys) -> dict:
    """Standard output, which is one JSON document and nothing else."""
    return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_with_json_a_verb_prints_its_numbers_and_its_folder(monkeypatch, capsys):
    path = begun(load_recipe("clip_lora")).path
    entry = {"name": "zero-shot", "title": "CLIP", "main": "top1", "metrics": {"top1": 0.5, "r1": float("nan")}}
    guard = {"name": "no worse", "state": "broken", "message": "it is"}

    def verb(recipe):
        print("a line of progress")
        return pipeline.Outcome(path, [entry], [guard])

    monkeypatch.setattr(pipeline, "evaluate", verb)
    assert main(["evaluate", "--json", "recipe=clip_lora", "strict=true"]) == 1
    found = document(capsys)
    assert (found["verb"], found["status"], found["run"], found["ok"]) == ("evaluate", 1, str(path), False)
    assert found["entries"] == [entry | {"metrics": {"top1": 0.5, "r1": None}}]
    assert found["guards"] == [guard]
    assert found["report"] is None


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["recipes"], {"recipes"}),
        (["recipes", "clip_lora"], {"recipe", "notes"}),
        (["options"], {"sections"}),
        (["options", "train"], {"section", "text", "options"}),
        (["runs"], {"runs"}),
        (["doctor"], {"machine"}),
        (["help", "runs"], {"help"}),
        ([], {"help"}),
    ],
)
def test_with_json_every_verb_is_one_document(arguments, keys, capsys):
    assert main([*arguments, "--json"]) == 0
    found = document(capsys)
    assert found.keys() == {"verb", "status"} | keys
    assert found["verb"] == (arguments[0] if arguments else "help")


def test_with_json_doctor_lists_the_problems(tmp_path, capsys):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.effect_noise((8 + i, 8), 50).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"no picture")
    assert main(["doctor", "data", "data.path=photos", "--json"]) == 2
    found = document(capsys)
    assert found["status"] == 2
    assert "cat/bad.png" in [problem["id"] for problem in found["problems"]]
    assert {split["split"] for split in found["splits"]} == {"train", "validation", "test"}


def test_with_json_an_answer_is_in_it(tmp_path, capsys):
    from PIL import Image

    Image.effect_noise((64, 64), 50).save(tmp_path / "noise.png")
    asked = ["prompt", "recipe=clip_lora", "image=noise.png", "text=ants, bees", "tracker=none", "--json"]
    assert main(asked) == 0
    found = document(capsys)
    assert {one["name"] for one in found["answer"]["classes"]} == {"ants", "bees"}
    assert found["files"] == ["prompt.json"]


@pytest.mark.parametrize("arguments", [["finetun"], ["finetune", "recipe=clip_lora", "train.epoch=1", "train.lr=fast"]])
def test_with_json_a_mistake_is_a_document_too(arguments, capsys):
    assert main([*arguments, "--json"]) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["status"] == 2
    assert found["error"]["message"] == said.err.strip()
    assert found["error"]["problems"] == said.err.splitlines()


# -------------------------------------------------------------------------------------------------------------- processes


def launched(*words: str, processes: int = 2) -> subprocess.CompletedProcess:
    here = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)] if processes else []
    command = [sys.executable, *launch, "-m", "adapt", *words]
    return subprocess.run(command, env=here, capture_output=True, text=True, check=False, timeout=300)


def test_python_m_adapt_is_adapt(capsys):
    done = launched("recipes", processes=0)
    assert main(["recipes"]) == 0
    assert (done.returncode, done.stdout) == (0, capsys.readouterr().out)


@pytest.mark.slow
def test_a_verb_in_two_processes_speaks_with_one_voice(tmp_path):
    """The same numbers as one process, one JSON document, one mistake."""
    small = ["tracker=none", "data.shots=2", "data.unlabelled=[]", "evals.0.bootstrap=100"]
    first = pipeline.evaluate(load_recipe("clip_lora", small)).entries[0]["metrics"]
    (tmp_path / "runs").rename(tmp_path / "first")
    done = launched("evaluate", "recipe=clip_lora", *small, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["entries"][0]["metrics"] == pytest.approx(first, abs=1e-6)

    wrong = launched("evaluate", "recipe=clip_lora", "train.epoch=1", "--json")
    assert wrong.returncode, "accelerate makes a 1 of every failure"
    assert json.loads(wrong.stdout)["error"]["problems"][0].startswith("train.epoch: no such option.")

    listed = launched("runs", "--json")
    assert [run["verbs"] for run in json.loads(listed.stdout)["runs"]] == [["evaluate"]]


def test_what_one_process_does_is_done_by_the_first_alone(monkeypatch, capsys):
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main(["recipes"]) == 0
        assert bool(capsys.readouterr().out) == (rank == "0")
        assert os.environ["WORLD_SIZE"] == "2", "what was set for others is there again"


def test_a_run_of_another_version_is_one_clear_line(capsys):
    path = begun(load_recipe("sam_lora")).path
    text = (path / "recipe.yaml").read_text()
    (path / "recipe.yaml").write_text(text.replace("max_things:", "most:").replace("\n  lr:", "\n  rate:"))
    assert main(["evaluate", f"run={path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{str(path)!r} is of another version of Adapt: data.most is called data.max_things now (and 1 more)." in line
