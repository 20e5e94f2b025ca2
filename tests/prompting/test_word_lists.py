"""The lists of words that are shipped are the published ones, word by word, with their typos."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from importlib.resources import files

import pytest

from adapt.lists import sections
from adapt.overrides import parse_yaml
from adapt.plug import UserError
from adapt.prompting.text import words
from adapt.prompting.word_lists import family, read
from adapt.recipe import Prompts, available, find

# Name: templates, classes, and the first ten digits of the SHA-256 of both. Checked against the packages that they come from by the tests
# below, where those are installed.
LISTS = {
    "clip/birdsnap": (1, 500, "d8204a2578"),
    "clip/caltech101": (34, 102, "c1de217ede"),
    "clip/caltech101_vtab": (34, 102, "c1015765e8"),
    "clip/cars": (8, 196, "1218567a9c"),
    "clip/cifar10": (18, 10, "4f7203c5a9"),
    "clip/cifar100": (18, 100, "094eb81d5f"),
    "clip/clevr_closest_object_distance": (1, 6, "494f6e5196"),
    "clip/clevr_count_all": (1, 8, "a5af0fe699"),
    "clip/country211": (5, 211, "5e0ff6621e"),
    "clip/diabetic_retinopathy": (1, 5, "878eddb680"),
    "clip/dmlab": (1, 6, "e71e2a65b1"),
    "clip/dsprites_label_orientation": (4, 0, "d70f9df69f"),
    "clip/dsprites_label_x_position": (1, 0, "4814f3bbb6"),
    "clip/dtd": (8, 47, "be9eda4e2d"),
    "clip/eurosat": (3, 10, "0d586067a4"),
    "clip/fer2013": (6, 7, "eb66695f29"),
    "clip/fer2013_synonyms": (6, 7, "990f3ec8c4"),
    "clip/fgvc_aircraft": (2, 100, "22ab9ae4c3"),
    "clip/flowers": (1, 102, "7770460933"),
    "clip/food101": (1, 101, "6e2730b8f4"),
    "clip/gtsrb": (3, 43, "6c2dafa5c9"),
    "clip/hateful_memes": (1, 2, "1aec18f89e"),
    "clip/imagenet": (80, 1000, "922993aeb2"),
    "clip/kinetics700": (28, 700, "9bd7b7fef3"),
    "clip/kitti_closest_vehicle_distance": (1, 4, "c6b63f296c"),
    "clip/mnist": (1, 10, "45e87a125a"),
    "clip/pcam": (2, 2, "b72fa312bc"),
    "clip/pets": (1, 37, "2fcb64d4f6"),
    "clip/renderedsst2": (1, 2, "9d65f81b04"),
    "clip/resisc45": (4, 45, "1ecc25f541"),
    "clip/resisc45_openai": (18, 45, "16efb37379"),
    "clip/simple": (7, 0, "4f0fa6c66d"),
    "clip/smallnorb_label_azimuth": (4, 0, "d70f9df69f"),
    "clip/smallnorb_label_elevation": (4, 0, "d70f9df69f"),
    "clip/stl10": (2, 10, "e70db3053a"),
    "clip/sun397": (2, 397, "48d4b0c5c4"),
    "clip/svhn": (6, 10, "bbe87cf6fb"),
    "clip/ucf101": (48, 101, "957b21ca44"),
    "clip/voc2007": (1, 20, "d09713665f"),
    "clip/voc2007_multilabel": (1, 20, "d09713665f"),
    "coop/caltech101": (1, 0, "06ca1f7e67"),
    "coop/dtd": (1, 0, "5d01d5eb74"),
    "coop/eurosat": (1, 10, "c0efa1ad88"),
    "coop/fgvc_aircraft": (1, 0, "36a98273da"),
    "coop/food101": (1, 0, "1479888bc5"),
    "coop/imagenet": (1, 0, "06ca1f7e67"),
    "coop/imagenet_a": (1, 0, "06ca1f7e67"),
    "coop/imagenet_r": (1, 0, "06ca1f7e67"),
    "coop/imagenet_sketch": (1, 0, "06ca1f7e67"),
    "coop/imagenetv2": (1, 0, "06ca1f7e67"),
    "coop/oxford_flowers": (1, 0, "d68eb25bf4"),
    "coop/oxford_pets": (1, 0, "87b451e444"),
    "coop/stanford_cars": (1, 0, "06ca1f7e67"),
    "coop/sun397": (1, 0, "06ca1f7e67"),
    "coop/ucf101": (1, 0, "3a1acdc1e1"),
}
PUBLISHED = {"imagenet": "imagenet1k", "caltech101_vtab": "caltech101"}
"""Our name → the name under which CLIP_benchmark has the templates."""


def content(name: str) -> dict:
    return parse_yaml(find("prompts", name).read_text(encoding="utf-8"), name)


def test_each_list_has_its_words_and_no_other():
    assert {name for name in available("prompts") if "/" in name} == set(LISTS)
    for name, (templates, classes, digest) in LISTS.items():
        found = content(name)
        both = [found["templates"], found.get("classes", [])]
        assert (len(both[0]), len(both[1])) == (templates, classes), name
        assert hashlib.sha256(json.dumps(both).encode()).hexdigest()[:10] == digest, name


def test_there_are_thirty_sets_with_the_published_numbers_of_templates():
    counts = {name: count for name, (count, _, _) in LISTS.items()}
    assert sum(name.startswith("clip/") for name in LISTS) >= 30 and sum(name.startswith("coop/") for name in LISTS) == 15
    expected = {
        "imagenet": 80,
        "cifar10": 18,
        "cifar100": 18,
        "caltech101": 34,
        "dtd": 8,
        "cars": 8,
        "svhn": 6,
        "fer2013": 6,
        "resisc45": 4,
    }
    expected |= {"eurosat": 3, "gtsrb": 3, "country211": 5, "pets": 1, "flowers": 1, "food101": 1, "mnist": 1}
    assert {name: counts[f"clip/{name}"] for name in expected} == expected
    assert {counts[name] for name in LISTS if name.startswith("coop/")} == {1}, "CoOp asks with one template a set"


def test_typos_are_as_they_were_published():
    assert content("clip/resisc45")["templates"][::2] == ["a sattelite image of {}", "a sattelite photo of {}"]
    assert "an outdoor number {} writte on a sign" in content("clip/svhn")["templates"]
    assert "head of a  crocodile" in content("clip/caltech101")["classes"]
    assert content("coop/dtd")["templates"] == ["{} texture."]
    assert content("coop/ucf101")["templates"] == ["a photo of a person doing {}."]


def test_imagenets_names_are_open_clips_in_the_order_of_timms_folders():
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    found = content("clip/imagenet")["classes"]
    assert list(found.values()) == list(IMAGENET_CLASSNAMES)
    assert list(found) == ImageNetInfo().label_names()
    assert len(set(found.values())) == 998


def test_duplicates_and_empties_of_a_shipped_list_are_told_and_pass():
    found = words(Prompts(templates="clip/imagenet", classes="clip/imagenet"), list(content("clip/imagenet")["classes"]))
    assert (len(found.classes), len(found.templates)) == (1000, 80)
    assert found.notes == [
        "prompts.classes: 'missile' stands for both 'n03773504' and 'n04008634' (2 duplicates in all): such classes cannot be told apart."
    ]
    name = "clip/clevr_closest_object_distance"
    found = words(Prompts(templates=name, classes=name), content(name)["classes"])
    assert found.classes[3] == ""
    assert found.notes == ["prompts.classes: the text of '' is empty: its templates stand without a name."]


@pytest.mark.parametrize("short", ["imagenet", "simple"])
def test_the_short_names_mean_the_lists_of_clip(short):
    assert find("prompts", short) == find("prompts", f"clip/{short}")
    assert family(short) == "clip"


def test_a_list_that_there_is_not_is_named_with_the_nearest():
    with pytest.raises(
        UserError, match=r"no prompt 'eurosat'.* mean 'clip/eurosat' or 'coop/eurosat'\? adapt options prompts lists all \d+"
    ):
        read("eurosat", "classes")
    with pytest.raises(UserError, match=r"the file 'coop/dtd' has no mapping named 'classes'\. It has: templates\."):
        read("coop/dtd", "classes")


def test_a_user_finds_the_lists_beside_the_options(capsys):
    _, document = sections(["prompts"])
    printed = capsys.readouterr().out
    assert (
        "clip/eurosat                         EuroSAT: 3 templates, 10 classes" in printed and "prompts.random.pairs" in printed
    )
    assert {"name": "coop/dtd", "about": "Describable Textures", "templates": 1, "classes": 0} in document["lists"]
    assert "lists" not in sections(["prompts.combine"])[1]


@pytest.mark.outside
def test_the_lists_are_clip_benchmarks():
    """A package that brings 100 MB of Java programs is no dependency of our tests: pip install --no-deps clip-benchmark, then this runs."""
    folder = files(pytest.importorskip("clip_benchmark")) / "datasets"
    assert version("clip-benchmark") == "1.6.2"
    templates = json.loads((folder / "en_zeroshot_classification_templates.json").read_text(encoding="utf-8"))
    names = json.loads((folder / "en_classnames.json").read_text(encoding="utf-8"))
    ours = {PUBLISHED.get(name, name): name for name in (path.removeprefix("clip/") for path in LISTS)}
    assert set(templates) - {"dummy"} <= set(ours) | {"caltech101"}
    for theirs in set(templates) - {"dummy"}:
        name = "caltech101" if theirs == "caltech101" else ours[theirs]
        assert content(f"clip/{name}")["templates"] == [text.replace("{c}", "{}") for text in templates[theirs]], theirs
    for theirs, expected in names.items():
        found = content(f"clip/{'imagenet' if theirs == 'imagenet1k' else theirs}")["classes"]
        assert list(found.values() if isinstance(found, dict) else found) == expected, theirs
