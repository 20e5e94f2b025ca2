"""Answers for any number of pictures, in the formats that others read.

Pictures are found in a stable order and cut into shards; each process answers for its shards, which lie on disk as they are made, so
that nothing is gathered in memory and a killed run goes on. The files of a format are written from the shards at the end.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError, counted
from adapt.provenance import changed, of
from adapt.recipe import Recipe
from adapt.run import atomic
from adapt.verbs.formats.boxes import linked
from adapt.verbs.formats.told import Told
from adapt.verbs.predicting import answerers, pictures, previews, tiles, writers
from adapt.verbs.predicting.request import Request, place
from adapt.verbs.predicting.shards import LEAST, Shards, fill

if TYPE_CHECKING:
    from adapt.verbs.predicting.answerers import Answerer
    from adapt.verbs.predicting.pictures import Pictures
    from adapt.verbs.processes import Processes

Problems = list[tuple[str, str, str]]
"""Pictures without an answer: id, kind, detail."""
UNSURE = 8
"""Of the least sure pictures, how many a notebook shows."""


@dataclass(frozen=True)
class Answered:
    """What `predict` leaves behind."""

    out: Path
    pictures: int
    """That have an answer."""
    problems: int
    """Pictures, links and names that have none; they are in `problems.csv`."""
    files: list[str]
    """In `out`: files, and folders of a file a picture."""
    notes: list[str]
    """Sentences on what the format could not hold."""
    finished: bool
    """Was all of it there before?"""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"out": str(self.out), "files": [str(self.out / name) for name in self.files]}

    def _repr_html_(self) -> str:
        """As a notebook shows it: in sentences, with the least sure pictures."""
        from adapt.report.gallery import show

        unsure = sorted((self.out / "previews").glob("*.jpg"))[:UNSURE]
        told = "".join(f"<p>{escape(line)}</p>" for line in sentences(self))
        return told + (f"<p>The least sure:</p>{show(unsure)._repr_html_()}" if unsure else "")


def of_run(recipe: Recipe, request: Request) -> Answered:
    """Answers by the model of a run."""
    from adapt.verbs.session import Session

    session = Session(recipe.model_copy(update={"tracker": "none"}))
    found = _shared(session.processes, request)
    return _predict(request, found, answerers.of_run(session, request.by, request.text), session.processes)


def of_file(request: Request) -> Answered:
    """Answers by an exported file."""
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    from adapt import hardware
    from adapt.verbs.processes import Processes
    from adapt.verbs.session import PATIENCE

    if request.text:
        raise UserError("text: an exported file is asked no questions. Leave text= out.")
    waits = InitProcessGroupKwargs(timeout=PATIENCE)
    processes = Processes(Accelerator(cpu=hardware.device() == "cpu", kwargs_handlers=[waits]))
    found = _shared(processes, request)
    return _predict(request, found, answerers.of_file(Path(request.file).expanduser()), processes)


def by(request: Request, answerer: Answerer, processes: Processes) -> Answered:
    """Answers by whatever is in memory; `request.by` and `request.file` do not matter."""
    return _predict(request, _shared(processes, request), answerer, processes)


def _shared(processes: Processes, request: Request) -> Pictures:
    """The pictures as the main process finds them."""
    found = pictures.found(request.images) if processes.main else None
    parts = processes.share(found and [str(found.root), found.ids, [list(problem) for problem in found.problems]])
    return found or pictures.Pictures(Path(parts[0]), parts[1], [tuple(problem) for problem in parts[2]])


def _predict(request: Request, found: Pictures, answerer: Answerer, processes: Processes) -> Answered:
    from adapt.progress import progress

    write = writers.writer(answerer.predictor, request.to)
    tiling = tiles.tiling(request.tile, request.overlap, answerer.predictor, writers.CALLED[answerer.predictor])
    options = _options(request, answerer)
    digest = processes.share(found.digest() if processes.main else None)
    question = {"pictures": {"count": len(found.ids), "files": digest}, "model": answerer.made_of, "options": options}
    question |= {"tiles": asdict(tiling)} if tiling else {}
    question["classes"] = of(answerer.names)
    out = place(request, of(question))
    if processes.keeps:
        _begin(out, question, found, request)
    processes.accelerator.wait_for_everyone()
    shards = Shards(out, len(found.ids), tiling is not None)
    known = _written(out, request.to)
    index, count = processes.place
    missing = [number for number in shards.missing() if number % count == index]
    with progress("predict", len(missing), shown=processes.main) as tick:
        fill(shards, missing, found, answerer, options, request.batch, tick, tiling)
    processes.accelerator.wait_for_everyone()
    told = Told(shards.answered, found.ids, answerer.names, answerer.title, linked(found.root), found.root, all=request.all)
    if processes.main and known is None:
        _write(out, request.to, write, told, [*found.problems, *shards.problems()])
    processes.accelerator.wait_for_everyone()
    files, notes, problems = processes.share(list((_written(out, request.to) or {}).values()))
    answered = len(found.ids) + len(found.problems) - problems
    return Answered(out, answered, problems, files, notes, known is not None)


def _options(request: Request, answerer: Answerer) -> dict[str, Any]:
    """What changes the answers.

    Raises:
        UserError: the model's answers have no such thing.
    """
    if request.score is not None and answerer.predictor != "detections":
        raise UserError(f"score: is of boxes, and this model answers {writers.CALLED[answerer.predictor]}. Leave score= out.")
    if request.all and answerer.predictor != "class_logits":
        raise UserError(f"all: is of classes, and this model answers {writers.CALLED[answerer.predictor]}. Leave all= out.")
    return {"score": LEAST if request.score is None else request.score, "all": request.all}


# ------------------------------------------------------------------------------------------------------------- the folder


def _begin(out: Path, question: dict[str, Any], found: Pictures, request: Request) -> None:
    """Make the folder with what is asked in it, or see that it is of the same question.

    Raises:
        UserError: it is of another, has other files, or lies among the pictures.
    """
    record = out / "made_of.json"
    if Path(request.images).expanduser().is_dir() and out.resolve().is_relative_to(found.root):
        raise UserError(
            f"out: {str(out)!r} lies among the pictures, where drawings would be found as pictures. Give another folder."
        )
    if record.is_file():
        try:
            before = json.loads(record.read_text(encoding="utf-8"))
            names = changed(before, json.loads(json.dumps(question)))
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"out: {str(record)!r} cannot be read: {error}. Give another folder, or delete this one.") from None
        if names:
            raise UserError(
                f"out: {str(out)!r} has the answers to another question: {', '.join(names)} changed. Give another folder, or delete this one."
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out: {str(out)!r} has other files in it. Give a new folder.")
    (out / ".shards").mkdir(parents=True, exist_ok=True)
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(question, indent=1) + "\n", encoding="utf-8")


def _written(out: Path, to: str) -> dict[str, Any] | None:
    """What is noted of a format whose files are whole and still there."""
    record = out / ".shards" / f"{to}.json"
    noted = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
    return noted if noted and all((out / name).exists() for name in noted["files"]) else None


def _write(out: Path, to: str, write: writers.Writer, told: Told, unanswered: Problems) -> None:
    """Write a format's files, drawings and the list of problems; then note that they are whole."""
    with atomic(out / ".shards" / to) as folder:
        folder.mkdir()
        notes = write(folder, told)
        previews.write(folder, told)
        problems = _problems(folder / "problems.csv", unanswered)
        files = sorted(item.name for item in folder.iterdir())
        for name in files:
            _move(folder / name, out / name)
    shutil.rmtree(out / ".shards" / to)
    with atomic(out / ".shards" / f"{to}.json") as temporary:
        temporary.write_text(json.dumps({"files": files, "notes": notes, "problems": problems}), encoding="utf-8")


def _move(item: Path, target: Path) -> None:
    """Put a file or folder in the place of an older one."""
    if target.is_symlink():
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
    os.replace(item, target)


def _problems(path: Path, unanswered: Problems) -> int:
    """Write what has no answer, and what to do about it; returns how many."""
    from adapt.data.problems import KINDS

    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "problem", "detail", "todo"])
        for name, kind, detail in unanswered:
            table.writerow([name, kind, detail, KINDS[kind][1]])
    return len(unanswered)


def sentences(answered: Answered) -> list[str]:
    """Sentences for the user."""
    start = "Finished before" if answered.finished else "Answered"
    problems = f"; {counted(answered.problems, 'problem')} in problems.csv" if answered.problems else ""
    files = ", ".join(str(answered.out / name) for name in answered.files if name != "problems.csv" or answered.problems)
    return [f"{start}: {counted(answered.pictures, 'picture')}{problems}.", *answered.notes, f"Files: {files}"]
