"""The table and the words beside it: the same for the terminal, the page and Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt.report.entries import Entry, Guard, Split, parse
from adapt.report.table import data, grid, label, notes, road, tell, timed, unlike, verdict

ONNX, TORCH = {"runtime": "onnxruntime", "threads": 1}, {"runtime": "torch", "threads": 1}


def entry(name: str, title: str = "", **facts) -> dict:
    """As `measure` writes it."""
    plain = {"name": name, "title": title or name, "main": "top1", "metrics": {"top1": 0.5}, "protocol": {"eval": "zeroshot"}}
    return plain | facts


def rows(*entries: dict) -> list[Entry]:
    return parse({"entries": list(entries), "guards": []}, Path("metrics.json")).entries


def latency(p50: float, **facts) -> dict:
    return {"p50_ms": p50, "p99_ms": 2 * p50} | facts


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ("top1 top5 top3 mean_per_class ece nll", "top-1, top-5, top-3, mean per class, ECE, NLL"),
        ("map map50 map75 recall unread", "mAP, mAP@50, mAP@75, recall, unread"),
        ("miou boundary_f iou_1 iou_3 mask_ap mask_ap50", "mIoU, boundary F, IoU@1 click, IoU@3 clicks, mask AP, mask AP@50"),
        ("box_ap pixel_accuracy weighted_iou", "box AP, pixel accuracy, weighted IoU"),
        ("knn knn@20 knn_mean_per_class", "kNN, kNN@20, kNN mean per class"),
        ("linear linear_lr linear_holdout", "linear, linear lr, linear holdout"),
        ("f1_macro worst_group ece_fitted group_score", "macro F1, top-1, worst group, ECE, temperature fitted, group score"),
        ("exact bleu4 cider r1 r10 within_one", "exact, BLEU-4, CIDEr, R@1, R@10, within one"),
    ],
)
def test_a_table_names_metrics_alike(metrics, names):
    assert ", ".join(map(label, metrics.split())) == names


def test_the_torch_student_gives_way_to_its_files():
    found = rows(*map(entry, ("onnx int8", "student", "adapted", "onnx fp32", "zero-shot")))
    assert [row.name for row in road(found)] == ["zero-shot", "adapted", "onnx int8", "onnx fp32"]
    assert [row.name for row in road(found[1:3])] == ["adapted", "student"]


def test_an_entry_of_an_older_run_is_a_row_too():
    (head, row) = grid(rows(entry("zero-shot", latency=latency(1.0))))
    assert (head, row) == (["", "top-1 (95 % interval)", "latency p50 / p99"], ["zero-shot", "50.0 %", "1.00 / 2.00 ms"])


def test_the_canary_is_a_column_and_a_note_says_what_it_is():
    known = {"top1": 0.5, "canary": 0.8, "canary noto": 0.7, "canary twemoji": 0.9}
    found = rows(entry("zero-shot", metrics=known, intervals={"canary": (0.75, 0.85)}), entry("adapted"))
    head, first, second = grid(road(found))
    assert (head[2], first[2], second[2]) == ("canary", "80.0 % (75.0–85.0)", "")
    assert "Canary: the mean over other data that the model should not forget: noto, twemoji." in notes(road(found))


# ----------------------------------------------------------------------------------------------------------------- latency


def test_what_was_timed_on_which_runtime_is_said():
    """The teacher's tower in the same runtime as the files, and what it takes in PyTorch."""
    tower = {"latency": latency(14.2, **ONNX, what="image tower"), "latency_torch": latency(21.34, **TORCH)}
    found = rows(
        entry("zero-shot", "CLIP", **tower), entry("adapted", "CLIP + LoRA", **tower), entry("f", latency=latency(2, **ONNX))
    )
    assert timed(found) == (
        "Latency: one image, ONNX Runtime, one thread. CLIP and CLIP + LoRA: the image tower, 21.3 ms in eager PyTorch."
    )


def test_rows_of_two_runtimes_are_told_apart():
    found = rows(
        entry("adapted", "SAM", latency=latency(900, **TORCH, calls=4)),
        entry("onnx fp32", "fp32", latency=latency(2, **ONNX, calls=400)),
        entry("onnx int8", "int8", latency=latency(1, **ONNX, calls=400)),
    )
    assert timed(found) == "Latency: one image, one thread. SAM: PyTorch, only 4 calls. fp32 and int8: ONNX Runtime."


def test_older_latencies_say_what_is_known():
    assert timed(rows(entry("a", latency=latency(2)), entry("b"))) == "Latency: one image, one thread."
    assert timed(rows(entry("a"), entry("b", latency=None))) == ""


# ------------------------------------------------------------------------------------------------------------------- notes


def test_an_entry_and_what_it_is_compared_with_are_held_against_each_other_though_they_are_no_neighbours():
    """Labels stand between the adapted model, which was told what is there, and the student, which was told nothing."""
    told, not_told = {"eval": "detection", "ask": "present"}, {"eval": "detection", "ask": "all"}
    found = rows(
        entry("adapted", protocol=told),
        entry("labels", protocol=not_told),
        entry("student", protocol=not_told, change=[0.1, 0.0, 0.2], against="adapted"),
    )
    said = "(categories that the model is given: all against present)."
    assert unlike(found) == [
        f"Not measured alike: labels and adapted {said}",
        f"Not measured alike: student and adapted {said}",
    ]


def test_what_is_measured_alike_is_not_mentioned():
    assert unlike(rows(entry("a"), entry("b", change=[0, 0, 0], against="a"))) == []


def test_a_row_may_be_more_precise_than_another_and_a_scale_is_learnt():
    one, other = {"precision": "fp32", "logit_scale": 14.0}, {"precision": "int8", "logit_scale": 20.0}
    assert unlike(rows(entry("a", protocol=one), entry("b", protocol=other))) == []
    one, other = one | {"data": "1"}, other | {"data": "2"}
    assert unlike(rows(entry("a", protocol=one), entry("b", protocol=other))) == ["Not measured alike: b and a (other data)."]


def test_notes_say_what_a_change_is_against_and_what_to_know_of_a_row():
    found = rows(
        entry(
            "adapted",
            "CLIP + LoRA",
            notes=["selected by zeroshot top1 on validation", "all 37 answers are 'ants'."],
            left_out=3,
        ),
        entry("labels"),
        entry("student", "CNN", change=[0.1, 0.0, 0.2], against="adapted"),
    )
    assert notes(found) == [
        "Change is against the row above, on the same images, with its paired 95 % bootstrap interval.",
        "The change of CNN is against CLIP + LoRA.",
        "CLIP + LoRA: selected by zeroshot top1 on validation.",
        "CLIP + LoRA: all 37 answers are 'ants'.",
        "Pictures of the data that could not be used: 3; data_problems.csv lists them.",
    ]


def test_the_numbers_of_pictures_stand_in_a_line_with_where_they_came_from():
    splits = [("train", 1200, ""), ("validation", 180, "15 % drawn from train/"), ("test", 1, "test/")]
    line = data([Split(split=name, pictures=count, origin=origin) for name, count, origin in splits])
    assert line == "Data: train 1,200 pictures; validation 180 (15 % drawn from train/); test 1 (test/)."
    assert data([]) == ""


@pytest.mark.parametrize(
    ("state", "told", "why"),
    [
        ("kept", "✓ Guard kept: no worse.", ""),
        ("not shown", "? Guard not shown: no worse.", "37 pictures are too few."),
        ("broken", "✗ Guard broken: no worse.", "37 pictures are too few."),
    ],
)
def test_a_guard_is_told_in_plain_words(state, told, why):
    assert verdict(Guard(name="no worse", state=state, message="37 pictures are too few")) == (told, why)


# ---------------------------------------------------------------------------------------------------------------- terminal


def test_the_terminal_shows_titles_as_they_are_and_each_state_in_its_colour(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    guards = [{"name": f"[{state}]", "state": state, "message": "see [/b]"} for state in ("kept", "not shown", "broken")]
    tell(Path("runs/x"), [entry("adapted", "[red]CLIP[/red] [/]", notes=["[/x]"])], guards)
    out = capsys.readouterr().out
    assert "[red]CLIP[/red] [/]" in out
    assert "\x1b[32m✓ Guard kept: [kept].\x1b[0m" in out
    assert "\x1b[33m? Guard not shown: [not shown]. See [/b].\x1b[0m" in out
    assert "\x1b[1;31m✗ Guard broken: [broken]. See [/b].\x1b[0m" in out
    assert out.splitlines()[-1] == "Run: runs/x"
