"""Figures of the literature: every one resolves, has its source, and is shown with what sets it apart from ours."""

from __future__ import annotations

from collections import Counter

import pytest

from adapt.literature import PROTOCOL, beside, differences, figures, model, remark, rivals
from adapt.measures import METRICS
from adapt.plug import UserError
from adapt.recipe import available
from adapt.suite import load_suite

ALL = figures()
SETS = {each.name: each for name in available("suites") for each in load_suite(name).sets}


def test_every_figure_resolves():
    for figure in ALL:
        each = SETS[figure.set]
        assert METRICS[figure.metric].labels == each.labels, figure
        assert 0 <= figure.value <= 1, figure
        assert figure.where and set(figure.protocol) <= set(PROTOCOL), figure
    assert max(Counter((each.model, each.set, each.metric, each.source) for each in ALL).values()) == 1


@pytest.mark.parametrize(
    "name", ["openai/ViT-B-32", "openai/ViT-B-16", "openai/ViT-L-14", "laion2b/ViT-B-32", "laion2b/ViT-L-14"]
)
def test_the_literature_has_core_for_these_models(name):
    """All but the two lines that CLIP_benchmark's table has not: ImageNet-O is in DataComp's, dSprites y in none."""
    there = {figure.set for figure in ALL if figure.model == name}
    assert {each.name for each in load_suite("core").sets} - there == {"vtab/dsprites_label_y_position"}


@pytest.mark.parametrize("name", ["laion2b/ViT-B-16", "siglip/ViT-B-16"])
def test_the_literature_has_datacomp_for_these_models(name):
    main = {each.name: each.metric for each in load_suite("datacomp").sets}
    there = {figure.set: figure.metric for figure in ALL if figure.model == name and main.get(figure.set) == figure.metric}
    assert there == main


def test_two_tables_measured_independently_agree_within_a_point():
    """What they do not agree about is known: SVHN, CLEVR's distances, and a few single figures."""
    both = [figure for figure in ALL if any(each.source != figure.source for each in beside_of(figure))]
    apart = {figure.set for figure in both if rivals(figure)}
    assert len(both) > 200
    assert apart == {"vtab/svhn", "vtab/clevr_closest_object_distance", "vtab/caltech101", "mnist", "renderedsst2", "vtab/pcam"}


def beside_of(figure):
    return [each for each in ALL if (each.model, each.set, each.metric) == (figure.model, figure.set, figure.metric)]


def test_a_figure_is_found_by_any_name_of_its_checkpoint():
    hub = beside("openai/clip-vit-base-patch32", "imagenet1k", "top1")
    assert hub == beside("open_clip:ViT-B-32-quickgelu/openai", "imagenet1k", "top1")
    assert {figure.source: figure.value for figure in hub} == {"clip_benchmark": 0.6333, "open_clip": 0.6332}
    assert model("clip-tiny") is None
    assert beside("clip-tiny", "imagenet1k", "top1") == []


def test_a_cell_says_where_protocols_differ():
    (figure,) = beside("google/siglip2-base-patch16-224", "imagenet1k", "top1")
    assert remark(figure, {}) == "published 78.2"
    assert remark(figure, {"precision": "fp32", "seed": 3}) == "published 78.2 (precision not said)"
    figure = beside("openai/clip-vit-base-patch32", "imagenet1k", "top1")[1]
    ours = {"words": "coop", "interpolation": "bilinear", "precision": "fp32"}
    assert differences(figure, ours) == (["words: clip against coop", "interpolation: bicubic against bilinear"], [])
    assert remark(figure, ours) == "published 63.3 (words: clip against coop; interpolation: bicubic against bilinear)"


def test_a_cell_says_that_another_source_disagrees():
    first, second = beside("openai/clip-vit-base-patch32", "vtab/svhn", "top1")
    assert remark(first, {}) == "published 12.4 (open_clip has 31.6)"
    assert remark(second, {}) == "published 31.6 (clip_benchmark has 12.4)"


def test_mistakes_in_a_file_are_lines(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "sources: {a: {where: here}}\nmodels: {m: {title: M, checkpoints: [x/y]}}\n"
        "figures:\n  - {source: b, model: n, sets: {}}\n  - {source: a, model: m, sets: {cars: {topp1: 0.5}}}\n"
    )
    with pytest.raises(UserError) as error:
        figures(str(path))
    assert [line.removeprefix(f"{path}: ") for line in str(error.value).splitlines()] == [
        "figures.0.source: there is no 'b' among sources.",
        "figures.0.model: there is no 'n' among models.",
        "figures.1.sets.cars: there is no metric 'topp1'.",
    ]
    path.write_text("sources: {a: {where: ''}}\nmodels: {}\nfigure: []\n")
    with pytest.raises(UserError, match=r"sources\.a\.where") as error:
        figures(str(path) + "")
    assert "figures: missing" in str(error.value)
