"""`adapt VERB key=value …`: the verbs of `pipeline.py` from a shell, with the same overrides as `finetune.py`."""

from __future__ import annotations

import errno
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from adapt.plug import UserError, nearest
from adapt.recipe import Recipe, available, find, load_recipe, read_text, source

VERBS = {
    "prompt": "ask about one picture: adapt prompt recipe=… image=FILE text='segment the red apple'; more: adapt help prompt",
    "evaluate": "measure the model, and its adapted version if there is one",
    "finetune": "adapt the model; measure before and after",
    "distill": "teach a small CNN what the adapted model knows",
    "export": "write the CNN for its device, prove it equal, time it",
    "merge": "join adapter and base into one checkpoint: adapt merge run=… [scale=0.5|sweep] [budget=0.1]",
    "road": "finetune, distill and export, one after the other",
    "report": "write a run's report anew: adapt report run=runs/NAME-HASH",
    "doctor": "describe this machine; adapt doctor data data.path=photos (or recipe=…) looks for bad images",
    "recipes": "list the recipes; adapt recipes NAME prints one with every default",
}
AGAIN = "Run the same command again: it continues where this run stopped"
# a system's refusal → the next step
SURROUNDINGS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"Make room. {AGAIN}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Ask for the right, or work in another folder"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR), "Give another path"),
}
KNOWN = ("data.path", "recipe", "run", "write")
HELP = """adapt VERB recipe=NAME|FILE.yaml [key=value …]     or     adapt VERB run=runs/NAME-HASH [key=value …]

{verbs}

Overrides are paths into the recipe: train.epochs=5, method={{name: full}}, data.source=folder data.path=photos.
Exit status: 0 done, 1 a guard is broken and strict=true, 2 a mistake in the recipe or the data, 130 stopped by Ctrl-C.
ADAPT_DEBUG=1 shows where in the code an error was raised."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    return _told(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def checked(arguments: Sequence[str]) -> int:
    """Is this a recipe, of data that are there? 0, or 2 after saying what is wrong."""

    def check() -> int:
        parse(list(arguments)).data.check_paths()
        return 0

    return _told(check)


def _told(work: Callable[[], int]) -> int:
    """The exit status of `work`; what went wrong is told in one line."""
    try:
        status = work()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        if _first(text := f"\nStopped. {AGAIN}."):
            print(text, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return _mistake(error, str(error))
    except OSError as error:
        if error.errno not in SURROUNDINGS:
            raise
        return _mistake(error, f"{error.filename or 'disk'}: {error.strerror}. {SURROUNDINGS[error.errno]}.")


def _mistake(error: Exception, text: str) -> int:
    if os.environ.get("ADAPT_DEBUG"):
        raise error
    if _first(text):
        print(text, file=sys.stderr)
    return 2


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


def _run(arguments: list[str]) -> int:
    if not arguments or "help" in arguments[:2] or {"-h", "--help"} & set(arguments):
        from adapt.verbs.question import HELP as ASKING

        print(
            ASKING
            if "prompt" in arguments[:2]
            else HELP.format(verbs="\n".join(f"  {verb:<10} {text}" for verb, text in VERBS.items()))
        )
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise UserError(f"There is no verb {verb!r}.{nearest(verb, VERBS)}")
    if verb == "recipes":
        return _recipes(rest)
    if verb == "doctor":
        return _doctor(rest)
    if verb == "report":
        return _report(rest)
    if verb == "prompt":
        return _prompt(rest)
    options = _merging(rest) if verb == "merge" else {}
    recipe = ready(rest)
    from adapt import hardware

    hardware.guard()
    from adapt import pipeline

    outcome = getattr(pipeline, verb)(recipe, **options)
    return show(outcome, recipe)


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


def show(outcome, recipe: Recipe) -> int:
    """Print a verb's table, its guards and the report's place; the exit status follows."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        from adapt.report.table import tell

        tell(outcome.path, outcome.entries, outcome.guards)
    return 1 if recipe.strict and not outcome.ok else 0


def _recipes(rest: list[str]) -> int:
    if rest:
        print(load_recipe(rest[0], rest[1:]).to_yaml(), end="")
        return 0
    for name in available("recipes"):
        first = read_text(find("recipes", name), "recipe").splitlines()[0]
        print(f"{name:<24} {first.lstrip('# ')}")
    return 0


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


def _prompt(rest: list[str]) -> int:
    """Print the answer, and write it."""
    from adapt.verbs.question import parse as questioned

    question, out = questioned(rest)
    recipe = ready(rest)
    from adapt import hardware

    hardware.guard()
    from adapt.pipeline import prompt

    answer = prompt(recipe, question)
    print(*answer.lines, *answer.write(out), sep="\n")
    return 0


def _report(rest: list[str]) -> int:
    given = dict(argument.partition("=")[::2] for argument in rest)
    from adapt.run import Run

    path = Run.from_folder(Path(given["run"])).path if "run" in given else Run.open(parse(rest), writes=False).path
    if path.joinpath("recipe.yaml").is_file() and not path.joinpath("metrics.json").is_file():
        raise UserError(f"run: {str(path)!r} has no numbers yet. First: adapt evaluate run={path}")
    from adapt.pipeline import report

    print(f"Report: {report(path)}")
    return 0


def _doctor(rest: list[str]) -> int:
    from adapt import hardware

    hardware.guard()
    if not rest:
        for name, value in hardware.describe().items():
            print(f"{name:<18} {value}")
        return 0
    if rest[0] != "data":
        raise UserError(f"doctor: {rest[0]!r} is unknown. Write `adapt doctor`, or `adapt doctor data data.path=FOLDER`.")
    return _doctor_data(rest[1:])


def _doctor_data(rest: list[str]) -> int:
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


if __name__ == "__main__":
    raise SystemExit(main())
