"""The names of timm's networks, read from its files: importing timm takes seconds, and a wrong name should be told at once."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
USUAL = ("resnet18", "resnet10t", "efficientnet_lite0", "mobilenetv4_conv_small")
MOST = 12


@cache
def architectures() -> list[str]:
    """All names that `timm.create_model` takes, sorted; without pretrained tags."""
    spec = find_spec("timm")
    files = Path(spec.origin).parent.joinpath("models").rglob("*.py") if spec and spec.origin else ()
    return sorted({name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8"))})


def unknown(name: str) -> str:
    """The problem with a name that timm has not, and the names near it; empty when timm has it, or is not installed."""
    have = architectures()
    if name in have or not have:
        return ""
    close = difflib.get_close_matches(name[:100], have, n=1)
    kin = [other for other in have if other[:6] == name[:6]][:MOST] or list(USUAL)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no timm model {name[:80]!r}.{hint} For example: {', '.join(kin)}."
