"""Sentences that mean one of the things on a picture: those of the data, or made from the names of its categories.

    {"sentence": "the woman in red", "object": 1}       # a row's column `referring`, RefCOCO's shape: a sentence, and which box it means

Where the data have no such column, sentences are made that are true and mean one thing alone, by these rules and nothing else:

    one thing of its name                 the cat
    two of them                           the left cat, the right cat
    three and more                        the first cat from the left, the second cat from the left …

Left and right go by the middles of the boxes; of things of one name whose middles are as far left nothing is said. Rows are looked at alone, so
the sentences are a function of a row's boxes and names.

Source of the protocol: Kazemzadeh et al. 2014 (ReferItGame); Yu et al. 2016 (RefCOCO, RefCOCO+), arXiv:1608.00272.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapt.plug import UserError
from adapt.vision.masks import singles

COLUMN = "referring"
ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def made(boxes: Sequence[Sequence[float]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Sentences about things by their boxes float[B, 4] XYXY and names, in the order of the things they mean."""
    middles = [(box[0] + box[2]) / 2 for box in boxes]
    found = []
    for number, name in enumerate(names):
        alike = sorted((middles[i], i) for i, other in enumerate(names) if other == name)
        places = [middle for middle, _ in alike]
        if len(set(places)) < len(places) or len(places) > len(ORDER):
            continue
        at = [i for _, i in alike].index(number)
        if len(alike) == 1:
            sentence = f"the {name}"
        elif len(alike) == 2:
            sentence = f"the {('left', 'right')[at]} {name}"
        else:
            sentence = f"the {ORDER[at]} {name} from the left"
        found.append({"sentence": sentence, "object": number})
    return found


def sentences(row: dict[str, Any], names: Sequence[str]) -> list[tuple[str, int]]:
    """What means which thing of a row, by its column `referring` or made: the sentence, and the thing's place among those that are no crowd.

    Args:
        row: `id`, `objects`, and perhaps `referring`.
        names: of the categories.

    Raises:
        UserError: a sentence is empty, or means a box that does not exist.
    """
    objects, where = row["objects"], f"evals: row {row['id']!r}"
    crowds = objects.get("iscrowd") or [0] * len(objects["bbox"])
    places = [i for i, crowd in enumerate(crowds) if not crowd]
    given = row.get(COLUMN)
    if given is None:
        kept = singles(objects)
        given = made([objects["bbox"][i] for i in places], [names[category] for category in kept["category"]])
        return [(each["sentence"], each["object"]) for each in given]
    for each in given:
        if not each["sentence"].strip():
            raise UserError(f"{where} has an empty sentence in 'referring'. Write what is meant, or leave it out.")
        if not 0 <= each["object"] < len(crowds):
            raise UserError(
                f"{where}: {each['sentence']!r} means object {each['object']}, and the row has {len(crowds)}, counted from 0."
            )
    return [(each["sentence"], places.index(each["object"])) for each in given if each["object"] in places]
