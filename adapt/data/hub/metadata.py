"""metadata.jsonl of an imagefolder: what is wrong with a line of it, by its number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapt.plug import UserError

NAME = "metadata.jsonl"
LONGEST = 1 << 26
"""Bytes of a line; a longer one is not read into memory."""


def check_lines(folder: Path, parse: bool = False) -> None:
    """Look at each metadata.jsonl in a folder and in its folders.

    Args:
        parse: the lines too, which is only worth it where something is wrong: otherwise only how long they are.

    Raises:
        UserError: a line is too long; with `parse`, is no JSON object with a file_name inside the folder, or holds something else where
            a line before it holds a number, a text, a list or an object; or there is no line.
    """
    for file in sorted([*folder.glob(NAME), *folder.glob(f"*/{NAME}")]):
        if not file.is_file():
            continue
        place, number, known = file.relative_to(folder).as_posix(), 0, {}
        with open(file, "rb") as stream:
            while line := stream.readline(LONGEST + 1):
                number += 1
                why = f"longer than {LONGEST:,} bytes" if len(line) > LONGEST else ""
                if why or (parse and line.strip() and (why := _wrong(line, number, known))):
                    raise UserError(f"data.path: {place}, line {number}: {why}. Correct the line, or delete it.")
        if parse and not number:
            raise UserError(f"data.path: {place} is empty. Write a JSON object for each picture on a line of its own.")


def _wrong(line: bytes, number: int, known: dict[str, tuple[str, int]]) -> str:
    """Why a line cannot be used; empty when it can.

    Args:
        known: field → what it holds, and the first line that says so; what this line says is added.
    """
    try:
        content = json.loads(line.decode("utf-8-sig"))
        json.dumps(content, ensure_ascii=False, allow_nan=True).encode("utf-8")
        kinds = list(_kinds(content, ""))
    except json.JSONDecodeError as error:
        return f"it is not JSON: {error.msg}"
    except UnicodeDecodeError:
        return "it is not UTF-8 text"
    except UnicodeEncodeError:
        return "half a character"
    except (RecursionError, ValueError):
        return "nested too deeply, or a number with thousands of digits"
    if not isinstance(content, dict):
        return "it is not a JSON object"
    names = {key: name for key, name in content.items() if key == "file_name" or key.endswith("_file_name")}
    if not names:
        return f"it has no file_name; have: {', '.join(list(content)[:10])}"
    for key, name in names.items():
        parts = name.replace("\\", "/").split("/") if isinstance(name, str) else []
        if ".." in parts or parts[:1] == [""] or "://" in str(name):
            return f"{key} {name[:200]!r} leads outside; write the picture's path below this folder"
    for field, kind in kinds:
        before, first = known.setdefault(field, (kind, number))
        if kind == "an endless number" or before != kind:
            return f"{field[:100]} holds {kind}" + (f", and {before} in line {first}" if before != kind else "")
    return ""


def _kinds(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Field, such as objects.bbox, and what it holds, of all that is in a value; null is anything."""
    if isinstance(value, dict):
        yield field, "an object"
        for key, each in value.items():
            yield from _kinds(each, f"{field}.{key}".lstrip("."))
    elif isinstance(value, list):
        yield field, "a list"
        for each in value:
            yield from _kinds(each, f"{field}[]")
    elif isinstance(value, str):
        yield field, "a text"
    elif value is not None:
        endless = isinstance(value, float) and math.isinf(value)
        yield field, "true or false" if isinstance(value, bool) else "an endless number" if endless else "a number"
