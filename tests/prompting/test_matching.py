"""Training-free matching: answers that are known, and the formula written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from adapt.plug import UserError
from adapt.prompting.matching import Example, mutual, peaks, segment, similarity


def planted(where: list[tuple[int, int]], h: int = 6, w: int = 8) -> torch.Tensor:
    """Features float[1, 8, h, w]: the thing's direction at `where` (row, column), one of three backgrounds elsewhere; lengths vary."""
    random = torch.Generator().manual_seed(len(where))
    code = torch.eye(8)[torch.randint(1, 4, (h, w), generator=random)]
    for row, column in where:
        code[row, column] = torch.eye(8)[0] * 0.9 + torch.eye(8)[5] * 0.3
    code = code + 0.05 * torch.randn(h, w, 8, generator=random)
    return (code * torch.rand(h, w, 1, generator=random).add(0.5)).permute(2, 0, 1)[None]


def mask_of(where, h=6, w=8, patch=4) -> torch.Tensor:
    mask = torch.zeros(1, h, w, dtype=torch.bool)
    for row, column in where:
        mask[0, row, column] = True
    return mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)


THING, ELSEWHERE = [(1, 1), (1, 2), (2, 1), (2, 2)], [(3, 5), (3, 6), (4, 5), (4, 6)]


@pytest.mark.parametrize("nearest", [0, 1, 3])
def test_a_planted_thing_is_found_elsewhere(nearest):
    example = Example.of(planted(THING), mask_of(THING))
    assert example.inside.shape == (4, 8)
    assert example.outside.shape == (44, 8)
    scores = similarity(planted(ELSEWHERE), example, nearest)
    assert torch.equal(scores > 0, mask_of(ELSEWHERE, patch=1))
    assert torch.equal(
        mutual(planted(ELSEWHERE), example) & ~mask_of(ELSEWHERE, patch=1), torch.zeros(1, 6, 8, dtype=torch.bool)
    )
    assert mutual(planted(ELSEWHERE), example).any()
    masks = segment(scores, (24, 32))
    assert masks.shape == (1, 24, 32)
    overlap = (masks & mask_of(ELSEWHERE)).sum() / (masks | mask_of(ELSEWHERE)).sum()
    assert overlap > 0.6
    points = peaks(scores, (24, 32), 4)
    assert points.shape == (1, 4, 2)
    assert {(int(y // 4), int(x // 4)) for x, y in points[0].tolist()} == set(ELSEWHERE)


def test_where_there_is_no_such_thing_nothing_is_found():
    example = Example.of(planted(THING), mask_of(THING))
    assert not (similarity(planted([]), example) > 0).any()
    assert not mutual(planted([]), example).any()


def test_several_examples_are_one_bank():
    features, masks = torch.cat([planted(THING), planted(ELSEWHERE)]), torch.cat([mask_of(THING), mask_of(ELSEWHERE)])
    example = Example.of(features, masks)
    assert len(example.inside) == 8
    assert torch.equal(similarity(planted([(0, 0)]), example) > 0, mask_of([(0, 0)], patch=1))


def test_similarity_is_the_formula_on_a_vision_transformers_patches(emoji):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    model = Dinov2Model(Dinov2Config(**sizes, image_size=64, patch_size=8)).eval()
    pictures = np.stack([np.asarray(emoji["test"][i]["image"]) for i in range(3)])
    with torch.no_grad():
        out = model(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255).last_hidden_state[:, 1:]
    features = out.transpose(1, 2).unflatten(2, (8, 8))
    mask = torch.from_numpy((pictures[:1] < 250).any(-1))
    example = Example.of(features[:1], mask)
    scores = similarity(features[1:], example, 2)
    assert scores.shape == (2, 8, 8)
    cover = mask[0].reshape(8, 8, 8, 8).float().mean((1, 3)).numpy()
    unit = out.numpy() / np.linalg.norm(out.numpy(), axis=-1, keepdims=True)
    inside, outside = unit[0][cover.ravel() >= 0.5], unit[0][cover.ravel() == 0]
    for picture in (1, 2):
        for patch in (0, 13, 63):
            means = [np.sort(known @ unit[picture, patch])[-2:].mean() for known in (inside, outside)]
            np.testing.assert_allclose(scores[picture - 1].flatten()[patch], means[0] - means[1], atol=1e-5)


def test_a_thing_smaller_than_a_patch_still_counts():
    mask = torch.zeros(1, 24, 32, dtype=torch.bool)
    mask[0, 5, 5] = True
    assert len(Example.of(planted(THING), mask).inside) == 1


def test_a_mask_of_everything_leaves_no_outside():
    example = Example.of(planted(THING), torch.ones(1, 24, 32, dtype=torch.bool))
    assert len(example.outside) == 0
    assert similarity(planted(THING), example).shape == (1, 6, 8)


def test_mistakes_are_said():
    with pytest.raises(UserError, match="mask is empty"):
        Example.of(planted(THING), torch.zeros(1, 24, 32, dtype=torch.bool))
    with pytest.raises(UserError, match=r"\[N, D, h, w\]"):
        Example.of(planted(THING)[0], mask_of(THING))
