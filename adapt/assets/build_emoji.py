"""Build the embedded world: the same things drawn by five hands, one Parquet file a hand.

    python -m adapt.assets.build_emoji

Kept are the emojis that are things and that all five hands have drawn, in the order of their code points.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Picture

from adapt.assets._sources import draw, iconify, key, lossless, members, read, read_json, slug, square, svg, things, version

OUT = Path(__file__).parent / "emoji"
FEATURES = Features(
    {
        "id": Value("string"),
        "name": Value("string"),
        "keywords": List(Value("string")),
        "subgroup": Value("string"),
        "image": Image(),
    }
)
PACKAGES = {
    "noto": "emoji-datasource-google",
    "twemoji": "emoji-datasource-twitter",
    "fluent_flat": "@iconify-json/fluent-emoji-flat",
    "fluent_3d": "@lobehub/fluent-emoji-3d",
    "openmoji": "@iconify-json/openmoji",
}


def painter(hand: str) -> Callable[[dict], Picture.Image | None]:
    """emoji → its picture by this hand, RGBA 64 × 64; none when the hand has not drawn it."""
    name = PACKAGES[hand]
    if name.startswith("@iconify-json/"):
        icons, _, chars = iconify(name)
        by_key = {key(code): icon for code, icon in chars.items() if icon in icons["icons"]}

        def paint(emoji: dict):
            icon = by_key.get(key(emoji["id"])) or slug(emoji["name"])
            return draw(svg(icons, icon)) if icon in icons["icons"] else None

        return paint
    if hand == "fluent_3d":
        files = {key(Path(path).stem): path.removeprefix("package/") for path in members(name) if path.endswith(".webp")}
    else:
        folder = {"noto": "google", "twemoji": "twitter"}[hand]
        entries = [entry for entry in read_json(name, "emoji.json") if entry[f"has_img_{folder}"]]
        files = {key(entry["unified"]): f"img/{folder}/64/{entry['image']}" for entry in entries}

    def paint(emoji: dict):
        path = files.get(key(emoji["id"]))
        return square(Picture.open(io.BytesIO(read(name, path)))) if path else None

    return paint


def main() -> None:
    OUT.mkdir(exist_ok=True)
    pictures = {hand: {emoji["id"]: picture for emoji in things() if (picture := painter(hand)(emoji))} for hand in PACKAGES}
    shared = [emoji for emoji in things() if all(emoji["id"] in drawn for drawn in pictures.values())]
    shared.sort(key=lambda emoji: emoji["id"])
    for hand, drawn in pictures.items():
        rows = [{**emoji, "image": {"bytes": lossless(drawn[emoji["id"]]), "path": None}} for emoji in shared]
        for row in rows:
            del row["group"]
        path = OUT / f"{hand}.parquet"
        Dataset.from_list(rows, features=FEATURES).to_parquet(path)
        print(f"{hand}: {len(rows)} pictures, {path.stat().st_size / 1e6:.2f} MB, {PACKAGES[hand]} {version(PACKAGES[hand])}")
    print(f"{len(shared)} concepts, {len({emoji['subgroup'] for emoji in shared})} subgroups")


if __name__ == "__main__":
    main()
