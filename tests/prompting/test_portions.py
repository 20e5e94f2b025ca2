"""What is computed at once follows the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.models.sam import Config, load
from adapt.plug import UserError
from adapt.prompting import prompted
from adapt.prompting.portions import CPU, GPU, fitting, portions

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


def test_as_many_at_once_as_fit():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [fitting(each, 64, cpu) for each in (1, CPU // 64, CPU // 3, CPU, 9 * CPU)] == [64, 64, 3, 1, 1]
    assert fitting(GPU // 8, 64, gpu) == 8


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 100])
def test_half_as_many_from_where_memory_runs_out(room):
    asked = []

    def work(part: slice) -> list[int]:
        asked.append(part.stop - part.start)
        if asked[-1] > room:
            raise torch.OutOfMemoryError(FULL)
        return list(range(20))[part]

    assert [number for part in portions(work, 20, 8) for number in part] == list(range(20))
    refused = [size for size in asked if size > room]
    assert refused == [8, 4, 2][: len(refused)] and asked[: len(refused)] == refused


def test_no_room_for_one_is_one_clear_line():
    def work(part: slice):
        raise torch.OutOfMemoryError(FULL)

    with pytest.raises(UserError, match="single prompt or picture"):
        list(portions(work, 20, 8))


def test_other_errors_are_not_hidden():
    def work(part: slice):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(portions(work, 2, 2))
    assert list(portions(work, 0, 2)) == []


def test_masks_are_the_same_however_many_fit(monkeypatch):
    sam, random = load(Config(name="sam")).eval(), np.random.default_rng(0)
    rows = [{"image": Image.fromarray(random.integers(0, 256, (90, 120, 3), np.uint8))} for _ in range(3)]
    boxes = [[[x, 10, x + 30, 60] for x in range(count)] for count in (7, 0, 2)]
    encode, decode, sizes = sam.image_features, sam.decode, []
    expected = prompted.predict(sam, rows, boxes=boxes)

    def little(function, room):
        def limited(first, *others, **options):
            if len(first) > room:
                raise torch.OutOfMemoryError(FULL)
            sizes.append(len(first))
            return function(first, *others, **options)

        return limited

    monkeypatch.setattr(sam, "image_features", little(encode, 1))
    monkeypatch.setattr(sam, "decode", little(decode, 2))
    for one, other in zip(prompted.predict(sam, rows, boxes=boxes), expected, strict=True):
        assert (one["masks"] != other["masks"]).sum() <= 0.001 * one["masks"].size
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)
    assert sizes == [1, 1, 1, 2, 2, 2, 1, 2]


def test_fewer_masks_at_once_of_a_large_picture(monkeypatch):
    """64 masks of 12 megapixels are 3 GB of logits."""
    sam, sizes = load(Config(name="sam")).eval(), []
    decode = sam.decode
    monkeypatch.setattr(
        sam, "decode", lambda first, *more, **options: sizes.append(len(first)) or decode(first, *more, **options)
    )
    row = {"image": Image.new("RGB", (4000, 3000))}
    masks = prompted.predict(sam, [row], boxes=[[[10, 10, 300, 200]] * 7])[0]["masks"]
    assert masks.shape == (7, 3000, 4000) and sizes == [5, 2]
