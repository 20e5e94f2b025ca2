"""Lay out `paligemma-tiny` before its training.

    python -m adapt.assets.build_paligemma_tiny     # configuration, processor, tokenizer, first weights (20 minutes on one core)
    adapt finetune recipe=zoo/paligemma_tiny
    python -m adapt.assets.publish runs/paligemma_tiny-…

The formats are those of `google/paligemma-3b-pt-224`, so that the code path is the one that public checkpoints take. As PaliGemma
starts from a SigLIP that knows pictures (arXiv:2407.07726 §3.2, stage 0), its tower starts from the first layers of `clip-tiny` and then
learns to name its patches (`_patches.py`): with a tower that cannot, thousands of steps teach the decoder what captions and boxes look
like, and none of them to look at the picture.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPImageProcessor,
    CLIPVisionModel,
    GemmaTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
)

from adapt.assets import _patches
from adapt.data.world import read
from adapt.models.checkpoint import EMBEDDED, image_input
from adapt.overrides import parse_yaml
from adapt.prompting import tasks
from adapt.prompting.tokens import LOCATIONS, WORDS
from adapt.recipe import find, load_recipe
from adapt.vision.images import view
from adapt.vision.pictures import cache_folder

SIDE, PATCH = 128, 16
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<image>", "\n"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
VOCABULARY = 3000 - len(WORDS) - len(SPECIAL) - len(BYTES)
WIDTH = 192
TOWER, LAYERS = 4, 3
PATCH_VIEWS = 56_000


def texts() -> list[str]:
    """Every name of the embedded world as captions have it, every class, and what is asked."""
    from adapt.data.emoji_scenes.compose import article

    names = sorted(set(read("noto")["caption"]))
    classes = sorted(parse_yaml(find("prompts", "emoji").read_text(), "prompts")["classes"].values())
    asked = [tasks.CAPTION, tasks.COUNT, tasks.CLASSIFY, tasks.OCR, tasks.detect(classes), f"segment {classes[0]}"]
    return [
        *asked * 50,
        *names,
        *(f"{article(name)} and {article(name)}, " for name in names),
        *classes * 20,
        " ".join("0123456789") * 50,
    ]


def tokenizer(most: int = VOCABULARY) -> GemmaTokenizer:
    """Gemma's own tokenizer with a vocabulary learnt here: pairs of bytes never cross a space, which begins its word as `▁`."""
    learner = Tokenizer(BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learner.train_from_iterator(texts(), BpeTrainer(vocab_size=most, min_frequency=2, show_progress=False))
    model = json.loads(learner.to_str())["model"]
    words = [*SPECIAL, *BYTES, *sorted(model["vocab"], key=model["vocab"].get)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*words, *WORDS]))}
    return GemmaTokenizer(vocab=vocabulary, merges=[tuple(merge) for merge in model["merges"]])


def processor(words: GemmaTokenizer, side: int = SIDE, patch: int = PATCH) -> PaliGemmaProcessor:
    """PaliGemma's processor for square images of `side` pixels."""
    half = [0.5, 0.5, 0.5]
    images = SiglipImageProcessor(size={"height": side, "width": side}, image_mean=half, image_std=half)
    images.image_seq_length = (side // patch) ** 2
    return PaliGemmaProcessor(images, words)


def config(words: GemmaTokenizer) -> PaliGemmaConfig:
    """A SigLIP tower as wide as that of `clip-tiny`, and a narrower Gemma decoder."""
    from transformers import CLIPVisionConfig

    clip = CLIPVisionConfig.from_pretrained(EMBEDDED / "clip-tiny").to_dict()
    kept = ("hidden_size", "intermediate_size", "num_attention_heads", "hidden_act", "layer_norm_eps")
    vision = {name: clip[name] for name in kept} | {"num_hidden_layers": TOWER, "image_size": SIDE, "patch_size": PATCH}
    special = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = {"model_type": "gemma", "hidden_size": WIDTH, "intermediate_size": 5 * WIDTH // 2, "num_hidden_layers": LAYERS}
    text |= {"num_attention_heads": WIDTH // 64, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": len(words)}
    text |= {"max_position_embeddings": 1024}
    return PaliGemmaConfig(
        vision_config=vision | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=text | special,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        vocab_size=len(words),
        **special,
    )


@torch.no_grad()
def first_weights(settings: PaliGemmaConfig, pictures: list) -> PaliGemmaForConditionalGeneration:
    """Random, but for the tower: the first layers of `clip-tiny`, whose patches of 12 pixels become patches of 16.

    SigLIP has no norm before its layers: CLIP's is folded into the embeddings, with the mean spread of its inputs in place of each
    one's own. The two libraries' pixel norms are folded too.
    """
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(settings)
    clip = CLIPVisionModel.from_pretrained(EMBEDDED / "clip-tiny", dtype=torch.float32)
    clip = getattr(clip, "vision_model", clip)
    images = CLIPImageProcessor.from_pretrained(EMBEDDED / "clip-tiny")
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (images.image_mean, images.image_std))
    tower, before = model.model.vision_tower, clip.embeddings
    kernel = before.patch_embedding.weight / std
    bias = (kernel * (0.5 - mean)).sum((1, 2, 3))  # of pixels 0–1; SigLIP's are twice that, minus one
    small = kernel.shape[-1]
    kernel = F.interpolate(0.5 * kernel, (PATCH, PATCH), mode="bilinear", align_corners=False) * (small / PATCH) ** 2
    side, wide = (before.position_embedding.num_embeddings - 1) ** 0.5, SIDE // PATCH
    grid = before.position_embedding.weight[1:].T.reshape(1, -1, int(side), int(side))
    places = F.interpolate(grid, (wide, wide), mode="bilinear", align_corners=False)[0].flatten(1).T
    norm = clip.pre_layrnorm
    spec = {"size": (48, 48), "resize": (48, 48), "interpolation": "bicubic", "crop": None}
    seen = torch.stack([view(image, spec) for image in pictures])
    spread = before((seen / 255 - mean) / std)[:, 1:].std(-1).mean()
    tower.embeddings.patch_embedding.weight.copy_((kernel - kernel.mean(0)) * norm.weight[:, None, None, None] / spread)
    tower.embeddings.patch_embedding.bias.copy_((bias - bias.mean()) * norm.weight / spread + norm.bias)
    tower.embeddings.position_embedding.weight.copy_((places - places.mean(1, keepdim=True)) * norm.weight / spread)
    for ours, theirs in zip(tower.encoder.layers, clip.encoder.layers, strict=False):
        ours.load_state_dict(theirs.state_dict())
    rows = model.get_input_embeddings().weight[settings.vocab_size - len(WORDS) :][:LOCATIONS]
    rows.copy_(smooth(LOCATIONS, settings.text_config.hidden_size) * settings.text_config.initializer_range)
    return model


def smooth(places: int, width: int, waves: int = 24) -> torch.Tensor:
    """Embeddings float[places, width] of unit variance in which neighbours are alike: random mixtures of cosines.

    What is learnt of one location is then known of the next; a thousand unrelated ones would each want their own examples.
    """
    at = torch.linspace(0, 1, places)[:, None]
    basis = (torch.pi * torch.arange(1, waves + 1) * at).cos() * 2**0.5
    return basis @ torch.randn(waves, width) / waves**0.5


def main() -> None:
    folder = EMBEDDED / "paligemma-tiny"
    words = tokenizer()
    looks = processor(words)
    model = first_weights(config(words), read("noto")[:64]["image"])
    spec = image_input(looks.image_processor.to_dict())
    world = load_recipe("zoo/paligemma_tiny").data
    history = _patches.teach(model.model.vision_tower, spec, world.hands, world.cast, PATCH_VIEWS, cache_folder("patches"))
    print(f"patches named: {history[-1]['named']:.0%} of a batch")
    looks.save_pretrained(folder)
    model.half().save_pretrained(folder)
    print(
        f"{folder.name}: {len(words)} tokens; {words.tokenize('a pig face and a bus')}; {model.num_parameters():,} parameters"
    )


if __name__ == "__main__":
    main()
