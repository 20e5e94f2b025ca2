"""Tests run on the embedded world and tiny checkpoints: no network, no GPU."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

from adapt import hardware

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hardware.guard()

import pytest  # noqa: E402

LONG = (
    "docs/test_work.py",
    "train/test_loop.py",
    "test_cli.py",
    "test_pipeline.py",
    "train/test_processes.py",
    "verbs/test_predict.py",
    "verbs/test_predict_tiles.py",
    "train/test_predict.py",
    "test_wheel.py",
    "verbs/test_canary.py",
    "verbs/test_shots.py",
)
"""Files that take longest: they are begun first, so that no process ends with one of them while the other has nothing left."""


def pytest_collection_modifyitems(items):
    def place(item):
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return LONG.index(path) if path in LONG else len(LONG)

    items.sort(key=place)  # within a file as they stand


def pytest_runtest_setup():
    """torch makes its table of ONNX's operators anew for each export, which takes a second; here, from the second test with one, once."""
    table = sys.modules.get("torch.onnx._internal.exporter._registration")
    if table and isinstance(vars(table.ONNXRegistry).get("from_torchlib"), classmethod):
        table.ONNXRegistry.from_torchlib = staticmethod(functools.cache(table.ONNXRegistry.from_torchlib))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test works in a folder of its own, where its runs go."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def clip_tiny():
    """The embedded CLIP; do not train it: load your own."""
    from adapt.models.clip import Config, load

    return load(Config(name="clip"))


@pytest.fixture(scope="session")
def emoji():
    """The target hand's splits."""
    from adapt.data.emoji import Config, load

    return load(Config())


@pytest.fixture(scope="module")
def fewer():
    """Of the embedded pictures that measure, every sixth: where a test asks how something goes, not how well."""
    from adapt.data import emoji

    load = emoji.load

    def few(config):
        splits = load(config)
        for name in ("validation", "test"):
            splits[name] = splits[name].select(range(0, len(splits[name]), 6))
        return splits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji, "load", few)
        yield


@pytest.fixture
def photos(own_folder, tmp_path):
    """The folder `photos`, where each test works: four classes of 16 pictures, each of a colour with some noise."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for name, colour in {
        "red apple": (200, 30, 30),
        "lime": (60, 200, 60),
        "blue cup": (40, 60, 200),
        "snow": (240, 240, 240),
    }.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(16):
            pixels = np.clip(draw.normal(colour, 40, (48, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")


@pytest.fixture(scope="session")
def siglip_tiny(tmp_path_factory) -> str:
    """The folder of a small SigLIP with random weights, whose texts, of 16 tokens each, and pictures are not all alike."""
    import torch
    from transformers import AutoTokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

    from adapt.models.checkpoint import resolve

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": 4000, "max_position_embeddings": 16, "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=tower | {"image_size": 32, "patch_size": 16}))
    with torch.no_grad():  # as they come, all texts are nearly alike
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.normal_(std=0.3)
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    folder = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("clip-tiny")).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def both_sams():
    """A tiny SAM of segment-anything with random weights, all of them (also those that start as zeros), and ours with the same weights;
    do not train it. Its input has 128 pixels a side, its features a grid of 8."""
    from functools import partial

    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    from adapt.models.sam import Config
    from adapt.models.sam.checkpoints import family
    from adapt.models.sam.segment_anything import MEAN, STD, convert

    torch.manual_seed(0)
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    encoder = ImageEncoderViT(
        img_size=128, patch_size=16, embed_dim=32, depth=3, num_heads=2, out_chans=64, norm_layer=norm,
        use_rel_pos=True, window_size=3, global_attn_indexes=(1,),
    )  # fmt: skip
    prompts = PromptEncoder(embed_dim=64, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=64, mlp_dim=96, num_heads=8)
    masks = MaskDecoder(transformer_dim=64, transformer=transformer, iou_head_hidden_dim=48)
    theirs = Sam(encoder, prompts, masks).eval()
    for parameter in theirs.parameters():
        if parameter.ndim < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        for parameter in masks.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)  # so that the masks have edges
    ours = family(convert(theirs.state_dict(), "x"), Config(name="sam"), [v / 255 for v in MEAN], [v / 255 for v in STD])
    return theirs, ours.eval()


@pytest.fixture(scope="session")
def vits(tmp_path_factory):
    """Name → a function that loads a fresh family around a small ViT, always with the same weights."""
    from functools import partial

    import open_clip
    import torch
    from transformers import (
        AutoModel,
        BitImageProcessor,
        Dinov2WithRegistersConfig,
        DINOv3ViTConfig,
        DINOv3ViTImageProcessor,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
    )

    from adapt.models import clip, dinov2, paligemma

    torch.manual_seed(0)
    here = tmp_path_factory.mktemp("vits")
    tiny = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}

    def siglip(kind: str) -> str:
        """A SigLIP whose texts are padded to 32 tokens: with their end, as T5's pieces are, or with a token of its own, as Gemma's."""
        place = here / kind
        place.mkdir()
        words = _unigram(place) if kind == "siglip" else _gemma(place)
        text = tiny | {"vocab_size": words, "max_position_embeddings": 32, "projection_size": 32}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=tiny | {"image_size": 32, "patch_size": 8}))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(place)
        SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(place)
        return str(place)

    def of_open_clip(name: str, vision: dict, width: int) -> str:
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
        config = {"embed_dim": width, "vision_cfg": vision, "text_cfg": text, "custom_text": "timm_model_name" in vision}
        (here / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(here / f"{name}.json")
        torch.save(open_clip.create_model(name).state_dict(), here / f"{name}.pt")
        return f"open_clip:{name}/{here / name}.pt"

    def of_dino(name: str, config, processor) -> str:
        model = AutoModel.from_config(config)
        for key, parameter in model.named_parameters():  # layer scales and registers that matter
            if any(word in key for word in ("lambda1", "gamma", "register", "cls_token")):
                torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(here / name)
        processor.save_pretrained(here / name)
        return str(here / name)

    patches = tiny | {"image_size": 32, "patch_size": 8}
    places = {
        "clip": "clip-tiny",
        "siglip": siglip("siglip"),
        "siglip2": siglip("siglip2"),
        "open_clip": of_open_clip(
            "tiny-vit", {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}, 32
        ),
        "open_clip timm": of_open_clip(
            "tiny-timm", {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160}, 64
        ),
        "dinov2": "dinov2-tiny",
        "registers": of_dino(
            "registers",
            Dinov2WithRegistersConfig(**patches, mlp_ratio=2, num_register_tokens=3),
            BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, resample=3),
        ),
        "dinov3": of_dino(
            "dinov3",
            DINOv3ViTConfig(**patches, num_register_tokens=2),
            DINOv3ViTImageProcessor(size={"height": 32, "width": 32}),
        ),
        "paligemma": "paligemma-tiny",
    }

    def load(kind: str):
        module = {"paligemma": paligemma, "dinov2": dinov2, "registers": dinov2, "dinov3": dinov2}.get(kind, clip)
        family = module.load(module.Config(name=module.__name__.rpartition(".")[2], checkpoint=places[kind]))
        family.bind(["image", "prefix", "suffix"] if kind == "paligemma" else ["image", "label"])
        family.set_classes(["cat", "fire engine"], ["{}"])
        return family.eval()

    return {kind: partial(load, kind) for kind in places}


def _unigram(place) -> int:
    """Write a tokenizer such as SigLIP's, which pads with the end; returns the number of its pieces."""
    from tokenizers import Tokenizer, pre_tokenizers, processors, trainers
    from tokenizers.models import Unigram

    made = Tokenizer(Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "</s>"]
    made.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return _written(made, place, {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"})


def _gemma(place) -> int:
    """Write a tokenizer such as SigLIP 2's, which has a token for padding; returns the number of its pieces."""
    from tokenizers import Tokenizer, pre_tokenizers, processors, trainers
    from tokenizers.models import BPE

    made = Tokenizer(BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # no piece has parts of two words
    special = ["<pad>", "<eos>", "<unk>"]
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False))
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return _written(made, place, {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"})


TEXTS = ["a photo of a cat", "fire engine in the street", "12 apples and a big dog"] * 9


def _written(made, place, about: dict) -> int:
    made.save(str(place / "tokenizer.json"))
    config = about | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32}
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    return made.get_vocab_size()
