"""CLIP and SigLIP checkpoints in the format of transformers, behind the family."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adapt.contracts import VisionSlot
from adapt.models.checkpoint import UNLOADABLE, image_input, read_config, resolve, unreadable
from adapt.models.clip.family import Clip, Towers
from adapt.plug import UserError, counted

FAMILIES = ("clip", "siglip")
LACKING = {
    "siglip2": "pictures of variable resolution (NaFlex) are not supported; SigLIP 2 of fixed resolution, whose config says 'siglip', is"
}
"""Relatives that cannot be loaded, and why."""


def load_transformers(config) -> Clip:
    """`CLIPModel` or `SiglipModel` from a folder or the hub; see `adapt.models.clip.load`."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    kind = read_config(config.checkpoint, FAMILIES, LACKING)["model_type"]
    place = resolve(config.checkpoint)
    try:
        processor = AutoImageProcessor.from_pretrained(place)
        tokenise, vocabulary = tokens_of(place, sigmoid=kind == "siglip")
        if config.weights == "random":
            backbone = AutoModel.from_config(AutoConfig.from_pretrained(place), dtype=torch.float32)
        else:
            backbone, info = AutoModel.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
            lacking = [name for name in info["missing_keys"] if "position_ids" not in name]
            if lacking:
                raise UserError(
                    f"model.checkpoint: {config.checkpoint!r} lacks {counted(len(lacking), 'weight')}, such as {lacking[0]!r}."
                )
    except UNLOADABLE as error:
        raise unreadable(config.checkpoint, error) from None

    spec = image_input(processor.to_dict(), config.image_size)
    own = backbone.config.vision_config.image_size
    other = {"interpolate_pos_encoding": True} if spec["size"] != (own, own) else {}
    length = backbone.config.text_config.max_position_embeddings

    def encode_image(net: nn.Module, images: Tensor) -> Tensor:
        return net.get_image_features(pixel_values=images, **other).pooler_output

    def encode_tokens(net: nn.Module, tokens: Tensor) -> Tensor:
        return net.get_text_features(input_ids=tokens).pooler_output

    layers, width = backbone.vision_model.encoder.layers, backbone.config.vision_config.hidden_size
    vision = VisionSlot(layers, width, 0 if kind == "siglip" else 1, backbone.config.vision_config.patch_size)
    sees = tuple(name for name in ("vision_model", "visual_projection") if name in dict(backbone.named_children()))
    about = f"{kind} {backbone.config.text_config.to_json_string()}"
    tokens = lambda texts: tokenise(texts, length)  # noqa: E731
    towers = Towers(encode_image, tokens, encode_tokens, spec, sees, about, vocabulary, vision, sigmoid=kind == "siglip")
    if kind == "clip":  # SigLIP's pooling head ends in no projection
        towers.projection = lambda net: net.visual_projection.weight
        towers.unprojected = lambda net, images: net.vision_model(pixel_values=images, **other).pooler_output
        towers.project = lambda net, features: net.visual_projection(features)
    return Clip(backbone, towers, config)


def tokens_of(place: str, sigmoid: bool) -> tuple[Callable[[list[str], int], Tensor], Callable[[], list[str]]]:
    """The tokenizer of a checkpoint's folder or hub id: (N texts, T) → int64[N, at most T]; and all its tokens.

    SigLIP and SigLIP 2 (`sigmoid`) have only seen lower case without punctuation, and their text towers read the last place of
    a text that is padded to its full length: big_vision, evaluators/proj/image_text/prompt_engineering.py. SigLIP's own
    tokenizer cleans a part of that and Gemma's nothing, so it is done here, by open_clip's function for these checkpoints.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except ImportError:  # SiglipTokenizer wants sentencepiece; the tokenizer.json beside its pieces does without
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(place)
        except UNLOADABLE:
            raise UserError(
                f"model.checkpoint: {place!r} has no tokenizer.json. Add that of its public checkpoint, "
                "or pip install sentencepiece."
            ) from None
    vocabulary = lambda: tokenizer.convert_ids_to_tokens(range(len(tokenizer)))  # noqa: E731
    if not sigmoid:
        options = {"padding": "longest", "truncation": True, "return_tensors": "pt"}
        return lambda texts, length: tokenizer(texts, max_length=length, **options)["input_ids"], vocabulary
    from open_clip.tokenizer import get_clean_fn

    clean, tokenizer.padding_side = get_clean_fn("canonicalize"), "right"
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    tokenise = lambda texts, length: tokenizer([clean(text) for text in texts], max_length=length, **options)  # noqa: E731
    return lambda texts, length: tokenise(texts, length)["input_ids"], vocabulary
