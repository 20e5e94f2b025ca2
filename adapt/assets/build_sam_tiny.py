"""Lay out `sam-tiny` before its training: configuration and image processor.

    python -m adapt.assets.build_sam_tiny && adapt finetune recipe=zoo/sam_tiny
    python -m adapt.assets.publish runs/sam_tiny-…

The formats are those of `facebook/sam-vit-base`, so that the code path is the one that public checkpoints take.
"""

from __future__ import annotations

from transformers import SamConfig, SamImageProcessor, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from adapt.models.checkpoint import EMBEDDED

SIDE, PATCH, CHANNELS = 128, 8, 128
GRID = SIDE // PATCH


def configuration() -> SamConfig:
    """3.6 M parameters: ViT 192 wide, six layers, windows of 8 × 8 patches but for the third and the last; a decoder 128 wide."""
    size = {"image_size": SIDE, "patch_size": PATCH}
    vision = SamVisionConfig(
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=6,
        output_channels=CHANNELS,
        mlp_ratio=4.0,
        window_size=8,
        global_attn_indexes=[2, 5],
        num_pos_feats=CHANNELS // 2,
        initializer_range=0.02,
        **size,
    )
    prompt = SamPromptEncoderConfig(hidden_size=CHANNELS, **size)
    decoder = SamMaskDecoderConfig(
        hidden_size=CHANNELS, mlp_dim=512, num_attention_heads=4, iou_head_hidden_dim=CHANNELS, layer_norm_eps=1e-5
    )
    return SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def main() -> None:
    folder = EMBEDDED / "sam-tiny"
    config = configuration()
    config.save_pretrained(folder)
    low = {"height": 4 * GRID, "width": 4 * GRID}
    SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": 4 * GRID},
        mask_pad_size=low,
    ).save_pretrained(folder)
    count = sum(parameter.numel() for parameter in SamModel(config).parameters())
    print(f"{folder.name}: {count / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
