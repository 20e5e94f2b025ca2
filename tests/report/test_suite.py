"""A suite's page and table: every number with its interval and its change, what was not measured, and where protocols differ."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from adapt.commands import OWN
from adapt.report import page, suite
from adapt.report.suite_charts import Gain, gains
from adapt.report.suite_table import averaged, entries, grid, headline, literature, notes, suites, unmeasured

SETS = {  # name: (metric, pictures, classes, floor)
    "openmoji": ("top1", 170, 49, 0.0294),
    "noto": ("top1", 170, 49, 0.0294),
    "cars": ("top1", 8041, 196, 0.0108),
    "pets": ("mean_per_class", 3669, 37, 0.0273),
    "clicks": ("clicks_90", 40, 0, 0.0),
    "scenes": ("r1", 200, 0, 0.0),
}
VALUES = {  # model: set: (value, low, high), then its change
    "zero-shot": {
        "openmoji": [(0.3235, 0.2588, 0.3941)],
        "noto": [(0.7412, 0.6706, 0.8)],
        "cars": [(0.5961, 0.5853, 0.607)],
        "pets": [(0.8704, 0.8591, 0.8806)],
        "clicks": [(6.25, 5.1, 7.4)],
        "scenes": [(0.105, 0.065, 0.15)],
    },
    "adapted": {
        "openmoji": [(0.6176, 0.5412, 0.6882), (0.2941, 0.2176, 0.3706)],
        "noto": [(0.7, 0.6294, 0.7647), (-0.0412, -0.0882, 0.0059)],
        "cars": [(0.5561, 0.5449, 0.5668), (-0.04, -0.047, -0.033)],
        "clicks": [(7.5, 6.2, 8.8), (1.25, 0.5, 2.0)],
        "scenes": [(0.12, 0.075, 0.165)],
    },
    "student-logits": {"openmoji": [(0.5824, 0.5118, 0.6529), (0.2588, 0.1765, 0.3412)]},
}
MODELS = [
    {
        "name": "zero-shot",
        "title": "CLIP ViT-B/32",
        "kind": "checkpoint",
        "parameters": 151_300_000,
        "milliseconds": 21.4,
        "bytes": None,
    },
    {
        "name": "adapted",
        "title": "CLIP ViT-B/32 + LoRA",
        "kind": "run",
        "parameters": 152_100_000,
        "milliseconds": 22.0,
        "bytes": None,
    },
    {
        "name": "student-logits",
        "title": "CNN student logits-resnet10t",
        "kind": "student",
        "parameters": 4_900_000,
        "milliseconds": 1.3,
        "bytes": 19_800_000,
    },
]
INPUT = {"size": [224, 224], "resize": 224, "interpolation": "bicubic", "crop": "floor"}
CORRUPTIONS = {"fog": 0.9, "gaussian_noise": 0.5, "jpeg_compression": 0.95}


def result(name: str, model: str) -> dict:
    """As the verb leaves it in `suites/SUITE/MODEL/SET.json`."""
    (metric, pictures, classes, floor), ((value, *ends), *change) = SETS[name], VALUES[model][name]
    seen = INPUT | ({"size": [128, 128], "resize": 128, "interpolation": "bilinear"} if model.startswith("student") else {})
    metrics, intervals, figures = {metric: value}, {metric: ends}, {}
    if name == "openmoji":
        metrics |= {"ece": 0.1} | {f"retained_{each}": share for each, share in CORRUPTIONS.items()}
        intervals |= {f"retained_{each}": [share - 0.05, share + 0.05] for each, share in CORRUPTIONS.items()}
        figures = {"corruptions": {each: dict.fromkeys("135", value * share) for each, share in CORRUPTIONS.items()}}
        figures |= {"clean": value, "pictures": 100}  # the set has more
    return {
        "set": name,
        "model": model,
        "metric": metric,
        "metrics": metrics,
        "intervals": intervals,
        "floor": floor,
        "pictures": pictures,
        "classes": classes,
        "protocol": {"eval": "zeroshot", "split": "test", "data": name, "precision": "fp32", "input": seen},
        "notes": [],
        "seconds": 3.1,
        "seconds_encoding": 2.9,
        "change": list(change[0]) if change else None,
        "figures": figures,
    }


def summary() -> dict:
    """A suite of six sets and three models, of which one failed and others were left out."""
    about = {"also": [], "higher_is_better": True, "fraction": True, "notes": ""}
    sets = [{"name": name, "title": "", "metric": metric} | about for name, (metric, *_) in SETS.items()]
    sets[2] |= {"title": "Stanford Cars", "notes": "The test split of the authors."}
    sets[4] |= {"higher_is_better": False, "fraction": False}
    published = {"value": 0.5937, "where": "LAION-AI/CLIP_benchmark (MIT), benchmark.csv"}
    other = {"value": 0.8706, "where": "mlfoundations/open_clip (MIT), openclip_results.csv"}
    return {
        "suite": "mine",
        "about": "Some sets of ours, and two of the literature.",
        "seconds": 100.0,
        "seconds_encoding": 88.0,
        "models": MODELS,
        "sets": sets,
        "results": [result(name, model) for model, values in VALUES.items() for name in values],
        "failed": [{"set": "pets", "model": "adapted", "why": "0.tar: unexpected end of data"}],
        "left_out": [
            {"set": name, "model": "student-logits", "why": "closed-set model: other classes"}
            for name in SETS
            if name != "openmoji"
        ],
        "published": {
            "cars": {
                "zero-shot": {"top1": published | {"remark": "published 59.4 (words: clip against coop; precision not said)"}}
            },
            "pets": {"zero-shot": {"mean_per_class": other | {"remark": "published 87.1"}}},
        },
    }


def folder(path: Path, found: dict | None = None) -> Path:
    """A run folder with a suite's numbers."""
    found = found or summary()
    place = path / "suites" / found["suite"]
    place.mkdir(parents=True)
    (place / "summary.json").write_text(json.dumps(found))
    return path


def table(found: dict) -> dict[str, list[str]]:
    """Set → its cells, without how much was measured."""
    return {row[0].partition("\n")[0]: row[1:] for row in grid(found)}


def test_a_cell_has_the_value_its_interval_the_change_and_what_is_published():
    found = table(summary())
    assert found[""] == ["floor", "CLIP ViT-B/32", "CLIP ViT-B/32 + LoRA", "CNN student logits-resnet10t"]
    assert found["openmoji"] == [
        "2.9",
        "32.4 (25.9–39.4)",
        "61.8 (54.1–68.8)\n+29.4 (+21.8 to +37.1)",
        "58.2 (51.2–65.3)\n+25.9 (+17.6 to +34.1)",
    ]
    assert found["Stanford Cars"][1:] == [
        "59.6 (58.5–60.7)\npublished 59.4*",
        "55.6 (54.5–56.7)\n-4.0 (-4.7 to -3.3) ▼",
        "left out",
    ]
    assert found["pets"][1:3] == ["87.0 (85.9–88.1)\npublished 87.1", "failed"]
    assert found["scenes"][2] == "12.0 (7.5–16.5)\n+1.5", "no answers to pair: the difference alone"
    assert found["clicks"][1:3] == ["6.25 (5.10–7.40)", "7.50 (6.20–8.80)\n+1.25 (+0.50 to +2.00) ▼"], "more clicks are worse"


def test_a_mean_is_of_shares_and_its_change_of_what_both_models_have():
    found = summary()
    assert averaged(found, "zero-shot") == ["openmoji", "noto", "cars", "pets", "scenes"]
    assert table(found)["mean"][1:] == ["52.7", "49.8, 4 sets\n+5.7", "58.2, 1 set\n+25.9"]
    assert headline(found) == (
        "Suite mine: CLIP ViT-B/32 has 52.7 % in the mean over 5 sets; CLIP ViT-B/32 + LoRA +5.7 points over 4 of them; "
        "CNN student logits-resnet10t +25.9 points over 1 of them; 6 of 6 sets measured."
    )


def test_models_that_were_not_measured_alike_are_named_once():
    (line,) = [line for line in notes(summary()) if "alike" in line]
    assert line == (
        "Not measured alike: CLIP ViT-B/32 and CNN student logits-resnet10t (interpolation: bicubic against bilinear; "
        "size of the input: 224 × 224 against 128 × 128), on openmoji."
    )


def test_a_difference_from_the_literature_stands_only_between_what_was_measured_alike():
    head, cars, pets = literature(summary())
    assert head[3:7] == ["ours", "published", "difference", "how the protocols differ"]
    assert cars[:7] == [
        "Stanford Cars",
        "CLIP ViT-B/32",
        "top-1",
        "59.6",
        "59.4",
        "–",
        "words: clip against coop; precision not said",
    ]
    assert pets[3:] == ["87.0", "87.1", "+0.0", "alike", "mlfoundations/open_clip (MIT), openclip_results.csv"]


def test_what_was_not_measured_has_its_reason_and_sets_left_out_alike_share_a_row():
    assert unmeasured(summary()) == [
        ["CLIP ViT-B/32 + LoRA", "failed", "pets", "0.tar: unexpected end of data"],
        ["CNN student logits-resnet10t", "left out", "noto, cars, pets, clicks, scenes", "closed-set model: other classes"],
    ]


@pytest.mark.parametrize("done", [0, 1])
def test_a_suite_that_was_stopped_is_shown_as_far_as_it_went(tmp_path, done):
    found = summary()
    found |= {"results": found["results"][:done], "failed": [], "left_out": []}
    path = folder(tmp_path / "run", found)
    text = suite.build(path, "mine").read_text()
    assert "could not be drawn" not in text
    assert f"{done} of 6 sets measured" in text
    assert table(found)["pets"] == [*[""] * done, "–", "–", "–"]


class Text(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_the_page_has_every_part_and_text_from_data_stays_text(tmp_path):
    text = suite.build(folder(tmp_path / "run"), "mine").read_text()
    parts = (
        "Not measured",
        "Change against CLIP",
        "Robustness: openmoji",
        "Accuracy against parameters and time",
        "Beside the literature",
    )
    assert [part for part in parts if f"<h2>{part}" not in text] == []
    assert text.count("<svg") == 2 + 1 + 2, "two changes, what is retained, parameters and milliseconds"
    assert "The test split of the authors." in text and "not ImageNet-C" in text and "could not be drawn" not in text
    evil, found = "<script>x</script> $5_bill_$", summary()
    found["models"] = [one | {"title": evil} for one in found["models"]]
    for one in found["sets"]:
        one |= {"title": evil, "notes": evil}
    for one in (
        found["failed"] + found["left_out"] + [known for row in found["published"]["cars"].values() for known in row.values()]
    ):
        one |= {"why": evil, "where": evil, "remark": f"published 1.0 ({evil})"}
    found["about"] = evil
    seen = Text(suite.build(folder(tmp_path / "evil", found), "mine").read_text())
    assert set(seen.tags) <= {*Text(text).tags} and seen.text.count(evil) > 20


def test_a_set_that_cannot_be_measured_is_failed_for_every_model(tmp_path, capsys):
    found = summary()
    found["results"] = [one for one in found["results"] if one["set"] != "noto"]
    found |= {"failed": [{"set": "noto", "model": "", "why": "no folder tree/noto"}], "left_out": []}
    assert table(found)["noto"] == ["", "failed", "failed", "failed"]
    suite.tell(folder(tmp_path / "run", found), found)
    assert "✗ failed: all models, noto: no folder tree/noto\n" in capsys.readouterr().out


def test_the_shares_that_are_retained_are_of_every_severity(tmp_path):
    found = summary()
    for one in found["results"]:
        one |= {
            key: {name: each for name, each in one[key].items() if "retained" not in name} for key in ("metrics", "intervals")
        }
    text = suite.build(folder(tmp_path / "run", found), "mine").read_text()
    (row,) = set(re.findall(r"<tr><th>fog</th>(.*?)</tr>", text[text.index("<details open") :]))
    assert re.findall(r"<td>(.*?)</td>", row) == ["52.4", "52.4", "52.4", "52.4", "90 %"], "of 58.2 %"


def test_a_share_is_of_the_pictures_that_were_corrupted_which_may_be_some_of_them(tmp_path):
    found = summary()
    (one,) = (one for one in found["results"] if (one["set"], one["model"]) == ("openmoji", "student-logits"))
    one["figures"]["clean"] = 0.912
    text = suite.build(folder(tmp_path / "run", found), "mine").read_text()
    assert "by severity; 91.2 % as they are" in text and one["metrics"]["top1"] != 0.912
    assert "Top-1 on 100 pictures under corruption" in text and one["pictures"] == 170


def test_bars_are_sorted_and_pale_where_nothing_is_shown():
    drawn = gains(
        [Gain("a", -1.0, (-3.0, 1.0)), Gain("b", 5.0, None), Gain("c", 2.0, (1.0, 3.0)), Gain("d", -4.0, (-5.0, -3.0))], "first"
    )
    looks = re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="fill: (#[0-9a-f]{6}); opacity: ([0-9.]+)', drawn)
    assert looks == [("#d55e00", "0.9"), ("#d55e00", "0.4"), ("#0072b2", "0.9"), ("#0072b2", "0.9")], "from the lowest bar up"
    assert "change against first, points" in drawn


def test_the_report_of_a_run_has_its_suites(tmp_path, capsys):
    path = folder(tmp_path / "run")
    (path / "recipe.yaml").write_text("name: run\n")
    status, said = OWN["report"]([f"run={path}"])
    assert (status, said["report"]) == (0, str(path / "suites" / "mine" / "report.html"))
    assert f"Suite mine: {said['report']}" in capsys.readouterr().out
    zero = {"name": "zero-shot", "title": "CLIP", "main": "top1", "metrics": {"top1": 0.4}}
    (path / "metrics.json").write_text(json.dumps({"entries": [zero], "guards": []}))
    text = page.build(path).read_text()
    assert "<h2>Suite mine</h2>" in text and "href='suites/mine/report.html'" in text and "+29.4 (+21.8 to +37.1)" in text


def test_the_terminal_has_the_table_and_a_line_for_what_failed(tmp_path, capsys):
    path = folder(tmp_path / "run")
    suite.tell(path, summary())
    text = capsys.readouterr().out
    assert "61.8 (54.1–68.8)" in text and "+29.4 (+21.8 to +37.1)" in text
    assert "✗ failed: CLIP ViT-B/32 + LoRA, pets: 0.tar: unexpected end of data\n" in text
    assert text.endswith(f"Report: {path / 'suites' / 'mine' / 'report.html'}\n")


def test_numbers_of_a_suite_are_entries_that_runs_compare(tmp_path):
    path = folder(tmp_path / "run")
    assert suites(path) == ["mine"]
    found = {one.name: one for one in entries(summary(), path)}
    assert len(found) == 12
    one = found["mine/openmoji student-logits"]
    assert (one.main, one.metrics["top1"], one.split, one.protocol["data"]) == ("top1", 0.5824, "test", "openmoji")
