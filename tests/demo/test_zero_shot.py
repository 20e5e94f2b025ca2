"""The tab Zero-shot: what it answers, and in a browser as a person uses it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from adapt.demo import zero_shot
from adapt.demo.parts import Upload
from adapt.demo.zero_shot import classified
from adapt.plug import UserError
from adapt.prompting.text import placed_templates
from adapt.recipe import load_recipe
from adapt.verbs.question import Question

PICTURE, LABELS, BARS, BESIDE = "#zero-shot-picture", "#zero-shot-labels textarea", "#zero-shot-bars", "#zero-shot-bars-beside"
SEEN, TEMPLATES = "#zero-shot-seen", "#zero-shot-templates textarea"


def shares(page, part: str = BARS) -> dict[str, str]:
    """Label → its share, as the page shows them."""
    rows = page.locator(f"{part} .bar").all()
    return {row.locator("span").inner_text(): row.locator("em").inner_text() for row in rows}


@pytest.fixture(scope="module")
def scene(emoji, tmp_path_factory):
    """A picture of the embedded world, enlarged to 600 × 400 pixels, on disk."""
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    emoji["test"][0]["image"].resize((600, 400)).save(path)
    return path


# ---------------------------------------------------------------------------------------------------------------- answers


def test_the_shares_are_those_of_the_verb_prompt(desk, scene):
    from adapt.verbs.boxes import named
    from adapt.verbs.prompt import ask

    upload, text = Upload(str(scene), (600, 400)), "apple, car; house"
    with desk.using("clip-tiny") as model:
        model.session.family.templates, before = ["a {}"], model.session.family.templates
        verb = ask(model.session, Question(str(scene), text=text)).found["classes"]
        box = (20, 10, 450, 300)
        in_box = named(model.session, model.module, desk.picture(str(scene)), Question(str(scene), text=text, box=box))
        model.session.family.templates = before
    for expected, place in ((verb, None), (in_box.found["classes"], box)):
        found, note = classified(desk, "clip-tiny", upload, place, text, "a {}")
        assert [name for name, _ in found] == [each["name"] for each in expected] and not note
        assert [share for _, share in found] == pytest.approx([each["share"] for each in expected], abs=1e-4)


def test_several_templates_are_averaged_as_in_evaluate(desk, scene):
    import torch

    with desk.using("clip-tiny") as model:
        view = model.module.preprocess({"image": desk.picture(str(scene))}, False)["image"][None].float()
        names = model.classes[:5]
        with torch.no_grad():
            expected = model.module.predictors(None)["class_logits"](view)[0, :5].softmax(0)
        templates = "\n".join(model.module.templates)
    found, _ = classified(desk, "clip-tiny", Upload(str(scene), (600, 400)), None, ", ".join(names), templates)
    assert dict(found) == pytest.approx(dict(zip(names, expected.tolist(), strict=True)), abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "templates", "told"),
    [
        ("", "{}", "labels: none yet"),
        (" , ,", "{}", "labels: none yet"),
        ("cat", "{}", "labels: 'cat' alone always has 100 %"),
        ("cat, cat", "{}", "labels: 'cat' alone"),
        ("cat, dog", "a photo", "templates: 'a photo' needs exactly one {}"),
        ("cat, dog", "{} and {}", "templates: '{} and {}' needs exactly one {}"),
        ("[cat, dog", "{}", "text:"),
        (", ".join(map(str, range(5000))), "{}", "labels: 5000 labels in 1 templates are more than 4,096 texts"),
    ],
)
def test_words_that_cannot_be_asked_are_one_line(desk, scene, labels, templates, told):
    with pytest.raises(UserError, match=re.escape(told)):
        classified(desk, "clip-tiny", Upload(str(scene), (600, 400)), None, labels, templates)


def test_a_script_calls_it_by_name_and_gets_mistakes_as_one_line(server, scene, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(server, verbose=False)
    called = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(called) <= {"/classify", "/segment", "/detect"}
    types = {each["parameter_name"]: each["python_type"]["type"] for each in called["/classify"]["parameters"]}
    assert types == {"picture": "filepath", "labels": "str", "templates": "str", "model": "str"}
    found = client.predict(handle_file(scene), "apple, car", "a {}", "clip-tiny", api_name="/classify")
    assert {each["name"] for each in found["classes"]} == {"apple", "car"}
    assert sum(each["share"] for each in found["classes"]) == pytest.approx(1)
    (tmp_path / "notes.png").write_text("no picture")
    for given, told in (
        ((handle_file(tmp_path / "notes.png"), "a, b", "{}", "clip-tiny"), "not a usable picture"),
        ((handle_file(scene), "", "{}", "clip-tiny"), "labels: none yet"),
        ((handle_file(scene), "a, b", "{}", "clip"), "model: there is no 'clip' here"),
    ):
        with pytest.raises(AppError, match=re.escape(told)):
            client.predict(*given, api_name="/classify")


# ---------------------------------------------------------------------------------------------------------------- browser


def test_bars_change_as_one_types(page, scene):
    page.set_input_files(f"{PICTURE} input[type=file]", scene)
    page.locator(f"{BARS} .bar").first.wait_for()
    assert set(shares(page)) == set(zero_shot.LABELS.split(", "))
    page.get_by_text("600 × 400 pixels").wait_for()
    page.locator(LABELS).fill("")
    page.get_by_text("labels: none yet").wait_for()
    page.locator(LABELS).press_sequentially("red, blue")
    page.locator(f"{BARS} .bar[title=blue]").wait_for()
    before = shares(page)
    page.get_by_text("How it is asked").click()
    page.locator(TEMPLATES).fill("a photo")
    page.get_by_text("templates: 'a photo' needs exactly one {}").wait_for()
    page.locator(TEMPLATES).fill("nothing {} at all")
    page.locator(f"{BARS} .bar[title=blue]").wait_for()
    assert set(before) == set(shares(page)) == {"red", "blue"} and shares(page) != before


def test_two_clicks_ask_about_what_is_between_them(page, desk, scene, click):
    page.set_input_files(f"{PICTURE} input[type=file]", scene)
    page.locator(f"{BARS} .bar").first.wait_for()
    whole = shares(page)
    click(page, PICTURE, 0.75, 0.75)
    page.get_by_text("The first corner is set.").wait_for()  # the picture is another one now
    click(page, PICTURE, 0.25, 0.25)
    expect(page.locator(f"{SEEN} img")).to_have_count(4)
    told = page.get_by_text("The box is").inner_text()
    box = tuple(int(value) for value in re.findall(r"\d+", told))
    assert box == pytest.approx((150, 100, 450, 300), abs=2)
    labels, templates = zero_shot.LABELS, "\n".join(placed_templates(load_recipe("clip_lora").prompts))
    found, _ = classified(desk, "clip-tiny", Upload(str(scene), (600, 400)), box, labels, templates)
    expect(page.locator(f"{BARS} .bar").first).to_have_attribute("title", found[0][0])
    seen = {name: float(share.rstrip("%")) / 100 for name, share in shares(page).items()}
    assert seen == pytest.approx(dict(found), abs=0.02) and shares(page) != whole
    page.get_by_role("button", name="Whole picture again").click()
    expect(page.locator(f"{SEEN} img")).to_have_count(0)
    expect(page.locator(f"{BARS} .bar em").first).to_have_text(next(iter(whole.values())))


def test_a_second_model_answers_beside_it(page, scene):
    page.set_input_files(f"{PICTURE} input[type=file]", scene)
    page.locator(f"{BARS} .bar").first.wait_for()
    page.get_by_label("Beside it").click()
    page.get_by_role("option", name="a student").click()
    page.locator(f"{BESIDE} .bar").first.wait_for()
    assert set(shares(page, BESIDE)) == {"red", "blue", "green"}
    page.get_by_text("It answers for the 3 classes it has learnt").wait_for()


def test_what_is_no_picture_is_a_line_on_the_page_and_the_server_lives(page, huge, scene, click):
    text = {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture at all"}
    page.set_input_files(f"{PICTURE} input[type=file]", text)
    page.get_by_text("picture: not a usable picture: unreadable").wait_for()
    page.set_input_files(f"{PICTURE} input[type=file]", huge)
    page.get_by_text("picture: its pixels are too many; up to 40 million are read").wait_for()
    page.set_input_files(f"{PICTURE} input[type=file]", scene)
    page.locator(f"{BARS} .bar").first.wait_for()
    page.locator(f"{PICTURE} .image-frame, {PICTURE} .image-container").first.click(
        position={"x": 3, "y": 200}
    )  # beside the picture
    page.get_by_role("button", name="An example").click()
    page.get_by_text("64 × 64 pixels").wait_for()
    page.locator(f"{BARS} .bar").first.wait_for()
    assert page.locator(f"{SEEN} img").count() == 0


def test_two_people_do_not_see_each_others_pictures(visit, scene, picture, upload):
    anna, ben = visit(), visit()
    anna.set_input_files(f"{PICTURE} input[type=file]", scene)
    anna.locator(f"{BARS} .bar").first.wait_for()
    ben.locator(LABELS).fill("cat, dog")
    ben.wait_for_timeout(500)
    assert ben.locator(f"{PICTURE} img").count() == 0 and ben.locator(f"{BARS} .bar").count() == 0
    hers = shares(anna)
    upload(ben, PICTURE, picture("blue"))
    ben.get_by_text("96 × 64 pixels").wait_for()
    ben.locator(f"{BARS} .bar[title=dog]").wait_for()
    assert shares(anna) == hers and anna.get_by_text("600 × 400 pixels").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(visit, scheme, scene):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.set_input_files(f"{PICTURE} input[type=file]", scene)
    page.locator(f"{BARS} .bar").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(map(int, re.findall(r"\d+", ground)[:3])) > 128) == (scheme == "light")
