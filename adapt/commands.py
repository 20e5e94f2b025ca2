"""What is typed after `adapt VERB`, and the verbs that do not end with a table of numbers."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import lists
from adapt.lists import Said
from adapt.plug import UserError
from adapt.recipe import Recipe, available, load_recipe, source

if TYPE_CHECKING:
    from adapt.verbs.predicting.request import Request
    from adapt.verbs.suiting.request import Request as Sets


def parse(arguments: list[str]) -> Recipe:
    """`recipe=…` or `run=…`, and overrides → the recipe.

    Raises:
        UserError: neither is given, the recipe is wrong, or the run folder is another recipe's.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    overrides = [argument for argument in arguments if not argument.startswith(("recipe=", "run="))]
    if given.get("run"):
        from adapt.run import Run

        path = Run.from_folder(given["run"]).path
        if not given.get("recipe"):
            _of_this_version(path)
        recipe = load_recipe(given.get("recipe") or path / "recipe.yaml", overrides)
        Run.from_folder(path, recipe)
        Run(path).at_home(recipe)
        return recipe
    if not given.get("recipe"):
        raise UserError(f"recipe: missing. Write recipe=NAME or recipe=FILE.yaml. Have: {', '.join(available('recipes'))}.")
    return load_recipe(given["recipe"], overrides)


def ready(arguments: list[str]) -> Recipe:
    """`parse`, for a verb that begins: the data are there, the words can be used, and what other data change is said."""
    recipe = parse(arguments)
    recipe.data.check_paths()
    if recipe.uses_words:
        from adapt.prompting import text

        text.check(recipe.prompts)
    if recipe.canary:
        from adapt.verbs import guests

        guests.check(recipe)
    for note in recipe.notes:
        if first(note):
            print(note)
    return recipe


def _of_this_version(path: Path) -> None:
    """A run's own recipe must read as it is."""
    try:
        load_recipe(path / "recipe.yaml")
    except UserError as error:
        one, *more = str(error).splitlines()
        others = f" (and {len(more)} more)" if more else ""
        raise UserError(
            f"run: {str(path)!r} is of another version of Adapt: {one.rstrip('.')}{others}. Begin a new run with recipe=…; the "
            "report in the folder still opens."
        ) from None


def first(text: str) -> bool:
    """Is this the first of a launcher's processes on this machine to say so? It alone speaks.

    Not the main one: the launcher kills it when another has failed, and it may have nothing to tell.
    """
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")  # of torchrun and accelerate: …/attempt_0/RANK/error.json
    if not place:
        return True
    try:
        Path(place).parents[1].joinpath(f"told-{zlib.crc32(text.encode())}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass  # better twice than never
    return True


def options(verb: str, rest: list[str]) -> dict[str, Any]:
    """Take a verb's own options out of its arguments: `scale=` and `keep=` of merge, `extend=` of finetune.

    Raises:
        UserError: a value is not what the option takes.
    """
    found: dict[str, Any] = {}
    for argument in list(rest):
        name, _, text = argument.partition("=")
        if (verb, name) == ("merge", "budget"):
            raise UserError("budget: of merge it is called keep now: keep=0.98 keeps 98 % of what zero-shot knew.")
        if name in TAKES.get(verb, {}):
            read, words = TAKES[verb][name]
            try:
                found[name] = read(text)
            except ValueError:
                raise UserError(f"{name}: {text!r} is not {words}.") from None
            rest.remove(argument)
    return found


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _epochs(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


TAKES: dict[str, dict[str, tuple[Callable[[str], Any], str]]] = {
    "merge": {
        "scale": (lambda text: text if text == "sweep" else _share(text), "a number from 0 to 1, or the word sweep"),
        "keep": (_share, "a number from 0 to 1"),
    },
    "finetune": {"extend": (_epochs, "a number of epochs, 1 or more")},
}
"""Verb → its own options: how each is read, and what it takes, in words."""


def _prompt(rest: list[str]) -> Said:
    """Print the answer, and write it."""
    from adapt.verbs.question import files, look
    from adapt.verbs.question import parse as questioned

    question, out = questioned(rest)
    recipe = ready(rest)
    look(question)
    from adapt import hardware

    hardware.guard()
    from adapt.pipeline import prompt

    answer = prompt(recipe, question)
    print(*answer.lines, *answer.write(out), sep="\n")
    return 0, {"answer": answer.found, "lines": answer.lines, "files": [str(path) for path in files(out) if path.exists()]}


def requested(rest: list[str]) -> tuple[Recipe | None, Request]:
    """What `predict` is asked, and the recipe whose run answers; none: an exported file."""
    from adapt.verbs.predicting.request import parse as read

    request = read(rest)
    return None if request.file else parse(rest), request


def _predict(rest: list[str]) -> Said:
    """Answer for pictures, and say where the answers lie."""
    recipe, request = requested(rest)
    from adapt import hardware

    hardware.guard()
    from accelerate import PartialState

    from adapt.pipeline import predict
    from adapt.verbs.predict import sentences

    answered = predict(recipe, request)
    if PartialState().is_main_process:
        print(*sentences(answered), sep="\n")
    return 0, answered.document()


def asks_suite(rest: list[str]) -> bool:
    """Is a suite to be measured?

    Raises:
        UserError: several models are, and no suite.
    """
    from adapt.verbs.suiting.request import asks

    return asks(rest)


def of_suite(rest: list[str]) -> tuple[list[str], Sets]:
    """The arguments that are a recipe's, and which suite is measured of which models."""
    from adapt.verbs.suiting.request import parse as read

    others = list(rest)
    return others, read(others)


def suite(rest: list[str]) -> Said:
    """Measure a suite; status 1 when a set failed, with strict=true."""
    others, request = of_suite(rest)
    recipe = ready(others)
    from adapt import hardware

    hardware.guard()
    from accelerate import PartialState

    from adapt.pipeline import measured
    from adapt.report.suite import tell

    suited = measured(recipe, request)
    if PartialState().is_main_process:
        tell(suited.path, suited.document)
        print(*suited.sentences(), sep="\n")
    report = suited.path / "suites" / request.suite.name / "report.html"
    document = {"run": str(suited.path), "ok": suited.ok, "report": str(report)} | suited.document | {"notes": recipe.notes}
    return 1 if recipe.strict and not suited.ok else 0, document


def _shots(rest: list[str]) -> Said:
    """Compare methods on few labels; status 1 when one fell below zero-shot, with strict=true."""
    from adapt.verbs.shooting.request import parse as read

    request = read(rest)
    recipe = ready(rest)
    from adapt import hardware

    hardware.guard()
    from adapt.pipeline import shots
    from adapt.report.shots import tell

    swept = shots(recipe, request)
    tell(swept.path, swept.document)
    place = swept.path / "shots"
    files = {"report": str(place / "report.html"), "plot": str(place / "shots.png"), "samples": str(place / "samples.jsonl")}
    document = {"run": str(swept.path), "ok": swept.ok} | files | swept.document | {"notes": recipe.notes}
    return 1 if recipe.strict and not swept.ok else 0, document


def _workbench(rest: list[str]) -> Said:
    """Search words and drawings, and write the recipe that asks so."""
    from adapt.verbs.searching.request import parse_request

    request = parse_request(rest)
    recipe = ready(rest)
    from adapt import hardware

    hardware.guard()
    from adapt.pipeline import workbench
    from adapt.report.workbench import tell

    searched = workbench(recipe, request)
    tell(searched.path, searched.document)
    place = searched.path / "workbench"
    files = {"report": str(place / "report.html"), "plot": str(place / "workbench.png")}
    return 0, {"run": str(searched.path)} | files | searched.document | {"notes": recipe.notes}


def _demo(rest: list[str]) -> Said:
    """Serve the page until Ctrl-C."""
    from adapt.demo.request import parse_request

    request = parse_request(rest)
    recipe = parse(rest) if rest else None
    from adapt import hardware

    hardware.guard()
    from adapt.demo.app import serve

    serve(request, recipe)
    return 0, {}


def _report(rest: list[str]) -> Said:
    given = dict(argument.partition("=")[::2] for argument in rest)
    from adapt.run import Run

    path = Run.from_folder(given["run"]).path if "run" in given else Run.open(parse(rest), writes=False).path
    from adapt.report import shots, suite, workbench

    built = [
        (title, part.build(path))
        for title, part in (("Few labels", shots), ("Workbench", workbench))
        if path.joinpath(part.FILE).is_file()
    ]
    built += [(f"Suite {name}", suite.build(path, name)) for name in suite.suites(path)]
    for title, page in built:
        print(f"{title}: {page}")
    if built and not path.joinpath("metrics.json").is_file():
        return 0, {"run": str(path), "report": str(built[0][1])}
    if path.joinpath("recipe.yaml").is_file() and not path.joinpath("metrics.json").is_file():
        raise UserError(f"run: {str(path)!r} has no numbers yet. First: adapt evaluate run={path}")
    from adapt.pipeline import report

    page = report(path)
    print(f"Report: {page}")
    return 0, {"run": str(path), "report": str(page)}


def _doctor(rest: list[str]) -> Said:
    if not rest:
        from adapt import hardware

        hardware.guard()
        machine = hardware.describe()
        for name, value in machine.items():
            print(f"{name:<18} {value}")
        return 0, {"machine": machine}
    from adapt.verbs.doctoring import suite

    if suite.asked(rest):
        from adapt import hardware

        hardware.guard()
        return suite.look(rest)
    if rest[0] != "data":
        raise UserError(
            f"doctor: {rest[0]!r} is unknown. Write `adapt doctor`, `adapt doctor data data.path=FOLDER`, or "
            "`adapt doctor suite=NAME data.path=TREE`."
        )
    return _doctor_data(rest[1:])


def _doctor_data(rest: list[str]) -> Said:
    """Of the data of a recipe, or of a source; status 2 when there are severe problems."""
    from adapt.verbs.doctoring.request import parse as read

    request = read(rest)
    recipe = parse(rest) if request.recipe else None
    config = recipe.data if recipe else source(rest)
    from adapt import hardware

    hardware.guard()
    from adapt.verbs.doctor import look

    return look(config, request, recipe and recipe.model)


def _convert(rest: list[str]) -> Said:
    """Write the data of a recipe, or of a source, in another format."""
    from adapt.verbs.converting.request import parse as read

    request = read(rest)
    config = parse(rest).data if request.recipe else source(rest)
    from adapt.verbs.convert import convert

    converted = convert(config, request)
    print(*converted.sentences(), sep="\n")
    return 0, converted.document()


def _init(rest: list[str]) -> Said:
    """Look at a folder; write a recipe for it."""
    file = next((argument.partition("=")[2] for argument in rest if argument.startswith("write=")), None)
    paths = [argument.removeprefix("data.path=") for argument in rest if not argument.startswith("write=")]
    if len(paths) != 1 or not paths[0]:
        raise UserError("init: which folder? Write adapt init FOLDER, and write=FILE.yaml for another name of the recipe.")
    from adapt.verbs.init import init

    return init(paths[0], file)


def _completion(rest: list[str]) -> Said:
    """A shell's script, or what a line of it may become."""
    from adapt import completion

    what, *line = rest or ["bash"]
    found = completion.words(line[0]) if what == "words" and line else completion.script(what).splitlines()
    print("\n".join(found))
    return 0, {"lines": found}


OWN: dict[str, Callable[[list[str]], Said]] = {
    "completion": _completion,
    "convert": _convert,
    "demo": _demo,
    "doctor": _doctor,
    "init": _init,
    "options": lists.sections,
    "predict": _predict,
    "prompt": _prompt,
    "recipes": lists.recipes,
    "report": _report,
    "runs": lists.folders,
    "shots": _shots,
    "workbench": _workbench,
}
"""Verbs that do not end with a table of numbers."""
