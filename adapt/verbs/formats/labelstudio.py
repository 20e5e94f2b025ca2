"""Label Studio's tasks, to be imported: boxes or classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from adapt.verbs.formats.told import NO_XML, Told, text_file, write_list

LOCAL = "/data/local-files/?d="
"""Where Label Studio serves files of the machine that it runs on: of folders below its document root, never of the root itself."""


def labelstudio(place: Path, told: Told, boxes: bool) -> list[str]:
    """`tasks.json`, to be imported: boxes in percent or choices; `label_config.xml` for the project.

    What a model says is a pre-annotation, what data say an annotation.

    Args:
        boxes: are they told? Else classes.

    Returns:
        Sentences on what Label Studio needs.
    """
    kind = ("rectanglelabels", "RectangleLabels", "Label") if boxes else ("choices", "Choices", "Choice")
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    control = ElementTree.SubElement(view, kind[1], name="label", toName="image")
    for name in told.names:
        ElementTree.SubElement(control, kind[2], value=NO_XML.sub("?", name))
    ElementTree.indent(view)
    (place / "label_config.xml").write_text(ElementTree.tostring(view, encoding="unicode") + "\n", encoding="utf-8")

    def tasks() -> Iterator[dict[str, Any]]:
        for line in told.lines():
            found = [_region(line, one, number) for number, one in enumerate(line.get("objects", [])) if one["name"]]
            if not boxes:
                found = [_about("choices", line) | {"value": {"choices": [line["label"]]}}]
            address = LOCAL + quote(f"{told.root.name}/{line['id']}")
            if told.scored:
                said = {"model_version": told.title, "result": found} | _scored(line, "sure")
                yield {"data": {"image": address}, "predictions": [said]}
            else:
                yield {"data": {"image": address}, "annotations": [{"result": found}]}

    with text_file(place / "tasks.json") as file:
        write_list(file, tasks())
    return [
        "Label Studio shows the pictures if it runs with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={told.root.parent}, and its project has the local storage {told.root}.",
    ]


def _about(kind: str, line: dict[str, Any]) -> dict[str, Any]:
    """What each region says beside its value."""
    return {"from_name": "label", "to_name": "image", "type": kind} | _scored(line, "sure" if kind == "choices" else "score")


def _scored(one: dict[str, Any], name: str) -> dict[str, float]:
    return {} if one.get(name) is None else {"score": one[name]}


def _region(line: dict[str, Any], one: dict[str, Any], number: int) -> dict[str, Any]:
    """A box as Label Studio has it."""
    width, height = line["width"], line["height"]
    left, top, right, bottom = one["box"]
    place = {"x": 100 * left / width, "y": 100 * top / height}
    place |= {"width": 100 * (right - left) / width, "height": 100 * (bottom - top) / height, "rotation": 0}
    about = _about("rectanglelabels", one) | {"original_width": width, "original_height": height}
    about |= {"id": f"{line['number']}-{number}", "image_rotation": 0}
    return about | {"value": place | {"rectanglelabels": [one["name"]]}}
