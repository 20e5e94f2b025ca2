"""Build the pre-training corpus: named pictures in openly licensed icon and emoji sets, drawn at 64 × 64 into the cache.

    python -m adapt.assets.build_icons

Writes `$ADAPT_CACHE/icons/*.parquet` (default `~/.cache/adapt`): image, caption (list of texts), hand. Nothing of it is shipped.
The target hand, OpenMoji, is not among the sets; share-alike and copyleft sets are refused by their licence.
"""

from __future__ import annotations

import io
import json
import re
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Picture

from adapt.assets._sources import CACHE, draw, emojis, iconify, key, lossless, slug, svg
from adapt.overrides import parse_yaml
from adapt.recipe import find

ALLOWED = {"Apache-2.0", "MIT", "ISC", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause", "Unlicense"}
EMOJI_SETS = [
    "noto",
    "noto-v1",
    "twemoji",
    "emojione",
    "emojione-monotone",
    "fluent-emoji",
    "fluent-emoji-flat",
    "fluent-emoji-high-contrast",
    "fxemoji",
    "streamline-emojis",
]
ICON_SETS = [
    "basil",
    "bi",
    "carbon",
    "cil",
    "covid",
    "f7",
    "fa6-solid",
    "fa7-solid",
    "flat-color-icons",
    "fluent",
    "fluent-color",
    "foundation",
    "game-icons",
    "gis",
    "guidance",
    "healthicons",
    "hugeicons",
    "ic",
    "icon-park",
    "icon-park-outline",
    "icon-park-solid",
    "iconamoon",
    "iconoir",
    "icons8",
    "ion",
    "la",
    "lets-icons",
    "lucide",
    "majesticons",
    "maki",
    "material-symbols",
    "mdi",
    "medical-icon",
    "meteocons",
    "mingcute",
    "mynaui",
    "pepicons-pop",
    "ph",
    "proicons",
    "solar",
    "streamline",
    "streamline-color",
    "streamline-plump-color",
    "streamline-ultimate-color",
    "tabler",
    "teenyicons",
    "temaki",
    "uil",
    "vaadin",
    "zondicons",
]
# A drawing style, not a part of the name.
STYLE = re.compile(
    r"-(outline|outlined|outlines|line|linear|fill|filled|solid|regular|light|thin|bold|duotone|twotone|two-tone|sharp|rounded|round|broken|color|flat|"
    r"remix|baseline|[0-9]+)(?=-|$)|^(baseline|outline|round|sharp|twotone)-"
)
# Signs of user interfaces: no things.
SIGNS = set(
    """
    arrow arrows chevron chevrons caret align alignment format border text letter number alpha logo sort filter angle cursor
    corner bracket brackets braces parentheses equal plus minus add remove delete cancel check checkmark close menu layout
    column columns row rows grid table list indent outdent undo redo refresh reload sync login logout user users person
    account wifi signal network api code git github data database server cloud-upload css html js sql json csv xml settings
    config zoom fullscreen expand collapse maximize minimize drag drop paragraph heading font bold italic underline
    strikethrough circle square rectangle triangle hexagon octagon pentagon ellipsis dots more share link unlink upload
    download import export copy paste cut slide screen window tab tabs flag navigation axis vector node function math
    percent hashtag at slash question exclamation info error warning clef button face hand hands gesture finger man woman
    boy girl people family kiss couple medium high low off hdr iso qr barcode
    """.split()  # noqa: SIM905
)


@cache
def lexicon() -> tuple[dict[str, dict], dict[str, str]]:
    """(CLDR name → emoji, word → class: last words of names, and keywords that only one class has) of the emojis that are things."""
    named, words, spoiled = {}, {}, set()
    classes = parse_yaml(find("prompts", "emoji").read_text(), "prompts")["classes"]
    for emoji in emojis():
        if emoji["subgroup"] not in classes:
            continue
        named[emoji["name"].lower()] = emoji | {"class": classes[emoji["subgroup"]]}
        for word in {emoji["name"].lower(), emoji["name"].lower().split()[-1]}:
            if words.setdefault(word, classes[emoji["subgroup"]]) != classes[emoji["subgroup"]]:
                spoiled.add(word)
    return named, {word: name for word, name in words.items() if word not in spoiled}


def captions(name: str) -> list[str]:
    """An icon's name as words → its texts, the name and its class; none when no thing of CLDR is known by it."""
    named, words = lexicon()
    if name in named:
        return [name, named[name]["class"]]
    last = name.split()[-1].removesuffix("s") if name else ""
    group = words.get(name) or words.get(name.split()[-1]) or words.get(last)
    return [name, group] if group else []


def chosen(set_name: str) -> dict[str, str]:
    """icon → its name as words; at most three drawings of one name."""
    icons, info, chars = iconify(f"@iconify-json/{set_name}")
    if info["license"]["spdx"] not in ALLOWED:
        raise SystemExit(f"{set_name}: licence {info['license']['spdx']} is not allowed")
    if set_name in EMOJI_SETS:
        by_key = {key(emoji["id"]): emoji for emoji in emojis()}
        by_slug = {slug(emoji["name"]): emoji for emoji in emojis()}
        found = {icon: by_slug[icon]["name"].lower() for icon in icons["icons"] if icon in by_slug}
        found |= {
            icon: by_key[key(code)]["name"].lower()
            for code, icon in chars.items()
            if key(code) in by_key and icon in icons["icons"]
        }
        return {icon: name for icon, name in found.items() if name in lexicon()[0]}
    kept, count = {}, {}
    for icon in sorted(icons["icons"], key=lambda icon: (len(icon), icon)):
        name = STYLE.sub("", icon)
        name = STYLE.sub("", name).replace("-", " ").strip()
        if not name or len(name) < 3 or set(name.split()) & SIGNS or any(c.isdigit() for c in name):
            continue
        if captions(name) and count.get(name, 0) < 3:
            count[name] = count.get(name, 0) + 1
            kept[icon] = name
    return kept


def render(set_name: str) -> tuple[str, int, str]:
    """Draw one set into its Parquet file, unless it lies there; returns its name, size and licence."""
    path = CACHE / "icons" / f"{set_name}.parquet"
    icons, info, _ = iconify(f"@iconify-json/{set_name}")
    wanted = chosen(set_name)
    if not path.exists():
        rows = {"image": [], "caption": [], "hand": []}
        for icon, name in wanted.items():
            try:
                picture = draw(svg(icons, icon))
            except ValueError:
                continue
            white = Picture.new("RGB", picture.size, "white")
            white.paste(picture, mask=picture.getchannel("A"))
            out = io.BytesIO()
            white.save(out, "PNG", compress_level=1)
            rows["image"].append({"bytes": out.getvalue(), "path": None})
            rows["caption"].append(captions(name))
            rows["hand"].append(set_name)
        features = Features({"image": Image(), "caption": List(Value("string")), "hand": Value("string")})
        temporary = path.with_suffix(".part")
        Dataset.from_dict(rows, features=features).to_parquet(temporary)
        temporary.rename(path)
    return set_name, len(wanted), info["license"]["spdx"]


def embedded() -> None:
    """The shipped source hands, once more, as rows of the corpus."""
    for hand in ("noto", "twemoji", "fluent_flat", "fluent_3d"):
        source = Dataset.from_parquet(str(find_hand(hand)))
        rows = {"image": [], "caption": [], "hand": []}
        for row in source:
            white = Picture.new("RGB", row["image"].size, "white")
            white.paste(row["image"], mask=row["image"].getchannel("A"))
            rows["image"].append({"bytes": lossless(white), "path": None})
            rows["caption"].append(captions(row["name"].lower()))
            rows["hand"].append(hand)
        features = Features({"image": Image(), "caption": List(Value("string")), "hand": Value("string")})
        Dataset.from_dict(rows, features=features).to_parquet(CACHE / "icons" / f"embedded_{hand}.parquet")


def find_hand(hand: str):
    from adapt.plug import ROOT

    return ROOT / "assets" / "emoji" / f"{hand}.parquet"


def main() -> None:
    (CACHE / "icons").mkdir(parents=True, exist_ok=True)
    embedded()
    with ProcessPoolExecutor(2) as pool:
        sets = []
        for name, count, licence in pool.map(render, EMOJI_SETS + ICON_SETS):
            print(f"{name}: {count} pictures, {licence}", flush=True)
            sets.append({"set": name, "pictures": count, "licence": licence})
    (CACHE / "icons" / "sets.json").write_text(json.dumps(sets, indent=1))
    print(f"{sum(entry['pictures'] for entry in sets)} pictures in {len(sets)} sets")


if __name__ == "__main__":
    main()
