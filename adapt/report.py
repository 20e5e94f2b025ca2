"""Run folder → one self-contained HTML page, the same in Markdown, and the table that a shell shows."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from pathlib import Path
from typing import Any

from adapt.evals._result import unlike
from adapt.plug import ROOT, UserError
from adapt.run import Run, atomic

STYLE = ROOT / "assets" / "report.css"
WORST = 12
LABELS = {"ece": "ECE", "nll": "NLL", "r1": "R@1", "r5": "R@5", "bleu4": "BLEU-4", "cider": "CIDEr"}
LABELS |= {"map": "mAP", "map50": "mAP@50", "map75": "mAP@75", "box_ap": "box AP", "mask_ap": "mask AP"}
LABELS |= {"mask_ap50": "mask AP@50", "miou": "mIoU", "weighted_iou": "weighted IoU", "iou_1": "IoU@1 click"}
LABELS |= {"r10": "R@10"} | {f"text_r{k}": f"R@{k} text → image" for k in (1, 5, 10)}
LABELS |= {"boundary_f": "boundary F", "knn": "kNN", "knn_mean_per_class": "kNN mean per class"}
"""How metrics are called in tables; others by their names."""
NUMBERED = {r"top(\d+)": r"top-\1", r"knn@(\d+)": r"kNN@\1", r"iou_(\d+)": r"IoU@\1 clicks"}


def build(folder: Path) -> Path:
    """Write `report.html` and `report.md` from what the run folder holds; returns the page's path.

    Raises:
        UserError: the numbers cannot be read.
    """
    metrics = Run(folder).read_json("metrics.json")
    if not (isinstance(metrics, dict) and metrics.get("entries") and "guards" in metrics):
        raise UserError(
            f"{folder / 'metrics.json'}: no entries and guards in it. Delete it, and run adapt evaluate with this recipe."
        )
    rows = road(metrics["entries"])
    parts = [
        _head(folder, rows),
        _guards(metrics["guards"]),
        _table(rows),
        _notes(rows),
        _metrics(rows),
        _pictures(folder, rows),
        _figures(folder, rows),
        _mistakes(folder, rows),
        _confusion(rows),
        _lineage(folder, rows),
    ]
    style = STYLE.read_text()
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(folder.resolve().name)}</title><style>{style}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )
    for name, text in (("report.md", markdown(folder, rows, metrics["guards"])), ("report.html", page)):
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return folder / "report.html"


def road(entries: list[dict]) -> list[dict]:
    """The rows of the table: the torch student gives way to its exported files."""
    order = {"zero-shot": 0, "adapted": 1, "merged": 2, "labels": 3, "student": 4}
    exported = any(entry["name"] not in order for entry in entries)
    kept = [entry for entry in entries if not (exported and entry["name"] == "student")]
    return sorted(kept, key=lambda entry: order.get(entry["name"], len(order)))


def label(metric: str) -> str:
    """A metric's name in tables."""
    found = (match.expand(words) for name, words in NUMBERED.items() if (match := re.fullmatch(name, metric)))
    return LABELS.get(metric) or next(found, metric.replace("_", " "))


def grid(rows: list[dict]) -> list[list[str]]:
    """The table as text, its head first; columns in which nothing stands are left out."""
    main = rows[-1]["main"]  # a model without a head yet has other numbers than the adapted one
    head = ["", f"{label(main)} (95 % interval)", "change", "ECE", "size", "latency p50 / p99"]
    columns = [column for column in zip(head, *(cells(row, main) for row in rows), strict=True) if any(column[1:])]
    return [list(row) for row in zip(*columns, strict=True)]


def cells(entry: dict, main: str) -> list[str]:
    """One row of the table, as text; `main`: the metric that is shown, where it was measured."""
    value = entry["metrics"].get(main)
    low, high = entry["intervals"].get(main, (None, None))
    interval = "" if low is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    change = "" if not entry.get("change") else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in entry["change"]))
    size, latency = entry.get("size_bytes"), entry.get("latency")
    return [
        entry["title"],
        "" if value is None else f"{100 * value:.1f} %{interval}",
        change,
        f"{entry['metrics']['ece']:.3f}" if "ece" in entry["metrics"] else "",
        f"{size / 1e6:.1f} MB" if size else "",
        f"{latency['p50_ms']:.2f} / {latency['p99_ms']:.2f} ms" if latency else "",
    ]


def table(entries: list[dict]):
    """The road as a `rich` table."""
    from rich.table import Table

    rows = road(entries)
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    head, *body = grid(rows)
    for i, name in enumerate(head):
        out.add_column(name, justify="left" if i == 0 else "right")
    for row in body:
        out.add_row(*row)
    return out


def markdown(folder: Path, rows: list[dict], guards: list[dict]) -> str:
    """The road in Markdown."""
    head, *body = grid(rows)
    lines = [f"# {folder.resolve().name}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    lines += ["", *unlike(rows)]
    lines += [
        f"- {'✓' if guard['ok'] else '✗'} {guard['name']}: {guard['message'] if not guard['ok'] else 'kept'}"
        for guard in guards
    ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------- sections


def _head(folder: Path, rows: list[dict]) -> str:
    last = rows[-1]
    first = next(row for row in rows if _question(row) == _question(last))  # only what was measured alike stands side by side
    name = label(first["main"])
    a, b = (100 * entry["metrics"][entry["main"]] for entry in (first, last))
    text = f"{name} goes from {a:.1f} % ({first['title']}) to {b:.1f} % ({last['title']}) on the {first.get('split', 'test')} split."
    if first is last:
        text = f"{name} is {a:.1f} % ({first['title']}) on the {first.get('split', 'test')} split."
    return f"<header><h1>{escape(folder.resolve().name)}</h1><p class=lead>{escape(text)}</p></header>"


def _question(entry: dict) -> tuple:
    return entry["main"], entry.get("protocol", {}).get("eval")


def _guards(guards: list[dict]) -> str:
    items = "".join(
        f"<li class={'kept' if guard['ok'] else 'broken'}><b>{escape(guard['name'])}</b>"
        f"{'' if guard['ok'] else '<br>' + escape(guard['message'])}</li>"
        for guard in guards
    )
    return f"<ul class=guards>{items}</ul>" if items else ""


def _table(rows: list[dict]) -> str:
    names, *lines = grid(rows)
    head = "".join(f"<th>{name}</th>" for name in names)
    body = ""
    for first, *rest in lines:
        body += f"<tr><th>{escape(first)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _notes(rows: list[dict]) -> str:
    """What must be said beside the table."""
    notes = []
    titles = {entry["name"]: entry["title"] for entry in rows}
    compared = [entry for entry in rows if entry.get("change")]
    if compared:
        notes.append("Change is against the row above, on the same images, with its paired 95 % bootstrap interval.")
    above = {entry["name"]: before["name"] for entry, before in zip(rows[1:], rows, strict=False)}
    for entry in compared:
        if entry["against"] != above.get(entry["name"]):
            notes.append(f"The change of {entry['title']} is against {titles.get(entry['against'], entry['against'])}.")
    if any(entry.get("latency") for entry in rows):
        notes.append("Latency is of one image, one thread.")
    if rows[0].get("left_out"):
        notes.append(f"Pictures of the data that could not be used: {rows[0]['left_out']}; data_problems.csv lists them.")
    return "".join(f"<p class=note>{escape(note)}</p>" for note in notes + unlike(rows))


def _metrics(rows: list[dict]) -> str:
    """Every metric of every row."""
    names = list(dict.fromkeys(name for entry in rows for name in entry["metrics"]))
    head = "".join(f"<th>{escape(label(name))}</th>" for name in names)
    body = "".join(
        f"<tr><th>{escape(entry['title'])}</th>"
        + "".join(f"<td>{entry['metrics'][name]:.3f}</td>" if name in entry["metrics"] else "<td></td>" for name in names)
        + "</tr>"
        for entry in rows
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<details><summary>All metrics</summary><div class=wide>{table}</div></details>"


def _pictures(folder: Path, rows: list[dict]) -> str:
    """What the evals drew."""
    parts = []
    for entry in rows:
        place = folder / "pictures" / entry["name"].replace(" ", "_")
        if not place.is_dir():
            continue
        captions = json.loads((place / "captions.json").read_text())
        cards = "".join(
            f"<figure>{_image(path.read_bytes(), caption)}<figcaption>{escape(caption)}</figcaption></figure>"
            for path, caption in zip(sorted(place.glob("*.png")), captions, strict=True)
        )
        shown = " open" if entry is rows[-1] else ""
        drawn = entry.get("protocol", {}).get("eval") in ("segmentation", "detection")
        legend = "<p class=note>Green is what is there, red what was found, blue the prompt.</p>" if drawn else ""
        inside = f"<summary>{escape(entry['title'])}</summary>{legend}<div class=pictures>{cards}</div>"
        parts.append(f"<details{shown}>{inside}</details>")
    return f"<section><h2>Pictures</h2>{''.join(parts)}</section>" if parts else ""


def _image(png: bytes, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _figures(folder: Path, rows: list[dict]) -> str:
    from adapt import charts

    figures = []
    for name, title in (("history.jsonl", "Adaptation"), ("distill/history.jsonl", "Distillation")):
        path = folder / name
        history = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if len(history) > 1:
            figures.append((f"{title}: loss and validation", charts.curves(history)))
    calibrated = [entry for entry in rows if "reliability" in entry]
    if calibrated:
        figures.append(("Reliability: is 80 % sure right 80 % of the time?", charts.reliability(calibrated)))
    placed = [entry for entry in rows if entry.get("latency") and entry.get("size_bytes")]
    if len(placed) > 1:
        name = label(placed[0]["main"])
        figures.append((f"{name} against latency; area is size", charts.trade_off(placed, name)))
    body = "".join(f"<figure>{drawing}<figcaption>{escape(title)}</figcaption></figure>" for title, drawing in figures)
    return f"<section class=figures>{body}</section>" if body else ""


def _mistakes(folder: Path, rows: list[dict]) -> str:
    """Wrong answers, as pictures; the surest, where a model says how sure it is."""
    import pyarrow.parquet as pq

    parts = []
    for entry in rows:
        path = folder / "predictions" / f"{entry['name'].replace(' ', '_')}.parquet"
        if not path.exists():
            continue
        wrong = [row for row in pq.read_table(path).to_pylist() if not row.get("correct", True)]
        if not wrong:
            continue
        worst = sorted(wrong, key=lambda row: -row.get("confidence", 0))[:WORST]
        cards = "".join(_card(row) for row in worst)
        parts.append(
            f"<details{' open' if entry is rows[-1] else ''}><summary>{escape(entry['title'])}</summary><div class=cards>{cards}</div></details>"
        )
    return f"<section><h2>Mistakes</h2>{''.join(parts)}</section>" if parts else ""


def _card(row: dict[str, Any]) -> str:
    picture = _image(row["thumbnail"], row["label"]) if row.get("thumbnail") else ""
    sure = f"<br><small>{100 * row['confidence']:.0f} % sure</small>" if "confidence" in row else ""
    return f"<div class=card>{picture}<span><b>{escape(row['label'])}</b><br>taken for {escape(row['prediction'])}{sure}</span></div>"


def _confusion(rows: list[dict]) -> str:
    from adapt import charts

    entry = next((entry for entry in reversed(rows) if "confusion" in entry), None)
    if entry is None:
        return ""
    names, counts = entry["classes"], entry["confusion"]
    pairs = [
        (counts[i][j], names[i], names[j]) for i in range(len(names)) for j in range(len(names)) if i != j and counts[i][j]
    ]
    worst = "".join(f"<li>{escape(a)} → {escape(b)}: {count}</li>" for count, a, b in sorted(pairs, reverse=True)[:10])
    drawing = charts.confusion(counts, names) if len(names) <= 100 else ""
    return f"<section><h2>Confusion: {escape(entry['title'])}</h2><ul class=pairs>{worst}</ul><div class=wide>{drawing}</div></section>"


def _lineage(folder: Path, rows: list[dict]) -> str:
    manifest = folder / "manifest.json"
    parts = []
    for title, text in (
        ("Lineage", manifest.read_text() if manifest.exists() else ""),
        ("Protocol", json.dumps(rows[0].get("protocol", {}), indent=1)),
        ("Recipe", (folder / "recipe.yaml").read_text()),
    ):
        if text:
            parts.append(f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>")
    return f"<section><h2>Where the numbers come from</h2>{''.join(parts)}</section>"
