"""Asking each family about one picture, from the command line."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt import pipeline
from adapt.cli import main
from adapt.data import world
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs.question import Question
from adapt.vision.masks import box, rle, unrle


def picture(things: list[tuple[str, tuple[int, int]]], side: int = 128) -> Image.Image:
    """Things of Noto's hand on white, by their CLDR names, 48 pixels each, at these corners."""
    rows = {row["caption"]: row["image"] for row in world.read("noto")}
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


def test_sam_writes_the_mask_as_a_picture_and_as_numbers(scene, tmp_path, capsys):
    assert main(["prompt", "recipe=sam_lora", f"image={scene}", "box=70,70,118,118", "out=found.png"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["Drawn: found.png", "Mask: found.mask.png", "Numbers: found.json"]
    mask = Image.open("found.mask.png")
    found = json.loads(Path("found.json").read_text())
    assert (mask.mode, mask.size, found["size"], found["score"]) == ("L", (128, 128), [128, 128], "predicted IoU")
    inside = np.asarray(mask)
    assert set(np.unique(inside)) == {0, 255}
    (one,) = found["masks"]
    assert (unrle(one["rle"]) == (inside > 0)).all()
    assert one["box"] == box(inside > 0)
    assert one["pixels"] == (inside > 0).sum()
    assert 0 < one["score"] <= 1
    assert found["question"] == {"box": [70, 70, 118, 118]}


def test_several_points_and_points_outside_reach_the_model_as_such(scene):
    from adapt.prompting.prompted import predict
    from adapt.verbs.session import Session

    given = ["point=94,94", "point=80,85; 100,110", "outside=30,30;2,2"]
    assert main(["prompt", "recipe=sam_lora", f"image={scene}", *given]) == 0
    (found,) = json.loads(Path("prompt.json").read_text())["masks"]
    points = np.array([[[94, 94], [80, 85], [100, 110], [30, 30], [2, 2]]]), np.array([[1, 1, 1, 0, 0]])
    family = Session(load_recipe("sam_lora")).family
    (answer,) = predict(family, [{"image": Image.open(scene).convert("RGB")}], points=[points])
    assert found["rle"] == rle(answer["masks"][0])
    assert found["score"] == pytest.approx(answer["scores"][0])
    alone = predict(family, [{"image": Image.open(scene).convert("RGB")}], points=[(points[0][:, :1], points[1][:, :1])])
    assert found["rle"] != rle(alone[0]["masks"][0]), "the other points change the answer"


def test_what_is_named_is_written_with_all_that_was_considered(scene):
    assert main(["prompt", "recipe=sam_semantic_student", f"image={scene}", "text=the banana"]) == 0
    found = json.loads(Path("prompt.json").read_text())
    scores = [one["score"] for one in found["masks"]]
    assert scores == sorted(scores, reverse=True)
    assert found["score"] == "similarity"
    assert (unrle(found["masks"][0]["rle"]) == (np.asarray(Image.open("prompt.mask.png")) > 0)).all()


@pytest.mark.parametrize(
    ("recipe", "advice"),
    [("sam_distill", "distill="), ("sam_semantic_student", "distill.automatic.pred_iou_thresh")],
)
def test_advice_names_options_that_the_recipe_has(tmp_path, recipe, advice, capsys):
    """Followed to the letter, it leads somewhere."""
    Image.new("RGB", (64, 64), "white").save("blank.png")
    ask = ["prompt", f"recipe={recipe}", "image=blank.png", "text=the cat"]
    assert main(ask) == 2
    said = capsys.readouterr().err.strip()
    assert advice in said
    section = re.search(r"distill='(.*)'", said)
    lower = [f"distill={section[1]}"] if section else [f"{name}=0" for name in re.findall(r"(distill\S+) \(now", said)]
    load_recipe(recipe, lower)
    assert "distill.automatic" not in said or "automatic" in type(load_recipe(recipe).distill).model_fields


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
    assert (np.asarray(Image.open("prompt.mask.png")) > 0).any()
    assert marked[64:, 64:].sum() > 0.6 * marked.sum() > 100
    written = json.loads(Path("prompt.json").read_text())
    held = pipeline.prompt(load_recipe("dinov2_linear"), Question(np.asarray(Image.open(scene)), example=shown, mask=mask))
    assert held.found["masks"] == written["masks"], "pictures in memory are asked as their files are"
    assert json.loads(json.dumps(held.found))["image"] == "(a picture)"


def test_an_example_may_be_a_palette_or_a_16_bit_mask(scene, tmp_path, capsys):
    """The numbers of the mask count, not the colours that a viewer gives them."""
    shown = picture([("banana", (10, 40))])
    shown.save("example.png")
    inside = np.asarray(shown.convert("L")) < 250
    palette = Image.fromarray(inside.astype(np.uint8))
    palette.putpalette([255, 255, 255, 0, 0, 0])
    clear = np.zeros((*inside.shape, 4), np.uint8)
    clear[inside] = 255
    masks = {
        "grey": Image.fromarray(inside.astype(np.uint8) * 255),
        "palette": palette,
        "deep": Image.fromarray(inside.astype(np.uint16)),
        "clear": Image.fromarray(clear),
    }
    said = set()
    for name, mask in masks.items():
        mask.save(f"{name}.png")
        given = [f"image={scene}", "example=example.png", f"mask={name}.png"]
        assert main(["prompt", "recipe=dinov2_linear", *given, f"out={name}.found.png"]) == 0
        said.add(capsys.readouterr().out.splitlines()[0])
    assert len(said) == 1


def test_paligemma_says_what_it_sees(scene, capsys):
    assert main(["prompt", "recipe=paligemma_lora", f"image={scene}", "text=caption en"]) == 0
    assert len(capsys.readouterr().out.splitlines()[0]) > 3
    assert json.loads(Path("prompt.json").read_text())["text"]
    assert not Path("prompt.png").exists(), "there is nothing to draw"


def test_boxes_of_an_answer_are_drawn_and_written(scene, capsys):
    assert main(["prompt", "recipe=paligemma_lora", f"image={scene}", "text=detect prepared food ; fruit"]) == 0
    said = capsys.readouterr().out.splitlines()
    objects = json.loads(Path("prompt.json").read_text())["objects"]
    assert len(objects) == sum(", box " in line for line in said) > 0
    assert all(0 <= low < high <= 128 for one in objects for low, high in zip(one["box"][:2], one["box"][2:], strict=True))
    assert Path("prompt.png").exists()


@pytest.mark.parametrize(
    "text", ["banana; tiger face; fire engine", "banana, tiger face,fire engine", "[banana, tiger face, fire engine]"]
)
def test_clip_chooses_among_words_however_they_are_listed(text, capsys):
    picture([("banana", (0, 0))], 48).save("one.png")
    assert main(["prompt", "recipe=clip_lora", "image=one.png", f"text={text}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("banana")
    assert sorted(line.split("%  ")[1] for line in lines[:3]) == ["banana", "fire engine", "tiger face"]
    assert sum(one["share"] for one in json.loads(Path("prompt.json").read_text())["classes"]) == pytest.approx(1)


SHOWN = ["recipe=clip_lora", "evals=[{name: region, visual: {drawings: [crop+white], fit: pad}}]"]
"""Best for icons; the default is for photographs."""


def test_which_thing_is_in_a_box_is_asked_with_names(scene, capsys):
    said = []
    for place in ("box=8,8,56,56", "box=70,70,118,118"):
        assert main(["prompt", *SHOWN, f"image={scene}", place, "text=banana, tiger face", "overwrite=true"]) == 0
        said.append(capsys.readouterr().out.splitlines()[0].split("%  ")[1])
        assert sum(one["share"] for one in json.loads(Path("prompt.json").read_text())["classes"]) == pytest.approx(1)
    assert said == ["tiger face", "banana"]
    assert Path("prompt.png").exists()


def test_paligemma_is_asked_by_the_boxs_own_words(scene):
    """The shares are a softmax of log P(the box's words | detect NAME)."""
    from adapt.verbs.session import Session

    given = [f"image={scene}", "box=70,70,118,118", "text=fruit, ground vehicle"]
    assert main(["prompt", "recipe=paligemma_lora", *given]) == 0
    found = json.loads(Path("prompt.json").read_text())
    family = Session(load_recipe("paligemma_lora")).family
    row = {"image": Image.open(scene).convert("RGB"), "objects": {"bbox": [[70, 70, 118, 118]]}}
    (answer,) = family.predictors(["fruit", "ground vehicle"])["region_scores"]([row])
    shares = np.exp(answer["texts"][0, 0]) / np.exp(answer["texts"][0, 0]).sum()
    assert found["drawings"] == ["tokens"]
    assert {one["name"]: one["share"] for one in found["classes"]} == pytest.approx(
        {"fruit": shares[0], "ground vehicle": shares[1]}, rel=1e-3
    )


def test_which_box_is_meant_is_asked_with_words(scene, capsys):
    boxes = "boxes=8,8,56,56; 70,70,118,118"
    for words, place in (("the tiger face", [8, 8, 56, 56]), ("the banana", [70, 70, 118, 118])):
        assert main(["prompt", *SHOWN, f"image={scene}", boxes, f"text={words}", "overwrite=true"]) == 0
        found = json.loads(Path("prompt.json").read_text())["boxes"]
        assert found[0]["box"] == place and found[0]["share"] > 0.5
        assert sum(one["share"] for one in found) == pytest.approx(1)


def test_drawings_of_a_question_are_the_recipes_and_masks_are_sams(scene, capsys):
    drawn = "evals=[{name: region, visual: {drawings: [crop+white], segmenter: sam-tiny}}]"
    given = [f"image={scene}", "box=8,8,56,56", "text=banana, tiger face"]
    assert main(["prompt", "recipe=clip_lora", drawn, *given]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("tiger face")
    assert json.loads(Path("prompt.json").read_text())["drawings"] == ["crop+white"]


def test_of_boxes_that_are_moved_the_mask_is_taken_that_most_agree_on(scene, capsys):
    from adapt.prompting.agreed import NOISE, jittered, medoid
    from adapt.prompting.prompted import predict
    from adapt.verbs.session import Session

    assert main(["prompt", "recipe=sam_lora", f"image={scene}", "box=70,70,118,118", "jitter=6"]) == 0
    (found,) = json.loads(Path("prompt.json").read_text())["masks"]
    boxes = jittered((70, 70, 118, 118), 6, NOISE, (128, 128))
    family = Session(load_recipe("sam_lora")).family
    (answer,) = predict(family, [{"image": Image.open(scene).convert("RGB")}], boxes=[boxes])
    best, agreement = medoid(answer["masks"])
    assert found["rle"] == rle(answer["masks"][best]) and found["score"] == pytest.approx(agreement)
    assert "agreement" in capsys.readouterr().out


def test_a_grid_of_points_finds_all_masks(scene):
    assert main(["prompt", "recipe=sam_semantic_student", f"image={scene}", "grid=8"]) == 0
    found = json.loads(Path("prompt.json").read_text())["masks"]
    assert len(found) == 2
    for corner, one in zip((8, 70), sorted(found, key=lambda one: one["box"]), strict=True):  # a thing and its mask
        assert one["pixels"] > 500
        assert corner - 2 <= min(one["box"]) and max(one["box"]) <= corner + 50


def test_several_things_have_a_mask_each_and_what_is_not_meant_has_none(scene, capsys):
    recipe = ["recipe=sam_semantic_student", f"image={scene}", "overwrite=true"]
    assert main(["prompt", *recipe, "text=the banana; the tiger face"]) == 0
    found = json.loads(Path("prompt.json").read_text())["masks"]
    assert {one["name"] for one in found[:2]} == {"banana", "tiger face"}
    for one in found[:2]:
        assert (one["box"][0] > 60) == (one["name"] == "banana")
    assert "banana: " in capsys.readouterr().out
    assert main(["prompt", *recipe, "text=the banana", "without=tiger face"]) == 0
    assert all(one["box"][2] > 60 for one in json.loads(Path("prompt.json").read_text())["masks"])


def test_without_words_clip_chooses_among_the_classes_of_the_data(capsys):
    picture([("banana", (0, 0))], 48).save("one.png")
    assert main(["prompt", "recipe=clip_lora", "image=one.png"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6, "the five best classes, and where all of them are"
    assert len(json.loads(Path("prompt.json").read_text())["classes"]) == 49


def test_a_picture_is_turned_and_laid_over_white_as_the_sources_do(scene, capsys):
    """A picture stored on its side, and one that is transparent, give the answer of the plain one."""
    upright = Image.open(scene).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=exif)
    clear = np.asarray(upright.convert("RGBA")).copy()
    clear[(clear[..., :3] == 255).all(-1)] = 0  # black, were it not transparent
    Image.fromarray(clear).save("clear.png")
    said = []
    for name in (scene, "turned.png", "clear.png"):
        assert main(["prompt", "recipe=sam_lora", f"image={name}", "point=94,94"]) == 0
        said.append(capsys.readouterr().out.splitlines()[0])
    assert said[0] == said[1] == said[2]


def test_a_classifier_without_a_text_tower_chooses_among_its_classes(tmp_path):
    """DINOv2 has class logits once it has a head, and is asked with words neither before nor after."""
    from adapt.verbs.prompt import _way
    from adapt.verbs.session import Session

    family = Session(load_recipe("dinov2_linear")).family
    family.new_head()
    assert _way(family, Question("a.png"), "dinov2") == "class_logits"
    assert _way(family, Question("a.png", example="b.png", mask="c.png"), "dinov2") == "patch_features"
    wanted = r"ask 'dinov2' with example and mask; or with nothing \(the classes of the data\). Given: text."
    with pytest.raises(UserError, match=wanted):
        _way(family, Question("a.png", text="ants, bees"), "dinov2")


def test_without_words_and_without_classes_there_is_nothing_to_choose_among(scene):
    from adapt.verbs.prompt import ask
    from adapt.verbs.session import Session

    session = Session(load_recipe("clip_lora"))
    session.family.set_classes([], ["{}"])
    with pytest.raises(UserError, match="text: missing, and the data have no class names"):
        ask(session, Question(scene))


def bomb(path: str) -> None:
    """A PNG whose header promises more pixels than any reader should make."""
    Image.new("L", (8, 8)).save(path)
    data = bytearray(Path(path).read_bytes())
    data[16:24] = struct.pack(">II", 30000, 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    Path(path).write_bytes(data)


def test_pictures_that_cannot_be_used_are_one_line_each(tmp_path, scene, capsys, recwarn):
    bomb("bomb.png")
    Path("eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Path("cut.png").write_bytes(Path(scene).read_bytes()[:900])
    Path("empty.png").touch()
    Image.new("RGB", (2000, 2)).save("thin.png")
    Path("folder.png").mkdir()
    wrong = {
        "bomb.png": "decompression bomb (too many pixels",
        "eps.png": "unreadable (not an image in a known format",
        "cut.png": "truncated",
        "empty.png": "zero-size",
        "thin.png": "too thin (2000 × 2)",
        "folder.png": "unreadable",
        "nowhere.png": "unreadable (the file is missing)",
    }
    for name, words in wrong.items():
        assert main(["prompt", "recipe=sam_lora", f"image={name}", "point=1,1"]) == 2
        said = capsys.readouterr().err.strip()
        assert f"image: {name!r} is not a usable picture: {words}" in said
        assert "\n" not in said
    assert not [warning for warning in recwarn if "DecompressionBomb" in str(warning.category)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe=sam_lora", "point=1,2", "image=nowhere.png"], "'nowhere.png' is not a usable picture"),
        (
            ["recipe=sam_lora"],
            "ask 'sam' with text (and without), point or box (and outside, beside these two, and jitter beside a box), or grid. Given: nothing.",
        ),
        (["recipe=sam_lora", "outside=1,2"], "Given: outside."),
        (["recipe=sam_lora", "text=banana", "point=1,2"], "Given: text, point."),
        (["recipe=sam_lora", "example=scene.png", "mask=scene.png"], "ask 'sam' with text (and without), point or box"),
        (["recipe=sam_lora", "point=999,1"], "point: 999,1 leaves the picture, which has 128 × 128 pixels"),
        (["recipe=sam_lora", "point=9,1", "outside=1,-1"], "outside: 1,-1 leaves the picture"),
        (["recipe=sam_lora", "box=1,2,500,50"], "box: 1,2,500,50 leaves the picture"),
        (["recipe=sam_lora", "box=50,50,9,90"], "box: 50,50,9,90 is reversed or empty"),
        (["recipe=sam_lora", "text=the"], "names nothing"),
        (["recipe=sam_lora", "grid=4", "text=cat"], "Given: text, grid."),
        (["recipe=sam_lora", "without=cat", "point=3,3"], "Given: point, without."),
        (["recipe=sam_lora", "jitter=8", "point=3,3"], "Given: point, jitter."),
        (
            ["recipe=paligemma_lora"],
            "ask 'paligemma' with text; or with box (and text: names), or boxes and text. Given: nothing.",
        ),
        (
            ["recipe=paligemma_lora", "point=3,3"],
            "ask 'paligemma' with text; or with box (and text: names), or boxes and text.",
        ),
        (["recipe=paligemma_lora", "text=caption en", "box=1,1,2,2"], "nothing to compare 'caption en' with"),
        (["recipe=paligemma_lora", "boxes=1,1,2,2"], "Given: boxes."),
        (["recipe=clip_lora", "text=cat, dog", "box=9,9,3,3"], "box: 9,9,3,3 is reversed or empty"),
        (["recipe=clip_lora", "text=cat, dog", "box=9,9,300,30"], "box: 9,9,300,30 leaves the picture, which has 128 × 128"),
        (["recipe=clip_lora", "text=cat", "boxes=9,9,30,30; 1,1,500,9"], "boxes: box 2: 1,1,500,9 leaves the picture"),
        (["recipe=clip_lora", "text=cat", "boxes=9,9,30,30"], "one box is always the one that is meant"),
        (["recipe=clip_lora", "text=cat", "box=1,1,9,9"], "nothing to compare 'cat' with"),
        (["recipe=dinov2_linear", "example=scene.png"], "ask 'dinov2' with example and mask. Given: example."),
        (["recipe=dinov2_linear", "text=a cat"], "ask 'dinov2' with example and mask. Given: text."),
        (
            ["recipe=dinov2_linear", "example=scene.png", "mask=small.png"],
            "'small.png' has 8 × 8 pixels, and the example 128 × 128",
        ),
        (["recipe=dinov2_linear", "example=scene.png", "mask=black.png"], "mask: 'black.png' is 0 everywhere"),
        (["recipe=clip_lora", "text=ants"], "the share of one name, 'ants', is always 100 %"),
        (["recipe=clip_lora", "text=ants, ants"], "the share of one name, 'ants', is always 100 %"),
        (["recipe=clip_lora", "text= ; "], "is not a list of names"),
        (["recipe=clip_lora", "text=[ants, [bees]]"], "is not a list of names"),
        (
            ["recipe=clip_lora", "point=3,3"],
            "ask 'clip' with text (names), or nothing (the classes of the data); or with box (and text: names), or boxes and text.",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_clear_line(scene, arguments, message, capsys):
    Image.new("L", (8, 8), 255).save("small.png")
    Image.new("L", (128, 128)).save("black.png")
    given = arguments if "image=nowhere.png" in arguments else ["image=scene.png", *arguments]
    assert main(["prompt", *given]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not list(Path().glob("prompt*"))


def test_from_python_a_list_is_for_names_alone(scene):
    from adapt.pipeline import prompt

    picture([("banana", (0, 0))], 48).save("one.png")
    answer = prompt(load_recipe("clip_lora"), Question("one.png", text=["banana", "tiger, face"]))
    assert [one["name"] for one in answer.found["classes"]] == ["banana", "tiger, face"]
    with pytest.raises(UserError, match="is a list; ask 'sam' with one text"):
        prompt(load_recipe("sam_lora"), Question(scene, text=["banana", "tiger face"]))
