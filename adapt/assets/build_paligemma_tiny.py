"""Lay out `paligemma-tiny` before its training: configuration, processor, tokenizer.

    python -m adapt.assets.build_paligemma_tiny
    adapt finetune recipe=zoo/paligemma_tiny
    python -m adapt.assets.publish runs/paligemma_tiny-…

The formats are those of `google/paligemma-3b-pt-224`, so that the code path is the one that public checkpoints take.
"""

from __future__ import annotations

import json

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GemmaTokenizer, PaliGemmaConfig, PaliGemmaProcessor, SiglipImageProcessor

from adapt.models._checkpoint import EMBEDDED
from adapt.overrides import parse_yaml
from adapt.prompting import tasks
from adapt.prompting.tokens import WORDS
from adapt.recipe import find

SIDE, PATCH = 128, 16
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<image>", "\n"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
VOCABULARY = 3000 - len(WORDS) - len(SPECIAL) - len(BYTES)
WIDTH = 192


def texts() -> list[str]:
    """Every name of the embedded world as captions have it, every class, and what is asked."""
    from adapt.data import _emoji
    from adapt.data._scenes import article

    names = sorted(set(_emoji.read("noto")["caption"]))
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


def config(words: GemmaTokenizer, width: int = WIDTH) -> PaliGemmaConfig:
    """A SigLIP tower of 6 layers and a Gemma decoder of 4."""
    special = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    vision = {"model_type": "siglip_vision_model", "hidden_size": width, "intermediate_size": 3 * width}
    vision |= {"num_hidden_layers": 6, "num_attention_heads": width // 64, "image_size": SIDE, "patch_size": PATCH}
    text = {"model_type": "gemma", "hidden_size": width, "intermediate_size": 5 * width // 2, "num_hidden_layers": 4}
    text |= {"num_attention_heads": width // 64, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": len(words)}
    text |= {"max_position_embeddings": 1024}
    return PaliGemmaConfig(
        vision_config=vision | {"vision_use_head": False},
        text_config=text | special,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=width,
        hidden_size=width,
        vocab_size=len(words),
        **special,
    )


def main() -> None:
    folder = EMBEDDED / "paligemma-tiny"
    words = tokenizer()
    settings = config(words)
    settings.save_pretrained(folder)
    processor(words).save_pretrained(folder)
    print(f"{folder.name}: {len(words)} tokens; {words.tokenize('a pig face and a bus')}")


if __name__ == "__main__":
    main()
