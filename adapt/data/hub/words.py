"""Numbers of classes → names, where the columns themselves do not say them."""

from __future__ import annotations

from adapt.data.masks.files import listed_classes
from adapt.data.places import expanded
from adapt.data.problems import Bad
from adapt.data.reading import read_json
from adapt.plug import UserError

FILE = "id2label.json"
"""As `transformers` and the label files of the hub write it: {"0": "wall", "1": "sky"}."""


def numbered(config) -> dict[int, str]:
    """Number → name, as `data.id2label` says, or id2label.json or classes.yaml in the folder does; empty: nothing says it.

    Raises:
        UserError: the file holds something else.
    """
    folder = expanded(config.path)
    if config.id2label or not folder.is_dir():
        return dict(config.id2label)
    if not (folder / FILE).is_file():
        return listed_classes(folder) or {}
    try:
        content = read_json(folder / FILE)
    except Bad as bad:
        raise UserError(f"data.path: {FILE}: {bad.args[1]}. Correct the file, or write data.id2label.") from None
    good = isinstance(content, dict) and all(
        key.isdecimal() and len(key) < 10 and isinstance(name, str) and name for key, name in content.items()
    )
    if not good or not content:
        raise UserError(
            f'data.path: {FILE} must map numbers to names, such as {{"0": "wall", "1": "sky"}}. Correct the file, or write data.id2label.'
        )
    return {int(key): name for key, name in content.items()}
