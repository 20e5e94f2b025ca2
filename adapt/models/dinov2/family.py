"""The DINO family: an encoder's global and patch features, and a linear head on either."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.contracts import Augment, Input, Predictor, Slots, VisionSlot
from adapt.models import checkpoint
from adapt.models.base import Family
from adapt.models.checkpoint import image_input
from adapt.plug import UserError, counted
from adapt.vision.augment import augment, augment_map
from adapt.vision.classes import IGNORE, UNLABELLED
from adapt.vision.images import Normalise, view
from adapt.vision.maps import class_map, view_map

# model_type → its last norm
NORMS = {"dinov2": "layernorm", "dinov2_with_registers": "layernorm", "dinov3_vit": "norm", "dinov3_convnext": "layer_norm"}
BLOCKS = 4
"""Last blocks of `block_features` (DINOv2's linear evaluation, arXiv:2304.07193 §7.1)."""
BACKGROUND = "background"
COLUMNS = {"classification": "label", "segmentation": "objects"}


class Dino(Family):
    """An encoder with patches; see `Family` for the surface."""

    adapter_targets = {
        "q": "q_proj",
        "k": "k_proj",
        "v": "v_proj",
        "o": "o_proj",
        "mlp": "fc1|fc2|gate_proj|up_proj|down_proj|pointwise_conv1|pointwise_conv2",
    }
    quantised = r".*\.(q_proj|k_proj|v_proj|o_proj|fc1|fc2|gate_proj|up_proj|down_proj|pointwise_conv1|pointwise_conv2)"

    def __init__(self, backbone: nn.Module, spec: dict[str, Any], config):
        super().__init__()
        self.backbone, self.spec, self.local = backbone, Input(**spec), config.local
        self.task, self.embedding, self.names = config.task, config.embedding, config.classes
        self.target_column = "objects"
        self.head: nn.Module | None = None
        self.normalise = Normalise(spec)
        own = backbone.config
        self.kind = own.model_type
        convnext = self.kind == "dinov3_convnext"
        self.width = own.hidden_sizes[-1] if convnext else own.hidden_size
        self.stride = 4 * 2 ** (len(own.depths) - 1) if convnext else own.patch_size
        self.prefix = 1 + getattr(own, "num_register_tokens", 0)
        self.blocks = 1 if convnext else min(BLOCKS, own.num_hidden_layers)

    @property
    def located(self) -> bool:
        return self.task == "segmentation"

    @property
    def input(self) -> Input:
        return self.spec

    @property
    def columns(self) -> tuple[str, ...]:
        if self.task == "segmentation":
            return ("image", self.target_column)
        return ("image", "label") if self.task == "classification" else ("image",)

    def bind(self, columns: list[str]) -> None:
        if self.task == "auto":
            found = [task for task, needs in COLUMNS.items() if needs in columns]
            self.task = found[0] if found else "segmentation" if "segmentation" in columns else "features"
        self.target_column = "segmentation" if "segmentation" in columns else "objects"
        if self.task == "segmentation":  # whole pictures: a crop would leave pixels without a class
            self.spec |= {"resize": self.spec["size"], "crop": None}
        super().bind(columns)

    @property
    def outputs(self) -> list[str]:
        """The names of the head's outputs; of pixels, 0 is the background."""
        if self.task == "classification":
            return list(self.classes)
        if self.target_column == "segmentation" and (self.names or not self.classes):
            return self.names
        return [BACKGROUND, *self.classes]  # of `data.source=masks` too: 0 is background, k + 1 the k-th category

    # -------------------------------------------------------------------------------------------------------- features

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float[B, 3, H, W] 0–255 → global float32[B, D] and patches float32[B, D, H/stride, W/stride], after the last norm."""
        return self._split(self.net(pixel_values=self.normalise(images)).last_hidden_state.float(), images)

    def _split(self, sequence: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        h, w = (side // self.stride for side in images.shape[-2:])
        # registers, and a method's tokens within the layers, are left out
        return sequence[:, 0], sequence[:, -h * w :].transpose(1, 2).unflatten(2, (h, w))

    def image_embedding(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D], or [B, 2 D] with embedding=both; not L2-normalised."""
        cls, patches = self.tokens(images)
        parts = {"cls": [cls], "mean": [patches.mean((2, 3))], "both": [cls, patches.mean((2, 3))]}
        return torch.cat(parts[self.embedding], 1)

    def patch_features(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D, H/stride, W/stride]."""
        return self.tokens(images)[1]

    def block_features(self, images: Tensor) -> Tensor:
        """float[B, n + 1, D]: class tokens of the last n blocks, the last one last, then the mean of its patches."""
        if self.blocks == 1:
            cls, patches = self.tokens(images)
            return torch.stack([cls, patches.mean((2, 3))], 1)
        states = self.net(pixel_values=self.normalise(images), output_hidden_states=True).hidden_states
        norm = getattr(self.net, NORMS[self.kind])
        parts = [self._split(norm(state).float(), images) for state in states[-self.blocks :]]
        return torch.stack([cls for cls, _ in parts] + [parts[-1][1].mean((2, 3))], 1)

    def distill_features(self, images: Tensor) -> Tensor:
        """float[B, 1 + local², D]: the global feature, then the patch features pooled to local × local, row by row."""
        cls, patches = self.tokens(images)
        pooled = F.adaptive_avg_pool2d(patches, self.local).flatten(2).transpose(1, 2)
        return torch.cat([cls[:, None], pooled], 1)

    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        if texts is not None:
            raise UserError("evals: this family knows no texts, so it cannot be asked about any. Leave out evals of texts.")
        functions = [self.image_embedding, self.patch_features, self.block_features, self.distill_features]
        offered = {function.__name__: Predictor(function) for function in functions}
        if self.head is not None and self.task == "classification":
            offered["class_logits"] = Predictor(lambda images: self.head_logits(self.image_embedding(images)))
        elif self.head is not None:
            offered["semantic_logits"] = Predictor(self.semantic_logits)
        return offered

    @property
    def slots(self) -> Slots:
        put = {"pixels": self.normalise, "prompts": partial(setattr, self, "prompts")}
        if self.kind == "dinov3_convnext":
            return Slots(no_vision="a ConvNeXt has no tokens", **put)
        # DINOv3's rotary positions are those of the last tokens, the patches, however many come before
        layers = (self.net.model if self.kind == "dinov3_vit" else self.net.encoder).layer
        return Slots(vision=VisionSlot(layers, self.width, self.prefix, self.stride), **put)

    def semantic_logits(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, C, H/stride, W/stride], a logit a class and patch; between patches go bilinear."""
        return self.head_logits(self.patch_features(images))

    def head_logits(self, features: Tensor) -> Tensor:
        """Features float[B, D, …] → float32[B, C, …], in float32 whatever the autocast."""
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float())

    # ------------------------------------------------------------------------------------------------------------ head

    def new_head(self, init: str = "auto") -> None:
        if init == "text":
            raise UserError("method.init: 'text' needs a text tower, and this family has none. Use zero.")
        if self.task == "features" or not self.outputs:
            what = "a column label, objects or segmentation" if self.task != "segmentation" else "model.classes: [names]"
            raise UserError(f"data: the head of this family needs classes: {what}.")
        if self.task == "classification":
            self.head = nn.Linear(self.width * (2 if self.embedding == "both" else 1), len(self.outputs))
            last = self.head
        else:  # DINOv2's linear head for pixels: BatchNorm, then a 1 × 1 convolution (arXiv:2304.07193 §7.4)
            last = nn.Conv2d(self.width, len(self.outputs), 1)
            self.head = nn.Sequential(nn.BatchNorm2d(self.width), last)
        nn.init.normal_(last.weight, std=0.01 if init == "random" else 0.0)  # from zero nothing flows back to the encoder
        nn.init.zeros_(last.bias)
        self.head.to(self.normalise.mean.device)

    def complete(self) -> None:
        for name, parameter in self.backbone.named_parameters():
            if name.endswith("mask_token"):  # of pre-training only: it gets no gradient, which DDP would wait for
                parameter.requires_grad_(False)
        if self.head is None:
            self.new_head("random")

    def train(self, mode: bool = True) -> Dino:
        """A frozen encoder stays in evaluation: DINOv3 jitters its positions in training, and nobody would learn from it."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def frozen_features(self) -> Callable[[Tensor], Tensor] | None:
        learns = any(parameter.requires_grad for parameter in self.backbone.parameters())
        if self.head is None or self.prompts is not None or learns:
            return None
        return self.image_embedding if self.task == "classification" else self.patch_features

    def feature_logits(self, features: Tensor) -> Tensor:
        return self.head_logits(features)

    # ------------------------------------------------------------------------------------------------------------ loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.head is not None, "a method's apply comes first"
        features = batch.get("features")
        if self.task == "classification":
            logits = self.head_logits(self.image_embedding(batch["image"]) if features is None else features)
            target, none = batch["label"], UNLABELLED
        else:
            logits = self.head_logits(self.patch_features(batch["image"]) if features is None else features)
            target, none = batch["target"], IGNORE
            logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
        judged = self.weight(batch).clamp(min=1)  # a batch without any is a loss of zero, not of NaN
        right = ((logits.argmax(1) == target) & (target != none)).sum() / judged
        return F.cross_entropy(logits, target, ignore_index=none, reduction="sum") / judged, {"accuracy": right}

    def weight(self, batch: dict[str, Any]) -> Tensor:
        """Pictures, or pixels that have a class."""
        return (batch["label"] != UNLABELLED if self.task == "classification" else batch["target"] != IGNORE).sum()

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        item: dict[str, Any] = {"image": view(sample["image"], self.spec)}
        if train and self.task == "classification":
            item["label"] = sample["label"]
        elif train and self.task == "segmentation":
            item["target"] = view_map(class_map(sample), self.spec)
        return item

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views; the class map goes where its pixels go."""
        views = {"image": augment(batch["image"], batch["seed"], config)}
        if "target" in batch:
            views["target"] = augment_map(batch["target"], batch["seed"], config)
        return batch | views


def load_transformers(config) -> Dino:
    """An encoder from a folder or the hub; see `adapt.models.dinov2.load`."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    checkpoint.read_config(config.checkpoint, tuple(NORMS))
    place = checkpoint.resolve(config.checkpoint)
    try:
        processor = AutoImageProcessor.from_pretrained(place)
        if config.weights == "random":
            backbone = AutoModel.from_config(AutoConfig.from_pretrained(place), dtype=torch.float32)
        else:
            backbone, info = AutoModel.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
            lacking = [name for name in info["missing_keys"] if not name.endswith("mask_token")]
            if lacking:
                raise UserError(
                    f"model.checkpoint: {config.checkpoint!r} lacks {counted(len(lacking), 'weight')}, such as {lacking[0]!r}."
                )
    except checkpoint.UNLOADABLE as error:
        raise checkpoint.unreadable(config.checkpoint, error) from None
    family = Dino(backbone, image_input(processor.to_dict(), config.image_size), config)
    for side in family.input["size"]:
        if side % family.stride:
            near = sorted({max(1, side // family.stride) * family.stride, (side // family.stride + 1) * family.stride})
            raise UserError(
                f"model.image_size: {side} is not a multiple of the patch size, {family.stride} pixels. Near: {near[0]}, {near[-1]}."
            )
    return family
