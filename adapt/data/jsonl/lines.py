"""Lines of questions and answers: what a good one holds, and what is wrong with a bad one."""

from __future__ import annotations

import json
import re
from pathlib import Path

from adapt.data.jsonl import referring
from adapt.data.places import located
from adapt.data.problems import Bad, Problem
from adapt.data.scan import Finding
from adapt.plug import UserError
from adapt.prompting.tasks import SEPARATOR, named
from adapt.prompting.tokens import LOCATIONS, parse

LOCATION = re.compile(r"<loc[^>]*>?")
RUN = re.compile(r"(?:<loc[^>]*>?)+")
NEXT = re.compile(r";|(?<=[^>;\s])\s*(?=<loc)")
"""Between two objects of an answer: a semicolon, or the locations that follow a name."""


def read(file: Path, split: str, root: Path) -> tuple[list[dict], list[Problem]]:
    """The lines of a file that can be used, pictures not looked at, and what is wrong with the others.

    Returns:
        Lines with id, number, image (a path below `root`), prefix, suffix, answers, found (locations and name of each object in the
        answer to a question `detect …`; none for other questions), and of lines of sentences things, referring and
        proposals (none for others).

    Raises:
        UserError: the file is no text, or has no lines.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"data: {file.name} cannot be read as UTF-8 text ({' '.join(str(error).split())[:100]}).") from None
    contents = [(number, content) for number, content in enumerate(text.split("\n"), 1) if content.strip()]
    if not contents:
        raise UserError(f"data: {file.name} has no lines. Write one JSON object on each line, with image, prefix and suffix.")
    lines, problems = [], []
    for number, content in contents:
        place = name(file, number)
        try:
            line, wrong = _line(content, root)
        except Bad as bad:
            problems.append(Problem(place, split, *bad.args))
            continue
        problems += [Problem(place, split, "wrong locations", detail) for detail in wrong]
        if line:
            lines.append({"id": f"{file.stem}/{number}", "number": number, "split": split} | line)
    return lines, problems


def name(file: Path, number: int) -> str:
    """What a line is called in messages and lists."""
    return f"{file.name}, line {number}"


def pictures(lines: list[dict], file: Path, findings: dict[str, Finding]) -> tuple[list[dict], list[Problem]]:
    """The lines whose picture can be read, with its size and digest; and what is wrong with the pictures of the others."""
    good, problems = [], []
    for line in lines:
        finding = findings[line["image"]]
        wrong = [
            Problem(f"{name(file, line['number'])}, {line['image']}", line["split"], kind, detail)
            for kind, detail in finding.problems
        ]
        severe = [problem for problem in wrong if problem.severe]
        problems += severe
        if not severe:
            good.append(line | {"size": finding.size, "digest": finding.digest})
    return good, problems


def _line(content: str, root: Path) -> tuple[dict | None, list[str]]:
    """A line's image, prefix, suffix, answers, found, and its id, if it has one; and the boxes that were taken out of its suffix.

    None in place of the line: nothing is left of its suffix.
    """
    try:
        line = json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise Bad("bad line", f"it is not JSON: {why}") from None
    if not isinstance(line, dict):
        raise Bad("bad line", f"it is not a JSON object but {str(line)[:60]!r}")
    if referring.is_one(line):
        kept = {"image": _picture(referring.picture(line), root)} | dict.fromkeys(("prefix", "suffix", "answers", "found"))
        return _own(line) | kept | referring.read(line), []
    for key in ("image", "prefix", "suffix"):
        if not isinstance(line.get(key), str):
            raise Bad("bad line", f"{key!r} must be a text, got {str(line.get(key))[:60]!r}; have: {', '.join(line) or 'none'}")
    if not line["suffix"].strip():
        raise Bad("bad line", "the suffix is empty, and a model learns nothing from it")
    answers = line.get("answers")
    if not (answers is None or (isinstance(answers, list) and answers and all(isinstance(answer, str) for answer in answers))):
        raise Bad("bad line", f"'answers' must be a list of texts, got {str(answers)[:60]!r}")
    own = _own(line)
    image = _picture(line["image"], root)
    suffix, found, wrong = _objects(line["prefix"], line["suffix"])
    if not suffix:
        return None, wrong
    kept = {"image": image, "prefix": line["prefix"], "suffix": suffix, "answers": answers or [suffix], "found": found}
    return own | kept | dict.fromkeys(("things", "referring", "proposals")), wrong


def _own(line: dict) -> dict[str, str]:
    """The line's `id`, if it has one."""
    own = line.get("id")
    if not isinstance(own, str | None) or own == "":
        raise Bad("bad line", f"'id' must be a text, got {str(own)[:60]!r}")
    return {"id": own} if own else {}


def _objects(prefix: str, suffix: str) -> tuple[str, list[tuple[tuple, str]] | None, list[str]]:
    """The answer without the boxes that cannot be read; the other boxes' locations and names; and why those cannot be read.

    None for the boxes: the line asks another question, or is in Florence-2's own words.
    """
    if prefix.split(" ")[0] != "detect" or "<loc_" in suffix:
        return suffix, None, []
    asked = named(prefix)
    only = asked[0] if len(asked) == 1 else ""
    objects, kept, wrong = [], [], []
    for part in NEXT.split(suffix):
        if reason := _wrong(part, only):
            wrong.append(reason)
        else:
            kept.append(part.strip())
            objects += [(each.locations, each.name or only) for each in parse(part)[0]]
    return (SEPARATOR.join(kept) if wrong else suffix), objects, wrong


def _wrong(part: str, only: str) -> str:
    """Why an object of an answer cannot be read, its box first; empty when it can.

    Args:
        only: the name of objects that have none, where the question asks for a single kind.
    """
    found, unread = parse(part)
    locations = LOCATION.findall(part)
    if not unread and len(locations) == 4 * len(found) and all(each.name or only for each in found):
        return ""
    for start in range(0, len(locations), 4):
        words = locations[start : start + 4]
        numbers = [int(word[4:8]) for word in words if re.fullmatch(r"<loc\d{4}>", word)]
        reason = _reason(words, numbers)
        if reason:
            return f"{''.join(words)!r}: {reason}"
    run = RUN.search(part)
    box = "".join(LOCATION.findall(run[0])[:4]) if run else part.strip()[:60]
    return f"{box!r}: {'its <seg> words are not sixteen of 000 to 127' if '<seg' in part else 'it has no name'}"


def _reason(words: list[str], numbers: list[int]) -> str:
    """What is wrong with the locations of one box; empty when nothing is."""
    if len(numbers) < len(words):
        return "a location has four digits"
    if len(numbers) < 4:
        return f"it has {len(numbers)} of four locations"
    if max(numbers) >= LOCATIONS:
        return f"{max(numbers)} is above {LOCATIONS - 1}"
    top, left, bottom, right = numbers
    if top >= bottom:
        return f"its top, {top}, is not above its bottom, {bottom}"
    return f"its left, {left}, is not left of its right, {right}" if left >= right else ""


def _picture(name: str, root: Path) -> str:
    """A picture's path below the folder, which it must not leave."""
    path, inside = located(root, name)
    if not inside:
        raise Bad("leads outside", f"{name!r} lies outside {root}; data.images names another folder")
    if path is None:
        raise Bad("no picture", f"no picture {name[:200]!r} in {root}")
    return path.relative_to(root).as_posix()
