"""The workbench: with a few labelled pictures, which words, which drawing and how much subtraction ask a model best?

Half of the pictures choose, by successive halving; the other half confirm. Both figures are shown: the best of many is better than it is (the
winner's curse), and the second half says by how much. The choice is written as a recipe.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapt import plug
from adapt.plug import UserError
from adapt.prompting.visual import SUMMED, TOKENS, combine
from adapt.report import workbench as page
from adapt.report.gallery import FITTED
from adapt.run import atomic
from adapt.verbs import boxes
from adapt.verbs.searching.candidates import Candidate, Things, Tried, tried
from adapt.verbs.searching.encoded import Encoded, Row
from adapt.verbs.searching.frozen import frozen, recipe_visual
from adapt.verbs.searching.halving import halves, intervals, rounds
from adapt.verbs.searching.request import FEWEST, Request
from adapt.verbs.session import Session

FOLDER = "workbench"


@dataclass
class Searched:
    """What a search leaves behind."""

    path: Path
    """The run folder; all of it lies in its `workbench/`."""
    document: dict[str, Any]
    """`workbench.json`: rounds, candidates, finalists, the gain."""

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return FITTED + page.shown(self.document)


@dataclass
class Bench:
    """The labelled things, and what is asked about them."""

    session: Session
    data: dict[str, Any]
    """Split → the rows that are looked at, a `datasets.Dataset`; with masks, where the recipe wants them."""
    places: list[Row]
    """The labelled rows."""
    labels: list[np.ndarray]
    """For each of them the classes of its things, int64[B]."""
    pictures: list[str]
    """For each of them the name of its picture."""
    halves: tuple[np.ndarray, np.ndarray]
    """The numbers of those that choose, and of those that confirm."""
    bank: list[Row]
    """Rows whose boxes' mean is subtracted; none of whole pictures."""
    region: Any
    """The config of the eval of boxes; none: whole pictures."""


def workbench(session: Session, request: Request) -> Searched:
    """Search, confirm, and write the recipe.

    Raises:
        UserError: there are no labels or too few, the model has no words, or a list of the space does not match the data.
    """
    bench = _bench(session, request)
    found = _tried(bench, request)
    session.run.begin(session.recipe)
    for library in ("adapt.evals.metrics", "adapt.models.clip.words"):
        importlib.import_module(library)  # they take seconds, which are no search's
    began = time.perf_counter()
    asked = Asked(bench, found)
    table, told = _chosen(bench, found, asked)
    document = _confirmed(bench, found, asked, table) | {"rounds": told, "split": request.split}
    document |= {"seconds": time.perf_counter() - began, "encoder_seconds": asked.encoded.seconds}
    document |= {"encoded": {"pictures": asked.encoded.made, "texts": asked.encoded.texts}}
    winner = document.pop("winner")
    look, wording = found.looks[winner.look], found.wordings[winner.wording]
    recipe = frozen(session.recipe, wording.prompts, look.visual, winner.subtract)
    place = Path(request.write).expanduser() if request.write else session.run.path / FOLDER / "recipe.yaml"
    with atomic(place) as path:
        path.write_text(f"# {page.sentence(document)}\n{recipe.to_yaml()}", encoding="utf-8")
    document["recipe"] = str(place)
    session.run.write_json(f"{FOLDER}/workbench.json", document)
    page.build(session.run.path)
    session.record(FOLDER, base=session.base, split=session.fingerprints[request.split])
    return Searched(session.run.path, document)


# ---------------------------------------------------------------------------------------------------- before anything is encoded


def _bench(session: Session, request: Request) -> Bench:
    from adapt.evals.bootstrap import pictures

    data, bank, config = session.data, [], None
    if request.split not in data:
        raise UserError(f"split: there is no split {request.split!r}. Have: {', '.join(data)}.")
    rows, regions = data[request.split], _asks_regions(session)
    _asks(session, regions)
    if regions:
        config = _region(session)
        definition = plug.load("evals", "region")
        rows, flat, owner, _ = definition.asked(rows, request.split)
        labels = [flat[owner == number] for number in range(len(rows))]
        bank = [(config.bank_split, name) for name in definition.sampled(data[config.bank_split], config)["id"][:]]
    else:
        known = [number for number, label in enumerate(rows["label"][:]) if label is not None and label >= 0]
        rows = rows if len(known) == len(rows) else rows.select(known)
        labels = [np.array([label]) for label in rows["label"][:]]
    named = pictures(rows)
    if len(set(named)) < FEWEST:
        raise UserError(
            f"split: {request.split!r} has {plug.counted(len(set(named)), 'labelled picture')}, too few to choose by one half and confirm by "
            f"the other. Label {FEWEST} or more, or name another split."
        )
    kinds = [0 if regions else int(each[0]) for each in labels]
    parts = halves(named, kinds, request.pictures, session.recipe.seed)
    used, first, ids = np.concatenate(parts), len(parts[0]), rows["id"][:]
    places = [(request.split, ids[number]) for number in used]
    return Bench(
        session,
        _looked_at(session, config, [*places, *bank]),
        places,
        [labels[number] for number in used],
        [named[number] for number in used],
        (np.arange(first), np.arange(first, len(used))),
        bank,
        config,
    )


def _looked_at(session: Session, config, places: Sequence[Row]) -> dict[str, Any]:
    """Split → those of its rows."""
    found = {}
    for split in dict.fromkeys(split for split, _ in places):
        wanted = {name for other, name in places if other == split}
        numbers = [number for number, name in enumerate(session.data[split]["id"][:]) if name in wanted]
        found[split] = boxes.masked(session, config, session.data[split].select(numbers))
    return found


def _region(session: Session):
    """The config of the eval of boxes: the recipe's, or by default.

    Raises:
        UserError: there is no split for what is subtracted, or the boxes have no names, or others than the pictures.
    """
    from adapt.vision.classes import category_names

    config = next((each for each in session.recipe.evals if each.name == "region"), None)
    config = config or plug.schema("evals", "region")(name="region", visual=recipe_visual(session.recipe))
    if config.bank_split not in session.data:
        raise UserError(f"evals: no split {config.bank_split!r} in the data. Have: {', '.join(session.data)}.")
    if TOKENS in (config.visual.drawings or []):
        raise UserError(
            f"visual.drawings: {TOKENS!r} is no drawing, and CLIP reads no words of boxes. Name others, such as crop."
        )
    names = category_names(session.data["train"].features)
    if len(names) < 2:
        raise UserError("data: the boxes have no categories to tell apart. Give two names or more, as COCO's `categories` do.")
    if names != session.labels:
        raise UserError(
            f"data: the {len(names)} categories of the boxes are not the {len(session.labels)} classes of the pictures, by which the model is "
            "asked. Take data without labels of whole pictures, or evals=[{name: zeroshot}]."
        )
    return config


def _asks_regions(session: Session) -> bool:
    """Is it asked about things in boxes? As the recipe's evals say, where the data have labels of both kinds.

    Raises:
        UserError: the data have neither.
    """
    columns = session.data["train"].column_names
    asked = next((config.name for config in session.recipe.evals if config.name in ("region", "zeroshot")), None)
    if "objects" in columns and (asked == "region" or "label" not in columns):
        return True
    if "label" not in columns:
        raise UserError(
            f"data: there are no labels to choose by: neither classes of pictures nor boxes with categories. Columns: {', '.join(columns)}. "
            "Label a few, as class folders or in COCO's format."
        )
    return False


def _asks(session: Session, regions: bool) -> None:
    """Has the model embeddings of pictures and texts in one space?"""
    model = session.recipe.model
    wanted = "region_embedding" if regions else "image_embedding"
    if not (model.uses_words and session.family.knows_texts and wanted in session.family.predictors()):
        raise UserError(f"model.name: {model.name!r} has no embeddings of pictures and of texts to compare. Use clip.")


def _tried(bench: Bench, request: Request) -> Tried:
    session = bench.session
    if bench.region is None:
        return tried(session.recipe, session.labels, request.space, None, Things(False, True))
    visual = bench.region.visual
    own = visual.model_copy(update={"drawings": list(visual.drawings or SUMMED)})
    size = session.family.input["size"]
    square = all(image.width * size[0] == image.height * size[1] for rows in bench.data.values() for image in rows["image"])
    masked = all(row.get("mask") and all(row["mask"]) for rows in bench.data.values() for row in rows["objects"][:])
    return tried(session.recipe, session.labels, request.space, (own, bench.region.subtract), Things(masked, square))


# ----------------------------------------------------------------------------------------------------------------- the search


class Asked:
    """Right answers of candidates, by what is encoded."""

    def __init__(self, bench: Bench, found: Tried):
        self.bench, self.found = bench, found
        self.encoded = Encoded(bench.session, bench.data, bench.region and bench.region.visual)

    def right(self, candidates: Sequence[Candidate], rows: np.ndarray, banked: bool) -> np.ndarray:
        """Which things of these rows each candidate names, bool[B, K].

        Args:
            banked: is what is subtracted the mean over the bank's boxes, as the eval has it? Else over those of the rows, which costs nothing.
        """
        from adapt.evals.metrics import rank

        places = [self.bench.places[row] for row in rows]
        looks = [self.found.looks[number] for number in dict.fromkeys(each.look for each in candidates)]
        self.encoded.need(places, looks)
        labels = np.concatenate([self.bench.labels[row] for row in rows])
        less = dict.fromkeys(each.look for each in candidates if each.subtract)
        bank = self.bench.bank if banked and less else []
        self.encoded.need(bank, [self.found.looks[number] for number in less])
        out = np.zeros((len(labels), len(candidates)), bool)
        known: dict[tuple, np.ndarray] = {}
        for place, each in enumerate(candidates):
            scores = self._scores(known, each, places, "rows")
            mean = None
            if each.subtract:
                mean = self._scores(known, each, bank, "bank") if bank else scores
            out[:, place] = rank(combine(scores, boxes=mean, subtract=each.subtract), labels) < 1
        return out

    def _scores(self, known: dict, each: Candidate, places: Sequence[Row], of: str) -> np.ndarray:
        """float[B, D, C]; kept in `known` for the next candidate, which may differ in nothing but what is subtracted."""
        key = (each.look, each.wording, of)
        if not any(other[:2] == key[:2] for other in known):
            known.clear()
        if key not in known:
            images = self.encoded.things(places, self.found.looks[each.look])
            known[key] = self.encoded.logits(images, each.wording, self.found.wordings[each.wording])
        return known[key]

    def by_picture(self, right: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hits float[P, K] and things float[P] of each picture."""
        from adapt.evals.bootstrap import numbered

        owner = np.repeat(numbered([self.bench.pictures[row] for row in rows]), [len(self.bench.labels[row]) for row in rows])
        hits = np.zeros((owner.max() + 1, right.shape[1]))
        np.add.at(hits, owner, right)
        return hits, np.bincount(owner).astype(float)


def _chosen(bench: Bench, found: Tried, asked: Asked) -> tuple[dict[Candidate, dict[str, Any]], list[dict[str, int]]]:
    """Each candidate's last figure on the half that chooses, and what each round did."""
    first, session = bench.halves[0], bench.session
    never = {found.plain.look, found.own.look}
    looks, table, told = list(range(len(found.looks))), {}, []
    plan = rounds(len(looks), len(first))
    for number, (count, pictures) in enumerate(plan, 1):
        best = {look: max((table[each]["value"] for each in table if each.look == look), default=0.0) for look in looks}
        kept = sorted(looks, key=lambda look: -best[look])[:count]
        looks = sorted({*kept, *never})
        candidates = [each for each in found.candidates if each.look in looks]
        rows, before = first[:pictures], asked.encoded.made
        right = asked.right(candidates, rows, banked=number == len(plan))
        values, ends = intervals(*asked.by_picture(right, rows))
        for each, value, (low, high) in zip(candidates, values, ends, strict=True):
            table[each] = {"value": float(value), "interval": [float(low), float(high)], "round": number, "pictures": len(rows)}
        made = asked.encoded.made - before
        told.append({"looks": len(looks), "candidates": len(candidates), "pictures": len(rows), "encoded": made})
        session.say(
            f"workbench: round {number} of {len(plan)}: {plug.counted(len(candidates), 'candidate')} on "
            f"{plug.counted(len(rows), 'picture')}, {made:,} drawings encoded, the best {100 * max(values):.1f} %"
        )
    return table, told


def _confirmed(bench: Bench, found: Tried, asked: Asked, table: dict[Candidate, dict[str, Any]]) -> dict[str, Any]:
    """The best of each look of the last round on both halves, beside the plain one and the recipe's own."""
    from adapt.evals.bootstrap import gain, mean

    last = max(row["round"] for row in table.values())
    ranked = sorted((each for each in table if table[each]["round"] == last), key=lambda each: -table[each]["value"])
    if bench.region is None:
        best = ranked[: page.FINALISTS]
    else:
        best = list({each.look: each for each in reversed(ranked)}.values())
        best = sorted(best, key=ranked.index)[: page.FINALISTS]
    shown = list(dict.fromkeys([found.plain, found.own, *best]))
    rows = bench.halves[1]
    right = asked.right(shown, rows, banked=True)
    values, ends = intervals(*asked.by_picture(right, rows))
    names = [bench.pictures[row] for row in rows for _ in bench.labels[row]]
    means = [mean(right[:, place], names) for place in range(len(shown))]
    winner = ranked[0]
    changes = [gain(means[shown.index(start)], means[shown.index(winner)], 1000) for start in (found.plain, found.own)]
    confirmed = {
        each: {"value": float(value), "interval": list(map(float, pair))}
        for each, value, pair in zip(shown, values, ends, strict=True)
    }
    finalists = [_told(found, each) | {"chosen": table[each], "confirmed": confirmed[each]} for each in shown]
    for row, each in zip(finalists, shown, strict=True):
        row["place"] = best.index(each) + 1 if each in best else 0
        row["role"] = "chosen" if each == winner else "plain" if each == found.plain else "recipe" if each == found.own else ""
    return {
        "question": "whole" if bench.region is None else "region",
        "classes": len(found.wordings[0].words.classes),
        "pictures": [len({bench.pictures[row] for row in half}) for half in bench.halves],
        "things": [sum(len(bench.labels[row]) for row in half) for half in bench.halves],
        "floor": _floor(bench),
        "finalists": finalists,
        "gain": list(map(float, changes[0])),
        "gain_recipe": list(map(float, changes[1])),
        "candidates": [_told(found, each) | table[each] for each in sorted(table, key=lambda each: -table[each]["value"])],
        "winner": winner,
    }


def _floor(bench: Bench) -> float:
    """What one and the same answer would reach on the half that confirms."""
    labels = np.concatenate([bench.labels[row] for row in bench.halves[1]])
    return float(np.bincount(labels).max() / len(labels))


def _told(found: Tried, each: Candidate) -> dict[str, Any]:
    """A candidate in words."""
    look, wording = found.looks[each.look], found.wordings[each.wording]
    return {"look": look.title, "words": wording.title, "subtract": each.subtract}
