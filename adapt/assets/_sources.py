"""Published npm packages of pictures: fetched once into the cache, read from the archive, drawn at 64 × 64."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from functools import cache

import resvg_py
from PIL import Image

from adapt import hardware

SIZE = 64
GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
CACHE = hardware.cache_folder()


@cache
def package(name: str) -> tarfile.TarFile:
    """The archive of an npm package, fetched with `npm pack` when the cache lacks it."""
    folder = CACHE / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    pattern = name.lstrip("@").replace("/", "-") + "-[0-9]*.tgz"
    if not list(folder.glob(pattern)):
        subprocess.run(["npm", "pack", "--silent", name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return tarfile.open(sorted(folder.glob(pattern))[-1])


@cache
def members(name: str) -> frozenset[str]:
    """Paths inside a package's archive."""
    return frozenset(package(name).getnames())


def read(name: str, path: str) -> bytes:
    """A file of a package."""
    return package(name).extractfile(f"package/{path}").read()


def read_json(name: str, path: str):
    """A JSON file of a package."""
    return json.loads(read(name, path))


def version(name: str) -> str:
    """The exact version of a package that the cache holds."""
    return read_json(name, "package.json")["version"]


@cache
def iconify(name: str) -> tuple[dict, dict, dict]:
    """An Iconify set: (icons.json, info.json, hexcode → icon name; empty when the set has no `chars.json`)."""
    chars = read_json(name, "chars.json") if "package/chars.json" in members(name) else {}
    return read_json(name, "icons.json"), read_json(name, "info.json"), chars


def svg(icons: dict, icon: str) -> str:
    """The SVG text of an Iconify icon; `currentColor` is black."""
    entry = icons["icons"][icon]
    box = [entry.get(key, icons.get(key, default)) for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]
    body = entry["body"].replace("currentColor", "#000")
    view = " ".join(map(str, box))
    return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}">{body}</svg>'


def draw(text: str, size: int = SIZE) -> Image.Image:
    """SVG → RGBA, the longer side `size` pixels, centred on a transparent square."""
    return square(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=text, width=size)))).convert("RGBA"), size)


def square(image: Image.Image, size: int = SIZE) -> Image.Image:
    """Any picture → RGBA[size, size], aspect kept, centred."""
    image = image.convert("RGBA")
    if image.size == (size, size):
        return image
    scale = size / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas


def lossless(image: Image.Image) -> bytes:
    """Lossless WebP; what nobody sees, under transparent pixels, is zeroed so that it compresses."""
    if image.mode == "RGBA":
        clear = image.getchannel("A").point(lambda a: 255 if a < 6 else 0)
        image.paste((0, 0, 0, 0), mask=clear)
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return out.getvalue()


@cache
def emojis() -> list[dict]:
    """All emojis of CLDR: hexcode, label, tags, group and subgroup by name, from `emojibase-data`."""
    groups = read_json("emojibase-data", "meta/groups.json")
    return [
        {
            "id": entry["hexcode"],
            "name": entry["label"],
            "keywords": [tag for tag in entry.get("tags", []) if tag != entry["label"]],
            "group": groups["groups"][str(entry["group"])],
            "subgroup": groups["subgroups"][str(entry["subgroup"])],
        }
        for entry in read_json("emojibase-data", "en/data.json")
        if "group" in entry and "subgroup" in entry
    ]


def things() -> list[dict]:
    """The emojis that are things: animals, food, places, activities, objects."""
    return [emoji for emoji in emojis() if emoji["group"] in GROUPS]


def slug(text: str) -> str:
    """A CLDR name as Iconify writes it: 'cat with tears' → 'cat-with-tears'."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("’", "").replace("'", "")).strip("-")


def key(hexcode: str) -> str:
    """A code point sequence without its presentation selectors, by which packages are joined: '2600-FE0F' → '2600'."""
    return "-".join(part.lstrip("0") for part in hexcode.lower().split("-") if part not in ("fe0f", "200d"))
