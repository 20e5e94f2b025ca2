"""A teacher, its CNN and the CNN's files on one picture: what each answers, how sure it is, how long it takes, how large it is; and a
folder or zip of pictures, labelled by any of them."""

from __future__ import annotations

import csv
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from adapt.demo import parts
from adapt.demo.desk import ADAPTED, Choice, Desk
from adapt.demo.gathered import MOST, gather
from adapt.demo.parts import QUIET, TYPED, Upload, line
from adapt.plug import UserError, counted

if TYPE_CHECKING:
    from adapt.verbs.predicting.answerers import Answerer

TOP = 5
"""Classes that are shown of each answer."""
ROWS = 12
"""Pictures of a labelled folder that are shown."""
SIDE = 320
"""Pixels of a picture with an answer drawn on it."""
SECONDS = 0.3
"""Of measuring, for each model."""
SCORE = 0.3
"""Boxes that are less sure are left out, as `adapt predict` does."""


@dataclass(frozen=True)
class Asked:
    """One of those that answer side by side."""

    title: str
    """What it is: teacher, CNN, fp32 file, int8 file."""
    name: str
    """On the desk."""


@dataclass
class Said:
    """What one of them says of a picture."""

    asked: Asked
    bytes: int = 0
    line: dict[str, Any] | None = None
    """As `adapt predict` keeps it."""
    answerer: Answerer | None = None
    prepared: Any = None
    problem: str = ""
    """Why there is no answer."""
    milliseconds: float | None = None


def build(desk: Desk) -> None:
    """The tab."""
    names = students(desk)
    if not names:
        gr.HTML(
            line("No student here. Start the demo with run=runs/NAME-HASH, whose students are shown, or with file=FILE.onnx.")
        )
        return
    with gr.Row():
        with gr.Column(min_width=300):
            part, upload, said = parts.upload(desk, "Picture", "students-picture")
            student = gr.Dropdown(
                names, value=names[0], label="Student, beside its teacher and its files", elem_id="students-student"
            )
            source = gr.State(_source(desk, names[0]))
            parts.example(desk, source, part, upload, said)
        with gr.Column(min_width=300):
            answers = gr.HTML(line("Upload a picture."), elem_id="students-answers", min_height=40)
    gr.on([upload.change, student.change], functools.partial(_answers, desk), [student, upload], answers, **TYPED)
    gr.HTML(
        "<h3>Many pictures</h3>" + line(f"Up to {MOST:,}, as pictures or as zips; they come back as a table with a row each.")
    )
    with gr.Row():
        with gr.Column(min_width=300):
            files = gr.File(label="Pictures, or a zip of them", file_count="multiple", height=160, elem_id="students-files")
            folder = gr.UploadButton("A folder of pictures", file_count="directory", size="sm")
            first = _titles(desk, names[0])
            by = gr.Dropdown(first, value=first[-1], label="Who labels them", elem_id="students-by")
            begin = gr.Button("Label them", variant="primary", elem_id="students-label")
        with gr.Column(min_width=300):
            told = gr.HTML(elem_id="students-told", min_height=40)
            table = gr.File(label="Answers", interactive=False, visible=False, elem_id="students-table")
    folder.upload(lambda given: given, folder, files, **QUIET)
    student.change(functools.partial(_chosen, desk), student, [by, source], **QUIET)
    begin.click(functools.partial(_labelled, desk, table.GRADIO_CACHE), [student, by, files], [told, table], **QUIET)


# ----------------------------------------------------------------------------------------------------------------- who answers


def students(desk: Desk) -> list[str]:
    """The students and lone exported files that can be chosen, the user's own first; a student's own files stand beside it."""
    return [name for name, choice in desk.choices.items() if choice.student and not (choice.exported and choice.recipe)]


def road(desk: Desk, name: str) -> list[Asked]:
    """Who is asked beside a student: its teacher, itself, and its exported files; an exported file alone has no others.

    Raises:
        UserError: there is no such student.
    """
    if name not in students(desk):
        raise UserError(f"student: there is no {name!r} here. Have: {', '.join(students(desk))}.")
    choice = desk.choices[name]
    if choice.exported:
        return [Asked(_kind(choice), name)]
    same = [each for each in desk.choices.values() if each.recipe == choice.recipe]
    teachers = sorted((each for each in same if not each.student), key=lambda each: each.by != ADAPTED)
    folder = choice.place.parents[1] / "export" / choice.place.name
    files = [each for each in same if each.exported and each.place.is_relative_to(folder)]
    files.sort(key=lambda each: ".int8" in each.place.suffixes)
    found = [Asked(_kind(each), each.name) for each in files]
    return [*(Asked("teacher", each.name) for each in teachers[:1]), Asked("CNN", name), *found]


def _kind(choice: Choice) -> str:
    return "int8 file" if ".int8" in choice.place.suffixes else "fp32 file"


def _titles(desk: Desk, name: str) -> list[str]:
    """Who can label."""
    return [each.title for each in road(desk, name)]


def _source(desk: Desk, name: str) -> str:
    """The model whose data have examples: a file brings none."""
    have = desk.choices[name].recipe is not None
    return name if have else next(other for other, choice in desk.choices.items() if choice.recipe)


def _chosen(desk: Desk, name: str) -> tuple[Any, str]:
    """Who can label now, and where examples come from."""
    titles = _titles(desk, name)
    return gr.Dropdown(choices=titles, value=titles[-1]), _source(desk, name)


def opened(desk: Desk, asked: Asked) -> tuple[Answerer, int]:
    """Who answers, with its bytes; a model answers one question after the other.

    Raises:
        UserError: it cannot be loaded, or does not answer for pictures alone.
    """
    from adapt.verbs.predicting import answerers

    with desk.using(asked.name) as model:
        own, size = model.module, model.bytes
        if not model.choice.exported:
            names = model.classes if model.choice.student else model.session.labels  # not the words that it is asked by
            own = answerers.of_module(model.session, model.module, names, {"model": asked.name}, asked.name)

    def answer(prepared: list[Any], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        with desk.using(asked.name):
            return own.answer(prepared, sizes)

    return replace(own, answer=answer), size


# ----------------------------------------------------------------------------------------------------------------- one picture


def asked(desk: Desk, name: str, upload: Upload) -> Iterator[list[Said]]:
    """What a student, its teacher and its files say of a picture, as they come; the last time with their times."""
    from adapt.verbs.predicting.shards import record

    picture, found = desk.picture(upload.path), []
    for each in road(desk, name):
        one = Said(each)
        try:
            one.answerer, one.bytes = opened(desk, each)
            one.prepared = one.answerer.prepare(picture)
            (result,) = one.answerer.answer([one.prepared], [picture.size])
            one.line = record(one.answerer, result, picture.size, SCORE, all=True)
        except UserError as error:
            one.problem = str(error)
        found.append(one)
        yield found
    _time([one for one in found if one.line], picture.size)
    yield found


def _time(found: list[Said], size: tuple[int, int]) -> None:
    """The median time of a call, of prepared pixels, all in turn."""
    from adapt.export.bench import compare

    runners = {number: functools.partial(_call, one, size) for number, one in enumerate(found)}
    for number, times in compare(runners, None, SECONDS, least=10).items():
        found[number].milliseconds = times["p50_ms"]


def _call(one: Said, size: tuple[int, int], _: None) -> None:
    one.answerer.answer([one.prepared], [size])


def _answers(desk: Desk, name: str, upload: Upload | None) -> Iterator[str]:
    """The page's part of it."""
    if upload is None:
        yield line("Upload a picture.")
        return
    try:
        yield line(f"{name} is asked …")
        for found in asked(desk, name, upload):
            yield _shown(desk, upload, found)
    except UserError as error:
        yield line(str(error), wrong=True)


def _shown(desk: Desk, upload: Upload, found: list[Said]) -> str:
    """A row for each, and below it the classes, or the picture with what was found."""
    head = "".join(f"<th>{title}</th>" for title in ("", "answer", "sure", "time", "size"))
    rows = "".join(
        f"<tr><th>{escape(one.asked.title)}<small>{escape(one.asked.name)}</small></th>{_cells(one)}</tr>" for one in found
    )
    note = "Time: the median of a call for one prepared picture, on this machine as it is now. Size: of the weights, or of the file."
    blocks = "".join(_block(desk, upload, one) for one in found if one.line)
    return f'<table class="answers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{line(note)}<div class="beside">{blocks}</div>'


def _cells(one: Said) -> str:
    size = f"{one.bytes / 1e6:.1f} MB" if one.bytes else ""
    if one.problem:
        return f"<td colspan=3>{line(one.problem, wrong=True)}</td><td>{size}</td>"
    sure = one.line["sure"]
    time = "…" if one.milliseconds is None else f"{one.milliseconds:.2f} ms"
    cells = [words(one.line), "" if sure is None else f"{sure:.1%}", time, size]
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def words(found: dict[str, Any]) -> str:
    """An answer in a few words."""
    if "label" in found:
        return found["label"]
    if "embedding" in found:
        return f"an embedding of {len(found['embedding']):,} numbers"
    if "text" in found:
        return found["text"] or "(no words)"
    names = [one["name"] or "another name" for one in found.get("objects", found.get("masks", []))]
    return ", ".join(names[:TOP]) + (f" and {len(names) - TOP} more" if len(names) > TOP else "") if names else "nothing"


def _block(desk: Desk, upload: Upload, one: Said) -> str:
    from adapt.verbs.predicting.previews import drawn

    title = f"<h4>{escape(one.asked.title)}</h4>"
    if "label" in one.line:
        shares = sorted(zip(one.answerer.names, one.line["probabilities"], strict=True), key=lambda pair: -pair[1])
        return f"<div>{title}{parts.bars(shares[:TOP])}</div>"
    if one.line.get("objects") or one.line.get("masks"):
        size = dict(zip(("width", "height"), upload.size, strict=True))
        picture = drawn(desk.picture(upload.path), one.line | size, one.answerer.names)
        return f"<div>{parts.pictures([(one.asked.title, picture)], SIDE)}</div>"
    return ""


# --------------------------------------------------------------------------------------------------------------- many pictures


def label(desk: Desk, who: Asked, paths: Sequence[str], folder: Path) -> tuple[Path, str, list[str]]:
    """Label pictures, and the pictures in zips; what `folder` then has in `answers/` is what `adapt predict` writes.

    Returns:
        The table: CSV with a row a picture for classes and words, else a JSON object a line; a sentence on it; and a line for each
        picture without an answer.

    Raises:
        UserError: there is nothing to label, too much of it, or a zip that writes outside its place.
    """
    from accelerate import Accelerator

    from adapt import hardware
    from adapt.verbs import predict
    from adapt.verbs.predicting.request import Request
    from adapt.verbs.predicting.writers import WRITERS
    from adapt.verbs.processes import Processes

    pictures = folder / "pictures"
    left = gather(paths, pictures)
    answerer, _ = opened(desk, who)
    to = "csv" if "csv" in WRITERS[answerer.predictor] else "jsonl"
    request = Request(str(pictures), to=to, out=str(folder / "answers"))
    done = predict.by(request, answerer, Processes(Accelerator(cpu=hardware.device() == "cpu")))
    with open(done.out / "problems.csv", encoding="utf-8", newline="") as file:
        problems = [f"{row['path']}: {row['problem']} ({row['detail']})".replace(" ()", "") for row in csv.DictReader(file)]
    said = f"{counted(done.pictures, 'picture')} labelled by {who.name}."
    return done.out / f"predictions.{to}", f"{said} Passed over: {counted(left, 'other file')}." if left else said, problems


def _labelled(desk: Desk, cache: str, student: str, by: str, files: list[str] | None) -> Iterator[tuple[str, Any]]:
    """The page's part of it."""
    if not files:
        yield line("Upload pictures or a zip first.", wrong=True), gr.skip()
        return
    yield line("They are being labelled …"), gr.File(visible=False)
    folder = Path(tempfile.mkdtemp(prefix="adapt-label-"))
    try:
        who = next((each for each in road(desk, student) if each.title == by), None)
        if who is None:
            raise UserError(f"by: {student!r} has no {by!r}. Have: {', '.join(_titles(desk, student))}.")
        table, said, problems = label(desk, who, files, folder)
        lines = [line(said), *(line(each, wrong=True) for each in problems[:ROWS])]
        lines += [line(f"and {len(problems) - ROWS:,} more without an answer", wrong=True)] if len(problems) > ROWS else []
        path = save_bytes_to_cache(table.read_bytes(), table.name, cache)
        yield "".join(lines) + _first(table), gr.File(path, visible=True)
    except UserError as error:
        yield line(str(error), wrong=True), gr.File(visible=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first(table: Path) -> str:
    """The first rows of a CSV, for the page."""
    if table.suffix != ".csv":
        return ""
    with open(table, encoding="utf-8", newline="") as file:
        head, *rows = [row for row, _ in zip(csv.reader(file), range(ROWS + 2), strict=False)]
    cells = "".join(f"<tr>{''.join(f'<td>{escape(_short(cell))}</td>' for cell in row)}</tr>" for row in rows[:ROWS])
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    more = line("… the others are in the file.") if len(rows) > ROWS else ""
    return f'<table class="answers"><thead><tr>{top}</tr></thead><tbody>{cells}</tbody></table>{more}'


def _short(cell: str) -> str:
    """A probability with three digits; other text as it is."""
    try:
        return f"{float(cell):.3f}" if "." in cell else cell
    except ValueError:
        return cell
