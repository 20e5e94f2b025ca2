"""Resampled pictures: against resampling written out, against the normal approximation, and of every eval's own table."""

from __future__ import annotations

import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

from adapt import plug
from adapt.evals import bootstrap, detection
from adapt.evals.bootstrap import Sums, change, draws, interval, mean, pictures
from adapt.prompting.referring import made
from adapt.vision.masks import box, rle
from adapt.vision.pictures import BOXES, MASKS

NAMES = ["cat", "dog", "bird"]


def of(column: str, shown: str | None = None) -> SimpleNamespace:
    """An eval whose main metric is the mean of a column."""
    return SimpleNamespace(statistic=lambda table: mean(table[column], table[shown] if shown else None))


def test_an_interval_has_the_normal_approximations_width():
    values = np.random.default_rng(1).random(2000)
    low, high = interval(mean(values), 2000)
    assert np.isclose((high - low) / 2, 1.96 * values.std() / np.sqrt(2000), rtol=0.1)
    assert low < values.mean() < high


def test_a_paired_difference_is_narrower_than_two_intervals():
    random = np.random.default_rng(0)
    before = random.random(500) < 0.5
    after = before | (random.random(500) < 0.1)
    ids = [str(i) for i in range(500)]
    delta, low, high = change(of("correct"), {"id": ids, "correct": before.tolist()}, {"id": ids, "correct": after.tolist()})
    assert np.isclose(delta, after.mean() - before.mean())
    assert low > 0, "a gain on every changed sample is a sure gain"
    assert high - low < 0.06


@pytest.mark.parametrize("alike", [True, False])
def test_pictures_are_drawn_with_all_that_is_on_them(alike):
    """Against each picture drawn by itself; the values of alike pictures are few, so that kinds of pictures are drawn."""
    random = np.random.default_rng(2)
    count = 400
    sizes = random.integers(1, 3, count)
    shown = [f"p{i}" for i in np.repeat(np.arange(count), sizes)]
    luck = np.repeat(random.random(count), sizes)  # objects of one picture share their fate
    values = (luck < 0.5).astype(float) if alike else luck
    totals, counts = np.bincount(np.repeat(np.arange(count), sizes), values), sizes
    drawn = random.integers(0, count, (4000, count))
    plain = totals[drawn].sum(1) / counts[drawn].sum(1)
    ours = draws([mean(values, shown)], 4000)[:, 0]
    assert np.isclose(ours.mean(), plain.mean(), atol=3e-3)
    assert np.isclose(ours.std(), plain.std(), rtol=0.06)
    np.testing.assert_allclose(np.percentile(ours, [2.5, 97.5]), np.percentile(plain, [2.5, 97.5]), atol=6e-3)
    alone = draws([mean(values)], 4000)[:, 0]
    assert ours.std() > 1.15 * alone.std(), "as if there were more pictures than there are"


def test_resamples_do_not_depend_on_how_they_are_split_into_blocks(monkeypatch):
    values = np.random.default_rng(3).random(50)
    whole = draws([mean(values)], 100)
    monkeypatch.setattr(bootstrap, "BLOCK", 120)
    np.testing.assert_allclose(draws([mean(values)], 100), whole)


def test_resamples_in_which_the_metric_is_not_defined_are_left_out():
    rare = Sums(np.array([[1.0, 1.0], *[[0.0, 0.0]] * 3]), bootstrap._ratio)
    assert np.isnan(draws([rare], 200)).any()
    assert interval(rare, 200) == (1, 1)


@pytest.mark.parametrize("clustered", [False, True])
def test_a_million_rows_need_seconds_and_little_memory(clustered):
    random = np.random.default_rng(0)
    ids = [str(i) for i in range(10**6)]
    more = {"picture": [str(i // 3) for i in range(10**6)]} if clustered else {}
    tables = [{"id": ids, "correct": (random.random(10**6) < share).tolist()} | more for share in (0.5, 0.51)]
    tracemalloc.start()
    began = time.perf_counter()
    delta, low, high = change(of("correct", "picture" if clustered else None), *tables, samples=1000)
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low < delta < high and abs(delta - 0.01) < 2e-3
    assert peak < 300e6
    assert seconds < 30, "one second on an idle core"


def test_metrics_that_cannot_be_compared_have_no_change():
    one = {"id": ["a", "b"], "picture": ["a", "a"], "correct": [True, False]}
    target = of("correct", "picture")
    assert change(target, one, one) == (0, 0, 0)
    assert change(target, one, one | {"id": ["a", "c"]}) is None, "other rows"
    assert change(target, one, one | {"picture": ["a", "b"]}) is None, "other pictures"
    assert change(target, one, {"id": ["a", "b"], "picture": ["a", "a"]}) is None, "a column is lacking"
    assert change(target, {}, {}) is None


def test_rows_are_of_one_picture_when_its_bytes_or_its_path_are_the_same(tmp_path):
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Picture.new("RGB", (4, 4), colour).save(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("red.png", "blue.png", "red.png")]
    rows = Dataset.from_dict({"id": ["a", "b", "c"], "image": paths}).cast_column("image", Image())
    assert pictures(rows) == ["a", "b", "a"]
    stored = [Picture.new("RGB", (4, 4), colour) for colour in ("red", "blue", "blue")]
    rows = Dataset.from_dict({"id": ["a", "b", "c"], "image": stored}, Features(id=Value("string"), image=Image()))
    assert pictures(rows) == ["a", "b", "b"]
    assert pictures(rows.remove_columns("image")) == ["a", "b", "c"]


# --------------------------------------------------------------------------------------------------------------- every eval


COUNT, SIZE = 24, (20, 24)


def world() -> tuple[Dataset, Dataset]:
    """Rows with all columns that any eval wants, and a bank."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(2 * COUNT):
        masks = np.zeros((1 + i % 3, *SIZE), bool)
        for k, mask in enumerate(masks):
            mask[4 : 12 + k, 2 + 7 * k : 8 + 7 * k] = True
        category = [int(c) for c in random.integers(0, 3, len(masks))]
        objects = {"bbox": [box(mask) for mask in masks], "category": category, "mask": [rle(mask) for mask in masks]}
        picture = Picture.fromarray(random.integers(0, 255, (*SIZE, 3), np.uint8))
        words = [f"{NAMES[i % 3]} {i}", f"{NAMES[i % 3]} of picture {i}"]
        rows.append(
            {"id": f"r{i}", "image": picture, "label": i % 3, "caption": words, "count": len(masks), "objects": objects}
        )
    label = ClassLabel(names=NAMES)
    text = Value("string")
    features = {"id": text, "image": Image(), "label": label, "caption": List(text), "count": Value("int64")}
    rows = Dataset.from_list(rows, Features(features | {"objects": {"bbox": BOXES, "category": List(label), "mask": MASKS}}))
    numbers = range(2 * COUNT)
    more = {"group": ["near" if i % 4 else "far" for i in numbers], "labels": [[i % 3] for i in numbers]}
    more |= {"pair": [i // 2 for i in numbers], "cue": [i // 6 for i in numbers], "associated": [i % 3 == 0 for i in numbers]}
    kinds = {"group": text, "labels": List(label), "pair": Value("int64"), "cue": Value("int64"), "associated": Value("bool")}
    for name, values in more.items():
        rows = rows.add_column(name, values, feature=kinds[name])
    return rows.select(range(COUNT)), rows.select(range(COUNT, 2 * COUNT))


def with_text(rows: Dataset, name: str) -> Dataset:
    """The rows with one caption each: of pairs their own, of cues one that they share, as the evals of these names want them."""
    captions = {"pairs": [f"{each} 0" for each in rows["id"]], "cues": [f"cue {number}" for number in rows["cue"]]}
    if name not in captions:
        return rows
    return rows.remove_columns("caption").add_column("caption", captions[name])


def marked(row: dict, ok: bool, random: np.random.Generator, columns: list[int] | None) -> dict:
    """Scores of a row's boxes for the three classes, and for its sentences, of which each is asked in templates and plain."""
    objects = row["objects"]
    own = np.eye(3)[objects["category"]][:, None]
    meant = [each["object"] for each in made(objects["bbox"], [NAMES[c] for c in objects["category"]])]
    said = np.zeros((len(own), 1, 3 if columns is None else len(columns)))
    for column, place in enumerate([*meant, *meant] if columns else []):
        said[place, 0, column] = 1
    noise = [random.random(values.shape) for values in (own, said)]
    found = {"classes": noise[0] + 2 * own * ok, "texts": noise[1] + 2 * said * ok}
    return {"drawings": ["crop"], "summed": 1} | found


def shown(row: dict, words: list[str], ok: bool) -> dict:
    """The masks of a row's words, or one of them under the first word that is not there."""
    own = [NAMES[c] for c in row["objects"]["category"]]
    told = [(code, words.index(name)) for code, name in zip(row["objects"]["mask"], own, strict=True)]
    wrong = [number for number, word in enumerate(words) if word not in own]
    told = told if ok or not wrong else [(told[0][0], wrong[0])]
    return {"mask": [code for code, _ in told], "word": [number for _, number in told], "score": [1.0] * len(told)}


def predictor(skill: float):
    """A model that is right as often as its skill says, whatever it is asked."""

    def predict(rows, name="class_logits", texts=None, boxes=None, points=None, features=None, columns=None, words=None, **_):
        random = np.random.default_rng(1)
        numbers = [int(name[1:]) for name in rows["id"]]
        right = (random.random(len(rows)) < skill) | (np.array(numbers) >= COUNT)  # of the bank it knows all
        if name == "image_embedding":
            return np.array([np.eye(3)[n % 3 if ok else (n + 1) % 3] for n, ok in zip(numbers, right)]) + random.normal(
                0, 0.01, (len(rows), 3)
            )
        if name == "region_scores":
            return [marked(row, ok, random, columns and columns[i]) for i, (row, ok) in enumerate(zip(rows, right))]
        if texts is not None and "associated" in rows.column_names and texts[0].startswith("cue "):
            return random.random((len(rows), 1)) + np.array([[row] * len(texts) for row in right * rows["associated"][:]])
        if name == "word_masks":
            return [shown(row, words[i], ok) for i, (row, ok) in enumerate(zip(rows, right))]
        if texts is not None:
            names = [[text.endswith((f" {n}", NAMES[n % 3], f"r{n} 0")) for text in texts] for n in numbers]
            own = np.array(names)
            first = np.array([2 - ("of picture" in text) for text in texts])  # the better of two captions
            return random.random((len(rows), len(texts))) + np.where(right[:, None], own * first, 0)
        if name == "class_logits":
            return random.random((len(rows), 3)) + 2 * np.array(
                [np.eye(3)[n % 3 if ok else (n + 1) % 3] for n, ok in zip(numbers, right)]
            )
        if name == "text":
            asked = rows["prefix"][0]
            answers = rows["caption"][:] if asked == "caption en" else rows["count"][:]
            return [
                str(answer[0] if isinstance(answer, list) else answer) if ok else "no" for answer, ok in zip(answers, right)
            ]
        if name == "masks":
            prompts = boxes if boxes is not None else [xy for xy, _ in points]
            masks = [np.zeros((len(part), *SIZE), bool) for part in prompts]
            for part, each, ok in zip(masks, prompts, right):
                for mask, prompt in zip(part, each):
                    left, top, end, bottom = (int(v) for v in prompt) if boxes is not None else (0, 0, 9, 9)
                    mask[top : bottom if ok else (top + bottom) // 2, left:end] = True
            return [{"masks": part, "scores": random.random(len(part)), "features": 0} for part in masks]
        truth = [[int(n % 3) if ok else 2 for _ in range(1 + n % 3)] for n, ok in zip(numbers, right)]
        if name == "semantic_logits":
            maps = np.zeros((len(rows), *SIZE), int)
            for one, labels, ok in zip(maps, truth, right):
                for k in range(len(labels) if ok else 1):
                    one[4:12, 2 + 7 * k : 8 + 7 * k] = 1 + k
            return maps
        assert name == "detections"
        known = rows["objects"][:] if "objects" in rows.column_names else [TRUTH[n] for n in rows["id"]]
        found = []
        for row, ok in zip(known, right):
            boxes = np.array(row["bbox"], float) + (0 if ok else 5)
            found.append({"bbox": boxes, "category": np.array(row["category"]), "score": random.random(len(boxes))})
        return found

    return predict


TRUTH = dict(zip(world()[0]["id"], world()[0]["objects"], strict=True))


@pytest.mark.parametrize("name", plug.names("evals"))
def test_the_table_alone_gives_the_main_metric_and_its_change(name, tmp_path):
    target = plug.load("evals", name)
    rows, bank = (with_text(part, name) for part in world())
    options = {"linear": {"steps": 100}, "knn": {"k": 1, "also": []}, "clicks": {"max_clicks": 5}}.get(name, {})
    told = {"classes": NAMES, "templates": ["a {}", "the {}", "one {}"]}
    config = target.Config(name=name, **options)
    results, tables = [], []
    for skill in (0.3, 0.9):
        results.append(target.evaluate(config, predictor(skill), rows, told, bank if config.bank else None))
        pq.write_table(pa.table(results[-1].table), tmp_path / "table.parquet")
        tables.append(pq.read_table(tmp_path / "table.parquet").to_pydict())
    before, after = (result.metrics[config.main] for result in results)
    assert before < after
    for result, table in zip(results, tables, strict=True):
        statistic = target.statistic(table)
        assert statistic(np.ones((1, statistic.pictures)))[0] == pytest.approx(result.metrics[config.main], abs=1e-12)
        low, high = result.intervals[config.main]
        assert low <= result.metrics[config.main] <= high and low < high
        assert interval(statistic, config.bootstrap) == pytest.approx((low, high), abs=1e-12)
        assert 0 <= result.floor < 1
    difference, low, high = change(target, *tables)
    assert difference == pytest.approx(after - before, abs=1e-12)
    assert low < difference < high
    assert change(target, tables[0], tables[0]) == (0, 0, 0)
    assert config.version >= 1


def test_the_change_of_a_detector_against_nothing_found_is_all_of_it():
    rows, _ = world()
    config = detection.Config(name="detection")
    nothing = [{"bbox": np.zeros((0, 4)), "category": np.zeros(0, int), "score": np.zeros(0)}] * COUNT
    before = detection.evaluate(config, lambda *_, **__: nothing, rows, {}).table
    after = detection.evaluate(config, predictor(0.9), rows, {})
    difference, low, _ = change(detection, before, after.table)
    assert difference == pytest.approx(after.metrics["map50"])
    assert low > 0
