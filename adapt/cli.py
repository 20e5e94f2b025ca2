"""`adapt VERB key=value …`: the verbs of `pipeline.py` from a shell, with the same overrides as `finetune.py`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from adapt.manual import PAGES, overview, page
from adapt.plug import UserError, nearest
from adapt.recipe import Recipe, available, find, load_recipe, read_text, source

VERBS = tuple(PAGES)
ALONE = ("merge", "prompt", "report", "runs", "recipes", "options", "doctor", "help")
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
KNOWN = ("data.path", "recipe", "run", "write")
Said = tuple[int, dict[str, Any]]
"""Exit status, and what the verb did, for --json."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = [argument for argument in given if argument != "--json"]
    verb = arguments[0] if arguments else "help"
    if verb not in ALONE:
        return _told(lambda: _run(arguments), verb, "--json" in given)
    if os.environ.get("RANK", "0") != "0":
        return 0
    alone = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    with _environment(alone):
        return _told(lambda: _run(arguments), verb, "--json" in given)


def checked(arguments: Sequence[str]) -> int:
    """Is this a recipe, of data that are there? 0, or 2 after saying what is wrong."""

    def check() -> Said:
        parse([argument for argument in arguments if argument != "--json"]).data.check_paths()
        return 0, {}

    return _told(check, "", "--json" in arguments, done=False)


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in before.keys() - wanted.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _told(work: Callable[[], Said], verb: str, as_json: bool = False, done: bool = True) -> int:
    """The exit status of `work`; what went wrong is told in one line. With `as_json`, standard output gets one document and
    nothing else; `done`: also when all went well."""
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            status, document = _attempted(work)
        if as_json and ("error" in document or (done and os.environ.get("RANK", "0") == "0" and document)):
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
    options = _merging(rest) if verb == "merge" else {}
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


def _recipes(rest: list[str]) -> Said:
    if not rest:
        names = available("recipes")
        about = {name: read_text(find("recipes", name), "recipe").splitlines()[0].lstrip("# ") for name in names}
        for name, first in about.items():
            line = f"{name:<24} {first}"
            print(textwrap.fill(line, _width(), subsequent_indent=" " * 25) if sys.stdout.isatty() else line)
        return 0, {"recipes": [{"name": name, "about": first} for name, first in about.items()]}
    from adapt import options

    plain = _switch(rest, "plain")
    recipe = load_recipe(rest[0], rest[1:])
    if plain or not sys.stdout.isatty():
        print(recipe.to_yaml() if plain else options.annotated(recipe), end="")
    else:
        _dimmed(options.annotated(recipe, _width()).splitlines(), "#")
    return 0, {"recipe": recipe.model_dump(mode="json"), "notes": recipe.notes}


def _options(rest: list[str]) -> Said:
    from adapt import options

    if not rest:
        found = options.overview()
        for name, text, plugins in found:
            print(textwrap.fill(f"{name:<9} {text}", _width(), subsequent_indent=" " * 10))
            for plugin, about in plugins:
                print(textwrap.fill(f"  {plugin:<12} {about}", _width(), subsequent_indent=" " * 15))
        print("\nadapt options SECTION [PLUG-IN] explains their options:")
        print("  adapt options train\n  adapt options distill logits")
        return 0, {
            "sections": [{"name": n, "text": t, "plugins": [dict(zip(("name", "text"), p)) for p in ps]} for n, t, ps in found]
        }
    place, about, found = options.lookup(rest)
    head = [*textwrap.wrap(f"{place}: {about}", _width()), ""] if about else []
    lines = [*head, *options.listed(found, _width())]
    if sys.stdout.isatty():
        _dimmed(lines, "    ")
    else:
        print("\n".join(lines))
    return 0, {"section": place, "text": about, "options": [option.document() for option in options.leaves(found)]}


def _width() -> int:
    """Columns of the terminal, at most 100; 80 when it is none."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def _dimmed(lines: Iterable[str], start: str) -> None:
    """Print lines to a terminal, dim where they begin like this."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        comment = line.startswith(start) or line.lstrip().startswith(start)
        console.print(line, style="dim" if comment else "bold" if start != "#" else "", markup=False)


def _switch(rest: list[str], name: str) -> bool:
    """Take NAME=true or NAME=false out of the arguments."""
    for argument in [argument for argument in rest if argument.startswith(f"{name}=")]:
        rest.remove(argument)
        if argument not in (f"{name}=true", f"{name}=false"):
            raise UserError(f"{name}: {argument.partition('=')[2]!r} is not true or false. Write {name}=true.")
        return argument.endswith("true")
    return False


def _runs(rest: list[str]) -> Said:
    from adapt.verbs import runs

    what, *names = rest or ["list"]
    if what not in ("list", "compare", "remove"):
        raise UserError(f"runs: there is no {what!r}.{nearest(what, ('list', 'compare', 'remove'))}")
    if what == "compare":
        return _compared(runs.compare(names))
    if what == "remove":
        agreed = _switch(names, "yes")
        if not agreed and names and not sys.stdin.isatty():
            raise UserError("runs: nobody is here to ask. Write yes=true to remove without a question.")
        freed = runs.remove(names, agreed)
        print(f"Removed; {runs.size(freed)} are free again." if freed else "Nothing was removed.")
        return 0, {"removed": names if freed else [], "freed_bytes": freed}
    found = runs.found()
    if found:
        _grid(*runs.table(found), whole=("run", "size", "age"))
    else:
        print("There are no runs in runs/ yet. Begin one with: adapt finetune recipe=clip_lora")
    return 0, {"runs": [kept.document() for kept in found]}


def _compared(found) -> Said:
    from adapt.options import written
    from adapt.verbs import runs

    rows = [[path, *(v if v == "not set" else written(v) for v in values)] for path, values in found.options.items()]
    if rows:
        _grid(["option", *found.runs], rows)
    else:
        print("They do not differ in any option.")
    print()
    _grid(["number", *found.runs], [[name, *map(runs.cell, row)] for name, row in found.numbers.items()])
    for note in found.notes:
        print(note)
    numbers = {name: [entry and entry.model_dump(mode="json") for entry in row] for name, row in found.numbers.items()}
    return 0, {"runs": found.runs, "options": found.options, "numbers": numbers, "notes": found.notes}


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], whole: Sequence[str] = ()) -> None:
    """Print a table; the columns in `whole` are not broken into lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        table.add_column(Text(name), overflow="fold", no_wrap=name in whole)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 80).print(table)


def _merging(rest: list[str]) -> dict[str, float | str]:
    """Take `scale=` and `budget=` out of the arguments of `adapt merge`."""
    options: dict[str, float | str] = {}
    for argument in [argument for argument in rest if argument.startswith(("scale=", "budget="))]:
        rest.remove(argument)
        name, _, text = argument.partition("=")
        try:
            value = "sweep" if (name, text) == ("scale", "sweep") else float(text)
        except ValueError:
            value = -1.0
        if value != "sweep" and not 0 <= value <= 1:
            raise UserError(f"{name}: {text!r} is not a number from 0 to 1{', or the word sweep' if name == 'scale' else ''}.")
        options[name] = value
    return options


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
    from adapt import hardware

    hardware.guard()
    if not rest:
        machine = hardware.describe()
        for name, value in machine.items():
            print(f"{name:<18} {value}")
        return 0, {"machine": machine}
    if rest[0] != "data":
        raise UserError(f"doctor: {rest[0]!r} is unknown. Write `adapt doctor`, or `adapt doctor data data.path=FOLDER`.")
    return _doctor_data(rest[1:])


def _doctor_data(rest: list[str]) -> Said:
    """Options of `data`, or a recipe with overrides; `write=FILE` keeps the whole list. Status 2 when there are severe problems."""
    given = dict(argument.partition("=")[::2] for argument in rest)
    options = [argument for argument in rest if not argument.startswith("write=")]
    if "recipe" in given or "run" in given:
        config = parse(options).data
    elif not given.keys() & {"data", "data.path"}:
        raise UserError("doctor data: which pictures? Write data.path=FOLDER, or recipe=NAME.")
    elif unknown := sorted(name for name in given if name != "write" and name.split(".")[0] != "data"):
        raise UserError(f"doctor data: {unknown[0]!r} is unknown without recipe=.{nearest(unknown[0], KNOWN)}")
    else:
        config = source(options)
    from adapt.verbs.doctor import look

    return look(config, given.get("write"))


OWN: dict[str, Callable[[list[str]], Said]] = {
    "doctor": _doctor,
    "options": _options,
    "prompt": _prompt,
    "recipes": _recipes,
    "report": _report,
    "runs": _runs,
}
"""Verbs that do not end with a table of numbers."""


if __name__ == "__main__":
    raise SystemExit(main())
