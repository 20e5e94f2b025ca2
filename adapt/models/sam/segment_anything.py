"""The original files of SAM (`sam_vit_b_01ec64.pth` …), renamed to transformers' weights so that the same family serves.

    load(Config(name="sam", checkpoint="segment_anything:vit_b/sam_vit_b_01ec64.pth"))

Source: segment-anything (Apache-2.0), `build_sam.py`; the names are those of transformers' conversion script.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from adapt.models import checkpoint
from adapt.models.sam.checkpoints import family, fresh
from adapt.models.sam.family import Sam
from adapt.plug import UserError, counted, nearest

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ARCHITECTURES = {"vit_b": (768, 12, 12), "vit_l": (1024, 24, 16), "vit_h": (1280, 32, 16)}
"""Width, depth and heads of the image encoder."""
GLOBAL = {"vit_b": [2, 5, 8, 11], "vit_l": [5, 11, 17, 23], "vit_h": [7, 15, 23, 31]}
"""Layers that attend over the whole image."""

RENAMED = [
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.", "vision_encoder."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", "shared_image_embedding.positional_embedding"),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"^mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.0\.", r"\1.proj_in."),
    (r"\.norm([1-4])\.", r".layer_norm\1."),
]
"""In this order; the last layers of the small MLPs are renamed apart, since their numbers depend on the depth."""


def load_segment_anything(config) -> Sam:
    """`segment_anything:ARCH/FILE.pth`; see `adapt.models.sam.load`.

    Raises:
        UserError: no such architecture or file, or the file holds something else.
    """
    arch, _, name = config.checkpoint.removeprefix("segment_anything:").partition("/")
    if arch not in ARCHITECTURES:
        raise UserError(f"model.checkpoint: segment-anything has no architecture {arch!r}.{nearest(arch, ARCHITECTURES)}")
    if config.weights == "random":
        net = fresh(configuration(*ARCHITECTURES[arch], whole=GLOBAL[arch]))
    else:
        file = Path(name).expanduser()
        if not file.is_file():
            raise UserError(f"model.checkpoint: no file {name!r}. Write segment_anything:{arch}/FILE.pth with the file's path.")
        net = convert(read(file), name, arch)
    return family(net, config, [value / 255 for value in MEAN], [value / 255 for value in STD])


def read(file: Path) -> dict[str, Tensor]:
    """The weights of a .pth file, under segment-anything's names; no code of it is run.

    Raises:
        UserError: it cannot be read, or holds no SAM.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (*checkpoint.UNLOADABLE, *checkpoint.NO_TENSORS) as error:
        raise checkpoint.unreadable_file(file, error) from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    parts = ("image_encoder.pos_embed", "prompt_encoder.not_a_point_embed.weight", "mask_decoder.iou_token.weight")
    lacking = [part for part in parts if not (isinstance(state, dict) and isinstance(state.get(part), Tensor))]
    if lacking:
        raise UserError(
            f"model.checkpoint: {str(file)!r} is of another architecture: it has no {', '.join(lacking)}. "
            f"Give a file of segment-anything: {', '.join(ARCHITECTURES)}."
        )
    return state


def convert(state: dict[str, Tensor], name: str, arch: str | None = None) -> SamModel:
    """A `SamModel` with the weights of segment-anything's `Sam`.

    Args:
        state: under segment-anything's names.
        name: of the file, for messages.
        arch: what it should be; none: whatever its tensors' shapes say.

    Raises:
        UserError: it is of another architecture.
    """
    blocks = {int(key.split(".")[2]) for key in state if key.startswith("image_encoder.blocks.")}
    _, grid, _, width = state["image_encoder.pos_embed"].shape
    depth = len(blocks)
    have = next((known for known, sizes in ARCHITECTURES.items() if sizes[:2] == (width, depth)), None)
    if arch and have != arch:
        hint = f"Write segment_anything:{have}/{name}." if have else f"Have: {', '.join(ARCHITECTURES)}."
        raise UserError(f"model.checkpoint: {name!r} is no {arch}: its encoder has {depth} layers of width {width}. {hint}")
    lengths = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in sorted(blocks)]
    whole = [i for i, (length, _) in enumerate(lengths) if length == 2 * grid - 1]
    window = next(((length + 1) // 2 for length, _ in lengths if length != 2 * grid - 1), 0)
    patch = state["image_encoder.patch_embed.proj.weight"].shape[2]
    config = configuration(width, depth, width // lengths[0][1], whole, window, patch, grid, state)
    net = SamModel(config)
    try:
        outcome = net.load_state_dict(renamed(state), strict=False)
    except RuntimeError as error:
        raise UserError(f"model.checkpoint: {name!r} does not fit SAM: {str(error).splitlines()[1].strip()}") from None
    lacking = [key for key in outcome.missing_keys if key != "prompt_encoder.shared_embedding.positional_embedding"]
    if lacking or outcome.unexpected_keys:
        odd = [*lacking, *outcome.unexpected_keys]
        raise UserError(
            f"model.checkpoint: {name!r} does not fit SAM: {counted(len(odd), 'weight')} of another size or name, such as {odd[0]!r}."
        )
    return net


def configuration(
    width, depth, heads, whole, window=14, patch=16, grid=64, state: dict[str, Tensor] | None = None
) -> SamConfig:
    """The configuration of an original model; the decoder's sizes are read from its weights, if given."""
    channels, mlp, iou_width, layers, hidden = 256, 2048, 256, 2, None
    if state:
        channels = state["mask_decoder.iou_token.weight"].shape[1]
        mlp = state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0]
        iou_width = state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0]
        layers = len({key.split(".")[3] for key in state if key.startswith("mask_decoder.transformer.layers.")})
        hidden = state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0]
    vision = SamVisionConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, output_channels=channels,
        image_size=grid * patch, patch_size=patch, window_size=window, global_attn_indexes=whole,
        num_pos_feats=channels // 2, mlp_dim=hidden or 4 * width,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=channels, image_size=grid * patch, patch_size=patch)
    decoder = SamMaskDecoderConfig(
        hidden_size=channels, mlp_dim=mlp, num_hidden_layers=layers, iou_head_hidden_dim=iou_width,
        layer_norm_eps=1e-5,  # torch's default, which segment-anything has; transformers' own default is 1e-6
    )  # fmt: skip
    return SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """segment-anything's names → transformers'."""
    out = {}
    for key, value in state.items():
        for pattern, name in RENAMED:
            key = re.sub(pattern, name, key)
        if found := re.match(
            r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.(\d+)\.(.*)", key
        ):
            head, layer, kind = found.groups()
            last = f"{head}.layers.{int(layer) + 1}.weight" not in state
            key = f"{head}.proj_out.{kind}" if last else f"{head}.layers.{int(layer) - 1}.{kind}"
        out[key] = value
    return out
