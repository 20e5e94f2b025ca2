"""Lay out `dinov2-tiny` and its training pictures.

    python -m adapt.assets.build_icons && python -m adapt.assets.build_dinov2_tiny && adapt finetune recipe=zoo/dinov2_tiny
    python -m adapt.assets.publish runs/dinov2_tiny-…
    python -m adapt.assets.teach_dinov2_tiny     # when clip-tiny has been made of it

The pictures are those of `build_icons.py` whose name at least `LEAST` of them share, with the name as their class; none is by the
target hand. The format is that of `facebook/dinov2-small`, so that the code path is the one that public checkpoints take.
"""

from __future__ import annotations

from collections import Counter

from datasets import ClassLabel, Dataset, Features, Image, load_dataset
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from adapt.assets._sources import CACHE
from adapt.models.checkpoint import EMBEDDED
from adapt.plug import UserError

LEAST = 3
"""Pictures of a name, at least, for it to be a class."""
SIZE, PATCH = 48, 8
FOLDER = EMBEDDED / "dinov2-tiny"


def pictures() -> tuple[int, int]:
    """Write `$ADAPT_CACHE/named/things.parquet`: image, label (the name); returns how many pictures and classes."""
    files = sorted(str(path) for path in (CACHE / "icons").glob("*.parquet"))
    if not files:
        raise UserError("no pictures yet. First: python -m adapt.assets.build_icons")
    rows = load_dataset("parquet", data_files=files, split="train").cast_column("image", Image(decode=False))
    names = [captions[0] for captions in rows["caption"]]
    counts = Counter(names)
    kept = [row for row, name in enumerate(names) if counts[name] >= LEAST]
    label = ClassLabel(names=sorted({names[row] for row in kept}))
    images = rows.select(kept)["image"]
    columns = {"image": list(images), "label": [names[row] for row in kept]}
    (CACHE / "named").mkdir(parents=True, exist_ok=True)
    temporary = CACHE / "named" / "things.part"
    Dataset.from_dict(columns, features=Features(image=Image(), label=label)).to_parquet(temporary)
    temporary.rename(temporary.with_suffix(".parquet"))
    return len(kept), len(label.names)


def layout() -> Dinov2Config:
    """Write the configuration and the image processor."""
    config = Dinov2Config(
        hidden_size=192,
        num_hidden_layers=8,
        num_attention_heads=3,
        mlp_ratio=4,
        image_size=SIZE,
        patch_size=PATCH,
        use_mask_token=False,
        architectures=["Dinov2Model"],
    )
    config.save_pretrained(FOLDER)
    size = {"height": SIZE, "width": SIZE}
    BitImageProcessor(size={"shortest_edge": SIZE}, crop_size=size, resample=3).save_pretrained(FOLDER)
    return config


def main() -> None:
    config = layout()
    count, classes = pictures()
    print(f"{FOLDER.name}: {Dinov2Model(config).num_parameters():,} parameters; {count:,} pictures of {classes:,} names")


if __name__ == "__main__":
    main()
