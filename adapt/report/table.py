"""The road as a table, and what must be said beside it: the same words in the terminal, on the page and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from adapt.measures import METRICS
from adapt.report.entries import Entry, Guard, Split, parse
from adapt.report.protocol import apart
from adapt.run import Run

ORDER = {"zero-shot": 0, "adapted": 1, "merged": 2, "labels": 3, "student": 4}
LABELS = {"ece": "ECE", "nll": "NLL", "r1": "R@1", "r5": "R@5", "r10": "R@10", "bleu4": "BLEU-4", "cider": "CIDEr"}
LABELS |= {"map": "mAP", "map50": "mAP@50", "map75": "mAP@75", "box_ap": "box AP", "mask_ap": "mask AP"}
LABELS |= {"mask_ap50": "mask AP@50", "miou": "mIoU", "weighted_iou": "weighted IoU", "iou_1": "IoU@1 click"}
LABELS |= {f"text_r{k}": f"R@{k} text → image" for k in (1, 5, 10)}
LABELS |= {"corrupted_top1": "top-1 on corrupted pictures", "clean_top1": "top-1 on them as they are"}
LABELS |= {"boundary_f": "boundary F", "knn": "kNN", "knn_mean_per_class": "kNN mean per class"}
LABELS |= {"region": "region top-1", "referring": "referring accuracy"}
LABELS |= {"worst_group": "top-1, worst group", "top5_worst_group": "top-5, worst group", "mean_r1": "R@1, mean of both ways"}
LABELS |= {"ece_fitted": "ECE, temperature fitted", "f1_macro": "macro F1", "template_mean": "top-1, mean of single templates"}
LABELS |= {"jaccard": "Jaccard", "choice": "right caption chosen"}
"""How metrics are called in tables; others by their names."""
NUMBERED = {r"top(\d+)": r"top-\1", r"knn@(\d+)": r"kNN@\1", r"iou_(\d+)": r"IoU@\1 clicks"}
RUNTIMES = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch"}
MARKS = {"kept": "✓", "not shown": "?", "broken": "✗"}
STYLES = {"kept": "green", "not shown": "yellow", "broken": "bold red"}
"""A guard's state → its mark, and its style in the terminal."""
FEW = 20
"""Calls below which a 99th percentile says little."""


def road(entries: Sequence[Entry]) -> list[Entry]:
    """The rows of the table: a torch student gives way to its exported files."""
    exported = {entry.student for entry in entries if entry.role not in ORDER}
    kept = [entry for entry in entries if not (entry.role == "student" and entry.student in exported)]
    return sorted(kept, key=lambda entry: ORDER.get(entry.role, len(ORDER)))


def label(metric: str) -> str:
    """A metric's name in tables."""
    found = (match.expand(words) for name, words in NUMBERED.items() if (match := re.fullmatch(name, metric)))
    return LABELS.get(metric) or next(found, metric.replace("_", " "))


def grid(rows: Sequence[Entry]) -> list[list[str]]:
    """The table as text, its head first; columns in which nothing stands are left out."""
    main = rows[-1].main  # a model without a head yet has other numbers than the adapted one
    head = ["", f"{label(main)} (95 % interval)", "change", "canary", "ECE", "size", "latency p50 / p99"]
    columns = [column for column in zip(head, *(cells(row, main) for row in rows), strict=True) if any(column[1:])]
    return [list(row) for row in zip(*columns, strict=True)]


def cells(entry: Entry, main: str) -> list[str]:
    """One row of the table, as text; `main`: the metric that is shown, where it was measured."""
    latency = entry.latency
    return [
        entry.title,
        shown(entry, main),
        "" if not entry.change else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in entry.change)),
        shown(entry, "canary"),
        f"{entry.metrics['ece']:.3f}" if "ece" in entry.metrics else "",
        f"{entry.size_bytes / 1e6:.1f} MB" if entry.size_bytes else "",
        f"{latency.p50_ms:.2f} / {latency.p99_ms:.2f} ms" if latency else "",
    ]


def shown(entry: Entry, metric: str) -> str:
    """A metric with its interval, where it was measured; else nothing."""
    value = entry.metrics.get(metric)
    scale, places, unit = (100, 1, " %") if is_share(metric) else (1, 2, "")
    ends = [f"{scale * end:.{places}f}" for end in entry.intervals.get(metric, ())]
    return "" if value is None else f"{scale * value:.{places}f}{unit}" + (f" ({'–'.join(ends)})" if ends else "")


def is_share(metric: str) -> bool:
    """Does it lie in 0–1, so that tables show its percent?"""
    return metric not in METRICS or METRICS[metric].fraction


# ------------------------------------------------------------------------------------------------------------------ words


def notes(rows: Sequence[Entry]) -> list[str]:
    """What must be said beside the table, a sentence or two each."""
    found = []
    titles = {entry.name: entry.title for entry in rows}
    above = {entry.name: before.name for entry, before in zip(rows[1:], rows, strict=False)}
    compared = [entry for entry in rows if entry.change]
    if compared:
        found.append("Change is against the row above, on the same images, with its paired 95 % bootstrap interval.")
    for entry in compared:
        if entry.against and entry.against != above.get(entry.name):
            found.append(f"The change of {entry.title} is against {titles.get(entry.against, entry.against)}.")
    found += [f"{entry.title}: {_stopped(note)}" for entry in rows for note in entry.notes]
    if known := sorted(
        {name.removeprefix("canary ") for entry in rows for name in entry.metrics if name.startswith("canary ")}
    ):
        found.append(f"Canary: the mean over other data that the model should not forget: {', '.join(known)}.")
    found += unlike(rows)
    if text := timed(rows):
        found.append(text)
    if rows and rows[0].left_out:
        found.append(f"Pictures of the data that could not be used: {rows[0].left_out}; data_problems.csv lists them.")
    return found


def unlike(rows: Sequence[Entry]) -> list[str]:
    """What must be said of neighbours in the table, and of an entry and the one that it is compared with, not measured alike."""
    by_name = {entry.name: entry for entry in rows}
    pairs = list(zip(rows[1:], rows, strict=False))
    pairs += [(entry, by_name[entry.against]) for entry in rows if entry.change and entry.against in by_name]
    found = []
    for entry, other in pairs:
        # a row's title says how precise it is, and what has learnt has a scale of its own
        if said := "; ".join(
            each.words for each in apart(entry.protocol, other.protocol) if each.key not in ("precision", "logit_scale")
        ):
            found.append(f"Not measured alike: {entry.title} and {other.title} ({said}).")
    return list(dict.fromkeys(found))


def timed(rows: Sequence[Entry]) -> str:
    """What the latencies are of: what holds for all rows, then what holds for some; empty without any."""
    rows = [row for row in rows if row.latency]
    if not rows:
        return ""
    facts = [_facts(row) for row in rows]
    shared = [name for name in facts[0] if len({fact[name] for fact in facts}) == 1]
    lines = [f"Latency: {', '.join(['one image', *(facts[0][name] for name in shared if facts[0][name])])}."]
    remarks: dict[str, list[str]] = {}
    for row, fact in zip(rows, facts, strict=True):
        own = [words for name, words in fact.items() if words and name not in shared]
        if row.latency_torch:
            own.append(f"{row.latency_torch.p50_ms:.1f} ms in eager PyTorch")
        if row.latency.calls is not None and row.latency.calls < FEW:
            own.append(f"only {row.latency.calls} calls")
        remarks.setdefault(", ".join(own), []).append(row.title)
    lines += [f"{' and '.join(titles)}: {own}." for own, titles in remarks.items() if own]
    return " ".join(lines)


def _facts(row: Entry) -> dict[str, str]:
    """What was timed, on what, in words; empty where it is not known."""
    latency = row.latency
    return {
        "what": f"the {latency.what.removeprefix('the ')}" if latency.what else "",
        "runtime": runtime(row),
        "threads": "one thread" if latency.threads == 1 else f"{latency.threads} threads",
    }


def runtime(row: Entry) -> str:
    """What a row was timed on, as it is called; empty where that is not known."""
    name = row.latency.runtime if row.latency else ""
    return RUNTIMES.get(name, name)


def data(splits: Sequence[Split]) -> str:
    """How many pictures each split has and where it came from, in a line; empty without any."""
    parts = []
    for i, split in enumerate(splits):
        unit = (" picture" if split.pictures == 1 else " pictures") if i == 0 else ""
        parts.append(f"{split.split} {split.pictures:,}{unit}{f' ({split.origin})' if split.origin else ''}")
    return f"Data: {'; '.join(parts)}." if parts else ""


def verdict(guard: Guard) -> tuple[str, str]:
    """What became of a promise, and why; there is nothing to explain about one that was kept."""
    told = f"{MARKS[guard.state]} Guard {guard.state}: {guard.name.rstrip('.')}."
    return told, "" if guard.state == "kept" else _sentence(guard.message)


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = _stopped(text)
    return text[:1].upper() + text[1:]


def _stopped(text: str) -> str:
    """With a full stop, if it has no other end."""
    text = text.strip()
    return text + ("" if not text or text.endswith((".", "!", "?")) else ".")


# --------------------------------------------------------------------------------------------------------------- terminal


def tell(folder: Path, entries: list[dict], guards: list[dict]) -> None:
    """Print the table, its notes, the guards, and where the report lies.

    Raises:
        UserError: the numbers cannot be read.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    splits = Run(folder).read_json("metrics.json", {}).get("splits", [])
    numbers = parse({"entries": entries, "guards": guards, "splits": splits}, folder / "metrics.json")
    console, rows = Console(), road(numbers.entries)
    if rows:
        out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        head, *body = grid(rows)
        for i, name in enumerate(head):
            out.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
        for row in body:
            out.add_row(*map(Text, row))
        console.print(out)
    page = folder / "report.html"
    last = f"Report: {page}" if page.exists() else f"Run: {folder}"
    lines = [(line, "") for line in (data(numbers.splits), *notes(rows))]
    lines += [(" ".join(verdict(guard)).strip(), STYLES[guard.state]) for guard in numbers.guards]
    for line, style in [*filter(lambda pair: pair[0], lines), (last, "")]:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
