"""SAM's loss: 20 focal + 1 dice on the masks, 1 mean squared error on the predicted IoU.

Source: Kirillov et al. 2023, arXiv:2304.02643, §A; focal: Lin et al. 2017, arXiv:1708.02002; dice: Milletari et al. 2016, arXiv:1606.04797.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FOCAL, DICE, IOU = 20.0, 1.0, 1.0


def focal(logits: Tensor, truth: Tensor, inside: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean over the pixels of `inside`: float[N, M, G, G], bool[N, 1, G, G] twice → float[N, M]."""
    truth = truth.to(logits.dtype).expand_as(logits)
    p = logits.sigmoid()
    right = p * truth + (1 - p) * (1 - truth)
    weight = alpha * truth + (1 - alpha) * (1 - truth)
    loss = weight * (1 - right) ** gamma * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (loss * inside).flatten(2).sum(2) / inside.flatten(2).sum(2)


def dice(logits: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """1 − dice coefficient, smoothed by one pixel: float[N, M, G, G], bool[N, 1, G, G] twice → float[N, M]."""
    p = logits.sigmoid() * inside
    both = (p * truth).flatten(2).sum(2)
    return 1 - (2 * both + 1) / (p.flatten(2).sum(2) + truth.flatten(2).sum(2) + 1)


def iou(logits: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """Intersection over union of the masks `logits > 0`: float[N, M, G, G], bool[N, 1, G, G] twice → float[N, M]."""
    found = (logits > 0) & inside
    both = (found & truth).flatten(2).sum(2).float()
    return both / (found | truth).flatten(2).sum(2).clamp(min=1)


def mask_loss(logits: Tensor, scores: Tensor, truth: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of N prompts with M answers each; only the best answer's mask is learned from, but every predicted IoU.

    Args:
        logits: float[N, M, G, G].
        scores: float[N, M], the predicted IoU.
        truth: bool[N, 1, G, G].
        inside: bool[N, 1, G, G], false where the input is padded.

    Returns:
        float[N], the loss; float[N], the IoU of the best answer; int64[N], which answer it is.
    """
    logits, scores = logits.float(), scores.float()
    masks = FOCAL * focal(logits, truth, inside) + DICE * dice(logits, truth, inside)
    best = masks.argmin(1)
    overlap = iou(logits.detach(), truth, inside)
    loss = masks.gather(1, best[:, None])[:, 0] + IOU * ((scores - overlap) ** 2).mean(1)
    return loss, overlap.gather(1, best[:, None])[:, 0], best
