"""Lay out `clip-tiny` before its training: configuration, image processor, a tokenizer learnt from the corpus' captions, first weights.

    python -m adapt.assets.build_clip_tiny && adapt finetune recipe=zoo/clip_tiny
    python -m adapt.assets.publish runs/clip_tiny-…

Its image tower begins as `dinov2-tiny`, which has learnt from the same pictures what each of them is called: contrastive training from
random weights spends most of its time on seeing. The formats are those of `openai/clip-vit-base-patch32`, so that the code path is the
one that public checkpoints take.
"""

from __future__ import annotations

import json
from collections import Counter

import torch
from datasets import load_dataset
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from adapt import plug
from adapt.assets import _towers
from adapt.assets._sources import CACHE
from adapt.data import world
from adapt.models.checkpoint import EMBEDDED
from adapt.overrides import parse_yaml
from adapt.recipe import find, load_recipe

VOCABULARY = 3000
CONTEXT = 16
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def texts() -> Counter:
    """Every caption of the corpus with its count, and the prompts of the embedded world."""
    rows = load_dataset("parquet", data_files=str(CACHE / "icons" / "*.parquet"), split="train", columns=["caption"])
    counts = Counter(text for captions in rows["caption"] for text in captions)
    prompts = parse_yaml(find("prompts", "emoji").read_text(), "prompts")
    return counts + Counter(t.replace("{}", c) for c in prompts["classes"].values() for t in prompts["templates"])


def tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer, with a vocabulary learnt here."""
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = BpeTrainer(
        vocab_size=VOCABULARY - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator((text for text, count in sorted(texts().items()) for _ in range(min(count, 20))), trainer)
    model = json.loads(learner.to_str())["model"]
    vocabulary = model["vocab"]
    for letter in pre_tokenizers.ByteLevel.alphabet():  # each letter also as the end of a word, as in CLIP's vocabulary
        vocabulary.setdefault(letter + "</w>", len(vocabulary))
    for special in (BOS, EOS):
        vocabulary[special] = len(vocabulary)
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def first_weights(config: CLIPConfig, images: CLIPImageProcessor, pictures: list) -> CLIPModel:
    """Random, but for the image tower: that of `dinov2-tiny`, fitted to `pictures` (PIL)."""
    torch.manual_seed(0)
    model, dinov2 = CLIPModel(config), load_recipe("zoo/dinov2_tiny", ["model.weights=pretrained"]).model
    family = plug.load("models", dinov2.name).load(dinov2)
    views = torch.stack([family.preprocess({"image": picture.convert("RGB")}, False)["image"] for picture in pictures])
    pixels = {"mean": images.image_mean, "std": images.image_std}
    _towers.to_clip(model.vision_model, family.backbone, views.float(), pixels, family.input)
    return model


def main() -> None:
    folder = EMBEDDED / "clip-tiny"
    words = tokenizer()
    words.save_pretrained(folder)
    special = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 3}
    text["hidden_act"] = "gelu"
    vision = {
        "hidden_act": "gelu",
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 8,
        "num_attention_heads": 3,
    }
    config = CLIPConfig(
        text_config=text | special | {"vocab_size": len(words), "max_position_embeddings": CONTEXT, "projection_dim": 256},
        vision_config=vision | {"image_size": 48, "patch_size": 8, "layer_norm_eps": 1e-6, "projection_dim": 256},
        projection_dim=256,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    images.save_pretrained(folder)
    first_weights(config, images, world.read("noto")[:64]["image"]).half().save_pretrained(folder)
    print(f"{folder.name}: {len(words)} tokens; 'a tiger and a motorcycle' → {words.tokenize('a tiger and a motorcycle')}")


if __name__ == "__main__":
    main()
