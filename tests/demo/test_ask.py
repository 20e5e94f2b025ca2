"""The tab Ask: what the model is asked, what it says, and in a browser as a person uses it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from adapt.demo.ask import ANSWER, CAPTION, DETECT, LONGEST, WORDS, asked, boxes, question
from adapt.demo.parts import Upload
from adapt.plug import UserError
from adapt.verbs.question import Question

PICTURE, WORDS_BOX, GO, SAID = "#ask-picture", "#ask-words textarea, #ask-words input", "#ask-go", "#ask-answer"
MODEL = "paligemma-tiny"


@pytest.fixture(scope="module")
def scene(desk, tmp_path_factory):
    """A scene of the embedded world, 128 × 128 pixels."""
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    desk.example(MODEL, 0).save(path)
    return path


def test_questions_are_in_the_models_syntax():
    assert question(CAPTION, "whatever") == "caption en"
    assert question(ANSWER, " what is\nthis? ") == "answer en what is this?"
    assert question(DETECT, "dog, cat;; dog ,") == "detect cat ; dog"
    assert question(WORDS, "<OD>") == "<OD>"
    for kind, words, told in (
        (ANSWER, " ", "words: none yet"),
        (DETECT, ", ;", "words: none yet"),
        (WORDS, "a" * (LONGEST + 1), "letters are too many"),
        ("Sing", "a", "kind: there is no 'Sing'"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            question(kind, words)


def test_answers_are_those_of_the_verb_prompt_with_the_models_own_names(desk, scene):
    from adapt.verbs.prompt import ask

    text = question(DETECT, "household object, clock time")
    with desk.using(MODEL) as model:
        theirs = ask(model.session, Question(str(scene), text=text)).found
    ours = asked(desk, MODEL, Upload(str(scene), (128, 128)), text)
    assert ours.text == theirs["text"] and ours.objects
    assert [one["box"] for one in ours.objects] == [one["box"] for one in theirs["objects"]]
    assert all(one["name"] in ours.text for one in ours.objects)
    with pytest.raises(UserError, match=r"model: there is no 'clip-tiny' that answers in words"):
        asked(desk, "clip-tiny", Upload(str(scene), (128, 128)), text)


def test_boxes_are_drawn_where_they_are():
    one = {"name": "cat", "box": [10.0, 20.0, 30.0, 40.0], "score": 0.5}
    plain = Image.new("RGB", (200, 200), "white")
    changed = (np.asarray(boxes(plain, [one], 0.25)) != 255).any(2)
    assert changed[120, 40] and changed[159, 119] and not changed[120, 130:].any() and not changed[90:150, 50:110].any()
    assert (np.asarray(plain) == 255).all(), "the picture itself stays"


def test_a_caption_then_boxes_then_what_is_wrong(page, scene):
    page.get_by_role("tab", name="Ask").click()
    page.locator(GO).click()
    page.get_by_text("Upload a picture first.").wait_for()
    page.set_input_files(f"{PICTURE} input[type=file]", scene)
    page.locator(SAID).get_by_text("Press Ask.").wait_for()
    page.locator(GO).click()
    page.locator(f"{SAID} .reply").wait_for()
    page.get_by_text("Asked: caption en").wait_for()
    before = page.locator(f"{PICTURE} img").get_attribute("src")
    page.get_by_label("Detect").click()
    page.get_by_label("What to look for").wait_for()
    page.locator(GO).click()
    page.get_by_text("words: none yet").wait_for()
    page.locator(WORDS_BOX).fill("household object, clock time")
    page.locator(WORDS_BOX).press("Enter")
    page.locator(f"{SAID} .bar").first.wait_for()
    page.wait_for_function("([part, before]) => document.querySelector(part).src != before", arg=[f"{PICTURE} img", before])
    page.locator("#ask-known").click()
    expect(page.locator(WORDS_BOX)).to_have_value(re.compile("amphibian animal, .*household object"))


def test_a_script_gets_boxes_by_name(server, scene):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(server, verbose=False)
    called = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/detect"]["parameters"]
    assert [(each["parameter_name"], each["python_type"]["type"]) for each in called] == [
        ("picture", "filepath"),
        ("words", "str"),
        ("model", "str"),
    ]
    found = client.predict(handle_file(scene), "household object, clock time", MODEL, api_name="/detect")
    assert found["objects"] and all(0 <= side <= 128 for one in found["objects"] for side in one["box"])
    with pytest.raises(AppError, match="words: none yet"):
        client.predict(handle_file(scene), "", MODEL, api_name="/detect")
