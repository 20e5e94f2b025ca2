"""What a shell asks of a picture: words into a question, files that stay as they are, and mistakes found before any model is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.cli import main
from adapt.plug import UserError
from adapt.verbs.question import Answer, Question, called, files, parse


def test_points_are_given_one_by_one_or_together():
    rest = ["recipe=sam_lora", "image=a.png", "point=10,20", "point=30,40; 50.5,60", "outside=1,2;3,4;", "box=1,2,3,4"]
    question, out = parse(rest)
    assert rest == ["recipe=sam_lora"], "its own arguments are taken out"
    assert question.point == [(10, 20), (30, 40), (50.5, 60)]
    assert question.outside == [(1, 2), (3, 4)]
    assert question.box == (1, 2, 3, 4)
    assert list(question.given()) == ["point", "outside", "box"]
    assert out == Path("prompt.png")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ants,bees", ["ants", "bees"]),
        ("ants; bees , wasps;", ["ants", "bees", "wasps"]),
        ('[ants, "wasps, hornets", 7]', ["ants", "wasps, hornets", "7"]),
        ("  fire   engine;ants;ants", ["fire engine", "ants"]),
        (["a, b", "c"], ["a, b", "c"]),
    ],
)
def test_commas_semicolons_and_lists_separate_names(text, names):
    assert Question("a.png", text=text).names() == names


@pytest.mark.parametrize("text", [" , ;", "[]", "[a, {b: c}]", "[a, null]", "[a"])
def test_what_is_no_list_of_names_is_said(text):
    with pytest.raises(UserError, match="text: "):
        Question("a.png", text=text).names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "image: missing"),
        (["image="], "image: missing"),
        (["scene.png"], "'scene.png' has no name before it. Write key=value, such as image=scene.png"),
        (["image=a", "points=1,2"], "points: a question has no part of this name. Did you mean 'point'?"),
        (["image=a", "txt=cat"], "Did you mean 'text'?"),
        (["image=a", "image=b"], "image: given 2 times: 'a', 'b'"),
        (["image=a", "point=1"], "point: '1' is not 2 numbers, x,y in pixels. Write point=20,30."),
        (["image=a", "point=1,2; 3"], "point: '3' is not 2 numbers"),
        (["image=a", "outside=nan,1"], "outside: 'nan,1' is not 2 numbers"),
        (["image=a", "box=1,2,3"], "box: '1,2,3' is not 4 numbers"),
        (["image=a", "box=1,2,3,4;1,2,3,4"], "has 2 boxes. Give one."),
        (["image=a", "out=no/where.png"], "out: no folder 'no'"),
        (["image=a", "out=found.jpg"], "out: 'found.jpg' cannot be the name of a PNG file. Write, for example, out=found.png"),
        (["image=a", "out=."], "cannot be the name of a PNG file"),
        (["image=a", "overwrite=yes"], "overwrite: 'yes' is not true or false"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_loaded(arguments, message, capsys):
    assert main(["prompt", "recipe=sam_lora", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


def test_a_question_is_read_without_torch():
    code = (
        "import sys; from adapt.cli import main; status = main(['prompt', 'recipe=sam_lora', 'image=a', 'point=1']);"
        "assert not {'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules), 'heavy import'; sys.exit(status)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 2


def test_without_a_name_the_next_free_one_is_taken():
    assert parse(["image=a"])[1] == Path("prompt.png")
    Path("prompt.mask.png").touch()
    assert parse(["image=a"])[1] == Path("prompt-2.png"), "none of the three files is overwritten"
    Path("prompt-2.json").touch()
    assert parse(["image=a"])[1] == Path("prompt-3.png")
    assert parse(["image=a", "overwrite=true"])[1] == Path("prompt.png")


@pytest.mark.parametrize("there", ["found.png", "found.mask.png", "found.json"])
def test_a_file_that_is_there_is_overwritten_when_it_is_asked_for(there):
    Path(there).touch()
    with pytest.raises(UserError, match=rf"out: '{there}' exists already. Give another name, or overwrite=true."):
        parse(["image=a", "out=found.png"])
    assert parse(["image=a", "out=found.png", "overwrite=true"])[1] == Path("found.png")


@pytest.mark.parametrize(
    "given", [["image=a.png", "out=a.png"], ["image=a.png", "mask=b.mask.png", "out=b.png"], ["image=prompt.png"]]
)
def test_the_questions_own_files_are_never_overwritten(given):
    Path("prompt.png").touch()
    with pytest.raises(UserError, match="is a file of the question itself"):
        parse([*given, "overwrite=true"])


def test_a_folder_is_never_overwritten():
    Path("found.json").mkdir()
    with pytest.raises(UserError, match="cannot be the name of a PNG file"):
        parse(["image=a", "out=found.png", "overwrite=true"])


def test_what_an_earlier_answer_left_does_not_stand_beside_a_new_one():
    mask = np.eye(3, dtype=bool)
    assert len(Answer(["a"], {"masks": []}, Image.new("RGB", (3, 3)), mask).write(Path("found.png"))) == 3
    assert Answer(["b"], {"classes": []}).write(Path("found.png")) == ["Numbers: found.json"]
    assert [path.name for path in Path().iterdir()] == ["found.json"]


def test_help_tells_all_ways_to_ask(capsys):
    for arguments in (["help", "prompt"], ["prompt", "help"], ["prompt", "--help"]):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        keys = [*Question.__dataclass_fields__, "out", "overwrite"]
        assert not [key for key in keys if f"{key}=" not in said]
        assert all(path.name in said for path in files(Path("prompt.png")))


def test_a_question_from_python_may_have_pictures_and_says_so():
    picture = Image.new("RGB", (3, 3))
    question = Question(picture, example=Path("a.png"), mask=np.zeros((3, 3), bool), point=[(1, 2)])
    assert list(question.given()) == ["point", "example", "mask"]
    assert question.told() == {"point": [(1, 2)], "example": "a.png", "mask": "(a picture)"}
    assert called(picture) == "(a picture)"


def test_a_notebook_shows_an_answer_with_its_picture_and_its_words_as_words():
    page = Answer([" 90 %  <b>"], {}, Image.new("RGB", (30, 20)))._repr_html_()
    assert page.count("<img") == 1 and "<b>" not in page and " 90 %  &lt;b&gt;</pre>" in page
    assert "<img" not in Answer(["a"], {})._repr_html_()
    assert repr(Answer(["a", "b"], {}, mask=np.zeros((9, 9), bool))) == "a\nb"
