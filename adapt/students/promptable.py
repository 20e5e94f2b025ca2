"""A CNN in the place of SAM's image encoder, in front of SAM's prompt encoder and mask decoder: the student of `masks`.

Its decoder is transformers' own, built from the options in its config.json; no other student needs transformers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

from adapt.contracts import Deployable, Predictor
from adapt.prompting.automatic import proposals
from adapt.prompting.prompted import padded, predict
from adapt.students import base
from adapt.students.pyramid import Pyramid
from adapt.train.precision import full

PROMPT_ENCODER = ("hidden_size", "image_size", "patch_size", "mask_input_channels", "num_point_embeddings", "hidden_act")
PROMPT_ENCODER += ("layer_norm_eps",)
MASK_DECODER = ("hidden_size", "hidden_act", "mlp_dim", "num_hidden_layers", "num_attention_heads", "attention_downsample_rate")
MASK_DECODER += ("num_multimask_outputs", "iou_head_depth", "iou_head_hidden_dim", "layer_norm_eps")
"""What transformers builds the two from."""


def decoder_of(config: SamConfig) -> dict[str, dict[str, Any]]:
    """The part of a SAM's configuration that its student keeps."""
    parts = {"prompt_encoder_config": PROMPT_ENCODER, "mask_decoder_config": MASK_DECODER}
    return {part: {name: config.to_dict()[part][name] for name in names} for part, names in parts.items()}


class Student(base.Student):
    """Pictures and prompts → masks.

    Args:
        architecture, input, classes: see `base.Student`; there are no classes, and the input is padded as SAM's.
        width: channels of the CNN's fused map.
        sam: of its prompt encoder and mask decoder; see `decoder_of`.
        pretrained: see `create`.
    """

    def __init__(
        self,
        architecture: str,
        input: dict[str, Any],
        classes: Sequence[str],
        width: int,
        sam: dict[str, dict[str, Any]],
        pretrained: bool | str = False,
    ):
        super().__init__(architecture, input, classes, width=width, sam=sam)
        channels = sam["prompt_encoder_config"]["hidden_size"]
        config = SamConfig(vision_config={"num_pos_feats": channels // 2}, **copy.deepcopy(sam))
        config.mask_decoder_config._attn_implementation = "sdpa"  # as `SamModel` would choose
        self.side = input["size"][0]
        grid = config.prompt_encoder_config.image_embedding_size
        encoder = Encoder(architecture, self.side, grid, channels, width, pretrained)
        decoder = PromptDecoder(SamPromptEncoder(config), SamMaskDecoder(config.mask_decoder_config), self.side)
        self.net = nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """`image` and `size`; see `padded`."""
        return padded(sample, self.input)

    def image_features(self, images: Tensor) -> Tensor:
        """float[B, 3, S, S] 0–255 → float32[B, C, h, w], what the mask decoder looks at."""
        return self.net["encoder"](self.normalise(images)).float()

    @full()
    def decode(
        self, features: Tensor, coordinates: Tensor, labels: Tensor, masks: Tensor | None = None, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Masks of prompts, as SAM decodes them; see `prompting.prompted.Promptable`."""
        return self.net["decoder"].answer(features.float(), coordinates.float(), labels, multimask, masks)

    def predictors(self, texts: None = None) -> dict[str, Predictor]:
        """`masks` and `proposals`, functions of rows (see `prompting/prompted.py` and `automatic.py`), and `image_features`."""
        masks = full()(lambda *given, **more: predict(self, *given, **more))
        found = full()(lambda *given, **more: proposals(self, *given, **more))
        rows = {"masks": Predictor(masks, "rows"), "proposals": Predictor(found, "rows")}
        return rows | {"image_features": Predictor(full()(self.image_features))}

    def deployed(self) -> Deployable:
        """The encoder, and beside it the decoder."""
        return Deployable(
            Deployed(self),
            ("image_embeddings",),
            parts={"decoder": self.net["decoder"].deployed()},
            example="sam_onnx_numpy.py",
        )

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Predictor]:
        """By an exported encoder, in front of this decoder, whose own file is proven equal to it."""
        by_file = copy.copy(self)  # all parts are shared
        by_file.image_features = lambda images: torch.from_numpy(runner(images.cpu().numpy())).to(images.device)
        return by_file.predictors()


class Encoder(nn.Module):
    """A timm CNN that gives what SAM's image encoder gives: normalised float[B, 3, S, S] → float[B, C, h, w].

    Args:
        side: S, of the input, pixels.
        grid: h = w of the embedding.
        channels: C of the embedding.
        width: channels of the CNN's fused map.
    """

    def __init__(self, architecture: str, side: int, grid: int, channels: int, width: int, pretrained: bool | str):
        super().__init__()
        self.cnn = Pyramid(architecture, side // grid, (grid, grid), width, pretrained)
        self.neck = nn.Sequential(nn.Conv2d(width, channels, 1), LayerNorm2d(channels))  # as SAM's neck ends

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self.cnn(images))


class Deployed(nn.Module):
    """Images float[N, 3, S, S] 0–255 → embeddings float[N, C, h, w], normalisation inside."""

    def __init__(self, student: Student):
        super().__init__()
        self.normalise, self.encoder = student.normalise, student.net["encoder"]

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(self.normalise(images))


class PromptDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder behind inputs that segment-anything's ONNX files have.

    Boxes are two points with the labels 2 and 3; prompts without a box end with the point (0, 0) of label -1.
    """

    def __init__(self, prompt_encoder: nn.Module, mask_decoder: nn.Module, side: int):
        super().__init__()
        self.prompt_encoder, self.mask_decoder, self.side = prompt_encoder, mask_decoder, side
        # the random frequencies of positions are no weights that could learn
        shared = prompt_encoder.shared_embedding
        frequencies = shared.positional_embedding.detach()
        del shared.positional_embedding
        shared.register_buffer("positional_embedding", frequencies)

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

    def answer(
        self, features: Tensor, points: Tensor, labels: Tensor, multimask: bool, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Masks of N prompts, each on its own features float[N, C, h, w], and perhaps on logits of an earlier answer float[N, 1, 4h, 4w].

        Returns:
            logits float[N, M, 4h, 4w] and predicted IoU float[N, M]; M is 3 with `multimask`, else 1.
        """
        encoder = self.prompt_encoder
        dense = encoder.no_mask_embed.weight[:, :, None, None] if masks is None else encoder.mask_embed(masks)
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

    def deployed(self) -> Deployable:
        """How it is exported, by itself."""
        several = {"point_coords": {0: "prompts", 1: "points"}, "point_labels": {0: "prompts", 1: "points"}}
        dynamic = several | {"mask_input": {0: "prompts"}}
        return Deployable(self, ("low_res_masks", "iou_predictions"), dynamic, samples=self.samples())

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
