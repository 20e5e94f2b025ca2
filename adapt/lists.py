"""What can be looked up from a shell: recipes, options, runs; printed to fit a terminal, returned for --json."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from adapt import options
from adapt.options import written
from adapt.overrides import parse_yaml
from adapt.plug import UserError, counted, nearest
from adapt.recipe import available, find, load_recipe, read_text
from adapt.verbs import runs

Said = tuple[int, dict[str, Any]]
"""Exit status, and what a verb did, for --json."""


def recipes(rest: list[str]) -> Said:
    """`adapt recipes`: all of them, or one with its options, after overrides."""
    if not rest:
        found = described()
        if sys.stdout.isatty():
            _dimmed([line for recipe in [HEAD, *found] for line in _row(recipe)], "    ")
        else:
            print(*(_line(recipe) for recipe in found), sep="\n")
        return 0, {"recipes": found}
    plain = _switch(rest, "plain")
    recipe = load_recipe(rest[0], rest[1:])
    if plain or not sys.stdout.isatty():
        print(recipe.to_yaml() if plain else options.annotated(recipe), end="")
    else:
        _dimmed(options.annotated(recipe, _width()).splitlines(), "#")
    return 0, {"recipe": recipe.model_dump(mode="json"), "notes": recipe.notes}


COLUMNS = {"name": 25, "model": 11, "method": 12, "data": 13, "student": 10}
"""Of the table of recipes: what stands there, and how many characters it has."""
HEAD = {"name": "recipe", "model": "family", "method": "method", "data": "data", "student": "student", "minutes": "min"}
"""Its first line."""


def described() -> list[dict[str, Any]]:
    """Each recipe in words: what it adapts, how, on which data, what it teaches and shows; minutes and figures, where they were measured.

    The figures are those of `published/recipes.yaml`, with the command and the machine that they are of.
    """
    place = find("published", "recipes")
    measured = parse_yaml(read_text(place, "published"), str(place))
    found = []
    for name in available("recipes"):
        text = read_text(find("recipes", name), "recipe")
        raw, known = parse_yaml(text, name), measured["recipes"].get(name, {})
        parts = {"model": raw["model"]["name"], "method": raw["method"]["name"], "data": raw["data"]["source"]}
        parts |= {"student": (raw.get("distill") or {}).get("student", ""), "about": text.splitlines()[0].lstrip("# ")}
        parts |= {"minutes": round(known["seconds"] / 60, 1) if "seconds" in known else None}
        parts |= {"figures": known.get("figures", ""), "measured_by": known.get("command", "")}
        found.append({"name": name} | parts | {"machine": known.get("machine", measured["machine"]) if known else ""})
    return found


def _row(recipe: dict[str, Any]) -> list[str]:
    """A recipe in the table of a terminal: its columns, then what it shows and what it reached."""
    minutes = "" if recipe["minutes"] is None else str(recipe["minutes"])
    lines = ["".join(recipe[name].ljust(width) for name, width in COLUMNS.items()) + minutes.rjust(4)]
    for text in filter(None, (recipe.get("about"), recipe.get("figures"))):
        lines += textwrap.wrap(text, _width(), initial_indent="    ", subsequent_indent="    ")
    return lines


def _line(recipe: dict[str, Any]) -> str:
    """A recipe in a line, for a file."""
    student = f" → {recipe['student']}" if recipe["student"] else ""
    measured = "; ".join(filter(None, (recipe["minutes"] and f"{recipe['minutes']} min", recipe["figures"])))
    line = f"{recipe['name']:<24} {recipe['model']} + {recipe['method']} on {recipe['data']}{student}: {recipe['about']}"
    return f"{line} [{measured}]" if measured else line


def _first_lines(kind: Literal["recipes", "prompts"]) -> dict[str, str]:
    """Each file of a kind with its first comment, which says what it is."""
    return {name: read_text(find(kind, name), kind).splitlines()[0].lstrip("# ") for name in available(kind)}


def sections(rest: list[str]) -> Said:
    """`adapt options`: all sections and plug-ins, or the options of one."""
    if not rest:
        found = options.overview()
        for name, text, plugins in found:
            print(textwrap.fill(f"{name:<9} {text}", _width(), subsequent_indent=" " * 10))
            for plugin, about in plugins:
                print(textwrap.fill(f"  {plugin:<12} {about}", _width(), subsequent_indent=" " * 15))
        print("\nadapt options SECTION [PLUG-IN] explains their options:")
        print("  adapt options train\n  adapt options distill logits")
        named = [(name, text, [{"name": plugin, "text": about} for plugin, about in plugins]) for name, text, plugins in found]
        return 0, {"sections": [{"name": name, "text": text, "plugins": plugins} for name, text, plugins in named]}
    place, about, found = options.lookup(rest)
    head = [*textwrap.wrap(f"{place}: {about}", _width()), ""] if about else []
    lines = [*head, *options.listed(found, _width())]
    sets = word_lists() if place == "prompts" else []
    if sets:
        lines += ["", "Lists of words, for prompts.templates and, where they have class names, prompts.classes:"]
    for found_list in sets:
        parts = [counted(found_list["templates"], "template")] + (
            [f"{found_list['classes']:,} classes"] if found_list["classes"] else []
        )
        line = f"{found_list['name']:<36} {found_list['about']}: {', '.join(parts)}"
        lines += textwrap.wrap(line, _width(), subsequent_indent=" " * 37, break_on_hyphens=False)
    if sys.stdout.isatty():
        _dimmed(lines, "    ")
    else:
        print("\n".join(lines))
    document = {"section": place, "text": about, "options": [option.document() for option in options.leaves(found)]}
    return 0, document | ({"lists": sets} if sets else {})


def word_lists() -> list[dict[str, Any]]:
    """The files of `prompts/`: name, what they are for, how many templates and classes they have."""
    found = []
    for name, first in _first_lines("prompts").items():
        path = find("prompts", name)
        content = parse_yaml(read_text(path, "prompts"), str(path))
        counts = {key: len(content.get(key, ())) for key in ("templates", "classes")}
        found.append({"name": name, "about": first.partition(":")[0], **counts})
    return found


def folders(rest: list[str]) -> Said:
    """`adapt runs`: list them, compare NAMES (also without the word), or remove NAMES."""
    what, *names = rest or ["list"]
    known = ("list", "compare", "remove")
    if what not in known and runs.is_run(what):
        what, names = "compare", rest
    if what not in known:
        raise UserError(f"runs: there is no {what!r}.{nearest(what, known)}")
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


def _compared(found: runs.Comparison) -> Said:
    rows = [[path, *(v if v == "not set" else written(v) for v in values)] for path, values in found.options.items()]
    if rows:
        _grid(["option", *found.runs], rows)
    else:
        print("They do not differ in any option.")
    print()
    _grid(["number", *found.runs], _numbers(found))
    for note in found.notes:
        print(note)
    numbers = {name: [entry and entry.model_dump(mode="json") for entry in row] for name, row in found.numbers.items()}
    differences = {name: [one and asdict(one) for one in row] for name, row in found.differences.items()}
    document = {"runs": found.runs, "options": found.options, "numbers": numbers, "differences": differences}
    return 0, document | {"notes": found.notes}


def _numbers(found: runs.Comparison) -> list[list[str]]:
    """A row a number; below those of the second run and others, the difference from the first's."""
    rows = []
    for name, row in found.numbers.items():
        gaps = ["", *(runs.gap(one, row[0]) for one in found.differences[name])]
        rows.append([name, *("\n".join(filter(None, (runs.cell(entry), gap))) for entry, gap in zip(row, gaps, strict=True))])
    return rows


# -------------------------------------------------------------------------------------------------------------- terminal


def _width() -> int:
    """Columns of the terminal, at most 100; 80 when it is none."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def _dimmed(lines: Iterable[str], start: str) -> None:
    """Print lines to a terminal, dim where they begin like this; below the margin too, if it is a word."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        found = line if start.isspace() else line.lstrip()
        console.print(line, style="dim" if found.startswith(start) else "", markup=False)


def _switch(rest: list[str], name: str) -> bool:
    """Take NAME=true or NAME=false out of the arguments."""
    for argument in [argument for argument in rest if argument.startswith(f"{name}=")]:
        rest.remove(argument)
        if argument not in (f"{name}=true", f"{name}=false"):
            raise UserError(f"{name}: {argument.partition('=')[2]!r} is not true or false. Write {name}=true.")
        return argument.endswith("true")
    return False


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
