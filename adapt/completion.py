"""Completion for bash and zsh: verbs, recipes, runs, options and their values, from the schema.

    source <(adapt completion bash)      # in ~/.bashrc; zsh: the same with zsh in ~/.zshrc, behind compinit

A shell hands over its line up to the cursor; `words` says what its last word may become.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from adapt import options
from adapt.manual import PAGES, REQUESTS, request
from adapt.plug import SECTIONS, UserError, names, nearest
from adapt.recipe import available, load_recipe

SHELLS = {
    "bash": """_adapt() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$'\\n'
    COMPREPLY=($(adapt completion words "$line" 2>/dev/null))
    local word=${line##* }
    # bash takes = and : for the ends of words: what stands before the last one is there already
    case $word in *[=:]*) COMPREPLY=("${COMPREPLY[@]#"${word%[=:]*}"[=:]}") ;; esac
    case ${COMPREPLY[0]} in *[=./]) compopt -o nospace ;; esac
}
complete -F _adapt adapt
""",
    "zsh": """_adapt() {
    local -a found
    found=(${(f)"$(adapt completion words "${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
    compadd -Q -S '' -- $found
}
compdef _adapt adapt
""",
}
"""Shell → what it reads."""
OWN = {
    "doctor": ("suite",),
    "finetune": ("extend",),
    "init": ("write",),
    "merge": ("scale", "keep"),
    "recipes": ("plain",),
    "runs": ("yes",),
}
"""Verb → what it takes beside the recipe's options, and beside what its module of `REQUESTS` names."""
EVERYWHERE = ("--json", "plugins=")
"""What every verb takes."""
FIRST = {"doctor": ("data",), "runs": ("list", "compare", "remove"), "completion": tuple(SHELLS)}
"""Verb → its first words."""
CHOICES = {
    "by": ("adapted", "student", "zero-shot"),
    "scale": ("sweep",),
    **dict.fromkeys(("all", "base_to_new", "noise", "overwrite", "plain", "stop", "yes"), ("true", "false")),
}
"""What a verb takes beside the recipe's options → words for it."""
PLACES = ("auth", "example", "file", "image", "images", "mask", "out", "sheet", "space", "splits", "write")
"""The same that are files or folders; of the rest, such as numbers, nothing is offered."""
TYPES = ("int", "float", "text", "section")
"""In the kind of an option: what is no value itself."""
WORKS_ON_RECIPES = tuple(verb for verb in PAGES if verb not in ("init", "runs", "recipes", "options", "completion"))


def script(shell: str) -> str:
    """What a shell reads to complete `adapt`.

    Raises:
        UserError: of another shell nothing is known.
    """
    if shell not in SHELLS:
        raise UserError(f"completion: there is none for {shell!r}.{nearest(shell, SHELLS)}")
    return SHELLS[shell]


def words(line: str) -> list[str]:
    """What the last word of a line may become, whole, sorted; a word that ends in `=`, `.` or `/` goes on."""
    before, current = line.split()[1:], ""
    if before and not line[-1].isspace():
        before, current = before[:-1], before[-1]
    if not before:
        return _fitting(PAGES, current)
    verb, *given = before
    if "=" in current:
        key, _, value = current.partition("=")
        return [f"{key}={found}" for found in _values(verb, key, value, given)]
    places = _files(current) if verb == "init" else []
    return _fitting(_names(verb, given), current) + places


def own(verb: str) -> list[str]:
    """What a verb takes beside the recipe's options."""
    return [*(request(verb).OWN if verb in REQUESTS else ()), *OWN.get(verb, ())]


def _fitting(have: Iterable[str], start: str) -> list[str]:
    """Those that begin so, each once, as far as their next dot."""
    found = set()
    for name in have:
        if name.startswith(start):
            head, dot, _ = name[len(start) :].partition(".")
            found.add(name if name.endswith(".yaml") else start + head + dot)
    return sorted(found)


def _names(verb: str, given: Sequence[str]) -> list[str]:
    """Words without a value, and keys."""
    found = [*_words(verb, given), *(f"{key}=" for key in own(verb)), *EVERYWHERE]
    if verb in WORKS_ON_RECIPES:
        found += ["recipe=", "run=", *(f"{path}=" for path, _ in _options(verb, given))]
    return [name for name in found if name not in given]


def _words(verb: str, given: Sequence[str]) -> Iterable[str]:
    """Words without a value."""
    if verb == "help":
        return PAGES
    if verb == "options":
        return names(SECTIONS[given[0]][0]) if given and given[0] in SECTIONS else [name for name, *_ in options.overview()]
    if verb == "recipes":
        return [] if given else available("recipes")
    if verb == "runs" and given:
        return [place.rstrip("/").removeprefix("runs/") for place in _files("runs/", folders=True)]
    return FIRST.get(verb, ())


def _options(verb: str, given: Sequence[str]) -> list[tuple[str, options.Option | None]]:
    """Path and option of everything that can be set in the recipe that the line names; without one, of what every recipe has."""
    said = dict(word.partition("=")[::2] for word in given if "=" in word)
    others = ("recipe", "run", "plugins", *own(verb))
    place = said.get("recipe") or (f"{said['run']}/recipe.yaml" if said.get("run") else "")
    recipe: Any = None
    with suppress(UserError):
        recipe = place and load_recipe(place, [f"{key}={value}" for key, value in said.items() if key not in others])
    found: list[tuple[str, options.Option | None]] = []
    for section in options.options(options.Recipe):
        value = recipe and recipe.values()[section.name]
        several = value if isinstance(value, list) and section.name in SECTIONS else [value]
        for number, one in enumerate(several):
            path = f"{section.name}.{number}" if several is value else section.name
            if section.name in SECTIONS:
                key = SECTIONS[section.name][1]
                inside = options.leaves(options.options(type(one), None, path)) if one else []
                found += [(f"{path}.{key}", None), *((each.path, each) for each in inside if each.name != key)]
            else:
                found += [(each.path, each) for each in options.leaves([section])]
    return found


def _values(verb: str, key: str, value: str, given: Sequence[str]) -> list[str]:
    if key == "recipe":
        return _fitting(available("recipes"), value) or _files(value, ".yaml")
    if key in ("suite", "canary"):
        return _fitting(available("suites"), value) or _files(value, ".yaml")
    if key == "run":
        return _files(value or "runs/", folders=True)
    if key == "checkpoint":
        from adapt.models.checkpoint import embedded

        return _fitting(embedded(), value) or _files(value)
    if key == "methods":
        before, comma, last = value.rpartition(",")
        return [f"{before}{comma}{name}" for name in _fitting(["zero-shot", *names("methods")], last)]
    if key in own(verb):
        choices = request(verb).FORMATS if key == "to" else CHOICES.get(key, ())
        return _files(value) if key in PLACES else _fitting(choices, value)
    section, _, last = key.partition(".")
    if section in SECTIONS and last.rpartition(".")[2] == SECTIONS[section][1]:
        return _fitting(names(SECTIONS[section][0]), value)
    if key == "prompts.templates" or key == "prompts.classes":
        return _fitting(available("prompts"), value)
    option = dict(_options(verb, given)).get(key)
    kinds = re.split(r" \| | or ", option.kind) if option else ["text"]
    choices = [each for each in kinds if each not in TYPES and " " not in each]
    return _files(value) if "text" in kinds and set(choices) <= {"null"} else _fitting(choices, value)


def _files(start: str, ending: str = "", folders: bool = False) -> list[str]:
    """Paths that begin so; a folder's ends in a slash."""
    head, _, tail = start.rpartition("/")
    place = Path(head or ("/" if start.startswith("/") else ".")).expanduser()
    found = []
    with suppress(OSError):
        for path in place.iterdir():
            if not path.name.startswith(tail) or (path.name.startswith(".") and not tail):
                continue
            if path.is_dir() or (not folders and path.name.endswith(ending)):
                found.append(f"{head}/{path.name}" if "/" in start else path.name)
                found[-1] += "/" if path.is_dir() else ""
    return sorted(found)
