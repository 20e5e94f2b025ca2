"""Pages that are made of the code: recipes and their options from the schema, verbs from their help, examples from the tests; and notebooks.

`recipes.md`, `options/*.md`, `commands.md`, `notebooks/*.md` and copies of files of the repository's root exist only while the site is built. In other pages
`<!-- stranger: methods/scaled.py -->` becomes the file of that name that `tests/contracts/test_stranger.py` writes and goes the road with.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from render_notebooks import pages

from adapt import lists, manual, options
from adapt.plug import SECTIONS, load, names
from adapt.recipe import Recipe, find

ROOT = Path(__file__).parents[1]
STRANGER = ROOT / "tests" / "contracts" / "test_stranger.py"
COPIES = {"measured.md": "BENCHMARKS.md", "changes.md": "CHANGELOG.md", "security.md": "SECURITY.md", "scripts.md": "AGENTS.md"}
"""Page → the file that it is a copy of."""
GLOBAL = ("prompts", "train", "canary")
"""Sections of a recipe that are no plug-ins."""


def on_files(files, config):
    """Add the pages that are made here."""
    made = {page: _copied(ROOT / name) for page, name in COPIES.items()}
    made |= {"recipes.md": "\n".join(_recipes()), "commands.md": "\n".join(_commands())}
    made |= {"options/recipe.md": "\n".join(_recipe())}
    made |= {f"options/{section}.md": "\n".join(_section(section)) for section in SECTIONS}
    made |= {f"notebooks/{name}.md": text for name, text in pages().items()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Put the stranger's files where a page names them."""
    return re.sub(r"<!-- stranger: (\S+) -->", lambda found: _fenced(_stranger(found[1]), "python", found[1]), markdown)


def _copied(path: Path) -> str:
    """A file of the root, its links to other files of the repository as plain words; its pictures lie in docs/."""
    text = path.read_text(encoding="utf-8").replace("](docs/", "](")
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)


@cache
def strangers() -> dict[str, str]:
    """The files that the stranger's test writes, and its recipe as `mine.yaml`: name → text."""
    found = {}
    for node in ast.parse(STRANGER.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found["FILES"] | {"mine.yaml": found["RECIPE"]}


def _stranger(name: str) -> str:
    if name not in strangers():
        raise PluginError(f"{STRANGER.name} has no file {name!r}. Have: {', '.join(strangers())}.")
    return dedent(strangers()[name]).strip()


def _fenced(text: str, language: str, title: str = "") -> str:
    head = f'```{language} title="{title}"' if title else f"```{language}"
    return f"{head}\n{text.rstrip()}\n```"


def _cell(text: str) -> str:
    """Text for a cell of a table; what looks like a tag or a link is shown as it is."""
    return re.sub(r"([<>\[\]*_|])", r"\\\1", text) if "`" not in text else text.replace("|", "\\|")


def _table(found: Iterable[options.Option]) -> Iterator[str]:
    yield from ("", "| option | type and range | default | meaning |", "|---|---|---|---|")
    for option in options.leaves(list(found)):
        kind = ", ".join(filter(None, (option.kind, option.allowed)))
        default = "*required*" if option.default is options.REQUIRED else f"`{options.written(option.default)}`"
        cells = (f"`{option.path}`", _cell(kind), default.replace("|", "\\|"), _cell(option.text))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _recipe() -> Iterator[str]:
    """The recipe's own options."""
    yield "# Options of a recipe"
    yield from ("", "Any option is an override too: `train.epochs=5`. The sections with plug-ins have pages of their own.")
    every = options.options(Recipe)
    plain = [option for option in every if option.name not in SECTIONS and option.name not in GLOBAL]
    yield from _table(plain)
    for name in GLOBAL:
        place, about, found = options.lookup([name])
        yield from ("", f"## {place}", "", about)
        yield from _table(found)


def _section(section: str) -> Iterator[str]:
    """The options of all plug-ins of a section."""
    kind, key, is_list = SECTIONS[section]
    yield from (f"# {section}", "", Recipe.options()[section].description, "")
    written = f"[{{{key}: NAME}}]" if is_list else f"{{{key}: NAME}}"
    yield f"Written `{section}: {written}`; `adapt options {section} NAME` prints the same as here."
    for name in names(kind):
        _, _, found = options.lookup([section, name])
        yield from ("", f"## {name}", "", *_about(load(kind, name).__doc__ or ""))
        yield from _table(found)


def _about(text: str) -> list[str]:
    """A plug-in's own words: paragraphs as they are, indented lines as code."""
    return dedent(text).strip().replace("<", "&lt;").splitlines()


def _recipes() -> Iterator[str]:
    """What `adapt recipes` lists, then each recipe's file."""
    yield "# Recipes"
    yield from (
        "",
        "`adapt recipes` prints this table. Minutes and figures are measured, by the command that stands below the recipe;",
    )
    yield from ("where nothing stands, nobody has measured the recipe as it is.", "")
    yield from ("| recipe | family | method | data | student | minutes | figures |", "|---|---|---|---|---|---|---|")
    found = lists.described()
    for recipe in found:
        minutes = "" if recipe["minutes"] is None else recipe["minutes"]
        link = f"[{recipe['name']}](#{recipe['name'].replace('/', '-')})"
        cells = [link, recipe["model"], recipe["method"], recipe["data"], recipe["student"], minutes, recipe["figures"]]
        yield f"| {' | '.join(map(str, cells))} |"
    for recipe in found:
        name = recipe["name"]
        yield from ("", f"## {name} {{ #{name.replace('/', '-')} }}", "", recipe["about"], "")
        if recipe["measured_by"]:
            took = f"{recipe['minutes']} minutes: " if recipe["minutes"] is not None else ""
            yield f"Measured: {took}{recipe['figures']}. By `{recipe['measured_by']}`, on {recipe['machine']}."
        yield from ("", _fenced(find("recipes", name).read_text(encoding="utf-8"), "yaml"))


def _commands() -> Iterator[str]:
    """What `adapt help` and `adapt help VERB` say."""
    yield from ("# The verbs", "", _fenced(manual.overview(), "text"))
    for verb in manual.PAGES:
        yield from ("", f"## {verb}", "", _fenced(manual.page(verb).removeprefix(f"adapt {verb}: "), "text"))
