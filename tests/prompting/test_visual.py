"""Drawn prompts, pixel by pixel against their definitions; scores against the formula written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from adapt.contracts import Input
from adapt.plug import UserError
from adapt.prompting.visual import MARKS, Visual, asked, checked, combine, drawn, expanded, parse, seen, shown, things
from adapt.vision.masks import rle

RED = (255, 0, 0)
BOX = (20, 10, 60, 40)


def scene(width: int = 120, height: int = 80):
    """Noise in blue and green, and a mask in the middle of `BOX`."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    pixels[..., 0] = 90
    mask = np.zeros((height, width), bool)
    mask[15:35, 25:55] = True
    return Picture.fromarray(pixels), mask


def drawing(name: str, config: Visual | None = None, mask: np.ndarray | None = None, image=None) -> np.ndarray:
    picture, own = scene()
    found = drawn(config or Visual(expand=0), image or picture, BOX, own if mask is None else mask, name)
    return np.asarray(found)


def test_a_crop_is_the_box_widened_by_its_share_at_each_side_inside_the_picture():
    pixels = np.asarray(scene()[0])
    assert (drawing("crop") == pixels[10:40, 20:60]).all()
    assert (drawing("crop", Visual(expand=0.1)) == pixels[7:43, 16:64]).all()
    assert (drawing("crop", Visual(expand=1)) == pixels[0:70, 0:100]).all(), "cut at the picture's edges"


@pytest.mark.parametrize("name", ["blur", "grey", "white"])
def test_around_the_thing_alone_something_changes(name):
    pixels, mask = np.asarray(scene()[0]), scene()[1]
    found = drawing(name)
    assert (found[mask] == pixels[mask]).all()
    assert (found[~mask] != pixels[~mask]).any(-1).mean() > 0.99


def test_around_the_thing_the_blur_is_a_gaussian_of_a_share_of_the_long_side():
    pixels = np.asarray(scene()[0]).astype(float)
    expected = gaussian_filter(pixels, (6, 6, 0), mode="nearest")  # 5 % of 120 pixels
    found, mask = drawing("blur", Visual(blur=5)).astype(float), scene()[1]
    assert np.abs(found - expected)[~mask].mean() < 1.5, "Pillow's is made of box blurs"
    assert np.abs(drawing("blur", Visual(blur=2)).astype(float) - expected)[~mask].mean() > 3


def test_around_the_thing_grey_is_the_luma_and_white_is_white():
    pixels, mask = np.asarray(scene()[0]).astype(float), scene()[1]
    luma = pixels @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    found = drawing("grey")[~mask].astype(float)
    assert (found[:, 0] == found[:, 1]).all() and (found[:, 0] == found[:, 2]).all()
    assert np.abs(found[:, 0] - luma[~mask]).max() < 1
    assert (drawing("white")[~mask] == 255).all()


@pytest.mark.parametrize(("size", "line"), [((120, 80), 1), ((640, 480), 2), ((2000, 1000), 6)])
def test_a_line_is_three_thousandths_of_the_long_side_and_a_pixel_at_least(size, line):
    image, mask = scene(*size)
    found = drawing("box", Visual(expand=0), mask, image)
    red = (found == RED).all(-1)
    left, top, right, bottom = BOX
    expected = np.zeros_like(red)
    expected[top:bottom, left:right] = True
    expected[top + line : bottom - line, left + line : right - line] = False
    assert (red == expected).all()
    assert (found[~expected] == np.asarray(image)[~expected]).all()


def test_an_ellipse_touches_the_middles_of_the_boxs_sides_and_leaves_its_corners():
    red = (drawing("ellipse", Visual(expand=0, line=1)) == RED).all(-1)
    rows, columns = red.nonzero()
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == BOX
    x, y = (columns + 0.5 - 40) / 20, (rows + 0.5 - 25) / 15
    assert np.abs(np.hypot(x, y) - 1).max() < 0.1, "x²/a² + y²/b² = 1"
    assert not red[10, 20] and not red[39, 59]


def test_a_contour_runs_just_outside_the_mask():
    _, mask = scene()
    found = drawing("contour", Visual(line=2))  # two pixels
    red = (found == RED).all(-1)
    assert not (red & mask).any(), "the thing itself stays"
    near = np.zeros_like(mask)
    for y, x in zip(*mask.nonzero(), strict=True):
        near[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
    assert not (red & ~near).any()
    assert red[14, 25:55].all() and red[13, 25:55].all() and not red[12, 25:55].any()


def test_drawings_are_joined_in_one_order_however_they_are_written():
    pixels, mask = np.asarray(scene()[0]), scene()[1]
    found = drawing("crop+white")
    expected = np.where(mask[..., None], pixels, 255)[10:40, 20:60]
    assert (found == expected).all()
    assert (drawing("white + crop") == found).all()
    assert (drawing("grey+contour+crop", Visual(expand=0)) == RED).all(-1).any(), "lines keep their colour"
    assert parse("crop+contour+grey") == ("grey", "contour", "crop")


def test_without_a_mask_the_box_is_the_mask():
    pixels = np.asarray(scene()[0])
    for mask in (None, np.zeros((80, 120), bool)):
        found = np.asarray(drawn(Visual(expand=0), scene()[0], BOX, mask, "white"))
        assert (found[10:40, 20:60] == pixels[10:40, 20:60]).all()
        assert (found[:10] == 255).all() and (found[:, :20] == 255).all()


@given(st.floats(0, 119), st.floats(0, 79), st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0, 2))
def test_a_crop_has_pixels_and_lies_on_the_picture(left, top, wide, high, expand):
    x, y, right, bottom = expanded((left, top, min(120, left + wide), min(80, top + high)), (120, 80), expand)
    assert 0 <= x < right <= 120 and 0 <= y < bottom <= 80


# ---------------------------------------------------------------------------------------------------- what a network sees

SQUARE = Input(size=(32, 32), resize=32, interpolation="bilinear", crop="floor", mean=(0.5, 0.5, 0.5), std=(1, 1, 1))


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("size", [(200, 40), (40, 200), (64, 64)])
def test_nothing_of_a_picture_is_cut_off(size, fit):
    image = Picture.new("RGB", size, "black")
    for x in (0, size[0] - 8):
        for y in (0, size[1] - 8):
            image.paste("white", (x, y, x + 8, y + 8))  # in the corners, which a centre crop would lose
    view = seen(image, SQUARE, fit).float().mean(0).numpy()
    assert view.shape == (32, 32)
    shown = view[(view > 160) | (view < 100)] if fit == "pad" else view
    assert (shown > 128).sum() >= 4
    if fit == "pad" and size != (64, 64):
        grey = np.abs(view - 128) < 3
        assert 0.7 < grey.mean() < 0.85, "four fifths are padding in the channels' mean"
        inner = np.argwhere(~grey)
        assert np.ptp(inner, 0).max() >= 30 and np.ptp(inner, 0).min() <= 9, "its shape stays"
    if fit == "squash":
        assert view[0, 0] > 100 and view[-1, -1] > 100 and view[0, -1] > 100


def test_what_is_drawn_on_white_is_padded_with_white():
    image, mask = scene()
    for drawing, colour in (("crop+white", 255), ("crop", 128)):
        view = shown(Visual(fit="pad", expand=0), image, (BOX, mask), drawing, SQUARE)
        assert (view[:, :3] == colour).all() and (view[:, -3:] == colour).all(), "above and below a crop of 40 × 30"


def test_an_input_that_is_padded_by_the_model_stays_the_models():
    spec = SQUARE | {"resize": "longest", "crop": None}
    view = seen(Picture.new("RGB", (64, 16), "black"), spec, "squash")
    assert (view[:, :8] == 0).all() and (view[:, 9:] == 127.5).all()


# ---------------------------------------------------------------------------------------------------------------- scores


def test_the_score_of_a_text_is_the_drawings_mean_less_the_boxs_mean_over_negative_texts():
    random = np.random.default_rng(0)
    scores, negatives = random.normal(size=(3, 4, 5)), random.normal(size=(3, 4, 7))
    found = combine(scores, texts=negatives, subtract=0.5)
    for box in range(3):
        for text in range(5):
            expected = sum(scores[box, d, text] - 0.5 * sum(negatives[box, d]) / 7 for d in range(4)) / 4
            assert found[box, text] == pytest.approx(expected)
    assert (combine(scores).argmax(1) == scores.sum(1).argmax(1)).all(), "as the sum chooses"
    assert (found.argmax(1) == combine(scores).argmax(1)).all(), "a number for each box does not change which class"


def test_the_score_of_a_class_is_the_drawings_mean_less_the_classs_mean_over_negative_boxes():
    random = np.random.default_rng(1)
    scores, negatives = random.normal(size=(3, 4, 5)), random.normal(size=(6, 4, 5))
    found = combine(scores, boxes=negatives)
    for box in range(3):
        for text in range(5):
            expected = sum(scores[box, d, text] - sum(negatives[:, d, text]) / 6 for d in range(4)) / 4
            assert found[box, text] == pytest.approx(expected)
    assert np.allclose(combine(scores, boxes=negatives[:0]), combine(scores)), "of no negatives nothing is subtracted"
    assert np.allclose(combine(scores, texts=scores[..., :0]), combine(scores))


# ----------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("drawings", "said"),
    [
        (["blurr"], "there is no drawing 'blurr'. Did you mean 'blur'?"),
        (["crop+whte"], "there is no drawing 'whte'. Did you mean 'white'?"),
        (["tokens+crop"], "'tokens' is no drawing, and cannot be joined with one"),
        (["crop", "blur", "crop"], "'crop' is there twice"),
        (["crop+white", "white+crop"], "'white+crop' is there twice"),
        (["crop+crop"], "'crop+crop' is there twice"),
    ],
)
def test_a_drawing_that_there_is_not_is_named_with_the_nearest(drawings, said):
    with pytest.raises(ValidationError, match=said.replace("+", r"\+").replace("?", r"\?")):
        Visual(drawings=drawings)


def test_every_mark_can_be_drawn():
    for mark in MARKS:
        assert Visual(drawings=[mark]) and drawing(mark).size


def test_the_plain_crop_is_asked_for_once():
    assert asked(Visual(), ("crop", "blur"), plain=True) == ["crop", "blur"]
    assert asked(Visual(drawings=["grey"]), ("crop",), plain=True) == ["grey", "crop"]
    assert asked(Visual(drawings=["grey"]), ("crop",)) == ["grey"]


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((10, 10, 5, 20), "box: 10,10,5,20 is reversed or empty"),
        ((10, 10, 10, 20), "is reversed or empty"),
        ((0, 0, 121, 20), "box: 0,0,121,20 leaves the picture, which has 120 × 80 pixels"),
        ((-3, 0, 20, 20), "leaves the picture"),
        ((1, 2, 3), "is not four numbers"),
        ((1, 2, float("nan"), 4), "is reversed or empty"),
    ],
)
def test_a_box_that_cannot_be_is_one_clear_line(box, said):
    with pytest.raises(UserError) as error:
        checked(box, (120, 80))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_things_of_a_row_are_its_boxes_with_their_masks_but_no_crowds():
    image, mask = scene()
    objects = {"bbox": [BOX, (0, 0, 5, 5)], "category": [0, 1], "mask": [rle(mask), rle(~mask)], "iscrowd": [0, 1]}
    ((box, own),) = things({"id": "a", "image": image, "objects": objects})
    assert box == BOX and (own == mask).all()
    assert things({"image": image, "objects": objects}, [(1, 2, 3, 4.3)]) == [((1, 2, 3, 4.3), None)]
    assert things({"image": image}) == things({"image": image, "objects": None}) == []
    with pytest.raises(UserError, match="row 'a': box 2: 9,9,3,3 is reversed"):
        things({"id": "a", "image": image, "objects": {"bbox": [BOX, (9, 9, 3, 3)]}})
