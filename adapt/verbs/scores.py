"""What a run folder says of its models: entries and guards in `metrics.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.provenance import changed
from adapt.records import Guard
from adapt.verbs import guards, lineage

if TYPE_CHECKING:
    from adapt.verbs.session import Session


def metrics(session: Session) -> dict[str, Any]:
    """The content of `metrics.json`."""
    return session.run.read_json("metrics.json", {"entries": [], "guards": []})


def entries(session: Session) -> list[dict]:
    """All that has been measured, in order."""
    return metrics(session)["entries"]


def entry(session: Session, name: str) -> dict | None:
    """The entry of this name, if it has been measured."""
    return next((entry for entry in entries(session) if entry["name"] == name), None)


def save(session: Session, **changes: Any) -> None:
    """Put these in the place of what `metrics.json` has under their names."""
    session.run.write_json("metrics.json", metrics(session) | changes)
    session.accelerator.wait_for_everyone()


def measured(session: Session, name: str) -> bool:
    """Is there an entry of this name that is still of what it was made of? A line says why not, where it must be made again."""
    old = entry(session, name)
    if old is None:
        return False
    names = changed(old["made_of"], lineage.entry(session, name, old.get("file")))
    if names and name not in session.told:
        session.told.add(name)
        session.say(f"{old['title']}: measured again: {', '.join(names)} changed")
    return not names


def main(entry: dict) -> float:
    """The metric by which guards compare."""
    return entry["metrics"][entry["main"]]


def comparable(*entries: dict) -> bool:
    """Do these entries stand by the same metric of the same eval?"""
    return len({(entry["main"], entry["protocol"].get("eval")) for entry in entries}) == 1


def title(session: Session, name: str) -> str:
    """How the model is called in tables, before or after its adaptation."""
    family, method = session.recipe.model, session.recipe.method
    if name != "zero-shot":
        return f"{family.title} + {method.title}"
    return f"zero-shot {family.title}{plug.load('methods', method.name).placed(method) if method.places else ''}"


def update(session: Session, name: str, **facts: Any) -> None:
    """Add facts to an entry."""
    save(session, entries=[entry | facts if entry["name"] == name else entry for entry in entries(session)])


def drop_files(session: Session) -> None:
    """Forget the numbers and promises of the student's exported files: it has other weights now."""
    files = {entry["name"] for entry in entries(session) if "file" in entry and entry["student"] == session.called}
    kept = [entry for entry in entries(session) if entry["name"] not in files]
    promised = metrics(session)["guards"]
    guards = [guard for guard in promised if not any(guard["name"].startswith(f"{name} ") for name in files)]
    save(session, entries=kept, guards=guards)


def guard(session: Session, guard: Guard) -> None:
    """Note whether a promise is kept; see `adapt/verbs/guards.py`."""
    guards = {old["name"]: old for old in metrics(session)["guards"]} | {guard.name: guard.model_dump()}
    save(session, guards=list(guards.values()))


def budget(name: str, before: dict, after: dict, config, advice: str) -> Guard:
    """The guard of what `after` may lose against `before`: `config.keep` of its metric, or `config.budget` in points."""
    value = main(before)
    allowed = config.budget if config.keep is None else (1 - config.keep) * value
    change = after.get("change") if after.get("against") == before["name"] else None
    return guards.loss(name, value, main(after), allowed, change, after["pictures"], before["floor"], advice)
