"""What `coco`, `yolo` and `voc` have in common: splits, groups, limits, classes; and that the recipes run on them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from adapt import plug
from adapt.cli import main
from adapt.data.coco import Config
from adapt.data.listing import Places
from adapt.data.problems import Report
from adapt.plug import UserError
from adapt.recipe import load_recipe

SIZE = (80, 60)
SOURCES = ("coco", "yolo", "voc")
BOX = (10, 12, 42, 40)


def lay(root, make, names: list[str]):
    """The same pictures and objects in all three formats; two objects on each picture."""
    left, top, right, bottom = BOX
    polygon = [left, top, right, top, right, bottom, left, bottom]
    other = [50, 5, 70, 5, 70, 25, 50, 25]
    for folder in ("images", "labels", "Annotations"):
        (root / folder).mkdir(parents=True)
    images, annotations = [], []
    for i, name in enumerate(names):
        image = Image.blend(make.picture(i, SIZE), Image.new("RGB", SIZE, "navy"), 0.6)
        image.paste((250, 200, 30), BOX)
        image.paste((220, 20, 60), (50, 5, 70, 25))
        image.save(root / "images" / f"{name}.jpg")
        images.append({"id": i, "file_name": f"{name}.jpg", "width": 80, "height": 60})
        things = ""
        lines = []
        for category, points in enumerate((polygon, other)):
            x, y, w, h = points[0], points[1], points[2] - points[0], points[5] - points[1]
            entry = {
                "id": 2 * i + category,
                "image_id": i,
                "category_id": category,
                "bbox": [x, y, w, h],
                "segmentation": [points],
            }
            annotations.append(entry)
            lines.append(f"{category} " + " ".join(f"{p / s:.17g}" for p, s in zip(points, SIZE * 4, strict=True)))
            corners = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            things += f"<object><name>{('cup', 'plate')[category]}</name><bndbox>{corners}</bndbox></object>"
        (root / "labels" / f"{name}.txt").write_text("\n".join(lines))
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation><filename>{name}.jpg</filename>{things}</annotation>")
    categories = [{"id": 0, "name": "cup"}, {"id": 1, "name": "plate"}]
    (root / "all.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    (root / "data.yaml").write_text("train: images\nnames: [cup, plate]\n")
    return root


@pytest.fixture
def shelf(tmp_path, make):
    """Twelve pictures of four shelves."""
    return lay(tmp_path / "shelf", make, [f"shelf{i % 4}_{i}" for i in range(12)])


def opened(source: str, root, **options):
    more = {"images": "images"} if source == "voc" else {}
    return plug.load("data", source).load(plug.schema("data", source)(path=str(root), **more, **options))


def ids(splits) -> dict[str, list[str]]:
    return {name: sorted(part["id"]) for name, part in splits.items()}


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_objects_are_the_same_in_every_format(shelf, source):
    splits = opened(source, shelf)
    assert isinstance(splits.report, Report) and set(splits.origin) == {"train", "validation", "test"}
    row = splits["train"][0]
    np.testing.assert_allclose(row["objects"]["bbox"], [BOX, (50, 5, 70, 25)], rtol=0, atol=1e-9)
    assert row["objects"]["category"] == [0, 1] and row["objects"]["iscrowd"] == [0, 0]
    assert row["image"].size == SIZE and row["id"].startswith("images/shelf")
    assert splits["train"].features["objects"]["category"].feature.names == ["cup", "plate"]
    assert ids(splits) == ids(opened("coco", shelf)), "the draw depends on the ids alone, in any order"
    if source != "voc":
        assert splits["train"][:]["objects"] and row["objects"]["mask"] == opened("coco", shelf)["train"][0]["objects"]["mask"]


@pytest.mark.parametrize("source", SOURCES)
def test_rows_of_a_group_are_never_on_two_sides(shelf, source):
    splits = opened(source, shelf, group=r"(shelf\d)_", validation=0.25, test=0.25)
    shelves = {name: {each.split("_")[0] for each in part} for name, part in ids(splits).items()}
    assert [len(shelves[name]) for name in ("train", "validation", "test")] == [2, 1, 1]
    assert len(set.union(*shelves.values())) == 4
    assert "25 % of the groups drawn" in splits.origin["test"]


def test_the_same_bytes_join_two_groups(shelf):
    shutil.copy(shelf / "images" / "shelf0_0.jpg", shelf / "images" / "shelf1_1.jpg")
    for seed in range(5):
        splits = opened("yolo", shelf, group=r"(shelf\d)_", validation=0.3, test=0.3, seed=seed)
        of = {each.split("/")[1].split("_")[0]: name for name, part in ids(splits).items() for each in part}
        assert of["shelf0"] == of["shelf1"]


def test_a_group_that_the_given_splits_tear_apart_is_a_leak(shelf):
    for number in (0, 1):
        data = json.loads((shelf / "all.json").read_text())
        data["images"] = data["images"][6 * number : 6 * number + 6]
        data["annotations"] = data["annotations"][12 * number : 12 * number + 12]
        (shelf / f"{('train', 'test')[number]}.json").write_text(json.dumps(data))
    (shelf / "all.json").unlink()
    splits = opened("coco", shelf, group=r"(shelf\d)_", validation=0)
    leaks = [problem for problem in splits.report.problems if problem.problem == "group in two splits"]
    assert len(leaks) == 4 and "test and train" in str(leaks[0]) and not splits.report.severe


@pytest.mark.parametrize(("pattern", "why"), [("(", "no regular expression"), ("shelf", "needs a group in parentheses")])
def test_a_wrong_group_is_refused(pattern, why):
    with pytest.raises(ValidationError, match=why):
        Config(path=".", group=pattern)


def test_a_group_that_is_found_nowhere_is_a_user_error(shelf):
    with pytest.raises(UserError, match=r"data\.group: '\(patient\)' is found in no path, such as 'images/shelf0_0\.jpg'"):
        opened("coco", shelf, group="(patient)")


def test_limit_draws_the_same_few_rows_of_each_split(shelf):
    few, all_of_them = opened("coco", shelf, limit=2), ids(opened("coco", shelf))
    assert {name: len(part) for name, part in few.items()} == {"train": 2, "validation": 2, "test": 2}
    assert ids(few) == ids(opened("voc", shelf, limit=2))
    for name, part in ids(few).items():
        assert set(part) <= set(all_of_them[name])


@pytest.mark.parametrize("source", SOURCES)
def test_classes_are_renamed_joined_and_left_out_by_name(shelf, source):
    def names(splits):
        return splits["train"].features["objects"]["category"].feature.names

    splits = opened(source, shelf, classes={"plate": "dish"})
    assert names(splits) == ["cup", "dish"]
    splits = opened(source, shelf, classes={"plate": "cup"})
    assert names(splits) == ["cup"] and splits["train"][0]["objects"]["category"] == [0, 0]
    splits = opened(source, shelf, classes={"cup": None})
    assert names(splits) == ["plate"] and splits["train"][0]["objects"]["category"] == [0]
    assert [str(problem.detail) for problem in splits.report.problems if problem.problem == "class left out"] == ["12 objects"]
    with pytest.raises(UserError, match=r"data\.classes: the data have no class 'cups'\. Did you mean 'cup'\?"):
        opened(source, shelf, classes={"cups": "cup"})
    with pytest.raises(UserError, match=r"data\.classes leaves out all classes"):
        opened(source, shelf, classes={"cup": None, "plate": None})


def test_boxes_alone_can_be_asked_for(shelf):
    assert set(opened("coco", shelf, masks=False)["train"].features["objects"]) == {"bbox", "category", "iscrowd"}


def test_names_lead_below_the_folder_or_nowhere(tmp_path):
    places = Places(tmp_path.resolve())
    good = {"a.jpg": "a.jpg", "./b/../a.jpg": "a.jpg", "b\\a.jpg": "b/a.jpg", f"{tmp_path.resolve()}/b/a.jpg": "b/a.jpg"}
    assert {name: places.below(name) for name in good} == good
    assert places.below("../a.jpg", "b") == "a.jpg"
    for name in ("..", "../a.jpg", "b/../../a.jpg", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg", "c:/a.jpg", "a\0.jpg"):
        assert places.below(name) is None, name


def test_absolute_names_may_come_to_the_folder_through_a_link(tmp_path):
    home, disk = tmp_path / "home", tmp_path / "disk"
    (disk / "u" / "data" / "b").mkdir(parents=True)
    home.mkdir()
    (home / "u").symlink_to(disk / "u")
    (home / "data").symlink_to(disk / "u" / "data")
    (disk / "secret").mkdir()
    for file in (disk / "u" / "data" / "b" / "a.jpg", disk / "secret" / "a.jpg", disk / "u" / "a.jpg"):
        file.write_bytes(b"-")
    (disk / "u" / "data" / "out").symlink_to(disk / "secret")
    places = Places((disk / "u" / "data").resolve())
    good = {f"{home}/u/data/b/a.jpg": "b/a.jpg", f"{home}/data/b/../b/a.jpg": "b/a.jpg", f"{home}/u/data/b": "b"}
    assert {name: places.below(name) for name in good} == good
    outside = (f"{home}/u/a.jpg", f"{home}/data/../a.jpg", f"{disk}/secret/a.jpg", f"{home}/u/data/b/../../a.jpg")
    for name in (*outside, "/etc/passwd", f"{home}/u/data/a\0.jpg", "/\ud800/a.jpg", f"/{'x' * 5000}/a.jpg"):
        assert places.below(name) is None, name
    assert places.wrong(places.below(f"{home}/u/data/out/a.jpg")) == ("leads outside", f"to {disk / 'secret' / 'a.jpg'}")
    follow = Places((disk / "u" / "data").resolve(), follow=True)
    assert follow.wrong(follow.below(f"{home}/u/data/out/a.jpg")) is None


# ------------------------------------------------------------------------------------------------------------------ roads


def test_sam_is_measured_on_cocos_masks_by_the_path_alone(shelf, capsys):
    few = ["tracker=none", "evals.0.bootstrap=100", "evals.0.clicks=[1]", "evals.0.pictures=1", "data.limit=1"]
    assert main(["evaluate", "recipe=sam_lora", "data.source=coco", f"data.path={shelf}", *few, "--json"]) == 0
    said = capsys.readouterr()
    (entry,) = json.loads(said.out)["entries"]
    assert entry["main"] == "miou" and entry["metrics"]["miou"] > 0.3
    assert "model.checkpoint=sam-tiny was trained on icons only" in said.out + said.err


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_recipe_chose_for_icons_gives_way_to_the_data_s_own_words(source):
    recipe = load_recipe("paligemma_detect_student", [f"data.source={source}", "data.path=shelf"])
    assert recipe.prompts.classes is None and recipe.data.path == "shelf"
    assert recipe.notes[0].startswith(f"data.source={source}: the recipe's choices for icons are not used on other data")


def test_detection_is_measured_on_vocs_boxes_by_the_path_alone(shelf, capsys):
    (shelf / "images").rename(shelf / "JPEGImages")
    few = ["tracker=none", "evals.0.bootstrap=100", "data.limit=2"]
    assert main(["evaluate", "recipe=paligemma_detect_student", "data.source=voc", f"data.path={shelf}", *few, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["main"] == "map50" and np.isfinite(entry["metrics"]["map50"])


def test_doctor_lists_what_is_wrong_with_an_annotation(shelf, capsys):
    data = json.loads((shelf / "all.json").read_text())
    data["annotations"][0]["category_id"] = 7
    (shelf / "all.json").write_text(json.dumps(data))
    assert main(["doctor", "data", "recipe=sam_lora", "data.source=coco", f"data.path={shelf}", "write=problems.csv"]) == 2
    said = capsys.readouterr().out
    assert "unknown category (annotation 0: category_id 7; the file has 0, 1 …)" in said
    assert "12 pictures, " in said and ", 1 of them severe" in said
