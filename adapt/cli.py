"""`adapt VERB key=value …`: the verbs of `pipeline.py` from a shell, with the same overrides as `finetune.py`."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from adapt.commands import OWN, first, options, parse, ready, requested
from adapt.lists import Said
from adapt.manual import PAGES, overview, page
from adapt.plug import UserError, nearest
from adapt.recipe import Recipe

VERBS = tuple(PAGES)
ALONE = (
    "completion",
    "convert",
    "demo",
    "init",
    "merge",
    "prompt",
    "report",
    "runs",
    "recipes",
    "options",
    "doctor",
    "shots",
    "workbench",
    "help",
)
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
            requested(given)
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
    if not first(text):
        return status, {}
    print(start + text, file=sys.stderr)
    return status, {"error": {"message": text, "problems": text.splitlines()}}


def _run(arguments: list[str]) -> Said:
    if not arguments or "help" in arguments[:2] or {"-h", "--help"} & set(arguments):
        return _help([argument for argument in arguments if argument not in ("help", "-h", "--help")][:1])
    verb, *rest = arguments
    if verb not in VERBS:
        raise UserError(f"There is no verb {verb!r}.{nearest(verb, VERBS)}")
    if verb in OWN:
        return OWN[verb](rest)
    own = options(verb, rest)
    recipe = ready(rest)
    from adapt import hardware

    hardware.guard()
    from adapt import pipeline

    outcome = getattr(pipeline, verb)(recipe, **own)
    return show(outcome, recipe)


def _help(verbs: list[str]) -> Said:
    if verbs and verbs[0] not in VERBS:
        raise UserError(f"help: there is no verb {verbs[0]!r}.{nearest(verbs[0], VERBS)}")
    text = page(verbs[0]) if verbs else overview()
    print(text)
    return 0, {"help": text}


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


if __name__ == "__main__":
    raise SystemExit(main())
