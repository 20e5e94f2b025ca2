"""Accuracy on corrupted pictures, of a real model against its answers one by one, and of answers that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image

from adapt.evals import robustness, zeroshot
from adapt.evals.bootstrap import interval, mean
from adapt.evals.robustness.versions import Versions, own_seed, reduced
from adapt.plug import UserError
from adapt.prompting.text import words as spoken
from adapt.recipe import Prompts, load_recipe
from adapt.records import Entry
from adapt.students.classifier import Student
from adapt.train.predict import predict
from adapt.vision.corrupt import GROUPS, NAMES, corrupt
from adapt.vision.pictures import RGB


def config(**options) -> robustness.Config:
    return robustness.Config(name="robustness", **options)


def asked(module):
    """As `verbs/measuring.py` asks a family or a student."""
    accelerator = Accelerator(cpu=True)
    return lambda rows, name: predict(module.predictors(None)[name], module, rows, 64, accelerator, name=name)


def plain(n: int, size: tuple[int, int] = (20, 24), classes: int = 3) -> Dataset:
    """Rows with pictures of noise; the label of row i is i modulo the classes."""
    random = np.random.default_rng(0)
    rows = [
        {"id": f"r{i}", "image": Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)), "label": i % classes}
        for i in range(n)
    ]
    names = ClassLabel(names=[f"class {i}" for i in range(classes)])
    return Dataset.from_list(rows, Features(id=Value("string"), image=RGB(), label=names))


def by_luck(clean: float, under: float, classes: int = 3):
    """A model that is right on so many of the pictures as they are, and of those under corruption: each asked picture by itself."""

    def answer(rows, name):
        count = len(rows) // len(set(rows["id"]))
        random = np.random.default_rng(2)
        labels = [int(name[1:]) % classes for name in rows["id"]]
        right = [random.random() < (under if i % count else clean) for i in range(len(rows))]
        return np.array([np.eye(classes)[label if ok else label - 1] for label, ok in zip(labels, right, strict=True)])

    return answer


@pytest.fixture(scope="module")
def words(clip_tiny, emoji):
    clip_tiny.set_classes(**spoken(Prompts(templates="emoji", classes="emoji"), emoji["test"].features["label"].names).told)
    yield clip_tiny
    clip_tiny.set_classes([], ["{}"])


@pytest.mark.parametrize("kind", ["family", "student"])
def test_the_numbers_are_those_of_the_answers_one_by_one(kind, words, emoji):
    torch.manual_seed(0)
    rows = emoji["test"].select(range(0, 213, 12))
    names = rows.features["label"].names
    module = words if kind == "family" else Student("test_resnet", words.input, names).eval()
    options = config(corruptions=["fog", "gaussian_noise"], severities=[5, 1], limit=0)
    found = robustness.evaluate(options, asked(module), rows, {"data": "x"})
    right, logits = np.zeros((len(rows), 5)), module.predictors(None)["class_logits"]
    for i, row in enumerate(rows):
        image = np.asarray(row["image"])
        versions = [image]
        for name in ("gaussian_noise", "fog"):
            versions += [corrupt(image, name, severity, own_seed(0, row["id"])) for severity in (1, 5)]
        for k, version in enumerate(versions):
            view = module.preprocess({"image": Image.fromarray(version)}, False)["image"][None].float()
            with torch.inference_mode():
                right[i, k] = logits(view)[0].argmax() == row["label"]
    assert found.metrics["clean_top1"] == pytest.approx(right[:, 0].mean())
    assert found.metrics["corrupted_top1"] == pytest.approx(right[:, 1:].mean())
    expected = [[right[:, 1].mean(), right[:, 2].mean()], [right[:, 3].mean(), right[:, 4].mean()]]
    np.testing.assert_allclose(found.figures["robustness"]["accuracy"], expected)
    if kind == "family":
        assert right[:, 0].mean() > right[:, 1:].mean()
        assert found.metrics["retained"] == pytest.approx(right[:, 1:].mean() / right[:, 0].mean())
        assert found.metrics["retained_fog"] == pytest.approx(right[:, 3:].mean() / right[:, 0].mean())
        zero = zeroshot.evaluate(zeroshot.Config(name="zeroshot"), lambda some: asked(module)(some, "class_logits"), rows, {})
        assert found.metrics["clean_top1"] == zero.metrics["top1"], "small pictures stay as they are"


def test_intervals_are_over_pictures_with_all_their_versions():
    rows = plain(150)
    found = robustness.evaluate(config(corruptions="noise", pictures=0), by_luck(0.8, 0.4), rows, {})
    clean, under = np.array(found.table["clean"], float), np.array(found.table["corrupted"])
    random = np.random.default_rng(7)
    drawn = random.integers(0, 150, (4000, 150))
    ratios = under[drawn].mean(1) / clean[drawn].mean(1)
    np.testing.assert_allclose(found.intervals["retained"], np.percentile(ratios, [2.5, 97.5]), atol=0.015)
    assert found.intervals["corrupted_top1"] == interval(mean(found.table["corrupted"]), 1000)
    low, high = found.intervals["clean_top1"]
    assert low < clean.mean() < high
    shares = np.array(found.table["hits"]).reshape(150, 3, 5).mean(2)
    np.testing.assert_allclose(found.metrics["retained_shot_noise"], shares[:, 1].mean() / clean.mean())
    assert np.allclose(under, shares.mean(1))


def test_of_nothing_nothing_is_retained():
    found = robustness.evaluate(config(corruptions="fog", pictures=0), by_luck(0, 0.2), plain(30), {})
    assert set(found.metrics) == {"corrupted_top1", "clean_top1"} == set(found.intervals)
    assert found.metrics["clean_top1"] == 0


def test_a_tie_is_no_hit_and_the_floor_is_what_one_answer_reaches():
    found = robustness.evaluate(config(corruptions="fog", pictures=0), lambda rows, _: np.zeros((len(rows), 3)), plain(31), {})
    assert found.metrics["corrupted_top1"] == 0
    assert found.floor == 11 / 31


def test_a_picture_looks_the_same_in_any_choice_and_no_two_are_alike():
    rows = plain(6)
    few, all_of_them = (Versions(config(corruptions="noise"), some) for some in (rows.select([4, 2]), rows))
    count = 1 + 3 * 5
    for k in range(count):
        one, same = few[k]["image"], all_of_them[4 * count + k]["image"]
        assert np.array_equal(one, same)
    steps = [np.asarray(all_of_them[i * count + 1]["image"], int) - np.asarray(rows[i]["image"]) for i in range(2)]
    assert (steps[0] != steps[1]).mean() > 0.5, "each has its own noise"
    assert not np.array_equal(*[Versions(config(corruptions="noise", seed=s), rows)[1]["image"] for s in (0, 1)])


def test_versions_are_looked_up_as_a_data_set_is():
    rows = plain(3)
    versions = Versions(config(corruptions="contrast", severities=[2, 4]), rows)
    assert len(versions) == 9 and versions["id"] == [f"r{i}" for i in range(3) for _ in range(3)]
    assert np.array_equal(versions[3]["image"], rows[1]["image"]) and versions[-1]["id"] == "r2"
    part = versions[[4, 0]]
    assert part["id"] == ["r1", "r0"] and np.array_equal(part["image"][0], versions[4]["image"])
    assert versions[1:3]["id"] == ["r0", "r0"] and versions[1:5]["label"] == [0, 0, 1, 1] == versions["label"][1:5]
    assert [*part] == versions.column_names == rows.column_names and set(versions[0]) == set(part)
    with pytest.raises(IndexError):
        versions[9]


def test_each_picture_is_read_once_and_few_stay_in_memory(monkeypatch):
    read = []
    monkeypatch.setattr("adapt.vision.pictures.RGB.decode_example", _counting(RGB.decode_example, read))
    versions = Versions(config(corruptions="contrast"), plain(40))
    for i in range(0, len(versions), 16):
        versions[list(range(i, min(i + 16, len(versions))))]
    assert len(read) == 40
    assert versions._read.cache_info().currsize == 32


def _counting(function, seen: list):
    def counted(*given, **options):
        seen.append(1)
        return function(*given, **options)

    return counted


@pytest.mark.parametrize(("size", "expected"), [((400, 300), (299, 224)), ((300, 1000), (224, 747)), ((64, 50), (64, 50))])
def test_large_pictures_are_made_smaller_before(size, expected):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8))
    assert reduced(image, 224).shape[1::-1] == expected


def test_some_of_the_split_are_drawn_and_blocks_change_nothing(monkeypatch):
    rows, options = plain(90), config(corruptions="fog", limit=20, pictures=0)
    found = robustness.evaluate(options, by_luck(1, 1), rows, {})
    assert len(found.table["id"]) == 20 == found.protocol["measured"] == found.figures["robustness"]["pictures"]
    numbers = [int(name[1:]) for name in found.table["id"]]
    assert numbers == sorted(numbers) and max(numbers) > 40, "all over the split, not its first class"
    other = robustness.evaluate(config(corruptions="fog", limit=20, seed=1, pictures=0), by_luck(1, 1), rows, {})
    assert other.table["id"] != found.table["id"]
    sizes = []

    def answer(part, _):
        sizes.append(len(part))
        return np.eye(3)[[int(name[1:]) % 3 for name in part["id"]]]

    monkeypatch.setattr(robustness, "BLOCK", 3 * 6 * 7)
    again = robustness.evaluate(options, answer, rows, {})
    assert sizes == [42, 42, 36] and again.metrics == found.metrics and again.table == found.table


def test_what_was_asked_stands_in_the_protocol():
    one, two = (
        robustness.evaluate(config(corruptions="fog", severities=s, pictures=0), by_luck(1, 1), plain(5), {}).protocol
        for s in ([1], [1, 2])
    )
    assert one["eval"] == "robustness" and one["split"] == "test" and one["largest"] == 224
    assert {key for key in one if one[key] != two[key]} == {"severities"}


def test_the_report_gets_a_picture_of_each_corruption_and_the_entry_its_table():
    found = robustness.evaluate(config(severities=[1, 3, 5]), by_luck(0.9, 0.5), plain(8), {})
    assert [caption.partition(",")[0] for caption, _ in found.pictures] == [name.replace("_", " ") for name in NAMES]
    assert found.pictures[0][0].startswith("gaussian noise, severity 3: top-1 ")
    assert np.array_equal(found.pictures[9][1], Versions(config(corruptions="fog"), plain(1))[3]["image"])
    facts = {"name": "x", "title": "x", "main": "corrupted_top1", "metrics": found.metrics} | found.figures
    entry = Entry.model_validate(facts)
    assert np.shape(entry.robustness.accuracy) == (15, 3) and entry.robustness.clean == found.metrics["clean_top1"]
    few = robustness.evaluate(config(pictures=2), by_luck(0.9, 0.5), plain(8), {})
    assert len(few.pictures) == 2


# ---------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (
            "corruptions: [fog, frog]",
            "evals.0.corruptions: got ['fog', 'frog']; there is no corruption 'frog'. Did you mean 'fog'?",
        ),
        ("corruptions: [1]", "there is no corruption 1. Have: noise, blur, weather, digital, gaussian_noise,"),
        ("corruptions: []", "evals.0.corruptions: got []; write a list of corruptions, such as [fog, noise]."),
        ("severities: [0]", "evals.0.severities: got [0]; a severity can be 1, 2, 3, 4 or 5; give one or more"),
        ("severities: [3, 6]", "evals.0.severities: got [3, 6]; a severity can be 1, 2, 3, 4 or 5"),
        ("severities: 2.5", "evals.0.severities: got 2.5; a severity can be"),
        ("limit: -1", "evals.0.limit: got -1; input should be greater than or equal to 0."),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_loaded(option, line):
    with pytest.raises(UserError) as error:
        load_recipe("clip_lora", [f"evals=[{{name: robustness, {option}}}]"])
    assert line in str(error.value) and "\n" not in str(error.value)


def test_kinds_and_single_values_mean_what_they_say():
    assert config(corruptions=["weather", "fog", "gaussian_noise"]).named == ["gaussian_noise", *GROUPS["weather"]]
    assert config().named == [*NAMES] and config(severities=[5, 1, 5]).severities == [1, 5]
    assert config(severities=3).severities == [3] and config(corruptions="blur").named == [*GROUPS["blur"]]


def test_data_without_labels_are_refused_before_a_picture_is_asked_about():
    rows = plain(4)

    def never(*_):
        raise AssertionError("asked")

    for wrong in (rows.remove_columns("label"), rows.cast_column("label", Value("int64"))):
        with pytest.raises(UserError, match=r"no label for each picture; the columns are id, image"):
            robustness.evaluate(config(), never, wrong, {})
    unknown = Dataset.from_dict({"id": ["a", "b"], "label": [0, None]}).cast_column("label", rows.features["label"])
    with pytest.raises(UserError, match=r"1 of 2 pictures have no label"):
        robustness.evaluate(config(), never, unknown, {})
    with pytest.raises(UserError, match=r"the split 'test' is empty"):
        robustness.evaluate(config(), never, rows.select([]), {})
