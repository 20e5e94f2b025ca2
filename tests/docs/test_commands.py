"""Every command in the README, in AGENTS.md and on the pages of docs/ is taken by the command line, up to where the work would begin;
`convert` does its work, on a few pictures."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path
from textwrap import dedent

import pytest
from PIL import Image

from adapt import cli, manual, pipeline
from adapt.recipe import load_recipe
from adapt.run import Run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHERS = ("source .venv/bin/activate", shlex.join(shlex.split("source <(adapt completion bash)")))
"""Commands of the shell's own."""
PLACES = ("data.path", "data.images", "data.unlabelled_path", "images", "image", "file", "example", "mask", "auth")
"""Arguments that are files or folders of the reader's."""


def commands() -> dict[str, str]:
    """Each command of a fenced block, without its comment and where its output goes → the page that it stands on first."""
    found: dict[str, str] = {}
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.partition(" > ")[0], comments=True)
                if words:
                    found.setdefault(shlex.join(words), page.name)
    for line in manual.PAGES["convert"].splitlines()[4:]:
        found.setdefault(shlex.join(shlex.split(line, comments=True)), "adapt help convert")
    return found


def ours(words: list[str]) -> list[str]:
    """The verb and its arguments; empty where a command is none of ours."""
    if words[0] == "accelerate":
        start = next(i for i, word in enumerate(words) if word == "-m" or word.endswith("finetune.py"))
        return words[start + 2 :] if words[start] == "-m" else ["finetune", *words[start + 1 :]]
    return words[1:] if words[0] == "adapt" else []


COMMANDS = commands()
OURS = {text: ours(shlex.split(text)) for text in COMMANDS}


class Reached(Exception):
    """The command is understood: here the work begins."""


@pytest.fixture(autouse=True)
def reached(monkeypatch):
    """What works, and does not only read what was typed, says that it was reached."""
    from adapt.demo import app
    from adapt.verbs import doctor, init, runs
    from adapt.verbs.doctoring import suite

    def stop(*_, **__):
        raise Reached

    verbs = [(pipeline, name) for name, each in vars(pipeline).items() if getattr(each, "__module__", "") == pipeline.__name__]
    for module, name in (
        *verbs,
        (doctor, "look"),
        (suite, "look"),
        (app, "serve"),
        (init, "init"),
        (runs, "compare"),
        (runs, "remove"),
    ):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.setenv("ADAPT_PLUGINS", "")
    monkeypatch.syspath_prepend(ROOT / "docs")  # as mkdocs does for its hooks


def begun(name: str) -> Path:
    """A run of a recipe, with numbers; `mine` stands for the reader's own."""
    recipe = load_recipe("clip_lora" if name == "mine" else name)
    path = Run.open(recipe).begin(recipe).path
    (path / "metrics.json").write_text('{"entries": []}')
    return path


def placed(word: str) -> str:
    """The argument, after what it names has been put there: a reader has it."""
    word = re.sub(r"runs/(\w+)-…", lambda found: str(begun(found[1])), word)
    key, _, value = word.rpartition("=")
    if key in ("", "recipe") and value.endswith(".yaml"):
        shutil.copy(ROOT / "recipes" / "clip_lora.yaml", value)
    if key == "plugins":
        for name, text in runpy.run_path(str(ROOT / "docs" / "hooks.py"))["strangers"]().items():
            Path(value, name).parent.mkdir(parents=True, exist_ok=True)
            Path(value, name).write_text(dedent(text))
    if value in DATA and not Path(value).exists():
        DATA[value](Path(value))
    elif key in PLACES:
        Path(value).parent.mkdir(parents=True, exist_ok=True)
        Path(value).write_text("ann:secret-words" if key == "auth" else "{}") if Path(value).suffix else Path(value).mkdir(
            exist_ok=True
        )
    return word


def pictures(folder: Path, blue: int = 0) -> list[Path]:
    """A few pictures in a folder, no two alike."""
    folder.mkdir(parents=True)
    found = [folder / f"{number}.png" for number in range(8)]
    for number, path in enumerate(found):
        Image.new("RGB", (32, 32), (20 * number, 0, blue)).save(path)
    return found


def photos(place: Path) -> None:
    """Class folders."""
    pictures(place / "cat")
    pictures(place / "dog", blue=200)


def shelf(place: Path) -> None:
    """Boxes, as YOLO has them."""
    (place / "labels" / "train").mkdir(parents=True)
    for path in pictures(place / "images" / "train"):
        (place / "labels" / "train" / f"{path.stem}.txt").write_text("0 0.5 0.5 0.2 0.3\n")
    (place / "data.yaml").write_text("train: images/train\nnames: [cup, plate]\n")


def coco(place: Path) -> None:
    """The same, as COCO has them."""
    images = [
        {"id": int(path.stem), "file_name": path.name, "width": 32, "height": 32} for path in pictures(place / "train2017")
    ]
    things = [
        {
            "id": image["id"] + 1,
            "image_id": image["id"],
            "category_id": 1 + image["id"] % 2,
            "bbox": [8, 8, 16, 16],
            "iscrowd": 0,
        }
        for image in images
    ]
    names = [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]
    (place / "annotations").mkdir()
    file = place / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps({"images": images, "annotations": things, "categories": names}))


DATA = {"photos": photos, "shelf": shelf, "COCO": coco}
"""Folder of the reader's → what lies in it, as the page on data says."""


@pytest.mark.parametrize("text", [text for text, words in OURS.items() if words])
def test_a_command_is_understood(text, capsys):
    words = [placed(word) for word in OURS[text]]
    try:
        assert cli.main(words) == 0, f"{COMMANDS[text]}: {capsys.readouterr().err}"
    except Reached:
        assert words[0] in cli.VERBS


@pytest.mark.parametrize("text", [text for text, words in OURS.items() if not words])
def test_another_command_is_one_that_there_is(text):
    first, *rest = text.split()
    if first == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), COMMANDS[text]
    else:
        assert text in OTHERS, f"{COMMANDS[text]}: {text}"


def test_commands_are_found():
    assert len(COMMANDS) > 60
