"""Suites: what they list, that metrics go with labels, and that mistakes are found before anything is read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adapt.measures import METRICS
from adapt.plug import UserError, load, names, schema
from adapt.recipe import available, folder, load_recipe
from adapt.suite import Set, check, configs, load_suite

SHIPPED = {
    "core": 41,
    "datacomp": 38,
    "robust": 6,
    "retrieval": 2,
    "composition": 8,
    "embedded": 6,
    "sam": 6,
    "dinov2": 6,
    "source_hands": 4,
}


def problems(*sets, **rest) -> list[str]:
    with pytest.raises(UserError) as error:
        check({"name": "mine", "sets": list(sets)} | rest)
    return str(error.value).splitlines()


@pytest.mark.parametrize("name", available("suites"))
def test_each_suite_has_its_sets(name):
    assert len(load_suite(name).sets) == SHIPPED[name]


def test_all_suites_are_here():
    assert set(available("suites")) == SHIPPED.keys()


def test_core_is_clip_benchmarks_list():
    """41 lines of benchmark/webdatasets.txt: 21 of its own, 20 of VTAB."""
    core = load_suite("core")
    assert sum(each.name.startswith("vtab/") for each in core.sets) == 20
    for each in core.sets:
        assert each.hub == f"clip-benchmark/wds_{each.name.replace('/', '-')}"
        assert each.place == each.hub.split("/")[1]
        assert each.pictures
    assert [each.name for each in core.sets if each.labels == "captions"] == ["mscoco_captions", "flickr8k", "flickr30k"]


def test_metrics_are_those_of_the_literature():
    found = {each.name: each.metric for name in ("core", "datacomp") for each in load_suite(name).sets}
    assert {name for name, metric in found.items() if metric == "mean_per_class"} == {
        "vtab/caltech101",
        "fgvc_aircraft",
        "vtab/flowers",
        "vtab/pets",
    }
    assert found["voc2007_multilabel"] == "map"
    assert found["wilds/iwildcam"] == "f1_macro"
    assert found["wilds/fmow"] == found["geode"] == "worst_group"
    assert found["dollar_street"] == "top5_worst_group"
    assert found["winogavil"] == "jaccard_10_12"
    assert found["imagenet1k"] == "top1"


def test_a_set_is_the_same_in_every_suite():
    """Its counts too: copies differ in their place and in the metric, never in what they show."""
    seen: dict[str, Set] = {}
    for name in ("core", "robust", "retrieval", "datacomp"):
        for each in load_suite(name).sets:
            first = seen.setdefault(each.name, each)
            same = ("title", "prompts", "labels", "classes", "pictures", "captions")
            assert [each.values()[key] for key in same] == [first.values()[key] for key in same], each.name


def test_classes_are_as_many_as_the_word_list_has():
    from adapt.overrides import parse_yaml

    for each in load_suite("core").sets:
        file = folder("prompts") / f"{each.prompts.classes if each.prompts else None}.yaml"
        if file.is_file() and each.prompts.classes != "clip/imagenet":
            assert len(parse_yaml(file.read_text(), str(file))["classes"]) == each.classes, each.name


@pytest.mark.parametrize("name", names("evals"))
def test_the_table_of_metrics_is_the_evals_own(name):
    """Each metric's eval exists, and the main metric of each that classifies, retrieves or segments is in the table."""
    assert {metric.eval for metric in METRICS.values()} - {""} <= set(names("evals"))
    config = load("evals", name).Config
    keys = {metric.key or each for each, metric in METRICS.items() if metric.eval == name}
    assert not keys or config.main in keys


def test_every_problem_is_a_line_with_the_sets_name():
    lines = problems(
        {"name": "cars", "metric": "r1"},
        {"name": "cups", "metric": "topp1", "also": ["worst_group"]},
        {"name": "bad", "data": {"source": "foldr"}, "metric": "top1", "nots": 1},
        {"name": "both", "hub": "a/b", "data": {"source": "emoji"}, "metric": "top1"},
        {"name": "sharp", "metric": "top1", "corruptions": [7]},
        {"name": "odd", "metric": "top1", "evals": [{"name": "retrieval"}]},
        3,
        {"name": "split", "metric": "top1", "evals": [{"name": "zeroshot", "split": "validation"}]},
        colour="red",
    )
    assert len(lines) == 11
    text = "\n".join(lines)
    assert (
        "sets.cars.metric: 'r1' needs captions a picture, all of them right (labels: captions); this set has one class" in text
    )
    assert "sets.cups.metric: there is no metric 'topp1'. Did you mean 'top1'?" in text
    assert "sets.cups.also.0: 'worst_group' needs group, which the set does not say. Write, for example, group: region." in text
    assert "sets.bad.data.source: there is no source of data 'foldr'. Did you mean 'folder'?" in text
    assert "sets.bad.nots: no such option. Did you mean 'notes'?" in text
    assert "data and hub both say where the pictures are" in text
    assert "severities are 1, 2, 3, 4 and 5, not 7" in text
    assert "sets.odd.evals.0.name: 'retrieval' gives no metric of this set. Metrics: top1." in text
    assert "sets.6: got 3; write a mapping" in text
    assert (
        "sets.split.evals.0.split: got 'validation'; the set's is 'test'. Say it once: split: validation, beside metric."
        in text
    )
    assert "colour: no such option" in text


@pytest.mark.parametrize("sets", [None, [], "cars", {"name": "cars"}])
def test_a_suite_without_a_list_of_sets_is_refused(sets):
    with pytest.raises(UserError, match=r"^sets: got .*; write a list of mappings"):
        check({"name": "mine", "sets": sets})


def test_two_sets_of_a_name_are_refused():
    assert problems({"name": "a", "metric": "top1"}, {"name": "a", "metric": "top5"}) == [
        "sets: 'a' is in the list twice. Give each set a name of its own."
    ]


def test_a_set_without_a_metric_has_the_main_one_of_its_eval():
    suite = check({"name": "mine", "sets": [{"name": "a", "evals": [{"name": "zeroshot", "top": 3}]}]})
    assert suite.set("a").metric == "top1"
    assert suite.set("a").asked() == ["zeroshot"]
    assert suite.set("a").evals[0].top == 3
    assert problems({"name": "a"}) == [problems({"name": "a"})[0]]
    assert problems({"name": "a"})[0].startswith("sets.a.metric: missing. Metrics of one class a picture (labels: class): top1")


def test_an_eval_that_the_table_does_not_know_counts_by_its_own_main_metric():
    suite = check(
        {"name": "mine", "sets": [{"name": "a", "data": {"source": "emoji_scenes"}, "evals": [{"name": "detection"}]}]}
    )
    assert suite.set("a").metric == "map50"


def test_the_evals_of_a_set_have_what_the_set_says():
    """Split, groups, severities and the split to fit on; what it does not say stays as the eval has it."""
    asked = {"metric": "worst_group", "also": ["top1", "retained", "ece_fitted"], "split": "validation", "group": "region"}
    asked |= {"group_without": ["Other"], "corruptions": [5, 3], "fitted_on": "train"}
    asked |= {"evals": [{"name": "robustness", "limit": 7}, {"name": "zeroshot", "bins": 10, "split": "validation"}]}
    found = {config.name: config for config in configs(check({"name": "mine", "sets": [{"name": "a"} | asked]}).sets[0])}
    assert found.keys() == {"robustness", "zeroshot", "groups"}
    assert {config.split for config in found.values()} == {"validation"}
    assert found["groups"].without == ["Other"]
    assert (found["robustness"].severities, found["robustness"].limit) == ([3, 5], 7)
    assert (found["zeroshot"].bins, found["zeroshot"].bank) == (10, "train")
    plain = configs(check({"name": "mine", "sets": [{"name": "a", "metric": "top1", "also": ["top5"]}]}).sets[0])
    assert plain == [schema("evals", "zeroshot")(name="zeroshot")]


@pytest.mark.parametrize("name", available("suites"))
def test_every_metric_of_a_suite_has_one_eval_that_gives_it(name):
    for each in load_suite(name).sets:
        given = [config.name for config in configs(each)]
        assert len(set(given)) == len(given)
        for metric in each.metrics():
            assert METRICS[metric].eval in given or not METRICS[metric].eval, f"{each.name}: {metric}"


def test_what_a_set_and_its_eval_both_say_is_refused():
    both = {"metric": "retained", "corruptions": [3], "evals": [{"name": "robustness", "severities": [1]}]}
    assert problems({"name": "a"} | both) == [
        "sets.a.evals.0.severities: got [1]; the set's is [3]. Say it once: corruptions: [1], beside metric."
    ]
    assert problems({"name": "a", "metric": "top1", "fitted_on": "test"}) == [
        "sets.a.fitted_on: 'test' is the split that is measured. Name another, such as validation."
    ]
    assert problems({"name": "a", "metric": "ece_fitted"}) == [
        "sets.a.metric: 'ece_fitted' needs fitted_on, which the set does not say. Write, for example, fitted_on: validation."
    ]


def test_published_class_names_are_taken_word_for_word():
    objectnet, mnist, own = load_suite("core").set("objectnet"), load_suite("core").set("mnist"), load_suite("sam").set("box")
    assert objectnet.told(["T-shirt", "tray"]).classes == {"T-shirt": "T-shirt", "tray": "tray"}
    assert objectnet.told(["tray"]).templates == "clip/imagenet"
    assert mnist.told(["0", "1"]) == mnist.prompts
    assert load_suite("datacomp").set("geode").told(["bag"], ["a photo of a {}."]).templates == ["a photo of a {}."]
    assert own.told(["a_b"]).classes is None


def test_a_set_is_found_by_name():
    with pytest.raises(UserError, match=r"suite retrieval: there is no set .flickr30.\. Did you mean 'flickr30k.\?"):
        load_suite("retrieval").set("flickr30")


def test_a_suite_of_your_own_is_a_file(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text("sets:\n  - {name: cups, data: {path: cups}, metric: mean_per_class}\n")
    suite = load_suite(str(path))
    data = suite.sets[0].data
    assert (suite.name, suite.sets[0].place, data.source, data.path) == ("ours", None, "auto", "cups")
    with pytest.raises(UserError, match=r"suite: there is no suite 'cor'.*Did you mean 'core'"):
        load_suite("cor")


def test_a_suite_is_a_canary():
    recipe = load_recipe("clip_lora", ["canary=embedded"])
    assert [each.called for each in recipe.canary] == [each.name for each in load_suite("embedded").sets]
    assert [each.evals[0].name for each in recipe.canary] == ["zeroshot"] * 5 + ["retrieval"]


def test_a_canarys_sets_in_the_published_layout_are_read_as_such(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        "sets:\n  - {name: vtab/cars, hub: a/wds_cars, metric: top1, split: train}\n"
        "  - {name: flickr, folder: flickr, labels: captions, metric: r1}\n"
    )
    cars, flickr = (each.data for each in load_recipe("clip_lora", [f"canary={path}"]).canary)
    assert (cars.source, cars.path, cars.split, cars.labels) == ("clip_benchmark", "wds_cars", "train", "class")
    assert (flickr.source, flickr.path, flickr.split, flickr.labels) == ("clip_benchmark", "flickr", "test", "captions")


def test_suites_come_without_heavy_imports():
    code = "import sys; from adapt.suite import configs, load_suite; configs(load_suite('core').sets[3]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets", "numpy", "PIL"} & set(loaded)
