"""SigLIP and SigLIP 2: their texts as big_vision cleaned them, by transformers and by open_clip, on the same random weights."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram
from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

from adapt.models.clip import Config, load
from adapt.plug import UserError

LENGTH = 32
WORDS = ["a photo of a cat", "fire engine in the street", "naive cafe, 12 apples; an icon of t-shirts_and_shoes"]
AWKWARD = [
    "",
    "   ",
    "a photo of a cat",
    "A Photo Of A Cat",
    "A PHOTO OF A CAT.",
    "a photo of a cat.",
    "  a   photo\tof\na cat  ",
    "an icon of a T-shirt!",
    "t_shirts_and_shoes",
    "it's the fire-engine's café",
    "naïve CAFÉ, 12 apples; (in the street)",
    "ÅNGSTRÖM & ĒIRE",
    "a &amp; b &lt;cat&gt;",
    "12 Apples @ $5_bill_$",
    "…—«cat»",
    "日本の猫",
    "🐈 cat 🚒",
    "İstanbul STRASSE ß",
    "?!.,;:",
    "Fire engine, " * 150,
]


def unigram() -> Tokenizer:
    """A tokenizer such as SigLIP's: T5's pieces, padded with their end."""
    made = Tokenizer(Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "</s>"]
    made.train_from_iterator(
        WORDS * 9, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


def gemma() -> Tokenizer:
    """A tokenizer such as SigLIP 2's: Gemma's pieces and bytes, which know capitals."""
    made = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(WORDS * 9, trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False))
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return made


# as they stand in the public repositories: of `google/…`, and of `timm/…`, which open_clip reads
END = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
GEMMA = {"eos_token": "<eos>", "pad_token": "<pad>", "bos_token": "<bos>", "unk_token": "<unk>", "padding_side": "right"}
GEMMA |= {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True, "do_lower_case": True}
KINDS = {
    "siglip": (unigram, END | {"tokenizer_class": "SiglipTokenizer"}, END | {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "siglip2": (gemma, GEMMA, GEMMA),
}


def places(kind: str, folder):
    """The same random weights for both libraries: a folder for transformers; an architecture and a file for open_clip."""
    make, *settings = KINDS[kind]
    tokenizer, here, there = make(), folder / "here", folder / "there"
    for place, about in zip((here, there), settings, strict=True):
        place.mkdir()
        tokenizer.save(str(place / "tokenizer.json"))
        (place / "tokenizer_config.json").write_text(json.dumps(about | {"model_max_length": LENGTH}))
    text = {"context_length": LENGTH, "vocab_size": tokenizer.get_vocab_size(), "width": 32, "heads": 2, "layers": 2}
    text |= {"hf_tokenizer_name": str(there), "tokenizer_kwargs": {"clean": "canonicalize"}, "pool_type": "last"}
    text |= {"no_causal_mask": True, "proj_bias": True, "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    config = {"embed_dim": 32, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    (folder / f"tiny-{kind}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"tiny-{kind}.json")
    torch.manual_seed(0)
    theirs = open_clip.create_model(f"tiny-{kind}")
    for parameter in theirs.text.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save(theirs.state_dict(), folder / "weights.pt")
    tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    other = SiglipConfig(
        text_config=tower | {"vocab_size": text["vocab_size"], "max_position_embeddings": LENGTH, "projection_size": 32},
        vision_config=tower | {"image_size": 32, "patch_size": 16},
    )
    ours = SiglipModel(other)
    ours.text_model.load_state_dict(renamed(theirs.text.state_dict()))
    ours.save_pretrained(here)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(here)
    return str(here), f"open_clip:tiny-{kind}/{folder / 'weights.pt'}"


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's text tower → that of transformers."""
    out = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
    }
    for kind in ("weight", "bias"):
        out[f"final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        out[f"head.{kind}"] = state[f"text_projection.{kind}"]
        for i in range(2):
            layer, block = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
            names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
            names |= {"self_attn.out_proj": "attn.out_proj"}
            for name, old in names.items():
                out[f"{layer}.{name}.{kind}"] = state[f"{block}.{old}.{kind}"]
            for letter, part in zip("qkv", state[f"{block}.attn.in_proj_{kind}"].chunk(3), strict=True):
                out[f"{layer}.self_attn.{letter}_proj.{kind}"] = part
    return out


@pytest.fixture(params=KINDS)
def families(request, tmp_path):
    return [load(Config(name="clip", checkpoint=place)).eval() for place in places(request.param, tmp_path)]


@torch.no_grad()
def test_both_libraries_embed_awkward_texts_alike(families):
    ours, theirs = (family.text_embedding(AWKWARD) for family in families)
    assert len(AWKWARD) == 20
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    distances = torch.cdist(ours, ours)[2:7, 10:]
    assert (distances > 0.01).any(), "a tower that says the same of all texts would pass"


@torch.no_grad()
def test_capitals_punctuation_and_blanks_say_nothing(families):
    """big_vision/evaluators/proj/image_text/prompt_engineering.py: what its checkpoints never saw does not reach them."""
    for family in families:
        plain, *others = family.text_embedding(AWKWARD[2:7])
        for other in others:
            torch.testing.assert_close(other, plain, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_text_stands_alone_or_beside_a_longer_one(families):
    """Both are padded to the full length, as in training: the last place, which is read, is the same."""
    for family in families:
        torch.testing.assert_close(
            family.text_embedding(["a cat"])[0], family.text_embedding(["a cat", "fire engine in the street"])[0]
        )


def test_a_tokenizer_that_cannot_be_read_is_one_clear_line(tmp_path):
    """SigLIP's own class needs sentencepiece; the tokenizer.json that lies beside its pieces does without."""
    place, _ = places("siglip", tmp_path)
    (tmp_path / "here" / "tokenizer.json").unlink()
    with pytest.raises(UserError) as error:
        load(Config(name="clip", checkpoint=place))
    assert "\n" not in str(error.value)
    assert "tokenizer.json" in str(error.value)
