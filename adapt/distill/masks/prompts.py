"""Prompts and their answers: SAM's decoder as a module that can be exported, what is drawn in the loop, and the masks' loss."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from adapt.train.precision import full

NOTHING, INSIDE, CORNER = -1, 1, 2
"""Labels of points, as segment-anything has them: 0 is outside, 3 a box's second corner."""


class PromptDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder behind inputs that segment-anything's ONNX files have.

    Boxes are two points with the labels 2 and 3; prompts without a box end with the point (0, 0) of label -1.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = ("low_res_masks", "iou_predictions")
    DYNAMIC: ClassVar[dict[str, dict[int, str]]] = {
        "point_coords": {0: "prompts", 1: "points"},
        "point_labels": {0: "prompts", 1: "points"},
        "mask_input": {0: "prompts"},
    }

    def __init__(self, prompt_encoder: nn.Module, mask_decoder: nn.Module, side: int):
        super().__init__()
        self.prompt_encoder, self.mask_decoder, self.side = prompt_encoder, mask_decoder, side

    def forward(
        self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All answers for N prompts on one image.

        Args:
            image_embeddings: float[1, C, h, w].
            point_coords: float[N, P, 2], XY in pixels of the input.
            point_labels: float[N, P]: 1 inside, 0 outside, 2 and 3 a box's corners, -1 nothing.
            mask_input: float[N, 1, 4h, 4w], logits of an earlier answer, or zeros.
            has_mask_input: float[1], 1 or 0.

        Returns:
            logits float[N, 4, 4h, 4w] and predicted IoU float[N, 4]: first the answer for clear prompts, then three.
        """
        features = image_embeddings.expand(point_coords.shape[0], -1, -1, -1)  # len() would fix the number
        dense = has_mask_input * self.prompt_encoder.mask_embed(mask_input)
        dense = dense + (1 - has_mask_input) * self.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        return self._answers(features, point_coords, point_labels, dense)

    def answer(self, features: Tensor, points: Tensor, labels: Tensor, multimask: bool) -> tuple[Tensor, Tensor]:
        """Masks of N prompts, each on its own features float[N, C, h, w].

        Returns:
            logits float[N, M, 4h, 4w] and predicted IoU float[N, M]; M is 3 with `multimask`, else 1.
        """
        dense = self.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        logits, scores = self._answers(features, points, labels, dense)
        chosen = slice(1, None) if multimask else slice(0, 1)
        return logits[:, chosen], scores[:, chosen]

    def _answers(self, features: Tensor, points: Tensor, labels: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """All four answers from one pass; SamMaskDecoder's own forward gives one or three of them, so we call its parts."""
        encoder, decoder, kind = self.prompt_encoder, self.mask_decoder, labels[..., None]
        sparse = self._encoded((points + 0.5) / self.side)  # the centre of the pixel
        sparse = torch.where(kind < 0, encoder.not_a_point_embed.weight, sparse)
        for number, embedding in enumerate(encoder.point_embed):
            sparse = sparse + (kind == number) * embedding.weight
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(points.shape[0], -1, -1), sparse], 1)
        tokens, image = decoder.transformer(
            point_embeddings=tokens[:, None],
            image_embeddings=features + dense,
            image_positional_embeddings=self._positions(features).expand_as(features),
            attention_similarity=None,
        )
        image = image.transpose(2, 3).reshape(features.shape)
        fine = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(image)))
        fine = decoder.activation(decoder.upscale_conv2(fine))
        weights = torch.stack([mlp(tokens[:, 0, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1)
        with full():  # a mask is where these similarities are positive
            logits = (weights.float() @ fine.flatten(2).float()).unflatten(2, fine.shape[-2:])
        return logits, decoder.iou_prediction_head(tokens[:, 0, 0])

    def _positions(self, features: Tensor) -> Tensor:
        """float[1, C, h, w], the encoding of each cell's centre."""
        rows, columns = features.shape[-2:]
        y, x = torch.arange(rows, device=features.device) + 0.5, torch.arange(columns, device=features.device) + 0.5
        places = torch.stack([(x / columns)[None].expand(rows, -1), (y / rows)[:, None].expand(-1, columns)], -1)
        return self._encoded(places).permute(2, 0, 1)[None]

    def _encoded(self, places: Tensor) -> Tensor:
        """XY float[…, 2] in 0–1 → float[…, C]; no matrix product, which bf16 would take from pixels their place."""
        first, second = self.prompt_encoder.shared_embedding.positional_embedding
        places = 2 * math.pi * (2 * places - 1)
        angles = places[..., :1] * first + places[..., 1:] * second
        return torch.cat([angles.sin(), angles.cos()], -1)

    def samples(self) -> list[tuple[np.ndarray, ...]]:
        """Inputs by which a file is proven: a point, a box, clicks with an earlier mask."""
        rng = np.random.default_rng(0)
        grid, channels = self.prompt_encoder.image_embedding_size, self.prompt_encoder.hidden_size
        sets = [([[1, -1]], 0), ([[2, 3]] * 3, 0), ([[1, 0, 2, 3], [0, 1, 2, 3]], 1)]
        inputs = []
        for labels, given in sets:
            kinds = np.array(labels, np.float32)
            mask = rng.normal(0, 5, (len(kinds), 1, 4 * grid[0], 4 * grid[1])) * given
            arrays = (rng.normal(size=(1, channels, *grid)), rng.uniform(0, self.side, (*kinds.shape, 2)), kinds, mask, [given])
            inputs.append(tuple(np.asarray(array, np.float32) for array in arrays))
        return inputs


def merged(module: nn.Module) -> nn.Module:
    """A module without peft's layers: adapters merged into the weights, trained copies in the place of their originals."""
    if isinstance(module, ModulesToSaveWrapper):
        return merged(module.modules_to_save[module.active_adapters[0]])
    if isinstance(module, BaseTunerLayer):
        module.merge()
        return module.get_base_layer()
    for name, child in module.named_children():
        plain = merged(child)
        if plain is not child:
            setattr(module, name, plain)
    return module


def mask_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy and dice of logits float[N, M, h, w] against the teacher's, as probabilities (V-Net's dice, of squares)."""
    target = wanted.float().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(found.float(), target)
    ours, target = found.float().sigmoid().flatten(2), target.flatten(2)
    dice = 1 - (2 * (ours * target).sum(2) + 1) / ((ours**2).sum(2) + (target**2).sum(2) + 1)
    return entropy + dice.mean()


def click(wanted: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """A random cell where masks bool[N, h, w] differ (anywhere, if nowhere): its XY float[N, 2] and 1 inside, 0 outside."""
    wrong = (wanted ^ found).flatten(1)
    cell = (torch.rand(wrong.shape, device=wrong.device) + wrong).argmax(1)  # 1 + u beats every u elsewhere
    width = wanted.shape[2]
    return torch.stack([cell % width, cell // width], 1) + 0.5, wanted.flatten(1).gather(1, cell[:, None])[:, 0].long()


def around(masks: Tensor) -> Tensor:
    """Boxes float[N, 4] XYXY around masks bool[N, h, w], in cells; of an empty mask, all of it."""
    masks = torch.where(masks.any((1, 2))[:, None, None], masks, torch.ones_like(masks))
    sides = []
    for axis in (1, 2):
        seen = masks.any(axis).int()
        sides.append((seen.argmax(1), seen.shape[1] - seen.flip(1).argmax(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1).float()
