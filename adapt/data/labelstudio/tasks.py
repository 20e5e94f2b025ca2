"""Tasks of an export: which annotation of each is read, and what its regions mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from adapt.data.labelstudio.regions import OBJECTS, named
from adapt.data.listing import Listed, Listing, Places, passed_over
from adapt.data.problems import Bad, Problem
from adapt.data.reading import read_json
from adapt.plug import UserError
from adapt.vision.pictures import SUFFIXES

LABELS = ("choice", "choices", "label", "class")
TEXTS = ("caption", "text", "transcription", "description")
OWN = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "was_cancelled"}
"""Fields of a JSON-MIN record that Label Studio itself writes."""
UPLOAD, LOCAL = "/data/upload/", "/data/local-files/"
PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""


@dataclass
class Task:
    """What an export says of a picture."""

    id: str
    place: str
    image: str
    """As the export names the picture."""
    annotated: bool = False
    choices: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    regions: list[dict] = field(default_factory=list)
    """`type` and `value` of each, as Label Studio writes them."""


def listed(file: Path, root: Path, config) -> Listing:
    """The tasks' pictures, not opened, and what is wrong with the others.

    Raises:
        UserError: the file is no export, or has choices and objects.
    """
    tasks, problems, counts, seen = [], [], Counter(), {}
    for number, record in enumerate(_records(file)):
        name = record.get("id") if isinstance(record, dict) else None
        place = f"{file.name}, {f'task at position {number}' if name is None else f'task {name}'}"
        try:
            if not isinstance(record, dict):
                raise Bad("bad annotation", f"it must be an object, got {str(record)[:60]!r}")
            whole = isinstance(record.get("data"), dict)
            if name is not None and str(name) in seen:
                if whole:
                    raise Bad("named twice", f"its id is that of the task at position {seen[str(name)]}")
                counts["further annotations of a picture"] += 1  # JSON-MIN has a record an annotation
                continue
            task = (_whole if whole else _short)(record, place, config, counts)
            task.id = str(number if name is None else name)
        except Bad as bad:
            problems.append(Problem(place, "", *bad.args))
            continue
        seen[task.id] = number
        tasks.append(task)
    if not tasks and not problems:
        raise UserError(f"data.path: {file.name} has no task. Export tasks from Label Studio as JSON or JSON-MIN.")
    kind = _kind(tasks, config, file, counts)
    pictures = list(_pictures(tasks, kind, Places(root, config.follow_links), problems))
    names = {picture.label for picture in pictures} - {None}
    if kind == "objects":
        names = {name for task in tasks for region in task.regions if (name := named(region))} or {"object"}
    problems += passed_over(file.name, counts)
    return Listing(root, pictures, sorted(names), problems, {"": repr(config.path)}, [file])


def _records(file: Path) -> list:
    """The export's records.

    Raises:
        UserError: it is no JSON, or no list.
    """
    try:
        content = read_json(file)
    except Bad as bad:
        raise UserError(
            f"data.path: {file.name}: {bad.args[1]}. Export it from Label Studio again, as JSON or JSON-MIN."
        ) from None
    if isinstance(content, list):
        return content
    coco = isinstance(content, dict) and {"images", "annotations"} <= content.keys()
    hint = "It looks like COCO's format: data.source=coco" if coco else "Export it again, as JSON or JSON-MIN"
    raise UserError(f"data.path: {file.name} is no list of tasks. {hint}.")


# --------------------------------------------------------------------------------------------------------------- records


def _whole(record: dict, place: str, config, counts: Counter) -> Task:
    """A record of the format JSON: data, and annotations with their results."""
    task = Task("", place, _image(record["data"], config))
    counts["predictions"] += len(_listed(record, "predictions"))
    given = _listed(record, "annotations") or _listed(record, "completions")  # its name before 2021
    if not all(isinstance(each, dict) for each in given):
        raise Bad("bad annotation", "annotations must be a list of objects")
    kept = [each for each in given if not each.get("was_cancelled")]
    counts["cancelled annotations"] += len(given) - len(kept)
    if not kept:
        return task
    counts["further annotations of a picture"] += len(kept) - 1
    chosen = next((each for each in kept if each.get("ground_truth")), kept[0])
    task.annotated = True
    for result in _listed(chosen, "result"):
        _take(task, result, counts)
    return task


def _take(task: Task, result: Any, counts: Counter) -> None:
    """One result of an annotation."""
    kind, value = (result.get("type"), result.get("value")) if isinstance(result, dict) else (None, None)
    if not isinstance(kind, str):
        raise Bad("bad annotation", f"a result must be an object with type and value, got {str(result)[:60]!r}")
    if kind not in {"choices", "textarea", *OBJECTS}:
        counts[kind] += 1
    elif not isinstance(value, dict):
        raise Bad("bad annotation", f"the value of {kind} must be an object, got {str(value)[:60]!r}")
    elif kind == "choices":
        task.choices += _texts(value.get("choices"), kind)
    elif kind == "textarea":
        task.texts += _texts(value.get("text"), kind)
    else:
        region = {"type": kind, "value": value, "size": (result.get("original_width"), result.get("original_height"))}
        task.regions.append(region)


def _short(record: dict, place: str, config, counts: Counter) -> Task:
    """A record of the format JSON-MIN: the task's data and the annotation's fields side by side."""
    task = Task("", place, _image(record, config))
    if record.get("was_cancelled"):
        counts["cancelled annotations"] += 1
        return task
    task.annotated = True
    picture = task.image
    for name, value in record.items():
        if name in OWN or value is picture:
            continue
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            _regions(task, value, counts)
        elif name == config.label or (config.label is None and name in LABELS):
            task.choices += _texts(value.get("choices") if isinstance(value, dict) else value, name)
        elif name == config.caption or (config.caption is None and name in TEXTS):
            task.texts += _texts(value.get("text") if isinstance(value, dict) else value, name)
        else:
            counts[f"values of the field {name!r}"] += 1
    return task


def _regions(task: Task, values: list[dict], counts: Counter) -> None:
    for value in values:
        kind = next((kind for kind in OBJECTS if kind in value), None)
        if kind is None:
            counts[next((name for name in value if name.endswith("labels")), "regions without a label")] += 1
        else:
            size = (value.get("original_width"), value.get("original_height"))
            task.regions.append({"type": kind, "value": value, "size": size})


def _listed(record: dict, name: str) -> list:
    value = record.get(name)
    if not isinstance(value, list | None):
        raise Bad("bad annotation", f"{name} must be a list, got {str(value)[:60]!r}")
    return value or []


def _texts(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not (isinstance(texts, list | None) and all(isinstance(text, str) for text in texts or [])):
        raise Bad("bad annotation", f"{name} must be a text or a list of texts, got {str(value)[:60]!r}")
    return [text.strip() for text in texts or [] if text.strip()]


# -------------------------------------------------------------------------------------------------------------- pictures


def _image(data: dict, config) -> str:
    """What a task calls its picture."""
    names = [name for name, value in data.items() if isinstance(value, str) and _pictured(value)]
    name = config.image or ("image" if "image" in data else names[0] if len(names) == 1 else None)
    if name is None and names:
        raise Bad("bad annotation", f"several pictures: {', '.join(names)}; name the field: data.image={names[0]}")
    if name is None or not isinstance(data.get(name), str) or not data[name]:
        raise Bad("bad annotation", f"no picture in the field {name or 'image'!r}; have: {', '.join(map(str, data)) or 'none'}")
    return data[name]


def _pictured(value: str) -> bool:
    """Is this text the name of a picture?"""
    return UPLOAD in value or LOCAL in value or (len(value) < 1000 and Path(value.partition("?")[0]).suffix.lower() in SUFFIXES)


def found(name: str, places: Places) -> str:
    """A picture's path below the folder, by its name in Label Studio.

    Raises:
        Bad: it is not there, or leads outside.
    """
    path = name
    if LOCAL in name and "://" not in name[:16]:
        path = parse_qs(urlsplit(name).query).get("d", [""])[0]
    elif UPLOAD in name and "://" not in name[:16]:
        path = unquote(name.partition(UPLOAD)[2].partition("?")[0])
    if path == name:
        return places.find(name)
    parts = path.split("/")
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    for tail in dict.fromkeys([*tails, PREFIX.sub("", parts[-1])]):
        try:
            return places.find(tail)
        except Bad as bad:
            if bad.args[0] != "no picture":
                raise
    raise Bad("no picture", f"no picture {path[:200]!r} in {places.root}, nor {parts[-1][:200]!r}")


# -------------------------------------------------------------------------------------------------------------- listing


def _kind(tasks: list[Task], config, file: Path, counts: Counter) -> str:
    """What the export is of: choices, objects or texts; what else there is goes into `counts`.

    Raises:
        UserError: choices and objects, and nobody said which.
    """
    choice = next((task for task in tasks if task.choices), None)
    region = next((task for task in tasks if task.regions), None)
    if config.kind == "auto" and choice and region:
        raise UserError(
            f"data.path: {file.name} has choices (task {choice.id}: {choice.choices[0]!r}) and objects (task {region.id}: "
            f"{region.regions[0]['type']}). Say which to read: data.kind=choices, or data.kind=objects."
        )
    kind = config.kind if config.kind != "auto" else "choices" if choice else "objects" if region else "texts"
    counts["choices"] += sum(len(task.choices) for task in tasks) * (kind == "objects")
    counts["regions of objects"] += sum(len(task.regions) for task in tasks) * (kind == "choices")
    return kind


def _pictures(tasks: list[Task], kind: str, places: Places, problems: list[Problem]) -> Iterator[Listed]:
    """The tasks' pictures; the key of each is its task, with regions and texts if these are read."""
    for task in tasks:
        try:
            label = _label(task) if kind == "choices" else None
            picture = found(task.image, places)
        except Bad as bad:
            problems.append(Problem(task.place, "", *bad.args))
            continue
        told = {"choices": label is not None, "objects": task.annotated, "texts": bool(task.texts)}[kind]
        if kind != "objects":
            task.regions = []
        yield Listed(task.id, picture, "", task, label=label, place=task.place, told=told)


def _label(task: Task) -> str | None:
    if len(task.choices) > 1:
        raise Bad("bad annotation", f"several choices: {', '.join(task.choices)[:100]}; a picture has one label")
    return task.choices[0] if task.choices else None
