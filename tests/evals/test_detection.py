"""Average precision against torchmetrics' definition written out, and against cases that can be told by hand."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from datasets import Dataset, Image
from PIL import Image as Picture

from adapt.data import hub, jsonl
from adapt.distill import boxes
from adapt.evals import detection
from adapt.evals.bootstrap import interval
from adapt.evals.detection.boxes import Precision, coco, draw, f1
from adapt.evals.result import differing
from adapt.plug import UserError
from adapt.prompting.tokens import overlap
from adapt.recipe import load_recipe
from adapt.verbs import measuring
from adapt.verbs.session import Session


def average_precision(truth: list[dict], found: list[dict], threshold: float) -> float:
    """COCO's AP written out: greedy matching by score, 101 recall points, mean over the classes that there are."""
    labels = sorted({label for row in truth for label in row["category"]})
    values = []
    for label in labels:
        hits, total = [], 0
        for right, said in zip(truth, found, strict=True):
            boxes = np.array([b for b, c in zip(right["bbox"], right["category"]) if c == label]).reshape(-1, 4)
            chosen = sorted((i for i, c in enumerate(said["category"]) if c == label), key=lambda i: -said["score"][i])
            total += len(boxes)
            free = np.ones(len(boxes), bool)
            for i in chosen:
                shared = overlap(np.array([said["bbox"][i]]), boxes)[0] * free if len(boxes) else np.zeros(0)
                best = int(shared.argmax()) if len(shared) else -1
                hit = best >= 0 and shared[best] >= threshold
                if hit:
                    free[best] = False
                hits.append((said["score"][i], hit))
        order = [hit for _, hit in sorted(hits, key=lambda pair: -pair[0])]
        right = np.cumsum(order) if order else np.zeros(0)
        recall, precision = right / total, right / np.arange(1, len(order) + 1)
        points = [precision[recall >= point].max(initial=0) for point in np.linspace(0, 1, 101)]
        values.append(np.mean(points))
    return float(np.mean(values))


def scene(seed: int) -> tuple[dict, dict]:
    """Objects, and guesses of them: most near, some missing, some of another class, some of nothing."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, (4, 2))
    boxes = np.hstack([corner, corner + random.uniform(10, 40, (4, 2))])
    labels = random.integers(0, 3, 4)
    guess = np.vstack([boxes[:3] + random.normal(0, 3, (3, 4)), np.add(random.uniform(0, 30, (1, 4)), [0, 0, 40, 40])])
    said = np.where(random.uniform(size=4) < 0.8, np.append(labels[:3], 1), (np.append(labels[:3], 1) + 1) % 3)
    truth = {"bbox": boxes.tolist(), "category": labels.tolist()}
    return truth, {"bbox": guess, "category": said, "score": random.uniform(size=4)}


def test_average_precision_equals_the_formula():
    truth, found = (list(part) for part in zip(*map(scene, range(12)), strict=True))
    metrics, _ = coco(truth, found)
    assert np.isclose(metrics["map50"], average_precision(truth, found, 0.5), atol=1e-6)
    assert np.isclose(metrics["map75"], average_precision(truth, found, 0.75), atol=1e-6)
    every = [average_precision(truth, found, threshold) for threshold in np.arange(0.5, 1, 0.05)]
    assert np.isclose(metrics["map"], np.mean(every), atol=1e-6)


def test_the_interval_is_of_resampled_images():
    truth, found = (list(part) for part in zip(*map(scene, range(12)), strict=True))
    metrics, matches = coco(truth, found)
    precision = Precision(matches)
    low, high = interval(precision, 200)
    assert low < metrics["map50"] < high
    weights = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 50)
    values = []
    for row in weights:  # the same images drawn, judged from the start
        chosen = np.repeat(np.arange(12), row)
        values.append(average_precision([truth[i] for i in chosen], [found[i] for i in chosen], 0.5))
    np.testing.assert_allclose(precision(weights.astype(float)), values, atol=1e-6)


def data(truth: list[dict]) -> Dataset:
    pictures = [Picture.new("RGB", (100, 100), "white") for _ in truth]
    rows = Dataset.from_dict({"id": [str(i) for i in range(len(truth))], "image": pictures, "objects": truth})
    return rows.cast_column("image", Image())


CAT, DOG = [10.0, 10.0, 50.0, 50.0], [60.0, 60.0, 90.0, 90.0]


def test_right_boxes_of_wrong_categories_count_only_class_agnostically():
    truth = [{"bbox": [CAT, DOG], "category": [0, 1]}]
    said = {"bbox": np.array([CAT, DOG]), "category": np.array([1, -1]), "score": np.array([0.9, 0.8]), "unread": 1}
    columns = []

    def predict(dataset, name):
        columns.append("objects" in dataset.column_names)
        return [said]

    protocol = {"classes": ["cat", "dog"]}
    result = detection.evaluate(detection.Config(name="detection"), predict, data(truth), protocol)
    assert result.metrics["map50"] == 0
    assert np.isclose(result.metrics["unread"], 1 / 3)
    assert result.table["label"] == ["cat, dog"]
    assert result.table["prediction"] == ["dog, -1"]
    agnostic = detection.Config(name="detection", class_agnostic=True, ask="present")
    assert detection.evaluate(agnostic, predict, data(truth), protocol).metrics["map50"] == 1
    assert columns == [False, True], "by default a model is told nothing of the picture"


def test_nothing_found_is_zero_and_no_crash():
    truth = [{"bbox": [CAT], "category": [0]}, {"bbox": [], "category": []}]
    nothing = {"bbox": np.zeros((0, 4)), "category": np.zeros(0, int), "score": np.zeros(0)}
    result = detection.evaluate(detection.Config(name="detection"), lambda *_, **__: [nothing] * 2, data(truth), {})
    assert result.metrics == {"map": 0, "map50": 0, "map75": 0, "recall": 0}
    assert len(result.pictures) == 2
    assert result.table["confidence"] == [0, 0]


def test_data_without_objects_is_refused():
    with pytest.raises(UserError, match="needs a column 'objects'"):
        detection.evaluate(detection.Config(name="detection"), None, data([]).remove_columns("objects"), {})


def test_rows_that_say_nothing_of_objects_are_not_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    Picture.new("RGB", (100, 100)).save(tmp_path / "a.png")
    box = "<loc0102><loc0102><loc0512><loc0512>"
    lines = [("caption en", "a cat"), ("detect cat", f"{box} cat"), ("detect dog ; cat", f"{box} dog")]
    text = "\n".join(json.dumps({"image": "a.png", "prefix": prefix, "suffix": suffix}) for prefix, suffix in lines)
    (tmp_path / "train.jsonl").write_text(text)
    rows = jsonl.load(jsonl.Config(path=str(tmp_path / "train.jsonl"), validation=0, test=0))["train"]

    def predict(dataset, name):
        return [{"bbox": [[10, 10, 50, 50]], "category": row["category"], "score": [0.9]} for row in dataset["objects"]]

    present = detection.Config(name="detection", ask="present")
    result = detection.evaluate(present, predict, rows, {"classes": ["cat", "dog"]})
    assert np.isclose(result.metrics["map50"], 1)
    assert result.table["picture"] == ["train/2", "train/2"], "one picture, of which two questions are asked"
    assert (result.table["id"], result.table["label"]) == (["train/2", "train/3"], ["cat", "dog"])
    with pytest.raises(UserError, match="no row of the split 'test' has objects"):
        detection.evaluate(detection.Config(name="detection"), None, rows.select([0]), {})


def test_of_many_boxes_the_surest_are_drawn():
    scores = [0.2, 0.9, 0.5, 0.44, *[0.6] * 20]
    row = {"bbox": [[0, 0, i, i] for i in range(24)], "category": list(range(24)), "score": scores}
    shown = detection._surest(row)
    assert shown["category"] == [1, *range(4, 13)]
    few = detection._surest({name: values[:4] for name, values in row.items()})
    assert few["score"] == [0.9, 0.5]
    assert detection._surest({"bbox": [], "category": [], "score": []}) == {"bbox": [], "category": [], "score": []}


def test_f1_counts_each_box_once_by_hand():
    def boxes(*parts):
        return {"bbox": [box for box, _ in parts], "category": [label for _, label in parts]}

    assert f1(boxes((CAT, 0), (DOG, 1)), boxes((CAT, 0), (DOG, 1))) == 1
    assert f1(boxes((CAT, 0), (DOG, 1)), boxes((CAT, 0), (DOG, 0))) == 0.5, "a wrong category"
    assert f1(boxes((CAT, 0)), boxes((CAT, 0), (CAT, 0))) == pytest.approx(2 / 3), "found twice"
    assert f1(boxes((CAT, 0)), boxes(([30.0, 10.0, 70.0, 50.0], 0))) == 0, "an IoU of a third"
    assert (f1(boxes(), boxes()), f1(boxes((CAT, 0)), boxes()), f1(boxes(), boxes((CAT, 0)))) == (1, 0, 0)


@pytest.mark.parametrize(("agnostic", "order"), [(False, "1 2 3 0"), (True, "2 3 0 1")])
def test_the_worst_pictures_are_shown_first(agnostic, order):
    truth = [{"bbox": [CAT], "category": [0]}] * 2 + [{"bbox": [CAT, DOG], "category": [0, 1]}] * 2
    said = [([CAT], [0]), ([CAT], [1]), ([], []), ([CAT], [0])]
    found = [{"bbox": np.array(b).reshape(-1, 4), "category": np.array(c), "score": np.ones(len(c))} for b, c in said]
    config = detection.Config(name="detection", class_agnostic=agnostic)
    pictures = detection.evaluate(config, lambda *_, **__: found, data(truth), {"classes": ["cat", "dog"]}).pictures
    captions = [caption for caption, _ in pictures]
    assert "nothing: F1 0.00 (2)" in captions
    assert sorted(captions, key=lambda caption: float(caption.split("F1 ")[1].split()[0])) == captions
    assert " ".join(caption.split("(")[1].rstrip(")") for caption in captions) == order
    few = config.model_copy(update={"pictures": 1})
    assert len(detection.evaluate(few, lambda *_, **__: found, data(truth), {}).pictures) == 1


def test_boxes_are_drawn_where_they_are():
    truth = {"bbox": [CAT], "category": [0]}
    found = {"bbox": [DOG], "category": [7], "score": [0.5]}
    picture = np.asarray(draw(Picture.new("RGB", (100, 50), "white"), truth, found, ["cat"], side=200))
    assert picture.shape == (100, 200, 3)
    assert (picture[20:100, 20] == (0, 140, 80)).all(-1).any()
    assert not (picture[:, :15] != 255).any()


@pytest.mark.parametrize(
    ("ask", "by_name", "told"),
    [
        ("all", True, "nothing"),
        ("present", True, "the categories on each picture"),
        ("all", False, "nothing"),
        ("present", False, "nothing"),
    ],
)
def test_the_protocol_says_what_the_module_was_told(ask, by_name, told):
    truth = [{"bbox": [CAT], "category": [0]}]
    said = {"bbox": np.array([CAT]), "category": np.array([0]), "score": np.array([0.9])}
    protocol = {"classes": ["cat"]} | ({"asked_by_name": True} if by_name else {})
    config = detection.Config(name="detection", ask=ask)
    found = detection.evaluate(config, lambda *_, **__: [said], data(truth), protocol).protocol
    assert found["told"] == told and "asked_by_name" not in found
    teller = detection.evaluate(config, lambda *_, **__: [said], data(truth), {"classes": ["cat"]}).protocol
    assert differing(found, teller) == ([] if told == "nothing" else ["told"]), "a detector that is told nothing beside it"


def test_a_vision_language_model_is_asked_by_name_and_a_student_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    few = [f"data.{split}=2" for split in ("train", "validation", "test")]
    session = Session(
        load_recipe("paligemma_detect_student", [*few, "distill.student=test_resnet", "distill.pretrained=false"])
    )
    student = boxes.learner(session.recipe.distill, session.family).student
    present = detection.Config(name="detection", ask="present")
    told = [
        measuring.evaluated(session, present, measuring.predictor(session, module), "test", module).protocol["told"]
        for module in (session.family, student)
    ]
    assert told == ["the categories on each picture", "nothing"]
    assert detection.Config(name="detection").ask == boxes.Config(name="boxes").ask == "all"


# ----------------------------------------------------------------------------------------------------------------- crowds


def crowded(seed: int = 0) -> tuple[dict, list[dict]]:
    """A COCO file with crowds, and what was found: near objects, in crowds, twice, and nowhere."""
    random = np.random.default_rng(seed)
    annotations, results = [], []

    def add(entries, image, category, box, **more):
        left, top, right, bottom = (
            round(float(side), 1) for side in box
        )  # as a file has them, and exact in 32 bits after rounding
        place = [left, top, right - left, bottom - top]
        entries.append({"image_id": image, "category_id": category, "bbox": [float(np.float32(v)) for v in place]} | more)

    for image in range(20):
        for number in range(5):
            corner, category = random.uniform(0, 60, 2), int(random.integers(1, 4))
            box = np.append(corner, corner + random.uniform(8, 40, 2))
            crowd = int(number == 0 or random.random() < 0.2)
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            add(annotations, image, category, box, id=len(annotations) + 1, iscrowd=crowd, area=area)
            for _ in range(3 if crowd else 1):
                part = box + random.normal(0, 2, 4) if not crowd else np.append(corner + 2, corner + random.uniform(4, 8, 2))
                wrong = random.random() < 0.2
                add(results, image, 1 + category % 3 if wrong else category, part, score=float(random.random()))
    categories = [{"id": number, "name": name} for number, name in ((1, "cat"), (2, "dog"), (3, "bird"))]
    return {"images": [{"id": i} for i in range(20)], "annotations": annotations, "categories": categories}, results


def theirs(file, results: list[dict]) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth := COCO(str(file)), truth.loadRes([dict(one) for one in results]), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(("map", "map50", "map75"), judge.stats, strict=False)) | {"recall": judge.stats[8]}


def test_with_crowds_the_precision_is_pycocotools_of_the_same_file(tmp_path):
    content, results = crowded()
    (tmp_path / "instances.json").write_text(json.dumps(content))
    objects = [{"bbox": [], "category": [], "iscrowd": []} for _ in content["images"]]
    for one in content["annotations"]:
        row = objects[one["image_id"]]
        row["bbox"].append(one["bbox"])
        row["category"].append(one["category_id"])
        row["iscrowd"].append(one["iscrowd"])
    pictures = [Picture.new("RGB", (101, 101), (number, 0, 0)) for number in range(20)]
    rows = Dataset.from_dict({"image": pictures, "objects": objects}).cast_column("image", Image())
    rows.to_parquet(tmp_path / "train.parquet")
    rows = hub.load(hub.Config(path=str(tmp_path / "train.parquet"), boxes="xywh"))["train"]
    assert rows[0]["objects"]["iscrowd"] == objects[0]["iscrowd"]

    found = []
    for image in range(20):
        mine = [one for one in results if one["image_id"] == image]
        boxes = np.array([one["bbox"] for one in mine])
        boxes[:, 2:] += boxes[:, :2]
        labels, scores = np.array([one["category_id"] - 1 for one in mine]), np.array([one["score"] for one in mine])
        found.append({"bbox": boxes, "category": labels, "score": scores})
    result = detection.evaluate(detection.Config(name="detection"), lambda *_, **__: found, rows, {})
    expected = theirs(tmp_path / "instances.json", results)
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    without = [row | {"iscrowd": [0] * len(row["iscrowd"])} for row in rows["objects"][:]]
    assert abs(coco(without, found)[0]["map50"] - expected["map50"]) > 0.02, "crowds matter here"

    precision = Precision(result.table)
    assert precision(np.ones((1, 20)))[0] == pytest.approx(expected["map50"], abs=1e-9)
    drawn = np.random.default_rng(1).multinomial(20, np.full(20, 1 / 20), 10)
    for weights in drawn:  # images drawn again are judged by the library from the start
        chosen = np.repeat(np.arange(20), weights)
        again = coco([rows["objects"][i] for i in chosen], [found[i] for i in chosen])[0]["map50"]
        assert precision(weights[None].astype(float))[0] == pytest.approx(again, abs=1e-9)


def test_a_crowd_is_neither_drawn_nor_listed_nor_a_miss():
    truth = {"bbox": [CAT, [0.0, 50.0, 100.0, 100.0]], "category": [0, 0], "iscrowd": [0, 1]}
    inside, outside = [5.0, 55.0, 25.0, 75.0], [70.0, 5.0, 90.0, 25.0]
    assert f1(truth, {"bbox": [CAT], "category": [0]}) == 1
    assert f1(truth, {"bbox": [CAT, inside], "category": [0, 0]}) == 1, "what lies in a crowd counts neither way"
    assert f1(truth, {"bbox": [CAT, inside], "category": [0, 1]}) == pytest.approx(2 / 3), "of another category it does"
    assert f1(truth, {"bbox": [CAT, outside], "category": [0, 0]}) == pytest.approx(2 / 3)
    said = {"bbox": np.array([CAT, inside]), "category": np.array([0, 0]), "score": np.array([0.9, 0.8])}
    result = detection.evaluate(
        detection.Config(name="detection"), lambda *_, **__: [said], data([truth]), {"classes": ["cat"]}
    )
    assert result.table["label"] == ["cat"] and result.metrics["map"] == pytest.approx(1)
    assert "F1 1.00" in result.pictures[0][0]
    picture = np.asarray(
        draw(Picture.new("RGB", (100, 100), "white"), truth, {"bbox": [], "category": [], "score": []}, ["cat"], 100)
    )
    assert (picture[10, 10:50] != 255).any() and (picture[51:, :] == 255).all()
