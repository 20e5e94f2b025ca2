"""The report: it shows what the run folder holds, as text; what cannot be drawn is one line, and the rest stays."""

from __future__ import annotations

import io
import json
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adapt.plug import UserError
from adapt.report.page import build

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> $5_bill_$ 蚂蚁 | `a`\n[b](javascript:c)"


def entry(name: str, text: str, **facts) -> dict:
    """A row with all that a report draws; `text` in every field that holds some."""
    latency = {"p50_ms": 2.0, "p99_ms": 3.0, "calls": 50, "threads": 1, "runtime": f"{text} {name}", "what": text}
    return {
        "name": name,
        "title": f"{text} {name}",
        "main": text,
        "split": text,
        "metrics": {text: 0.5, "ece": 0.1},
        "intervals": {text: [0.4, 0.6]},
        "protocol": {"eval": "segmentation", "classes": [text], text: [text, name]},
        "notes": [text],
        "size_bytes": 1e6,
        "latency": latency,
        "latency_torch": latency,
        "classes": [text, "ants"],
        "confusion": [[3, 2], [1, 4]],
        "reliability": {"count": [4, 6], "confidence": [0.2, 0.9], "accuracy": [0.3, 0.8]},
    } | facts


def folder(path: Path, text: str = "plain") -> Path:
    """A run folder with `text` wherever data may bring some."""
    path.mkdir(parents=True)
    entries = [
        entry("zero-shot", text),
        entry("adapted", text, change=[0.1, 0.0, 0.2], against="zero-shot"),
        entry(f"{text} fp32", text, change=[-0.1, -0.2, 0.0], against=text),
    ]
    guards = [{"name": text, "state": state, "message": text} for state in ("kept", "not shown", "broken")]
    splits = [{"split": text, "pictures": 37, "origin": text}]
    (path / "metrics.json").write_text(json.dumps({"entries": entries, "guards": guards, "splits": splits}))
    (path / "recipe.yaml").write_text(f"# {text}\n")
    (path / "manifest.json").write_text(json.dumps({"stages": text}))
    steps = [{"step": i, "loss": 1 / i, "validation": i / 9} for i in range(1, 6)]
    for history in ("history.jsonl", "distill/logits-resnet10t/history.jsonl"):
        (path / history).parent.mkdir(parents=True, exist_ok=True)
        (path / history).write_text("\n".join(map(json.dumps, steps)))
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    rows = {"id": ["0"], "label": [text], "prediction": [text], "confidence": [0.9], "correct": [False]}
    (path / "predictions").mkdir()
    pq.write_table(pa.table(rows | {"thumbnail": [picture.getvalue()]}), path / "predictions" / "adapted.parquet")
    (path / "pictures" / "adapted").mkdir(parents=True)
    (path / "pictures" / "adapted" / "00.png").write_bytes(picture.getvalue())
    (path / "pictures" / "adapted" / "captions.json").write_text(json.dumps([text]))
    return path


class Seen(HTMLParser):
    """The tags, attributes and text that a browser would find."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_every_section_is_drawn(tmp_path):
    page = build(folder(tmp_path / "run")).read_text()
    assert "could not be drawn" not in page
    for heading in ("Pictures", "Mistakes", "Confusion: ", "Where the numbers come from"):
        assert f"<h2>{heading}" in page
    assert page.count("<svg") == 5, "two courses of training, reliability, latency, confusion"


def test_text_from_data_stays_text(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = build(folder(tmp_path / "<b>run", EVIL)).read_text()
    assert "could not be drawn" not in page
    plain, seen = Seen(build(folder(tmp_path / "run")).read_text()), Seen(page)
    assert set(seen.tags) == set(plain.tags), "no tag comes from the data"
    assert seen.tags.count("img") == plain.tags.count("img")
    assert {name for name, _ in seen.attributes} == {name for name, _ in plain.attributes}
    assert not [
        value for name, value in seen.attributes if name in ("src", "href") and not (value or "").startswith(("data:", "#"))
    ]
    assert [value for name, value in seen.attributes if name == "alt"] == [EVIL, EVIL]
    assert seen.text.count("<script>alert(1)</script>") > 20, "and it is shown as it is"


def test_markdown_shows_text_from_data_as_it_is(tmp_path):
    run = folder(tmp_path / "run", EVIL)
    build(run)
    text = (run / "report.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1, "a pipe in a name makes no column"
    assert len(table) == 4
    for mark in ("<script", "<img", "`a`", "[b](", "$5"):
        assert mark not in text.replace("\\<", "").replace("\\`", "").replace("\\[", "").replace("\\$", "")
    assert sum(line.startswith("- ") for line in text.splitlines()) == 3


def test_each_state_of_a_guard_has_its_class_and_words(tmp_path):
    run = folder(tmp_path / "run", "no worse")
    page = build(run).read_text()
    assert "<li class=kept><b>✓ Guard kept: no worse.</b></li>" in page
    assert "<li class=unshown><b>? Guard not shown: no worse.</b><br>No worse.</li>" in page
    assert "<li class=broken><b>✗ Guard broken: no worse.</b><br>No worse.</li>" in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert all(f".guards .{name} " in style for name in ("kept", "unshown", "broken"))
    lines = (run / "report.md").read_text().splitlines()
    assert lines[-2] == "- ? Guard not shown: no worse. No worse."


def test_the_page_and_the_text_say_of_which_data_they_are(tmp_path):
    run = folder(tmp_path / "run", "train")
    line = "Data: train 37 pictures (train)."
    assert line in build(run).read_text()
    assert line in (run / "report.md").read_text()


def test_the_headline_says_when_first_and_last_were_not_measured_alike(tmp_path):
    run = folder(tmp_path / "run")
    assert "The two were not measured alike: see below." in build(run).read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    for each in metrics["entries"]:
        each["protocol"] = {"eval": "zeroshot", "input": {"size": each["name"]}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "The two were not measured alike" not in build(run).read_text(), "each model has its own input"


BROKEN = {
    "Adaptation": lambda run: (run / "history.jsonl").write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo'),
    "Mistakes": lambda run: (run / "predictions" / "adapted.parquet").write_bytes(b"no parquet"),
    "Pictures": lambda run: (run / "pictures" / "adapted" / "captions.json").unlink(),
}


@pytest.mark.parametrize("section", BROKEN)
def test_what_cannot_be_drawn_is_one_line_and_the_rest_stays(tmp_path, section):
    run = folder(tmp_path / "run")
    whole = build(run).read_text()
    BROKEN[section](run)
    page = build(run).read_text()
    (line,) = [part for part in page.split("<p class=note>") if "could not be drawn" in part]
    assert line.startswith(section)
    assert "The numbers are in metrics.json.</p>" in line
    assert page.count("<svg") + page.count("<h2>") == whole.count("<svg") + whole.count("<h2>") - 1
    assert page.endswith("</html>")


def test_debugging_shows_where_a_section_failed(tmp_path, monkeypatch):
    run = folder(tmp_path / "run")
    (run / "predictions" / "adapted.parquet").write_bytes(b"no parquet")
    monkeypatch.setenv("ADAPT_DEBUG", "1")
    with pytest.raises(pa.ArrowInvalid):
        build(run)


def test_an_entry_whose_name_is_a_path_reads_no_other_folder(tmp_path):
    run = folder(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["entries"][1]["name"] = "../../secret"
    (run / "metrics.json").write_text(json.dumps(metrics))
    secret = tmp_path / "secret"
    (run / "pictures" / "adapted").rename(secret)
    (secret / "captions.json").write_text('["a secret"]')
    assert "a secret" not in build(run).read_text()


def test_an_older_run_is_reported_with_what_it_has(tmp_path):
    entry = {"name": "zero-shot", "title": "zero-shot CLIP", "main": "top1", "metrics": {"top1": 0.412}}
    (tmp_path / "metrics.json").write_text(json.dumps({"entries": [entry], "guards": []}))
    page = build(tmp_path).read_text()
    assert "top-1 is 41.2 % (zero-shot CLIP) on the test split." in page
    assert "could not be drawn" not in page


def test_older_guards_are_one_line(tmp_path):
    run = folder(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["guards"] = [{"name": "no worse", "ok": True, "message": ""}]
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=r"metrics\.json: guards\.0\.state: field required"):
        build(run)


def test_a_confusion_of_many_classes_is_told_by_its_worst_pairs(tmp_path):
    run = folder(tmp_path / "run")
    numbers = json.loads((run / "metrics.json").read_text())
    names, few = [f"class {i}" for i in range(300)], {"label": [7, 7, 9], "prediction": [7, 8, 200], "count": [5, 3, 4]}
    for row in numbers["entries"]:
        row |= {"classes": names, "confusion": few}
    (run / "metrics.json").write_text(json.dumps(numbers))
    page = build(run).read_text()
    assert "could not be drawn" not in page
    assert "<li>class 9 → class 200: 4</li><li>class 7 → class 8: 3</li></ul>" in page
