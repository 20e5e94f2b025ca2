"""The tab Runs: the prompt search, and the pages of the run folders, of which none leads out of `runs/`."""

from __future__ import annotations

import re

import pytest

from adapt.demo import runs
from adapt.demo.runs import frame, pages, search
from adapt.plug import UserError

SPACE, FOUND, TABLE, REPORT = "#runs-space textarea", "#runs-found", "#runs-table", "iframe.report"
PAGE = "<!doctype html><html><head><title>A</title></head><body><p>the report</p><script>document.body.innerHTML = 'script'</script></body></html>"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with two runs: one with pages, and with links that lead out; one without."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.html").write_text("secret")
    for name in ("a-1", "b-2"):
        (tmp_path / "runs" / name / "workbench").mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.yaml").write_text("name: a")
    (tmp_path / "runs" / "a-1" / "report.html").write_text(PAGE)
    (tmp_path / "runs" / "a-1" / "workbench" / "report.html").write_text(PAGE)
    (tmp_path / "runs" / "a-1" / "link.html").symlink_to(tmp_path / "secret.html")
    return tmp_path


def test_pages_of_a_run_are_listed_and_none_leads_out_of_runs(place):
    assert list(pages("a-1")) == ["report.html", "workbench/report.html"] and pages("b-2") == {}
    for name in ("../..", "..", "/", "a-1/../../secret.html", "c-3"):
        with pytest.raises(UserError, match="there is no run"):
            pages(name)
    assert "secret" not in runs._shown("a-1", "link.html") + runs._shown("a-1", "../../secret.html")
    assert "adapt report run=runs/b-2" in runs._shown("b-2", None)


def test_a_page_is_shown_in_a_frame_that_runs_no_script_and_reaches_no_host(place, monkeypatch):
    text = frame(place / "runs" / "a-1" / "report.html")
    assert 'sandbox=""' in text and "Content-Security-Policy" in text.split("the report")[0]
    assert "<script>" not in text, "inside the frame's attribute all is escaped"
    monkeypatch.setattr(runs, "LARGEST", 10)
    with pytest.raises(UserError, match="too many to be shown here"):
        frame(place / "runs" / "a-1" / "report.html")


@pytest.mark.parametrize(
    ("name", "pictures", "space", "told"),
    [
        ("clip-tinny", 100, "combine: [mean]", "model: there is no 'clip-tinny' here. Did you mean 'clip-tiny'"),
        ("clip-tiny", 5, "combine: [mean]", "pictures: 5 is not a number from 16 to 400"),
        ("clip-tiny", 100, "", "space: empty"),
        ("clip-tiny", 100, "templates: [/etc/secret.yaml]", "'/etc/secret.yaml' is a file of this machine"),
        ("clip-tiny", 100, "templates: ['a photo']", "needs exactly one {}"),
        ("clip-tiny", 100, "words: ['{}']", "space: there is no 'words'"),
    ],
)
def test_a_search_that_cannot_be_made_is_one_line(desk, name, pictures, space, told):
    with pytest.raises(UserError, match=re.escape(told)):
        search(desk, name, pictures, space)


def test_a_search_shows_its_table_and_its_page(page):
    page.get_by_role("tab", name="Runs").click()
    page.get_by_text("No run yet.").or_(page.locator(f"{TABLE} table")).first.wait_for()
    page.locator(SPACE).fill("templates: ['a photo']")
    page.locator("#runs-search").click()
    page.get_by_text("needs exactly one {}").wait_for()
    page.locator("#runs-pictures input[type=number]").fill("16")
    page.locator(SPACE).fill("templates: ['{}', 'a {}']\ncombine: [mean]")
    page.locator("#runs-search").click()
    page.locator(f"{FOUND} table").wait_for()
    assert {"the choice", "the recipe's"} <= set(page.locator(f"{FOUND} tbody th").all_inner_texts())
    page.locator(f"{TABLE} table").wait_for()
    page.locator("#runs-run input").click()
    page.get_by_role("option", name="clip_lora").first.click()
    page.locator(REPORT).wait_for()
    page.frame_locator(REPORT).get_by_role("heading", name="workbench").wait_for()
