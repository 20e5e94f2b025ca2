"""Any picture becomes RGB when its row is looked at."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from datasets import Dataset, Features, Image, concatenate_datasets, load_from_disk
from PIL import Image as Picture

from adapt.plug import UserError
from adapt.vision.pictures import RGB, rgb


def column(*pictures: bytes) -> Dataset:
    rows = {"image": [{"bytes": data, "path": None} for data in pictures]}
    return Dataset.from_dict(rows, Features(image=RGB()))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(column(data)[0]["image"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "I"])
def test_every_png_mode_decodes_to_rgb(make, mode):
    image = make.picture().convert("I") if mode.startswith("I") else make.picture(mode=mode)
    assert column(make.encode(image.convert(mode), "PNG"))[0]["image"].mode == "RGB"


def test_cmyk_and_grey_jpegs_decode_to_rgb(make):
    rows = column(make.encode(make.picture(mode="CMYK")), make.encode(make.picture(mode="L")))
    assert {row["image"].mode for row in rows} == {"RGB"}


def test_transparency_is_laid_over_white(make):
    half = Picture.new("RGBA", (2, 1), (0, 0, 0, 128))
    half.putpixel((0, 0), (9, 9, 9, 0))
    assert pixels(make.encode(half, "PNG")).tolist() == [[[255] * 3, [127] * 3]]


def test_a_transparent_palette_is_laid_over_white(make):
    image = Picture.new("P", (2, 2), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    rows = column(make.encode(image, "GIF", transparency=0))
    assert np.asarray(rows[0]["image"]).min() == 255


def test_sixteen_bits_keep_their_shades(make):
    # a plain conversion clips everything above 255 to white; see tests/vision/test_depth.py
    deep = Picture.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16))
    assert pixels(make.encode(deep, "PNG"))[0, :, 0].tolist() == [0, 128, 255]


def test_exif_turns_the_picture(make):
    exif = Picture.Exif()
    exif[0x0112] = 6
    assert column(make.encode(make.picture(size=(24, 16)), exif=exif))[0]["image"].size == (16, 24)


def test_a_broken_picture_is_a_user_error_that_names_it(make, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(make.encode(make.picture(size=(64, 64)))[:-500])
    rows = Dataset.from_dict({"image": [{"path": str(tmp_path / "cut.jpg"), "bytes": None}]}, Features(image=RGB()))
    with pytest.raises(UserError, match=r"cut\.jpg.*truncated.*adapt doctor"):
        rows[0]
    with pytest.raises(UserError, match="too many pixels"):
        column(make.bomb())[0]


def test_no_program_is_started_for_a_picture():
    # an EPS file in disguise would be given to ghostscript
    with pytest.raises(UserError, match="known format"):
        column(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")[0]


def test_the_column_survives_what_data_sets_go_through(make, tmp_path):
    rows = column(make.encode(make.picture(mode="RGBA"), "PNG"))
    rows = pickle.loads(pickle.dumps(rows)).map(lambda _: {"more": 1})
    rows.save_to_disk(tmp_path / "saved")
    rows = concatenate_datasets([load_from_disk(tmp_path / "saved"), rows])
    assert [row["image"].mode for row in rows] == ["RGB", "RGB"]
    assert rows.cast_column("image", Image(decode=False))[0]["image"]["bytes"][:4] == b"\x89PNG"


def test_rgb_leaves_an_rgb_picture_as_it_is(make):
    assert np.array_equal(np.asarray(rgb(make.picture())), np.asarray(make.picture()))
