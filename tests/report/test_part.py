"""A part's page and its section say the same, and a plot that cannot be drawn costs a line of the run's page alone."""

from __future__ import annotations

import json

import pytest

from adapt.report import shots, workbench
from adapt.report.part import Part


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "mine-1a2b3c4d"
    (folder / "cups").mkdir(parents=True)
    (folder / "cups" / "cups.json").write_text(json.dumps({"best": "<b>"}))
    return folder


def part(plot=lambda read: ("<svg/>", b"png"), markdown=lambda name, read: f"# {name}\n"):
    return Part(
        "cups/cups.json",
        "Cups",
        lambda read: f"The best is {read['best']}.",
        plot,
        lambda read, drawn: f"<i>{drawn}</i>",
        markdown,
    )


def test_the_page_and_the_section_have_the_sentence_the_table_and_the_plot(run):
    page = part().build(run)
    assert page == run / "cups" / "report.html"
    assert "<h1>mine-1a2b3c4d: cups</h1><p class=lead>The best is &lt;b&gt;.</p></header><i><svg/></i>" in page.read_text()
    assert (run / "cups" / "cups.png").read_bytes() == b"png"
    assert (run / "cups" / "report.md").read_text() == "# mine-1a2b3c4d: cups\n"
    assert part().panel(run) == "<section><h2>Cups</h2><p>The best is &lt;b&gt;.</p><i><svg/></i></section>"


def test_without_numbers_there_is_no_section_and_without_markdown_no_such_file(run, tmp_path):
    assert part().panel(tmp_path) == ""
    part(markdown=None).build(run)
    assert {file.name for file in (run / "cups").iterdir()} == {"cups.json", "cups.png", "report.html"}


def test_a_plot_that_fails_costs_a_line(run, monkeypatch):
    monkeypatch.delenv("ADAPT_DEBUG", raising=False)
    assert "It is in cups/cups.png." in part(plot=lambda read: 1 / 0).panel(run)


def test_few_labels_and_the_workbench_are_parts():
    assert [(each.file, each.title) for each in (shots.PART, workbench.PART)] == [
        (shots.FILE, "Few labels"),
        (workbench.FILE, "Workbench"),
    ]
