"""The adapter's README: what it is of, what it reaches, and how it is loaded, for whoever finds the folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt import __version__
from adapt.run import atomic
from adapt.verbs import scores

if TYPE_CHECKING:
    from adapt.verbs.session import Session

FILE = "README.md"
FIGURES = "## Figures"


def text(session: Session) -> str:
    """The card of the adapter in memory, without figures."""
    from peft import PeftModel

    from adapt.methods.adapter import notes

    recipe, net = session.recipe, session.family.net
    splits = ", ".join(f"{split} {len(rows):,}" for split, rows in session.data.items())
    kind, library = type(net).__name__, type(net).__module__.partition(".")[0]
    if not isinstance(session.family.backbone, PeftModel):
        load = f'from adapt.pipeline import Outcome\n\nmodel = Outcome.open("{session.run.path}").model()'
    elif library == "transformers":
        load = (
            f"from peft import PeftModel\nfrom transformers import {kind}\n\n"
            f'base = {kind}.from_pretrained("{recipe.model.checkpoint}")\nmodel = PeftModel.from_pretrained(base, "this folder")'
        )
    else:
        load = (
            f'from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base, "this folder")  # base: {library}\'s module of '
            f"{recipe.model.checkpoint}"
        )
    said = f"{notes(session.family)}\n".lstrip("\n")
    return (
        f"# {recipe.name}\n\n`{recipe.model.checkpoint}` adapted by `{recipe.method.name}` with Adapt {__version__}, recipe "
        f"`{recipe.name}` (beside this folder: `recipe.yaml`, and `manifest.json` with all that it was made of).\n\n"
        f"Data: `{recipe.data.source}`, {splits} pictures.\n\n## Load\n\n```python\n{load}\n```\n\n{said}"
        "The licence of the base checkpoint applies.\n"
    )


def update(session: Session) -> None:
    """Put the figures of the run into the adapter's card."""
    file = session.run.path / "adapter" / FILE
    if not session.run.writes or not file.is_file():
        return
    rows = [scores.entry(session, name) for name in ("zero-shot", "adapted")]
    lines = [f"| {row['title']} | {row['main']} | {row['split']} | {_figure(row)} |" for row in rows if row]
    table = "\n".join(["| model | metric | split | value (95 % interval) |", "|---|---|---|---|", *lines])
    before = file.read_text(encoding="utf-8")
    after = f"{before.partition(FIGURES)[0].rstrip()}\n\n{FIGURES}\n\n{table}\n"
    if after != before:
        with atomic(file) as temporary:
            temporary.write_text(after, encoding="utf-8")


def _figure(entry: dict) -> str:
    value, interval = entry["metrics"][entry["main"]], entry["intervals"].get(entry["main"])
    return f"{100 * value:.1f} %" + (f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else "")
