"""Corruptions against their published formulas, written out or by another library; the same draws come from `generator`."""

from __future__ import annotations

import colorsys
import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from adapt.plug import UserError
from adapt.vision.corrupt import GROUPS, NAMES, blur, corrupt, digital, generator, geometry, weather
from adapt.vision.corrupt.levels import CONSTANTS

STILL = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
"""Nothing is drawn."""


def picture(height: int = 224, width: int = 224, seed: int = 0) -> np.ndarray:
    """Clouds of colours with a few sharp things on them: uint8[H, W, 3]."""
    random = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(random.normal(size=(height, width, 3)), (height / 20, width / 20, 0), mode="wrap")
    image = 0.5 + 0.2 * image / image.std()
    for colour in random.random((6, 3)):
        top, left = random.integers(0, height * 3 // 4), random.integers(0, width * 3 // 4)
        image[top : top + height // 5, left : left + width // 5] = colour
    return np.uint8(255 * np.clip(image, 0, 1))


def byte(image: np.ndarray) -> np.ndarray:
    """0–1 → what the published code stores, as numbers that can be subtracted."""
    return np.uint8(np.clip(image, 0, 1) * 255).astype(int)


def unlike(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two pictures, of 255; 1 is a rounding error on a border between two bytes."""
    return int(np.abs(one.astype(int) - other).max())


# ------------------------------------------------------------------------------------------------------------- constants


def test_the_constants_are_those_of_the_papers_code():
    """hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py, as they stand there."""
    assert [*CONSTANTS] == [*NAMES] and len(NAMES) == 15
    assert CONSTANTS["gaussian_noise"] == (0.08, 0.12, 0.18, 0.26, 0.38)
    assert CONSTANTS["shot_noise"] == (60, 25, 12, 5, 3)
    assert CONSTANTS["impulse_noise"] == (0.03, 0.06, 0.09, 0.17, 0.27)
    assert CONSTANTS["defocus_blur"] == ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    assert CONSTANTS["glass_blur"] == ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    assert CONSTANTS["motion_blur"] == ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    assert CONSTANTS["zoom_blur"] == ((1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02), (1, 1.31, 0.03))
    assert CONSTANTS["snow"] == (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )
    assert CONSTANTS["frost"] == ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    assert CONSTANTS["fog"] == ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
    assert CONSTANTS["brightness"] == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert CONSTANTS["contrast"] == (0.4, 0.3, 0.2, 0.1, 0.05)
    waves = [(488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)]
    np.testing.assert_allclose(CONSTANTS["elastic_transform"], waves)
    assert CONSTANTS["pixelate"] == (0.6, 0.5, 0.4, 0.3, 0.25)
    assert CONSTANTS["jpeg_compression"] == (25, 18, 15, 10, 7)


# ----------------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("severity", [1, 5])
def test_gaussian_noise_adds_a_normal_number(severity):
    sigma, image = [0.08, 0.12, 0.18, 0.26, 0.38][severity - 1], picture()
    normal = generator("gaussian_noise", severity, 3).standard_normal(image.shape, np.float32)
    assert unlike(corrupt(image, "gaussian_noise", severity, 3), byte(image / 255 + sigma * normal)) <= 1
    grey = corrupt(np.full((224, 224, 3), 128, np.uint8), "gaussian_noise", 1, 3) / 255
    assert grey.std() == pytest.approx(0.08, rel=0.02)


def test_shot_noise_counts_photons():
    grey = corrupt(np.full((224, 224, 3), 128, np.uint8), "shot_noise", 3, 1)
    assert set(np.unique(grey)) <= {*byte(np.arange(60) / 12)}, "Poisson(x · 12) / 12"
    counts = np.rint(grey / 255 * 12)
    unclipped = 12 * 128 / 255  # of 12 photons, which are white, more are cut off
    expected = [math.exp(-unclipped) * unclipped**k / math.factorial(k) for k in range(11)]
    np.testing.assert_allclose([(counts == k).mean() for k in range(11)], expected, atol=4e-3)
    image = picture()
    drawn = generator("shot_noise", 5, 2).poisson(image / 255 * 3)
    assert unlike(corrupt(image, "shot_noise", 5, 2), byte(drawn / 3)) <= 1


def test_impulse_noise_is_salt_and_pepper_and_leaves_the_rest():
    image = np.full((224, 224, 3), 100, np.uint8)
    for severity, share in enumerate([0.03, 0.06, 0.09, 0.17, 0.27], 1):
        found = corrupt(image, "impulse_noise", severity, 5)
        assert set(np.unique(found)) == {0, 100, 255}
        assert (found == 0).mean() == pytest.approx(share / 2, abs=5e-3)
        assert (found == 255).mean() == pytest.approx(share / 2, abs=5e-3)
    assert (found != 100).any(2).mean() > 0.5, "values, not pixels: 1 − (1 − .27)³"


# ------------------------------------------------------------------------------------------------------------------ blur


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_defocus_blur_is_the_mean_over_a_disk(severity):
    radius, smooth = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][severity - 1]
    line = range(-8, 9) if radius <= 8 else range(-radius, radius + 1)
    kernel = np.array([[float(x * x + y * y <= radius**2) for x in line] for y in line])
    kernel /= kernel.sum()
    weights = np.array([math.exp(-(x**2) / 2 / smooth**2) for x in (range(-1, 2) if radius <= 8 else range(-2, 3))])
    square = np.outer(weights, weights) / weights.sum() ** 2
    kernel = ndimage.correlate(kernel, square, mode="mirror")  # OpenCV's BORDER_REFLECT_101
    image = picture()
    expected = np.stack([ndimage.correlate(image[..., c] / 255, kernel, mode="mirror") for c in range(3)], 2)
    assert unlike(corrupt(image, "defocus_blur", severity, 0), byte(expected)) <= 1


def test_glass_blur_is_the_published_loop():
    """Word for word but for the draws, on views of one array, with one pass of steps as far as two pixels."""
    sigma, reach, _ = 0.9, 2, 1
    image = picture()
    x = np.uint8(ndimage.gaussian_filter(image / 255, (sigma, sigma, 0), mode="nearest") * 255 + 1e-3)
    steps = generator("glass_blur", 2, 7).integers(-reach, reach, (2, 224 - 2 * reach, 224 - 2 * reach))
    for i, h in enumerate(range(224 - reach, reach, -1)):
        for j, w in enumerate(range(224 - reach, reach, -1)):
            dx, dy = steps[:, i, j]
            h_prime, w_prime = h + dy, w + dx
            x[h, w], x[h_prime, w_prime] = x[h_prime, w_prime], x[h, w]
    expected = ndimage.gaussian_filter(x / 255, (sigma, sigma, 0), mode="nearest")
    assert unlike(corrupt(image, "glass_blur", 2, 7), byte(expected)) <= 1


def moved(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur of float[H, W, …], tap by tap: the picture goes on with its last pixel."""
    weights = [math.exp(-(i**2) / 2 / sigma**2) for i in range(2 * radius + 1)]
    out = np.zeros(image.shape)
    for i, weight in enumerate(weights):
        right, down = (math.ceil(i * part(math.radians(angle)) - 0.5) for part in (math.cos, math.sin))
        rows, columns = (np.clip(np.arange(224) + step, 0, 223) for step in (down, right))
        out += weight / sum(weights) * image[rows][:, columns]
    return out


@pytest.mark.parametrize("severity", [1, 5])
def test_motion_blur_is_half_a_gaussian_along_a_line(severity):
    radius, sigma = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)][severity - 1]
    image, angle = picture(), generator("motion_blur", severity, 4).uniform(-45, 45)
    assert unlike(corrupt(image, "motion_blur", severity, 4), np.rint(moved(image, radius, sigma, angle))) <= 1


def clipped_zoom(image: np.ndarray, zoom: float) -> np.ndarray:
    """As published, of a square."""
    h = image.shape[0]
    ch = int(np.ceil(h / zoom))
    top = (h - ch) // 2
    image = ndimage.zoom(image[top : top + ch, top : top + ch], (zoom, zoom, 1), order=1)
    trim = (image.shape[0] - h) // 2
    return image[trim : trim + h, trim : trim + h]


@pytest.mark.parametrize("severity", [1, 5])
def test_zoom_blur_is_the_mean_of_enlargements(severity):
    image, zooms = picture(), np.arange(*[(1, 1.11, 0.01), None, None, None, (1, 1.31, 0.03)][severity - 1])
    expected = (image / 255 + sum(clipped_zoom(image / 255, zoom) for zoom in zooms)) / (len(zooms) + 1)
    assert unlike(corrupt(image, "zoom_blur", severity, 0), byte(expected)) <= 1


# --------------------------------------------------------------------------------------------------------------- weather


@pytest.mark.parametrize("severity", [1, 4])
def test_snow_is_flakes_that_fall_over_a_whiter_picture(severity):
    c = [(0.1, 0.3, 3, 0.5, 10, 4, 0.8), None, None, (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65)][severity - 1]
    random, image = generator("snow", severity, 2), picture()
    layer = clipped_zoom(random.normal(c[0], c[1], (224, 224, 1)), c[2])[..., 0]
    layer[layer < c[3]] = 0
    layer = np.rint(moved((np.clip(layer, 0, 1) * 255 + 1e-3).astype(np.uint8), c[4], c[5], random.uniform(-135, -45)))
    layer = layer[..., None] / 255
    x = image / 255
    grey = (x @ [0.299, 0.587, 0.114])[..., None]
    x = c[6] * x + (1 - c[6]) * np.maximum(x, grey * 1.5 + 0.5)
    assert unlike(corrupt(image, "snow", severity, 2), byte(x + layer + np.rot90(layer, k=2))) <= 2


def test_fog_is_a_fractal_that_takes_the_contrast():
    image = picture()
    cloud = weather.plasma(256, 1.7, generator("fog", 3, 8))[:224, :224, None]
    top = (image / 255).max()
    assert unlike(corrupt(image, "fog", 3, 8), byte((image / 255 + 2.5 * cloud) * top / (top + 2.5))) <= 1


@pytest.mark.parametrize("decay", [1.4, 2])
def test_the_fractal_is_diamonds_and_squares(decay):
    """Point by point, on a torus: a middle is a quarter of the mean, and a random height that falls by `decay` a step."""
    size, random = 16, np.random.default_rng(1)
    heights, step, wide = {(0, 0): 0.0}, size, 100.0
    while step >= 2:
        half = step // 2
        wave = {}  # the order of the draws: all centres, then those right of corners, then those below
        for down, right in ((half, half), (0, half), (half, 0)):
            draws = random.uniform(-wide, wide, (size // step, size // step))
            for i, j in np.ndindex(draws.shape):
                wave[i * step + down, j * step + right] = wide * draws[i, j]
        for (y, x), height in wave.items():
            slant = y % step and x % step
            near = [(-half, -half), (-half, half), (half, -half), (half, half)]
            near = near if slant else [(-half, 0), (half, 0), (0, -half), (0, half)]
            # numpy's sum of four, divided by four, is what the published code calls their mean
            heights[y, x] = sum(heights[(y + a) % size, (x + b) % size] for a, b in near) / 4 + height
        step, wide = half, wide / decay
    expected = np.array([[heights[y, x] for x in range(size)] for y in range(size)])
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(weather.plasma(size, decay, np.random.default_rng(1)), expected, atol=1e-12)


def test_frost_lies_over_the_picture_by_the_published_shares():
    one, other = picture(seed=1), picture(seed=2)
    for severity, (own, _) in enumerate([(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)], 1):
        a, b = (corrupt(image, "frost", severity, 6).astype(float) for image in (one, other))
        seen = (a < 255) & (b < 255)
        assert seen.mean() > 0.2
        np.testing.assert_allclose((a - b)[seen], own * (one.astype(float) - other)[seen], atol=1)


def test_drawn_panes_are_as_bright_and_as_varied_as_the_photographs():
    """146, 167, 179 in the mean; from 117 to 207; σ 27 within one: measured on the five that the published code takes."""
    black = [corrupt(np.zeros((224, 224, 3), np.uint8), "frost", 1, seed) / 0.4 for seed in range(6)]
    means = np.array([pane.mean((0, 1)) for pane in black])
    np.testing.assert_allclose(means / means.mean(1, keepdims=True), [np.array([146, 167, 179]) / 164] * 6, atol=0.01)
    assert 115 < means.mean(1).min() < 140 and 184 < means.mean(1).max() < 207, "some dark, some bright"
    np.testing.assert_allclose([pane.std((0, 1)) for pane in black], 27, atol=3)


def test_brightness_is_added_to_the_value_of_hsv():
    image = picture(60, 50)
    image[:5], image[5:10, :20] = 0, 255
    found = corrupt(image, "brightness", 3, 0)
    for y, x in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[y, x] / 255)
        assert unlike(found[y, x], byte(np.array(colorsys.hsv_to_rgb(h, s, min(v + 0.3, 1))))) <= 1


# --------------------------------------------------------------------------------------------------------------- digital


@pytest.mark.parametrize(("severity", "c"), [(1, 0.4), (5, 0.05)])
def test_contrast_is_taken_from_the_mean_of_each_channel(severity, c):
    image = picture()
    x = image / 255
    mean = np.array([x[..., k].sum() / x[..., k].size for k in range(3)])
    assert unlike(corrupt(image, "contrast", severity, 0), byte((x - mean) * c + mean)) <= 1


@pytest.mark.parametrize("severity", [1, 2, 5])
def test_elastic_transform_is_an_affine_map_and_smoothed_steps(severity):
    c = [(488, 170.8, 24.4), (488, 19.52, 48.8), None, None, (29.28, 2.44, 4.88)][severity - 1]
    image, random = picture() / 255, generator("elastic_transform", severity, 9)
    centre, arm = np.float64([224, 224]) // 2, 224 // 3
    before = np.array([centre + arm, [centre[0] + arm, centre[1] - arm], centre - arm])
    after = before + random.uniform(-c[2], c[2], (3, 2))
    forward = np.linalg.solve(np.c_[before, np.ones(3)], after).T  # x' = forward · (x, y, 1), as cv2.getAffineTransform
    matrix, shift = np.linalg.inv(forward[:, :2]), forward[:, 2]
    flip = np.eye(2)[::-1]  # scipy's order is (row, column)
    image = np.stack(
        [
            ndimage.affine_transform(
                image[..., k], flip @ matrix @ flip, -(flip @ matrix @ shift), order=1, mode="mirror"
            )  # cv2.warpAffine, BORDER_REFLECT_101
            for k in range(3)
        ],
        2,
    )
    dx, dy = (ndimage.gaussian_filter(random.uniform(-1, 1, (224, 224)), c[1], mode="reflect", truncate=3) * c[0] for _ in "xy")
    y, x = np.meshgrid(np.arange(224), np.arange(224), indexing="ij")
    expected = [ndimage.map_coordinates(image[..., k], [y + dy, x + dx], order=1, mode="reflect") for k in range(3)]
    assert unlike(corrupt(picture(), "elastic_transform", severity, 9), byte(np.stack(expected, 2))) <= 1


def test_pixelate_is_the_mean_over_boxes():
    image = picture(64, 96)
    blocks = image.reshape(16, 4, 24, 4, 3).astype(float).mean((1, 3))
    assert unlike(corrupt(image, "pixelate", 5, 0), blocks.repeat(4, 0).repeat(4, 1)) <= 1
    found = corrupt(picture(), "pixelate", 1, 0)
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= 134**2 < 224**2, "int(224 · .6) pixels a side"


def test_jpeg_compression_is_pillows():
    image = picture()
    for severity, quality in enumerate([25, 18, 15, 10, 7], 1):
        out = io.BytesIO()
        Image.fromarray(image).save(out, format="JPEG", quality=quality)
        assert unlike(corrupt(image, "jpeg_compression", severity, 0), np.asarray(Image.open(out))) == 0


# ------------------------------------------------------------------------------------------------- a function of its input


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits_and_another_other_noise(name):
    image = picture(48, 64)
    before = image.copy()
    first = corrupt(image, name, 3, 11)
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: corrupt(image, name, 3, 11), range(4)))
    assert all((one == first).all() for one in again)
    assert (image == before).all() and first.shape == image.shape and first.dtype == np.uint8
    assert (corrupt(image, name, 3, 12) == first).all() == (name in STILL)
    first[:] = 0  # the caller's own


UNEVEN = {"snow": [0, 1, 3, 4], "glass_blur": [0, 2, 4], "frost": [0, 4], "fog": [0, 4], "elastic_transform": [0, 1]}
"""Severities, from 0, that must follow each other: published neighbours are alike (glass looks twice, then once), or of two kinds (waves)."""


@pytest.mark.parametrize("name", NAMES)
def test_the_higher_severity_is_further_from_the_picture(name):
    pictures, severities = [picture(64, 64, seed) for seed in range(6)], UNEVEN.get(name, range(5))
    far = [
        np.mean([np.abs(corrupt(one, name, s + 1, i) - one.astype(float)) for i, one in enumerate(pictures)])
        for s in severities
    ]
    assert far[0] > 0 and (np.diff(far) > 0).all(), far


SCALED = [("defocus_blur", 5), ("motion_blur", 4), ("zoom_blur", 5), ("snow", 3), ("frost", 4), ("fog", 5)]
SCALED += [("elastic_transform", 2), ("brightness", 3), ("contrast", 3)]


@pytest.mark.parametrize(("name", "severity"), SCALED)
def test_a_small_picture_is_corrupted_as_the_large_one_that_is_made_small(name, severity):
    """For 64 pixels what is 224 pixels wide is 64, drawn alike: to corrupt and make small is to make small and corrupt."""
    large = picture()

    def half(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX))

    after, before = half(corrupt(large, name, severity, 1)), corrupt(half(large), name, severity, 1)
    far = np.abs(half(large).astype(float) - before).mean()
    assert np.abs(after.astype(float) - before).mean() < (0.2 if name in ("zoom_blur", "elastic_transform") else 0.08) * far


@pytest.mark.parametrize("f", [0.1, 64 / 224, 0.9, 1, 1.7, 3])
def test_a_scaled_kernel_keeps_its_sum_and_its_width(f):
    kernel = blur.disk(10, 0.5)
    found = geometry.scaled(kernel, f)
    assert found.sum() == pytest.approx(kernel.sum()) and len(found) % 2 == 1
    wide = [math.sqrt((k * (np.arange(len(k)) - len(k) // 2) ** 2).sum() / k.sum()) for k in (kernel, found)]
    # by the variance of a square of f pixels, and that of the pixels that share it
    assert wide[1] == pytest.approx(math.sqrt((wide[0] * f) ** 2 + f**2 / 12 + 1 / 12), abs=0.3)
    assert f != 1 or (found == kernel).all()


def test_the_glass_takes_from_nearer_on_smaller_pictures():
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, 0).repeat(3, 2)
    found = [corrupt(ramp, "glass_blur", s, 0)[8:-8, 8:-8] - ramp[8:-8, 8:-8].astype(float) for s in (1, 5)]
    assert np.abs(found[0]).mean() / 4 < 0.6 < np.abs(found[1]).mean() / 4 < 3, "pixels; of severity 5 at 224, four twice"


@pytest.mark.parametrize("shape", [(1, 1), (5, 12), (37, 20), (90, 130)])
def test_any_shape_stays_as_it_is(shape):
    image = picture(*shape) if min(shape) > 4 else np.full((*shape, 3), 90, np.uint8)
    for name in NAMES:
        for severity in (1, 5):
            found = corrupt(image, name, severity, 0)
            assert found.shape == image.shape and found.dtype == np.uint8, (name, severity)


def test_white_stays_white_where_nothing_darkens():
    white = np.full((64, 64, 3), 255, np.uint8)
    for name in (*GROUPS["blur"], "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"):
        assert corrupt(white, name, 5, 0).min() == 255, f"{name}: rounding errors are not cut off"


# ---------------------------------------------------------------------------------------------------------- wrong input


def test_what_is_wrong_is_said_in_a_line():
    image = picture(8, 8)
    with pytest.raises(UserError, match=r"no corruption 'frog'\. Did you mean 'fog'\? Have: gaussian_noise, "):
        corrupt(image, "frog", 1, 0)
    for severity in (0, 6, "3", None):
        with pytest.raises(UserError, match=rf"severity: got {severity!r}; it can be 1, 2, 3, 4 or 5"):
            corrupt(image, "fog", severity, 0)
    for wrong in (image / 255, image[..., 0], image[:0], image[..., :2]):
        with pytest.raises(UserError, match=r"give a picture uint8\[height, width, 3\]"):
            corrupt(wrong, "fog", 1, 0)


def test_no_filter_of_the_waves_is_kept_for_ever():
    assert digital._gaussian.cache_info().maxsize == 32
