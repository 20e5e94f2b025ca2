"""`adapt VERB key=value …`: the verbs of `pipeline.py` from a shell, with the same overrides as `finetune.py`."""

from __future__ import annotations

import errno
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import lists
from adapt.lists import Said
from adapt.manual import PAGES, overview, page
from adapt.plug import UserError, nearest
from adapt.recipe import Recipe, available, load_recipe, source

if TYPE_CHECKING:
    from adapt.verbs.predicting.request import Request

VERBS = tuple(PAGES)
ALONE = ("convert", "init", "merge", "prompt", "report", "runs", "recipes", "options", "doctor", "help")
"""What one process does, whatever the number that a launcher started."""
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""How a launcher tells a process that it has others beside it."""
AGAIN = "Run the same command again: it continues where this run stopped"
# a system's refusal → the next step
SURROUNDINGS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"Make room. {AGAIN}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Get the right to write there, or work in another folder"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR), "Give another path"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    given = _with_plugins(sys.argv[1:] if argv is None else argv)
    arguments = [argument for argument in given if argument != "--json"]
    verb = arguments[0] if arguments else "help"
    if verb not in ALONE:
        return _told(lambda: _run(arguments), verb, "--json" in given)
    if os.environ.get("RANK", "0") != "0":
        return 0
    with _alone():
        return _told(lambda: _run(arguments), verb, "--json" in given)


def _with_plugins(arguments: Sequence[str]) -> list[str]:
    """Take `plugins=FOLDER` out of the arguments: its plug-ins are known from now on, as with ADAPT_PLUGINS."""
    for folder in [argument.partition("=")[2] for argument in arguments if argument.startswith("plugins=")]:
        os.environ["ADAPT_PLUGINS"] = folder
    return [argument for argument in arguments if not argument.startswith("plugins=")]


def checked(arguments: Sequence[str]) -> int:
    """A verb and what it is given: is this a recipe, of data that are there? 0, or 2 after saying what is wrong."""
    verb, *rest = _with_plugins(arguments)

    def check() -> Said:
        if verb not in VERBS:
            raise UserError(f"There is no verb {verb!r}.{nearest(verb, VERBS)}")
        given = [argument for argument in rest if argument != "--json"]
        if verb == "predict":
            _requested(given)
        else:
            parse(given).data.check_paths()
        return 0, {}

    return _told(check, verb, "--json" in rest)


@contextmanager
def _alone() -> Iterator[None]:
    """A process that knows nothing of the others that a launcher started."""
    others = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(others)


def _told(work: Callable[[], Said], verb: str, as_json: bool) -> int:
    """The exit status of `work`; what went wrong is told in one line.

    With `as_json`, what `work` did is one document on standard output, and all that is printed goes to standard error.
    """
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            status, document = _attempted(work)
        if as_json and document and ("error" in document or os.environ.get("RANK", "0") == "0"):
            print(dumped({"verb": verb, "status": status} | document))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _attempted(work: Callable[[], Said]) -> Said:
    try:
        return work()
    except KeyboardInterrupt:
        return _stopped(130, f"Stopped. {AGAIN}.", "\n")
    except BrokenPipeError:
        raise
    except UserError as error:
        return _mistake(error, str(error))
    except OSError as error:
        if error.errno not in SURROUNDINGS:
            raise
        return _mistake(error, f"{error.filename or 'disk'}: {error.strerror}. {SURROUNDINGS[error.errno]}.")


def dumped(document: dict[str, Any]) -> str:
    """JSON that every reader takes: NaN and infinity are null."""
    text = json.dumps(document, default=str)
    return json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)


def _mistake(error: Exception, text: str) -> Said:
    if os.environ.get("ADAPT_DEBUG"):
        raise error
    return _stopped(2, text)


def _stopped(status: int, text: str, start: str = "") -> Said:
    if not _first(text):
        return status, {}
    print(start + text, file=sys.stderr)
    return status, {"error": {"message": text, "problems": text.splitlines()}}


def _first(text: str) -> bool:
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


def _run(arguments: list[str]) -> Said:
    if not arguments or "help" in arguments[:2] or {"-h", "--help"} & set(arguments):
        return _help([argument for argument in arguments if argument not in ("help", "-h", "--help")][:1])
    verb, *rest = arguments
    if verb not in VERBS:
        raise UserError(f"There is no verb {verb!r}.{nearest(verb, VERBS)}")
    if verb in OWN:
        return OWN[verb](rest)
    options = _options(verb, rest)
    recipe = ready(rest)
    from adapt import hardware

    hardware.guard()
    from adapt import pipeline

    outcome = getattr(pipeline, verb)(recipe, **options)
    return show(outcome, recipe)


def _help(verbs: list[str]) -> Said:
    if verbs and verbs[0] not in VERBS:
        raise UserError(f"help: there is no verb {verbs[0]!r}.{nearest(verbs[0], VERBS)}")
    text = page(verbs[0]) if verbs else overview()
    print(text)
    return 0, {"help": text}


def parse(arguments: list[str]) -> Recipe:
    """`recipe=…` or `run=…`, and overrides → the recipe.

    Raises:
        UserError: neither is given, the recipe is wrong, or the run folder is another recipe's.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    overrides = [argument for argument in arguments if not argument.startswith(("recipe=", "run="))]
    if given.get("run"):
        from adapt.run import Run

        path = Run.from_folder(Path(given["run"])).path
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
    """`parse`, for a verb that begins: the data are there, and what other data change is said."""
    recipe = parse(arguments)
    recipe.data.check_paths()
    for note in recipe.notes:
        if _first(note):
            print(note)
    return recipe


def _of_this_version(path: Path) -> None:
    """A run's own recipe must read as it is."""
    try:
        load_recipe(path / "recipe.yaml")
    except UserError as error:
        first, *more = str(error).splitlines()
        others = f" (and {len(more)} more)" if more else ""
        raise UserError(
            f"run: {str(path)!r} is of another version of Adapt: {first.rstrip('.')}{others}. Begin a new run with recipe=…; the "
            "report in the folder still opens."
        ) from None


def show(outcome, recipe: Recipe) -> Said:
    """Print a verb's table, its guards and the report's place; the exit status follows."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        from adapt.report.table import tell

        tell(outcome.path, outcome.entries, outcome.guards)
    page = outcome.path / "report.html"
    document = {"run": str(outcome.path), "entries": outcome.entries, "guards": outcome.guards, "ok": outcome.ok}
    document |= {"report": str(page) if page.exists() else None, "notes": recipe.notes}
    return 1 if recipe.strict and not outcome.ok else 0, document


def _options(verb: str, rest: list[str]) -> dict[str, Any]:
    """Take a verb's own options out of its arguments: `scale=` and `keep=` of merge, `extend=` of finetune.

    Raises:
        UserError: a value is not what the option takes.
    """
    options: dict[str, Any] = {}
    for argument in list(rest):
        name, _, text = argument.partition("=")
        if (verb, name) == ("merge", "budget"):
            raise UserError("budget: of merge it is called keep now: keep=0.9 keeps 90 % of what zero-shot had right.")
        if name in TAKES.get(verb, {}):
            read, words = TAKES[verb][name]
            try:
                options[name] = read(text)
            except ValueError:
                raise UserError(f"{name}: {text!r} is not {words}.") from None
            rest.remove(argument)
    return options


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
    from adapt.verbs.question import files
    from adapt.verbs.question import parse as questioned

    question, out = questioned(rest)
    recipe = ready(rest)
    from adapt import hardware

    hardware.guard()
    from adapt.pipeline import prompt

    answer = prompt(recipe, question)
    print(*answer.lines, *answer.write(out), sep="\n")
    return 0, {"answer": answer.found, "lines": answer.lines, "files": [str(path) for path in files(out) if path.exists()]}


def _requested(rest: list[str]) -> tuple[Recipe | None, Request]:
    """What `predict` is asked, and the recipe whose run answers; none: an exported file."""
    from adapt.verbs.predicting.request import parse as requested

    request = requested(rest)
    return None if request.file else parse(rest), request


def _predict(rest: list[str]) -> Said:
    """Answer for pictures, and say where the answers lie."""
    recipe, request = _requested(rest)
    from adapt import hardware

    hardware.guard()
    from accelerate import PartialState

    from adapt.pipeline import predict
    from adapt.verbs.predict import sentences

    answered = predict(recipe, request)
    if PartialState().is_main_process:
        print(*sentences(answered), sep="\n")
    return 0, answered.document()


def _report(rest: list[str]) -> Said:
    given = dict(argument.partition("=")[::2] for argument in rest)
    from adapt.run import Run

    path = Run.from_folder(Path(given["run"])).path if "run" in given else Run.open(parse(rest), writes=False).path
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
    if rest[0] != "data":
        raise UserError(f"doctor: {rest[0]!r} is unknown. Write `adapt doctor`, or `adapt doctor data data.path=FOLDER`.")
    return _doctor_data(rest[1:])


def _doctor_data(rest: list[str]) -> Said:
    """Of the data of a recipe, or of a source; status 2 when there are severe problems."""
    from adapt.verbs.doctoring.request import parse as requested

    request = requested(rest)
    recipe = parse(rest) if request.recipe else None
    config = recipe.data if recipe else source(rest)
    from adapt import hardware

    hardware.guard()
    from adapt.verbs.doctor import look

    return look(config, request, recipe and recipe.model)


def _convert(rest: list[str]) -> Said:
    """Write the data of a recipe, or of a source, in another format."""
    from adapt.verbs.converting.request import parse as requested

    request = requested(rest)
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


OWN: dict[str, Callable[[list[str]], Said]] = {
    "convert": _convert,
    "doctor": _doctor,
    "init": _init,
    "options": lists.sections,
    "predict": _predict,
    "prompt": _prompt,
    "recipes": lists.recipes,
    "report": _report,
    "runs": lists.folders,
}
"""Verbs that do not end with a table of numbers."""


if __name__ == "__main__":
    raise SystemExit(main())
