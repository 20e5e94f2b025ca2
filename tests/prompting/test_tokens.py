"""Location and segment words against big_vision's published formulas, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adapt.plug import UserError
from adapt.prompting.tokens import WORDS, Codebook, decode_box, distinct, encode_box, overlap, parse

sides = st.integers(1, 5000)
shares = st.floats(0, 1)


@given(st.tuples(shares, shares, shares, shares), st.tuples(sides, sides))
def test_a_round_trip_errs_by_half_a_bin_at_most(box, size):
    box = [share * side for share, side in zip(box, (*size, *size), strict=True)]
    text = encode_box(box, size)
    places = [int(word[4:8]) for word in text.split("<")[1:] for word in ["<" + word]]
    back = decode_box(places, size)
    for ours, theirs, side in zip(back, box, (*size, *size), strict=True):
        assert abs(ours - theirs) <= side * (0.5 / 1023 + 1e-9)


@given(st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4))
def test_words_are_big_visions(shares):
    # pp/proj/paligemma/segmentation.py: clip(int(tf.round(bbox * 1023)), 0, 1023), bbox = y1 x1 y2 x2 in 0–1
    expected = "".join(f"<loc{min(max(round(share * 1023), 0), 1023):04d}>" for share in shares)
    top, left, bottom, right = shares
    assert encode_box([left, top, right, bottom], (1, 1)) == expected


def test_the_order_is_y1_x1_y2_x2():
    assert encode_box([16, 32, 64, 96], (128, 128)) == "<loc0256><loc0128><loc0767><loc0512>"
    assert WORDS[0] == "<loc0000>"
    assert WORDS[1023:1025] == ["<loc1023>", "<seg000>"]
    assert len(WORDS) == 1152


def test_transformers_has_the_same_words():
    from transformers.models.paligemma.processing_paligemma import EXTRA_TOKENS

    assert WORDS == EXTRA_TOKENS


def test_what_is_written_is_read():
    cat, dog = [10, 20, 30, 60], [0, 0, 100, 50]
    found, unread = parse(f"{encode_box(cat, (100, 80))} cat ; {encode_box(dog, (100, 80))} big dog")
    assert [each.name for each in found] == ["cat", "big dog"]
    assert unread == 0
    for each, box in zip(found, (cat, dog), strict=True):
        assert np.allclose(decode_box(each.locations, (100, 80)), box, atol=0.05)


@pytest.mark.parametrize(
    ("text", "names", "unread"),
    [
        ("", [], 0),
        ("a cat and a dog", [], 0),
        ("<loc0001><loc0002><loc0003> cat", [], 1),
        ("<loc0001><loc0002><loc0500><loc0600><loc0003> cat ; <loc0001><loc0002><loc0500><loc0600> dog", ["dog"], 1),
        ("<loc0001><loc0002><loc0500><loc0600><loc0001><loc0002><loc0500><loc0600> cat", ["cat", "cat"], 0),
        ("<loc0500><loc0002><loc0001><loc0600> cat", [], 1),
        ("<loc0001><loc0002><loc0001><loc0600> cat", [], 1),
        ("<loc0001><loc0002><loc9999><loc0600> cat", [], 1),
        ("<loc0001><loc0002><loc0500><loc0600>" + "<seg127>" * 16 + " cat", ["cat"], 0),
        ("<loc0001><loc0002><loc0500><loc0600>" + "<seg127>" * 15 + " cat", [], 1),
        ("<loc0001><loc0002><loc0500><loc0600>", [""], 0),
    ],
)
def test_what_cannot_be_read_is_counted(text, names, unread):
    found, count = parse(text)
    assert [each.name for each in found] == names
    assert count == unread


pieces = st.sampled_from(["<loc0003>", "<loc1023>", "<loc2000>", "<seg001>", "<seg999>", " cat", " ; ", "<", "loc", "é"])


@settings(max_examples=200)
@given(st.lists(pieces, max_size=30))
def test_fuzz_no_text_ends_in_a_traceback(parts):
    text = "".join(parts)
    found, unread = parse(text)
    assert unread >= 0
    for each in found:
        (start, stop), (first, last) = each.spans
        assert text[start:stop] == "".join(WORDS[place] for place in each.locations)
        assert text[first:last].strip() == each.name


def test_suppression_equals_torchvisions():
    from torchvision.ops import batched_nms, box_iou

    random = np.random.default_rng(0)
    corner = random.uniform(0, 50, (40, 2))
    boxes = np.hstack([corner, corner + random.uniform(5, 40, (40, 2))])
    categories, scores = random.integers(0, 3, 40), random.uniform(size=40)
    kept = batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(categories), 0.5)
    assert distinct(boxes, categories, scores, 0.5).tolist() == kept.tolist()
    assert np.allclose(overlap(boxes, boxes), box_iou(torch.tensor(boxes), torch.tensor(boxes)).numpy())
    assert distinct(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), 0.5).tolist() == []


# ------------------------------------------------------------------------------------------------------------------ masks


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        parts = [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.net = nn.Sequential(*parts, nn.Conv2d(width, width, 1))

    def forward(self, x):
        return x + self.net(x)


class Reference(nn.Module):
    """The VQ-VAE as Ning et al. publish it: its state's names are those of big_vision's file."""

    def __init__(self):
        super().__init__()
        down = [nn.Conv2d(1, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 4, 2, 1), nn.ReLU()]
        down += [nn.Conv2d(4, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 4, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, Residual(8), Residual(8), nn.Conv2d(8, 6, 1))
        up = [nn.Conv2d(6, 8, 1), nn.ReLU(), Residual(8), Residual(8)]
        for wide, narrow in ((8, 8), (8, 4), (4, 4), (4, 2)):
            up += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1), nn.ReLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(2, 1, 1))
        self.book = nn.Parameter(torch.randn(128, 6))


@pytest.fixture
def codebook(tmp_path):
    torch.manual_seed(0)
    net = Reference()
    weights = {name.replace("book", "_vq_vae._embedding"): value.numpy() for name, value in net.state_dict().items()}
    np.savez(tmp_path / "vae.npz", **weights)
    return net, Codebook(tmp_path / "vae.npz")


def test_masks_are_coded_as_the_published_network_does(codebook):
    net, ours = codebook
    masks = np.random.default_rng(0).uniform(size=(3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        hidden = net.encoder(2 * torch.tensor(masks)[:, None] - 1).permute(0, 2, 3, 1).reshape(3, 16, 6)
        expected = torch.cdist(hidden, net.book[None]).argmin(-1)
        picture = net.decoder(net.book[expected].reshape(3, 4, 4, 6).permute(0, 3, 1, 2))[:, 0]
    assert ours.encode(masks).tolist() == expected.tolist()
    np.testing.assert_allclose(ours.decode(expected.numpy()), picture.numpy(), atol=1e-5)


def test_a_mask_lies_in_its_box(codebook):
    _, ours = codebook
    mask = np.zeros((80, 100), bool)
    mask[20:60, 10:50] = True
    words = ours.write(mask, [10, 20, 50, 60])
    found, _ = parse(encode_box([10, 20, 50, 60], (100, 80)) + words)
    drawn = ours.read(found[0].segments, [10, 20, 50, 60], (100, 80))
    assert drawn.shape == (80, 100)
    assert not drawn[:20].any()
    assert not drawn[:, 50:].any()


def test_what_masks_need_is_said(tmp_path):
    with pytest.raises(UserError, match=r"vae-oid\.npz"):
        Codebook(None)
    (tmp_path / "no.npz").write_bytes(b"no")
    with pytest.raises(UserError, match=r"no\.npz"):
        Codebook(tmp_path / "no.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(UserError, match="lacks _vq_vae"):
        Codebook(tmp_path / "other.npz")
