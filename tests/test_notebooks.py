"""The notebooks: each runs from its first cell to its last, shows pictures, and is committed as a reader should find it."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import nbformat
import pytest

from adapt.pipeline import finetune, load_data, load_recipe
from adapt.plug import ROOT
from adapt.report.gallery import Gallery
from adapt.train import loop

FOLDER = ROOT.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
ONE = "'tracker=none', 'train.epochs=1', 'evals.0.bootstrap=100'"
SCENES = "'data.train=8', 'data.validation=8', 'data.test=12'"
SMALL = {
    "01_zero_shot_prompting": f"""
SHOWN = 3
SCENES = [{SCENES}]
SETS = {{"an emoji of it": "['an emoji of a {{}}']"}}
""",
    "02_adapt_clip_to_your_domain": f"""
SIZES = [{ONE}, "model.train_templates=1"]
SHOWN = 3
""",
    "03_segment_anything_your_way": f"""
SIZES = [{ONE}]
GRID = 6
SHOWN = 2
""",
    "04_dinov2_features": f"""
SIZES = [{ONE}]
EVALS = ["evals=[{{name: zeroshot, split: test}}, {{name: knn, split: test}}]"]
SCENES = [{SCENES}]
""",
    "05_paligemma_detect_and_ask": f"""
SIZES = [{ONE}]
SHOWN = 2
""",
    "06_distill_and_deploy": f"""
SIZES = [{ONE}, "model.train_templates=1", "distill.train.epochs=1", "distill.views=1", "export.0.bench=0.1"]
SHOWN = 3
""",
    "07_few_labels_and_prompts": """
SIZES = ["tracker=none", "method.views=1"]
SHOTS = ShotsRequest(shots=(1,), seeds=1, methods=("zero-shot", "tip_adapter"))
SCENES = ["data.train=32", "data.validation=8", "data.test=12"]
SEARCH = WorkbenchRequest(pictures=24, space=Space(templates=["{}"], drawings=["crop", "crop+white"], expand=[0.01], fit=["pad"]))
""",
}
"""Notebook → the cell that stands in the place of its sizes in a test."""
DATA = {
    "02_adapt_clip_to_your_domain": "YOURS = ['data.shots=2', 'data.unlabelled=[]']",
    "03_segment_anything_your_way": f"YOURS = [{SCENES}]",
    "04_dinov2_features": "YOURS = ['data.shots=2']",
    "05_paligemma_detect_and_ask": f"YOURS = [{SCENES}]",
    "06_distill_and_deploy": "YOURS = ['data.shots=2', 'data.unlabelled=[]']",
    "07_few_labels_and_prompts": "YOURS = ['data.shots=2']",
}
"""Notebook → the cell that stands in the place of its data, where those of a reader are many."""


def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def tagged(name: str, tag: str) -> list[str]:
    """The sources of the cells with a tag."""
    return [cell.source for cell in notebook(name).cells if tag in cell.metadata.get("tags", [])]


def assigned(source: str) -> set[str]:
    """The names that a cell sets."""
    return {target.id for node in ast.parse(source).body for target in node.targets}


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; what its last line is, if that is an expression."""
    *before, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        before, last = [*before, last], None
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def ran(name: str, yours: str = "") -> list[Any]:
    """What the cells of a notebook show, with small sizes; `yours`: in the place of the cell for the reader's own data."""
    stand_ins = {"sizes": SMALL[name], "yours": yours or DATA.get(name)}
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in notebook(name).cells:
        if cell.cell_type == "code":
            tag = next(iter(cell.metadata.get("tags", [])), "")
            shown.append(run(stand_ins.get(tag) or cell.source, names))
    return [value for value in shown if value is not None]


def pictures(shown: list[Any]) -> int:
    """How many pictures are shown."""
    return sum(value._repr_html_().count("<img") for value in shown if not isinstance(value, dict))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_shows_pictures(name, monkeypatch):
    monkeypatch.setattr("adapt.verbs.export.TOWER", 0)  # the teacher's own file, for its time alone, takes long to write
    shown = ran(name)
    assert pictures(shown) >= 4
    assert next(value for value in shown if isinstance(value, Gallery)).pictures


def test_a_cell_that_was_stopped_goes_on_when_it_runs_again(photos, monkeypatch, capsys):
    recipe = load_recipe("clip_lora", ["data.path=photos", "tracker=none", "train.epochs=2", "train.batch=16"])
    steps, step = [], loop._step

    def stopped(*args):
        if len(steps) == 4:
            raise KeyboardInterrupt
        steps.append(args[6])
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            finetune(recipe)
    outcome = finetune(recipe)
    per_epoch = len(load_data(recipe)["train"]) // 16
    assert f"finetune: resumed at step {4 - 4 % per_epoch} of {2 * per_epoch}" in capsys.readouterr().out
    written = [json.loads(line) for line in (outcome.path / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in written if "loss" in row] == list(range(1, 2 * per_epoch + 1)), "each step counts once"
    assert "adapted" in outcome.metrics
    finetune(recipe)
    assert "finished before" in capsys.readouterr().out


def test_it_runs_on_a_folder_of_the_readers_own(photos):
    shown = ran("02_adapt_clip_to_your_domain", "YOURS = ['data.path=photos']")
    answers = shown[-1].words
    assert answers and all(any(name in said for name in ("red apple", "lime", "blue cup", "snow")) for said in answers)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_committed_as_a_reader_should_find_it(name):
    read = notebook(name)
    nbformat.validate(read)
    assert read.cells[0].source.startswith("# ")
    assert not [cell for cell in read.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)], "outputs"
    assert not [cell for cell in read.cells if cell.source.startswith(("%", "!"))], "plain Python alone"
    assert not [cell for cell in read.cells if re.search(r"adapt\.(verbs|vision)", cell.source)], (
        "what readers may import alone"
    )
    (sizes,), (yours,) = tagged(name, "sizes"), tagged(name, "yours")
    assert assigned(SMALL[name]) == assigned(sizes), "the test sets what the reader may set"
    assert assigned(yours) == {"YOURS"}
    rest = "\n".join(cell.source for cell in read.cells if cell.cell_type == "code" and cell.source not in (sizes, yours))
    used = {node.id for node in ast.walk(ast.parse(rest)) if isinstance(node, ast.Name)}
    assert assigned(sizes) | {"YOURS"} <= used, "each does something"
