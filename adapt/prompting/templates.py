"""Class names and templates: the words of a zero-shot classifier."""

from __future__ import annotations

from pathlib import Path

from adapt.overrides import parse_yaml
from adapt.plug import UserError, nearest
from adapt.recipe import Prompts, find, read_text


def words(prompts: Prompts, labels: list[str]) -> tuple[list[str], list[str]]:
    """The class names in the labels' order, and the templates.

    Raises:
        UserError: a prompt file lacks a key or a label, or a template has no `{}`.
    """
    templates = prompts.templates
    if isinstance(templates, str):
        templates = _read(templates, "templates", list)
    for i, template in enumerate(templates):
        if not isinstance(template, str) or template.count("{}") != 1:
            raise UserError(f"prompts.templates.{i}: {template!r} needs exactly one {{}}, where the class name goes.")
    if not templates:
        raise UserError("prompts.templates: the list is empty. Use ['{}'] for the bare class name.")
    classes = prompts.classes
    if isinstance(classes, str):
        classes = _read(classes, "classes", dict)
    if classes is None:
        classes = {label: label.replace("_", " ").replace("-", " ") for label in labels}
    lacking = [label for label in labels if label not in classes]
    if lacking:
        raise UserError(
            f"prompts.classes: no class name for the label {lacking[0]!r} ({len(lacking)} in all).{nearest(lacking[0], classes)}"
        )
    return [str(classes[label]) for label in labels], list(templates)


def _read(name: str, key: str, kind: type) -> list | dict:
    path: Path = find("prompts", name)
    content = parse_yaml(read_text(path, "prompts"), str(path))
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        have = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        what = "list" if kind is list else "mapping"
        raise UserError(f"prompts.{key}: the file {name!r} has no {what} named {key!r}. It has: {have}.")
    return value
