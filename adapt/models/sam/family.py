"""The SAM family: encoder, prompts, decoder and loss around transformers' `SamModel`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.contracts import Augment, Input, Predictor, Slots
from adapt.models.base import Family
from adapt.models.sam import prompts as prompts
from adapt.models.sam.loss import mask_loss
from adapt.models.sam.objects import check_objects, drawn
from adapt.prompting.automatic import proposals
from adapt.prompting.prompted import padded, predict
from adapt.vision.augment import augment
from adapt.vision.images import Normalise
from adapt.vision.masks import singles, unrle

FINEST = 256
"""The loss compares masks on a grid of the input's side, but of no more cells than this (SAM's own decoder: 256)."""


class Sam(Family):
    """A `SamModel` that learns from simulated prompts; see `Family` for the surface.

    Coordinates inside are X, Y in pixels of the padded input, S × S; only `masks` takes those of the pictures.
    """

    located = True
    adapter_targets = {
        "q": "qkv|q_proj",
        "k": "qkv|k_proj",
        "v": "qkv|v_proj",
        "o": r"attn\.proj|out_proj",
        "qkv": "qkv",
        "proj": r"attn\.proj",
        "mlp": "lin1|lin2",
    }
    """The image encoder has q, k and v in one matrix, which LoRA adapts as one; q_proj … are the mask decoder's alone."""
    quantised = r"vision_encoder\.layers\.\d+\.(attn\.(qkv|proj)|mlp\.lin[12])"

    def __init__(self, backbone: nn.Module, spec: dict[str, Any], config):
        super().__init__()
        self.backbone, self.spec, self.config = backbone, spec, config
        self.normalise = Normalise(spec)

    @property
    def decoder(self) -> nn.Module:
        """What the method `decoder` lets learn."""
        return self.net.mask_decoder

    @property
    def input(self) -> Input:
        return self.spec

    @property
    def side(self) -> int:
        """S, the side of the padded input, pixels."""
        return self.spec["size"][0]

    @property
    def columns(self) -> tuple[str, ...]:
        return ("image", "objects")

    @property
    def slots(self) -> Slots:
        return Slots(no_vision="SAM's layers see the windows of a grid, in which further tokens have no place")

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """`image` float32[3, S, S], padded with the mean; `size` int64[2], height and width of the picture in it, pixels;
        for training `objects`, whose boxes are in pixels of the input and whose masks are the picture's own."""
        item = padded(sample, self.spec)
        if train and "objects" in sample:
            image, (height, width) = sample["image"], item["size"].tolist()
            where = f"data: sample {sample.get('id', '?')!r}"
            objects = check_objects(singles(sample["objects"] or {}), *image.size, where)
            scale = np.tile([width / image.width, height / image.height], 2)
            boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4) * scale
            item["objects"] = {"bbox": boxes.tolist(), "mask": objects["mask"]}
        return item

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views. Masks and boxes move with the picture, which then fills the input: its padding is a part of it. Views that
        move nothing leave the padding at the mean. Of the objects of a view that moves, those alone are left that are prompted."""
        images = augment(batch["image"], batch["seed"], config)
        if config.crop < 1 or config.rotate or config.flip:
            rows = zip(batch["objects"], batch["size"].tolist(), batch["seed"].cpu(), strict=True)
            objects = [drawn(own, size, self.side, seed, config, self.config.objects) for own, size, seed in rows]
            return batch | {"image": images, "objects": objects, "size": torch.full_like(batch["size"], self.side)}
        padding = (255 * self.normalise.mean).to(images.device)
        return batch | {"image": torch.where(prompts.inside(batch["size"], self.side, 1), images, padding)}

    # ------------------------------------------------------------------------------------------------------------ parts

    def image_features(self, images: Tensor) -> Tensor:
        """float[B, 3, S, S] 0–255 → float32[B, C, h, w], what the mask decoder looks at."""
        return self.net.vision_encoder(self.normalise(images)).last_hidden_state.float()

    def frozen_features(self) -> Callable[[Tensor], Tensor] | None:
        """The image encoder, if nothing in it learns."""
        if any(p.requires_grad for p in self.net.vision_encoder.parameters()):
            return None
        return torch.no_grad()(self.image_features)

    def decode(
        self, features: Tensor, coordinates: Tensor, labels: Tensor, masks: Tensor | None = None, multimask: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Masks of N prompts.

        Args:
            features: float[N, C, h, w], of each prompt's image.
            coordinates: float[N, P, 2], XY.
            labels: int64[N, P]: 1 inside, 0 outside, 2 and 3 a box's corners, -1 nothing (ends points that come without a box).
            masks: float[N, 1, 4h, 4w], logits that this function returned before.
            multimask: three answers for a prompt that may mean several things; else one.

        Returns:
            logits float32[N, M, 4h, 4w] and predicted IoU float32[N, M].
        """
        encoder, low, features = self.net.prompt_encoder, len(coordinates), features.float()
        # in float32: bf16 has 8 bits; coordinates of 1024 pixels take 10, and IoUs near 1 choose among masks
        with torch.autocast(features.device.type, enabled=False):
            points = self.net.shared_image_embedding(coordinates.float()[:, None] + 0.5, (self.side, self.side))
            position = self.net.get_image_wide_positional_embeddings()
            kinds = torch.cat([part.weight for part in encoder.point_embed])[labels.clamp(min=0)][:, None]
            sparse = torch.where((labels >= 0)[:, None, :, None], points + kinds, encoder.not_a_point_embed.weight)
            if masks is None:
                dense = encoder.no_mask_embed.weight[:, :, None, None].expand(low, -1, *features.shape[2:])
            else:
                dense = encoder.mask_embed(masks)
            # SamModel.forward has one dense prompt an image, not one an object, so we call its parts
            logits, scores = self.net.mask_decoder(
                image_embeddings=features,
                image_positional_embeddings=position.expand(low, -1, -1, -1),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
            )
        return logits[:, 0], scores[:, 0]

    # ------------------------------------------------------------------------------------------------------------ loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """SAM's training (§A): a point or a noisy box, then corrective clicks, each with the mask before as a prompt too."""
        features = batch["features"] if "features" in batch else self.image_features(batch["image"])
        image, boxes, truth, u = self._targets(batch, features.device)
        # every learning parameter has a gradient in every step, whichever prompts were drawn: weight decay acts on all alike
        learning = [*self.net.prompt_encoder.parameters(), *self.net.mask_decoder.parameters()]
        nothing = 0 * sum((p.sum() for p in learning if p.requires_grad), start=0 * features.sum())
        if not len(image):
            return nothing, {name: features.new_zeros(()) for name in ("iou", "iou_clicked")}
        size, features = batch["size"].to(features.device)[image], features[image]
        within = prompts.inside(size, self.side, self.side // truth.shape[2])
        scale = self.side / truth.shape[2]
        noise = (self.config.box_noise, self.config.box_noise_most)
        coordinates, labels = prompts.first(truth, boxes, size, u, scale, *noise)
        losses, overlaps, masks = [], [], None
        for step in range(self.config.clicks + 1):
            if step:
                found = self._grow(masks, truth.shape[2])[:, 0] > 0
                point, label = prompts.click(truth, found & within[:, 0], u[:, prompts.DRAWS + step - 1], scale)
                coordinates, labels = torch.cat([point, coordinates], 1), torch.cat([label, labels], 1)
            loss, overlap, masks = self._answer(features, coordinates, labels, masks, truth[:, None], within)
            losses.append(loss)
            overlaps.append(overlap)
        logs = {"iou": overlaps[0].mean(), "iou_clicked": overlaps[-1].mean()}
        return torch.stack(losses).mean() + nothing, logs

    def weight(self, batch: dict[str, Any]) -> float:
        """Prompted objects."""
        return float(sum(min(len(row["mask"]), self.config.objects) for row in batch["objects"]))

    def _answer(self, features, coordinates, labels, masks, truth, within) -> tuple[Tensor, Tensor, Tensor]:
        """Loss float[N], IoU float[N] and logits float[N, 1, 4h, 4w] of each prompt's best answer.

        A lone point may mean a thing, its part or its owner: three answers. A box, or more than one point: one answer.
        """
        lone = (labels >= 0).sum(1) == 1
        order, parts = torch.cat([lone.nonzero()[:, 0], (~lone).nonzero()[:, 0]]), []
        for rows, multimask in ((lone, True), (~lone, False)):
            if rows.any():
                before = None if masks is None else masks[rows]
                logits, scores = self.decode(features[rows], coordinates[rows], labels[rows], before, multimask)
                grown = self._grow(logits, truth.shape[2])
                loss, overlap, best = mask_loss(grown, scores, truth[rows], within[rows])
                # the next click's prompt is what a user would see: no gradient flows through it (§A)
                parts.append((loss, overlap, logits.detach()[torch.arange(len(best), device=best.device), best][:, None]))
        back = order.argsort()
        return tuple(torch.cat(part)[back] for part in zip(*parts, strict=True))

    def _grow(self, logits: Tensor, grid: int) -> Tensor:
        """float[N, M, 4h, 4w] → float[N, M, grid, grid]."""
        if logits.shape[2] == grid:
            return logits
        return F.interpolate(logits.float(), (grid, grid), mode="bilinear", align_corners=False)

    def _targets(self, batch: dict[str, Any], device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The prompted objects: image int64[N], boxes float[N, 4], masks bool[N, G, G], random numbers float[N, …]."""
        chosen = prompts.pick(batch["seed"], [len(row["mask"]) for row in batch["objects"]], self.config.objects)
        grid = self.side // max(1, self.side // FINEST)
        sizes = batch["size"].tolist()
        numbers = prompts.DRAWS + self.config.clicks
        u = prompts.draws(batch["seed"], self.config.objects * numbers, 1).view(len(chosen), -1, numbers)
        image, boxes, masks, draws = [], [], [], []
        for row, (objects, numbers_of) in enumerate(zip(batch["objects"], chosen, strict=True)):
            for place, number in enumerate(numbers_of):
                image.append(row)
                boxes.append(objects["bbox"][number])
                masks.append(
                    prompts.on_grid(torch.from_numpy(unrle(objects["mask"][number])).to(device), sizes[row], self.side, grid)
                )
                draws.append(u[row, place])
        if not image:
            return (*(torch.zeros(0, device=device) for _ in range(4)),)
        return (
            torch.tensor(image, device=device),
            torch.tensor(boxes, device=device),
            torch.stack(masks),
            torch.stack(draws).to(device),
        )

    # ------------------------------------------------------------------------------------------------------ prediction

    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        """`image_features`, a function of images; of rows `masks` (see `prompting/prompted.py`) and `proposals` (`prompting/automatic.py`)."""
        rows = {"masks": functools.partial(predict, self), "proposals": functools.partial(proposals, self)}
        return {name: Predictor(each, "rows") for name, each in rows.items()} | {
            "image_features": Predictor(self.image_features)
        }
