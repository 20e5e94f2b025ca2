"""The student of `masks`: the teacher's family with a CNN in the place of SAM's image encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionEncoderOutput

from adapt.contracts import Augment
from adapt.distill.masks.prompts import CORNER, INSIDE, NOTHING, PromptDecoder, around, click, mask_loss, merged
from adapt.students.pyramid import Pyramid
from adapt.train.learner import Learner
from adapt.train.precision import full
from adapt.vision.augment import augment


class Promptable(Learner):
    """A copy of the teacher's family whose image encoder is a CNN; see `Family` for the surface.

    Args:
        config: of `adapt.distill.masks`.
        family: the teacher; `family.net` is a `SamModel`.
        teacher: its `image_features`, when it is in the loop.
    """

    def __init__(self, config, family: nn.Module, teacher: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.config = config
        theirs = family.net
        side, grid = theirs.config.vision_config.image_size, theirs.config.prompt_encoder_config.image_embedding_size
        encoder = Encoder(config, side, grid, theirs.config.prompt_encoder_config.hidden_size)
        # everything is copied but the encoder, which is swapped on the way, so that it is never there twice
        copied = copy.deepcopy(family, {id(theirs.vision_encoder): encoder})
        net = copied.net
        net.prompt_encoder, net.mask_decoder = merged(net.prompt_encoder), merged(net.mask_decoder)
        net.shared_image_embedding = net.prompt_encoder.shared_embedding  # tied in transformers too
        for parameter in copied.parameters():
            parameter.requires_grad_(False)
        encoder.requires_grad_(True)
        net.mask_decoder.requires_grad_(config.decoder == "trained")
        self.copied = [copied]  # in a list: its parts are registered below, once
        self.normalise = copied.normalise
        self.net = nn.ModuleDict({"encoder": encoder, "decoder": PromptDecoder(net.prompt_encoder, net.mask_decoder, side)})
        self.reference = [copy.deepcopy(self.net["decoder"])]  # what the teacher answers; never trained, never saved
        self.live = [torch.no_grad()(teacher)] if teacher else []
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    # ------------------------------------------------------------------------------------------------------------ surface

    @property
    def input(self) -> dict[str, Any]:
        return self.copied[0].input

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """The teacher's view of a row, without its labels."""
        return self.copied[0].preprocess({"image": sample["image"]}, False)

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return self.copied[0].collate(items)

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """The random views that the teacher saw; prompts are drawn on the view, so it may turn and be cropped."""
        return batch | {"image": augment(batch["image"], batch["seed"], config)}

    def predictors(self, texts: None = None) -> dict[str, Callable]:
        """`masks`, a function of rows, and `image_features`: the family's, by the CNN; in fp32, as its files compute."""
        return {name: full()(function) for name, function in self.copied[0].predictors().items()}

    def about(self, labels: list[str]) -> dict[str, Any]:
        """What the exported file's outputs are called; masks have no classes."""
        return {"outputs": list(Deployed.OUTPUTS)}

    def deployed(self) -> nn.Module:
        """What is exported: the encoder, and the decoder as its part."""
        return Deployed(self)

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable]:
        """The predictors by an exported encoder, in front of this decoder, whose file is proven equal to it."""
        copied = self.copied[0]
        swapped = {id(copied.net.vision_encoder): FromFile(runner), id(copied.normalise): _Raw(copied.normalise)}
        return copy.deepcopy(copied, swapped).predictors()

    def train(self, mode: bool = True) -> Promptable:
        self.copied[0].train(mode)
        return super().train(mode)

    # --------------------------------------------------------------------------------------------------------------- loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch["image"]
        theirs = (self.live[0](images) if self.live else batch["teacher"]).float()
        ours = self.net["encoder"].features(self.normalise(images)).float()
        error = (ours - theirs).square().mean() / theirs.var().clamp(min=1e-8)
        loss, logs = self.config.features * error, {"features": error}
        if self.training:
            self.seen += 1
        if self.config.prompts and self.seen > self.config.alone:
            loss_masks, agreement = self._prompted(ours, theirs)
            return loss + self.config.prompts * loss_masks, logs | {"masks": loss_masks, "agreement": agreement}
        # DDP wants every learning parameter in every step
        return loss + sum(0 * p.sum() for p in self.net["decoder"].parameters() if p.requires_grad), logs

    def _prompted(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """The masks' loss over all rounds, and the IoU of the student's masks with the teacher's in the last."""
        device, count = ours.device, self.config.points
        student, teacher = self.net["decoder"], self.reference[0].to(device).eval()
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
        scale = self.net["decoder"].side / wanted.shape[-1]
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


class Encoder(nn.Module):
    """A timm CNN that gives what SAM's image encoder gives.

    Args:
        config: of `adapt.distill.masks`.
        side: S, of the input, pixels.
        grid: h = w of the embedding.
        channels: C of the embedding.
    """

    def __init__(self, config, side: int, grid: int, channels: int):
        super().__init__()
        self.cnn = Pyramid(config.student, side // grid, (grid, grid), config.width, config.pretrained)
        self.neck = nn.Sequential(nn.Conv2d(config.width, channels, 1), LayerNorm2d(channels))  # as SAM's neck ends

    def features(self, images: Tensor) -> Tensor:
        """Normalised float[B, 3, S, S] → float[B, C, h, w]."""
        return self.neck(self.cnn(images))

    def forward(self, pixel_values: Tensor, **_: Any) -> SamVisionEncoderOutput:
        return SamVisionEncoderOutput(last_hidden_state=self.features(pixel_values))


class Deployed(nn.Module):
    """Images float[N, 3, S, S] 0–255 → embeddings float[N, C, h, w], normalisation inside; and its `parts`."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("image_embeddings",)
    EXAMPLE = "sam_onnx_numpy.py"
    """Of `adapt/export/examples/`; it uses the files."""

    def __init__(self, student: Promptable):
        super().__init__()
        self.normalise, self.encoder = student.normalise, student.net["encoder"]
        self.decoder = [student.net["decoder"]]

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.features(self.normalise(images))

    def parts(self) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """What is exported beside it: name → (module, example inputs)."""
        return {"decoder": (self.decoder[0], tuple(torch.from_numpy(array) for array in self.decoder[0].samples()[-1]))}


class FromFile(nn.Module):
    """An exported encoder in the place of the CNN; it takes images 0–255."""

    def __init__(self, runner: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self.runner = [runner]

    def forward(self, pixel_values: Tensor, **_: Any) -> SamVisionEncoderOutput:
        features = torch.from_numpy(self.runner[0](pixel_values.cpu().numpy()))
        return SamVisionEncoderOutput(last_hidden_state=features.to(pixel_values.device))


class _Raw(nn.Module):
    """In the place of a normalisation that the file does itself."""

    def __init__(self, normalise: nn.Module):
        super().__init__()
        self.mean, self.std = normalise.mean, normalise.std

    def forward(self, images: Tensor) -> Tensor:
        return images.float()
