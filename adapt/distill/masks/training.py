"""The losses of `masks`: the teacher's features, and its answers to prompts that are drawn in the loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.distill.masks.prompts import around, click, mask_loss, merged
from adapt.distill.taught import Taught
from adapt.plug import UserError
from adapt.prompting.prompted import CORNER, INSIDE, NOTHING
from adapt.students.cnn import resized
from adapt.students.promptable import Student, decoder_of

if TYPE_CHECKING:
    from adapt.distill.masks import Config


class Learner(Taught):
    """A promptable student that learns.

    Args:
        config: how.
        teacher: a family whose `net` is a `SamModel`.
        live: its `image_features`, when it is in the loop.
    """

    def __init__(self, config: Config, teacher: nn.Module, live: Callable[[Tensor], Tensor] | None = None):
        theirs, sam = teacher.net, decoder_of(teacher.net.config)
        grid, side = theirs.prompt_encoder.image_embedding_size[0], config.size or teacher.input["size"][0]
        if side % grid or side < 4 * grid:
            raise UserError(
                f"distill.size: got {side}; the teacher's features are {grid} × {grid}, so give a multiple of {grid}, from {4 * grid}."
            )
        super().__init__(
            Student(config.student, resized(teacher.input, config.size), [], config.width, sam, config.pretrained),
            teacher,
            live,
        )
        self.config = config
        decoder = self.student.net["decoder"]
        frequencies = {"shared_embedding.positional_embedding": theirs.shared_image_embedding.positional_embedding}
        decoder.prompt_encoder.load_state_dict(merged(copy.deepcopy(theirs.prompt_encoder)).state_dict() | frequencies)
        decoder.mask_decoder.load_state_dict(merged(copy.deepcopy(theirs.mask_decoder)).state_dict())
        decoder.requires_grad_(False)
        decoder.mask_decoder.requires_grad_(config.decoder == "trained")
        self.reference = [copy.deepcopy(decoder)]  # what the teacher answers; never trained, never saved
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        theirs = self.theirs(batch).float()
        ours = self.student.net["encoder"](self.student.normalise(batch["image"])).float()
        error = (ours - theirs).square().mean() / theirs.var().clamp(min=1e-8)
        loss, logs = self.config.features * error, {"features": error}
        if self.training:
            self.steps += 1
        if self.config.prompts and self.steps > self.config.feature_steps:
            loss_masks, agreement = self._prompted(ours, theirs)
            return loss + self.config.prompts * loss_masks, logs | {"masks": loss_masks, "agreement": agreement}
        # every learning parameter has a gradient in every step: weight decay acts on all alike
        return loss + sum(0 * p.sum() for p in self.student.net["decoder"].parameters() if p.requires_grad), logs

    def _prompted(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """The masks' loss over all rounds, and the IoU of the student's masks with the teacher's in the last."""
        device, count = ours.device, self.config.points
        student, teacher = self.student.net["decoder"], self.reference[0].to(device).eval()
        ours, theirs = ours.repeat_interleave(count, 0), theirs.repeat_interleave(count, 0)
        points = torch.rand(len(ours), 1, 2, device=device) * student.side  # seeded by the loop
        points = torch.cat([points, torch.zeros_like(points)], 1)
        labels = torch.tensor([INSIDE, NOTHING], device=device).expand(len(points), 2)
        losses, agreement = [], ours.new_zeros(())
        best: Tensor | None = None
        for step in range(self.config.clicks + 1):
            with torch.no_grad():
                wanted, scores = teacher.answer(theirs, points, labels, multimask=step == 0)
            found, guessed = student.answer(ours, points, labels, multimask=step == 0)
            losses.append(mask_loss(found, wanted) + F.mse_loss(guessed.float(), scores.float()))
            if best is None:  # what the teacher sees at the point is what all further prompts mean
                place = torch.arange(len(points), device=device)
                best, choice = wanted[place, scores.argmax(1)] > 0, scores.argmax(1)
                seen = found[place, choice] > 0
            else:
                seen = found[:, 0] > 0
            agreement = ((seen & best).sum((1, 2)) / (seen | best).sum((1, 2)).clamp(min=1)).mean()
            points, labels = self._again(best, seen, points, labels, step)
        return torch.stack(losses).mean(), agreement

    def _again(self, wanted: Tensor, found: Tensor, points: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The next round's prompts: a click where masks bool[N, h, w] differ, added to what there was; every second prompt first
        becomes a noisy box around the wanted mask."""
        scale = self.student.net["decoder"].side / wanted.shape[-1]
        places, inside = click(wanted, found)
        points, labels = torch.cat([points, (places * scale)[:, None]], 1), torch.cat([labels, inside[:, None]], 1)
        if step == 0:
            boxes = around(wanted) * scale
            boxes += torch.randn_like(boxes) * 0.05 * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
            boxed = torch.arange(len(points), device=points.device) % 2 == 1
            corners = torch.cat([boxes.view(-1, 2, 2), points[:, :1]], 1)
            kinds = labels.new_tensor([CORNER, CORNER + 1, NOTHING]).expand(len(points), 3)
            points = torch.where(boxed[:, None, None], corners, points)
            labels = torch.where(boxed[:, None], kinds, labels)
        return points, labels
