"""Asking each family about one picture, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.cli import main
from adapt.data import _emoji


def picture(things: list[tuple[str, tuple[int, int]]], side: int = 128) -> Image.Image:
    """Things of Noto's hand on white, by their CLDR names, 48 pixels each, at these corners."""
    rows = {row["caption"]: row["image"] for row in _emoji.read("noto")}
    canvas = Image.new("RGB", (side, side), "white")
    for name, corner in things:
        small = rows[name].convert("RGBA").resize((48, 48))
        canvas.paste(small, corner, small)
    return canvas


@pytest.fixture
def scene(tmp_path) -> str:
    picture([("tiger face", (8, 8)), ("banana", (70, 70))]).save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


def reddened(drawn: Path, scene: str) -> np.ndarray:
    """Where the answer has been drawn over the picture, bool[H, W]."""
    before, after = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (scene, drawn))
    return np.abs(before - after).sum(-1) > 0


@pytest.mark.parametrize(("words", "place"), [("segment the tiger face", (8, 8)), ("where is the banana?", (70, 70))])
def test_sam_and_clip_segment_what_is_named(scene, tmp_path, words, place, capsys):
    assert main(["prompt", "recipe=sam_semantic_student", f"image={scene}", f"text={words}", "out=found.png"]) == 0
    assert "similarity" in capsys.readouterr().out, "the recipe has no words for everything else"
    marked = reddened(tmp_path / "found.png", scene)
    left, top = place
    assert marked[top : top + 48, left : left + 48].sum() > 0.8 * marked.sum() > 300
    assert not (tmp_path / "runs").exists(), "a question leaves no run folder"


def test_against_other_words_it_is_a_probability(scene, capsys):
    recipe = ["recipe=sam_semantic_student", "distill.words.against=[background]"]
    assert main(["prompt", *recipe, f"image={scene}", "text=the banana"]) == 0
    assert "probability" in capsys.readouterr().out


@pytest.mark.parametrize("prompt", ["point=94,94", "box=70,70,118,118"])
def test_sam_takes_a_point_or_a_box(scene, tmp_path, prompt, capsys):
    assert main(["prompt", "recipe=sam_lora", f"image={scene}", prompt]) == 0
    assert "predicted IoU" in capsys.readouterr().out
    marked = reddened(tmp_path / "prompt.png", scene)
    assert marked[66:122, 66:122].sum() > 0.9 * marked.sum() > 300


def test_dinov2_finds_what_an_example_shows(scene, tmp_path, capsys):
    shown = picture([("banana", (10, 40)), ("tiger face", (70, 60))])
    shown.save(tmp_path / "example.png")
    mask = np.asarray(shown.convert("L")) < 250
    mask[:, 60:] = False
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    given = [f"image={scene}", "example=example.png", "mask=mask.png"]
    assert main(["prompt", "recipe=dinov2_linear", *given]) == 0
    assert "pixels" in capsys.readouterr().out
    marked = reddened(tmp_path / "prompt.png", scene)
    assert marked[64:, 64:].sum() > 0.6 * marked.sum() > 100


def test_paligemma_says_what_it_sees(scene, tmp_path, capsys):
    assert main(["prompt", "recipe=paligemma_lora", f"image={scene}", "text=caption en"]) == 0
    assert len(capsys.readouterr().out.splitlines()[0]) > 3
    assert (tmp_path / "prompt.png").exists()


def test_clip_chooses_among_words(tmp_path, capsys):
    picture([("banana", (0, 0))], 48).save(tmp_path / "one.png")
    assert main(["prompt", "recipe=clip_lora", "image=one.png", "text=banana; tiger face; fire engine"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("banana")
    assert main(["prompt", "recipe=clip_lora", "image=one.png"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6, "five classes of the data, and where it is drawn"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe=sam_lora"], "image: missing"),
        (["recipe=sam_lora", "image=nowhere.png", "point=1,2"], "'nowhere.png' is no picture"),
        (["recipe=sam_lora", "image=scene.png", "point=1"], "point: '1' is not 2 numbers"),
        (["recipe=sam_lora", "image=scene.png", "point=1,2", "out=no/where.png"], "out: no folder 'no'"),
        (["recipe=sam_lora", "image=scene.png"], "'sam' is asked with text, point or box"),
        (["recipe=sam_lora", "image=scene.png", "point=999,1"], "leaves"),
        (["recipe=paligemma_lora", "image=scene.png"], "'paligemma' is asked with text"),
        (["recipe=dinov2_linear", "image=scene.png", "example=scene.png"], "mask: missing"),
        (["recipe=sam_lora", "image=scene.png", "text=the"], "names nothing"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_clear_line(scene, arguments, message, capsys):
    assert main(["prompt", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
