"""Pictures of 16 bits, of numbers without a range, and of many channels: the same pixels for every picture, at every door."""

from __future__ import annotations

import csv
import io
import struct
import zlib

import numpy as np
import pytest
from datasets import Dataset, Features
from PIL import Image

from adapt.data.check import check
from adapt.data.masks.files import read
from adapt.data.scan import inspect, quiet
from adapt.export.examples import sam_onnx_numpy as example
from adapt.plug import UserError
from adapt.vision.depth import Refused, bits, eight
from adapt.vision.pictures import RGB, open_picture, rgb

GREY = np.random.default_rng(0).integers(0, 1 << 16, (6, 9)).astype(np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 1 << 16, (6, 9, 3)).astype(np.uint16)
ALPHA = np.dstack([COLOUR, np.full((6, 9), 65535, np.uint16)])


def tiff(values: np.ndarray, kind: int = 1, photometric: int = 1, extra: tuple[int, ...] = (), turned: int = 1) -> bytes:
    """An uncompressed TIFF by hand, in the byte order of the values (TIFF 6.0).

    Args:
        values: [H, W] or [H, W, C].
        kind: SampleFormat: 1 unsigned, 2 signed, 3 floating point.
        photometric: 0 white is 0, 1 black is 0, 2 RGB.
        extra: what the channels beyond those of the photometric kind are: 0 unsaid, 2 alpha.
        turned: orientation.
    """
    order = ">" if values.dtype.byteorder == ">" else "<"
    height, width = values.shape[:2]
    count = values.shape[2] if values.ndim == 3 else 1
    tags = {
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * count,
        259: [1],
        262: [photometric],
        273: [0],
        274: [turned],
    }
    tags |= {277: [count], 278: [height], 279: [values.nbytes], 339: [kind] * count} | ({338: list(extra)} if extra else {})
    place = 8 + 2 + 12 * len(tags) + 4
    far = b"".join(struct.pack(f"{order}{len(v)}I", *v) for v in tags.values() if len(v) > 1)
    tags[273] = [place + len(far)]
    entries = b""
    for tag, numbers in sorted(tags.items()):
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers))
        entries += struct.pack(f"{order}I", numbers[0] if len(numbers) == 1 else place)
        place += 4 * len(numbers) * (len(numbers) > 1)
    far = b"".join(struct.pack(f"{order}{len(v)}I", *v) for _, v in sorted(tags.items()) if len(v) > 1)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + far + values.tobytes()


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits by hand: grey, grey and alpha, RGB, RGBA, by its channels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


GREYS = {
    "by Pillow.png": saved(Image.fromarray(GREY), "PNG"),
    "by Pillow.tif": saved(Image.fromarray(GREY), "TIFF"),
    "deflated.tif": saved(Image.fromarray(GREY), "TIFF", compression="tiff_adobe_deflate"),
    "by Pillow.pgm": saved(Image.fromarray(GREY), "PPM"),
    "by Pillow.jp2": saved(Image.fromarray(GREY), "JPEG2000", irreversible=False),
    "by hand.png": png(GREY),
    "little.tif": tiff(GREY.astype("<u2")),
    "big.tif": tiff(GREY.astype(">u2")),
    "white is 0.tif": tiff(65535 - GREY, photometric=0),
}
COLOURS = {
    "colour.png": png(COLOUR),
    "alpha.png": png(ALPHA),
    "little colour.tif": tiff(COLOUR.astype("<u2"), photometric=2),
    "big colour.tif": tiff(COLOUR.astype(">u2"), photometric=2),
    "alpha.tif": tiff(ALPHA, photometric=2, extra=(2,)),
}
ONE = np.ones((6, 9), np.int32)
REFUSED = {
    "float.tif": (tiff(ONE.astype("<f4"), 3), "no fixed range (floating-point numbers of 32 bit)"),
    "by Pillow float.tif": (
        saved(Image.fromarray(ONE.astype(np.float32)), "TIFF"),
        "no fixed range (floating-point numbers of 32 bit)",
    ),
    "by Pillow.ppm": (
        saved(Image.fromarray(ONE.astype(np.float32)), "PPM"),
        "no fixed range (floating-point numbers of 32 bit)",
    ),
    "half.tif": (tiff(ONE.astype("<f2"), 3), "no fixed range (floating-point numbers of 16 bit)"),
    "double.tif": (tiff(ONE.astype(">f8"), 3), "no fixed range (floating-point numbers of 64 bit)"),
    "signed.tif": (tiff(ONE.astype("<i2"), 2), "no fixed range (signed integers of 16 bit)"),
    "32.tif": (tiff(ONE.astype("<u4")), "no fixed range (integers of 32 bit)"),
    "big 32.tif": (tiff(ONE.astype(">u4")), "no fixed range (integers of 32 bit)"),
    "signed 32.tif": (saved(Image.fromarray(ONE), "TIFF"), "no fixed range (signed integers of 32 bit)"),
    "five.tif": (tiff(np.ones((6, 9, 5), np.uint8), photometric=2, extra=(0, 0)), "many channels (5)"),
    "thirteen.tif": (tiff(np.ones((6, 9, 13), "<u2"), extra=(0,) * 12), "many channels (13)"),
    "two.tif": (
        tiff(np.ones((6, 9, 2), "<u2"), extra=(2,)),
        "unreadable (a TIFF with 2 channels of 16 bit cannot be read; save",
    ),
}


def mask_of(path) -> np.ndarray:
    return read({"path": str(path), "bytes": None})


@pytest.mark.parametrize("name", GREYS)
def test_of_sixteen_bits_the_upper_eight_are_read_whoever_wrote_the_file(tmp_path, name):
    (tmp_path / name).write_bytes(GREYS[name])
    seen = np.asarray(rgb(open_picture({"path": str(tmp_path / name)})))
    assert (seen == (GREY // 256).astype(np.uint8)[..., None]).all()
    assert (example.read(str(tmp_path / name)) == seen).all()


@pytest.mark.parametrize("name", COLOURS)
def test_grey_pictures_are_read_as_pillow_reads_colours(tmp_path, name):
    (tmp_path / name).write_bytes(COLOURS[name])
    seen = np.asarray(rgb(open_picture({"path": str(tmp_path / name)})))
    assert (seen == COLOUR // 256).all() and (example.read(str(tmp_path / name)) == seen).all()


@pytest.mark.parametrize("factor", [256, 257])
def test_a_copy_with_eight_bits_has_the_same_pixels(factor):
    copy = np.arange(256, dtype=np.uint16).reshape(16, 16)
    seen = np.asarray(rgb(open_picture({"bytes": png(copy * np.uint16(factor))})))
    assert (seen[..., 0] == copy).all()


def test_a_dark_picture_stays_dark_and_the_report_says_so():
    twelve = GREY // 16  # as cameras and X-ray machines write: 0 to 4095
    assert np.asarray(rgb(open_picture({"bytes": png(twelve)}))).max() <= 15
    (problem,) = inspect({"bytes": png(twelve), "path": None}).problems
    assert problem == ("16 bit", f"I;16, up to {int(twelve.max()) // 256} of 255 when read")


def test_sixteen_bits_are_counted_and_turned(tmp_path):
    files = GREYS | COLOURS
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "turned.tif").write_bytes(tiff(GREY, turned=6))  # which Pillow garbles, when it is opened by its name
    report = check(tmp_path)
    assert report.counts()["16 bit"] == len(files) + 2 and not report.severe
    for name in ("turned.png", "turned.tif"):
        seen = np.asarray(rgb(open_picture({"path": str(tmp_path / name)})))
        assert (seen[..., 0] == np.rot90(GREY // 256, -1)).all() and (example.read(str(tmp_path / name)) == seen).all()
        assert inspect({"bytes": None, "path": str(tmp_path / name)}).size == (6, 9)


def test_eight_bits_are_not_called_sixteen(tmp_path):
    for name, options in {"a.bmp": {}, "a.png": {}, "a.ppm": {}, "a.tif": {"compression": "tiff_lzw"}}.items():
        Image.fromarray((COLOUR // 256).astype(np.uint8)).save(tmp_path / name, **options)
        assert bits(open_picture({"path": str(tmp_path / name)})) == 8
    assert check(tmp_path).counts() == {}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_say_the_look_of_is_refused_in_one_line_at_every_door(tmp_path, name, caplog):
    data, said = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    (problem,) = check(tmp_path).problems
    assert problem.severe and str(problem).startswith(f"{name!r}: {said}")
    with pytest.raises(UserError) as error:  # a training
        Dataset.from_dict({"image": [{"path": str(tmp_path / name), "bytes": None}]}, Features(image=RGB()))[0]
    assert said.removeprefix("unreadable (") in str(error.value) and "\n" not in str(error.value)
    assert not caplog.records  # Pillow's own words
    with pytest.raises((SystemExit, OSError)):  # the exported file's example
        example.read(str(tmp_path / name))


def test_predict_lists_it_with_the_same_words(tmp_path):
    from adapt.verbs.predicting.pictures import Pictures, look

    for name, (data, _) in REFUSED.items():
        (tmp_path / name).write_bytes(data)
    pictures = Pictures(tmp_path, sorted(REFUSED), ())
    for number, name in enumerate(sorted(REFUSED)):
        kind, detail = look(pictures, number, lambda image: None).problem
        assert f"{kind} ({detail})".startswith(REFUSED[name][1])


@pytest.mark.parametrize("name", ["by Pillow.png", "by Pillow.pgm", "big.tif", "white is 0.tif", "turned.tif"])
def test_tiles_and_previews_show_the_pixels_of_the_whole_picture(tmp_path, name):
    from adapt.verbs.predicting.pictures import Pictures
    from adapt.verbs.predicting.previews import _small
    from adapt.verbs.predicting.tiles import Tiling, cut

    (tmp_path / name).write_bytes(GREYS.get(name) or tiff(GREY, turned=6))
    whole = rgb(open_picture({"path": str(tmp_path / name)}))
    shown = [look() for look in cut(Pictures(tmp_path, [name], []), [0], np.asarray, Tiling(5, 0.2))]
    assert len(shown) > 3
    for tile in shown:
        assert (tile.prepared == np.asarray(whole.crop(tile.tile))).all()
    assert (np.asarray(_small(tmp_path / name)) == np.asarray(whole)).all()


def test_next_steps_are_said():
    with pytest.raises(Refused, match="convert it to 8 or unsigned 16 bit, all pictures by the same range"):
        eight(open_picture({"bytes": REFUSED["float.tif"][0]}))
    with pytest.raises(Refused, match="save those that a model is to see as a picture in RGB or grey"):
        eight(open_picture({"bytes": REFUSED["five.tif"][0]}))


def test_a_fourth_channel_is_told_and_further_pages_are_counted(tmp_path):
    infrared = tiff((ALPHA // 256).astype(np.uint8), photometric=2, extra=(0,))
    (tmp_path / "infrared.tif").write_bytes(infrared)
    Image.new("L", (9, 6), 7).save(
        tmp_path / "pages.tif", save_all=True, append_images=[Image.new("L", (9, 6), i) for i in (8, 9)]
    )
    report = check(tmp_path)
    assert {(problem.id, problem.problem, problem.detail) for problem in report.problems} == {
        ("infrared.tif", "fourth channel", ""),
        ("pages.tif", "many frames", "3 in TIFF"),
        ("pages.tif", "wrong mode", "L"),
    }
    assert not report.severe
    assert (np.asarray(rgb(open_picture({"bytes": infrared}))) == COLOUR // 256).all()
    assert np.asarray(rgb(open_picture({"path": str(tmp_path / "pages.tif")}))).max() == 7
    report.write(tmp_path / "problems.csv")
    with open(tmp_path / "problems.csv", newline="") as file:
        assert {row["problem"]: row["severe"] for row in csv.DictReader(file)}["many frames"] == "False"


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_tiff_that_breaks_off_is_one_line(cut):
    with quiet():
        (problem,) = inspect({"bytes": REFUSED["thirteen.tif"][0][:cut], "path": None}).problems
    assert problem[0] in ("zero-size", "unreadable", "truncated", "many channels")


# ----------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("name", [name for name in GREYS if name.endswith((".png", ".tif")) and "white" not in name])
def test_masks_keep_every_number_of_sixteen_bits(tmp_path, name):
    (tmp_path / name).write_bytes(GREYS[name])
    assert (mask_of(tmp_path / name) == GREY).all()
    every = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    (tmp_path / "every.png").write_bytes(png(every))
    assert (mask_of(tmp_path / "every.png") == every).all()


def test_grey_saved_as_colours_of_sixteen_bits_is_no_mask(tmp_path):
    # Pillow keeps the upper 8 bits of each: 300 would be 1
    (tmp_path / "a.png").write_bytes(png(np.full((6, 9, 3), 300, np.uint16)))
    with pytest.raises(ValueError, match="its pixels are colours"):
        mask_of(tmp_path / "a.png")
    Image.new("RGB", (9, 6), (3, 3, 3)).save(tmp_path / "b.png")
    assert (mask_of(tmp_path / "b.png") == 3).all()
