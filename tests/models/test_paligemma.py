"""The PaliGemma family against plain transformers on the same random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from adapt.contracts import Augment, Train
from adapt.models import checkpoint
from adapt.models.answers import Answer
from adapt.models.paligemma import Config, load
from adapt.plug import UserError
from adapt.prompting.tokens import encode_box

PREFIXES = ["caption en", "detect sea animal ; fruit", "answer en how many things are there?", "caption en"]
SUFFIXES = [
    "a pig face and a bus",
    "<loc0001><loc0002><loc0500><loc0600> fruit ; <loc0100><loc0002><loc0500><loc0600> fruit",
    "2",
    "a",
]
CLASSES = ["fruit", "sea animal"]


def settings(kind: str) -> PaliGemmaConfig:
    """A model of 40,000 weights; `gemma2` has soft caps and a sliding window in every second layer."""
    tower = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "vision_use_head": False}
    words = {"model_type": kind, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words |= {
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": 3000,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    if kind == "gemma2":
        words |= {"sliding_window": 4096, "query_pre_attn_scalar": 8}
    return PaliGemmaConfig(vision_config=tower, text_config=words, image_token_index=5, projection_dim=16, hidden_size=16)


def write(folder, kind: str = "gemma", **images):
    """A checkpoint in the public layout, with random weights that are large enough to tell tokens apart."""
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(settings(kind)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(0, 1 if "embed_tokens" in name else 0.3)
    model.save_pretrained(folder)
    processor = PaliGemmaProcessor.from_pretrained(checkpoint.EMBEDDED / "paligemma-tiny")
    processor.image_processor.size = {"height": 32, "width": 32}
    processor.image_processor.image_seq_length = images.get("tokens", 16)
    PaliGemmaProcessor(processor.image_processor, processor.tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["gemma", "gemma2"])
def folder(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def family(folder):
    family = load(Config(name="paligemma", checkpoint=str(folder), max_tokens=8, batch=3)).eval()
    family.set_classes(CLASSES, [])
    return family


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = ((32, 32), (60, 41), (50, 93), (32, 64))
    return [Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]


def rows(pictures, **columns) -> list[dict]:
    named = columns or {"prefix": PREFIXES, "suffix": SUFFIXES}
    return [
        {"id": str(i), "image": image} | {name: values[i] for name, values in named.items()} for i, image in enumerate(pictures)
    ]


def test_detect_refuses_rows_that_say_nothing_of_objects(folder, pictures):
    family = load(Config(name="paligemma", checkpoint=str(folder), tasks=["detect"]))
    with pytest.raises(UserError, match=r"row '0' has no objects to ask about.*model\.tasks=\[given\]"):
        family.preprocess({"id": "0", "image": pictures[0], "objects": None}, True)


def test_no_crowd_is_asked_for_or_learnt(folder, pictures):
    family = load(Config(name="paligemma", checkpoint=str(folder), tasks=["detect"]))
    family.set_classes(CLASSES, [])
    family.bind(["image", "objects"])
    objects = {"bbox": [[0, 0, 20, 20], [4, 4, 30, 30]], "category": [1, 0], "iscrowd": [0, 1]}
    item = family.preprocess({"id": "0", "image": pictures[0], "objects": objects}, True)
    words = family.tokenizer.batch_decode(family.collate([item | {"seed": 0}])["input_ids"])[0]
    assert "detect sea animal\n" in words and "fruit" not in words
    alone = {"bbox": [[0, 0, 20, 20]], "category": [1]}
    assert family._pair(
        family.preprocess({"id": "0", "image": pictures[0], "objects": alone}, True)["sample"], 0
    ) == family._pair(item["sample"], 0)


def test_tokens_labels_and_loss_equal_the_processor_and_the_plain_model(folder, family, pictures, batch):
    processor = PaliGemmaProcessor.from_pretrained(folder)
    inputs = processor(
        images=pictures, text=[f"<image>{prefix}" for prefix in PREFIXES], suffix=SUFFIXES, padding=True, return_tensors="pt"
    )
    ours = batch(family, rows(pictures))
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
        assert torch.equal(ours[name], inputs[name]), name
    torch.testing.assert_close(family.pixels(ours["image"]), inputs["pixel_values"], atol=1e-5, rtol=0)
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(family(ours)[0], model(**inputs).loss, atol=1e-5, rtol=1e-5)


def test_image_and_padding_and_prefix_are_not_learnt(family, pictures, batch):
    ours = batch(family, rows(pictures))
    learnt = ours["labels"] != -100
    assert not learnt[ours["input_ids"] == family.net.config.image_token_id].any()
    assert not learnt[ours["attention_mask"] == 0].any()
    assert not learnt[ours["token_type_ids"] == 0].any()
    ends = [len(family.tokenizer(suffix + "<eos>")["input_ids"]) for suffix in SUFFIXES]
    assert learnt.sum(1).tolist() == ends
    # the loss pulls at the logits before each token of the suffix, and at no others: a prefix token as target changes nothing
    seen = []

    def keep(module, inputs, output):
        output.retain_grad()
        seen.append(output)

    hook = family.net.lm_head.register_forward_hook(keep)
    family(ours)[0].backward()
    hook.remove()
    pulled = seen[0].grad.abs().sum(-1) > 0
    assert torch.equal(pulled[:, :-1], learnt[:, -pulled.shape[1] + 1 :])
    assert not pulled[:, -1].any()


def test_the_prefix_sees_itself_both_ways_and_the_suffix_only_what_was_before(family, pictures, batch):
    ours = batch(family, rows(pictures)[:1])
    keep = {name: ours[name] for name in ("input_ids", "attention_mask", "token_type_ids")}

    def logits(**changes):
        with torch.no_grad():
            return family.net(**(keep | changes), pixel_values=family.pixels(ours["image"]), use_cache=False).logits[0]

    first = int((ours["labels"][0] != -100).nonzero()[0])
    plain = logits()
    for place, reached in ((first - 2, 16), (first + 1, first + 1)):
        ids = ours["input_ids"].clone()
        ids[0, place] = 40
        changed = (logits(input_ids=ids) - plain).abs().amax(-1) > 1e-6
        assert changed.nonzero()[0] == (0 if reached == 16 else reached)


def test_a_row_alone_and_a_padded_batch_give_the_same_losses(family, pictures, batch):
    samples = rows(pictures)
    with torch.no_grad():
        together = family.losses(batch(family, samples))
        alone = torch.cat([family.losses(batch(family, [sample])) for sample in samples])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_features_of_a_frozen_tower_stand_for_its_pixels(family, pictures, batch):
    ours = batch(family, rows(pictures))
    assert family.frozen_features() is None
    family.requires_grad_(False)
    with torch.no_grad():
        features = family.frozen_features()(ours["image"])
        assert features.shape == (4, 16, 16)
        loss = family({name: value for name, value in ours.items() if name != "image"} | {"features": features})[0]
        torch.testing.assert_close(loss, family(ours)[0])


def test_half_the_memory_gives_nearly_the_same_loss(folder, family, pictures, batch):
    half = load(Config(name="paligemma", checkpoint=str(folder), precision="bf16")).eval()
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}
    ours = batch(family, rows(pictures))
    with torch.no_grad():
        torch.testing.assert_close(half(ours)[0], family(ours)[0], rtol=0.05, atol=0)


def test_greedy_answers_equal_a_loop_without_a_cache(folder, family, pictures):
    processor = PaliGemmaProcessor.from_pretrained(folder)
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    answers = family.answer(rows(pictures), PREFIXES)
    for answer, prefix, picture in zip(answers, PREFIXES, pictures, strict=True):
        inputs = processor(images=picture, text=f"<image>{prefix}", return_tensors="pt")
        inputs.pop("labels", None)
        said, chances = [], []
        with torch.no_grad():
            while len(said) < 8 and 1 not in said:
                chance, token = model(**inputs, use_cache=False).logits[0, -1].log_softmax(0).max(0)
                said.append(int(token))
                chances.append(float(chance))
                for name, value in (("input_ids", token), ("attention_mask", 1), ("token_type_ids", 1)):
                    inputs[name] = torch.cat([inputs[name], torch.tensor([[int(value)]])], 1)
        length = said.index(1) if 1 in said else len(said)
        assert answer.tokens == said[:length]
        np.testing.assert_allclose(answer.confidence, chances[:length], atol=1e-3)
    assert family.tokens_per_second > 0


def test_text_answers_the_rows_prefix(family, pictures):
    text = family.predictors()["text"]
    assert text.takes == "rows"
    samples = rows(pictures, prefix=PREFIXES)
    answers = text(samples)
    assert answers == [text([sample])[0] for sample in samples]
    assert text([]) == []


def test_objects_are_read_from_the_answer_with_their_probability(family):
    words = f"{encode_box([10, 20, 50, 60], (100, 80))} fruit ; {encode_box([10, 20, 50, 61], (100, 80))} fruit ; "
    words += f"{encode_box([0, 0, 100, 80], (100, 80))} sea animal ; <loc0001><loc0002> fruit ; {encode_box([0, 0, 9, 9], (100, 80))} cake"
    tokens = family.tokenizer(words)["input_ids"]
    chances = np.log(np.linspace(0.9, 0.1, len(tokens)))
    found = family.read(Answer(tokens, chances), (100, 80))
    assert found["category"].tolist() == [0, 1, -1]
    np.testing.assert_allclose(found["bbox"][:2], [[10, 20, 50, 60], [0, 0, 100, 80]], atol=0.1)
    assert found["unread"] == 1
    pieces = family.tokenizer.convert_ids_to_tokens(tokens)
    assert pieces[:5] == [f"<loc{i:04d}>" for i in (256, 102, 767, 512)] + ["▁fruit"]
    name = 5  # of the first object: its four locations, its word, and the space before the separator
    assert np.isclose(found["score"][0], np.exp(chances[:name].mean()), atol=0.03)
    nothing = family.read(Answer([], np.zeros(0)), (100, 80))
    assert nothing["bbox"].shape == (0, 4)
    assert nothing["score"].shape == (0,)


def test_detections_ask_for_the_categories_that_are_present(family, pictures, monkeypatch):
    asked = []
    monkeypatch.setattr(
        family, "answer", lambda samples, questions: asked.extend(questions) or [Answer([], np.zeros(0))] * len(samples)
    )
    samples = rows(pictures[:2], objects=[{"bbox": [[0, 0, 9, 9]] * 2, "category": [1, 1]}, None])
    found = family.predictors()["detections"](samples)
    assert asked == ["detect sea animal", "detect fruit ; sea animal"]
    assert [row["bbox"].shape for row in found] == [(0, 4), (0, 4)]


def test_the_views_seed_chooses_the_task(folder, pictures, batch):
    family = load(Config(name="paligemma", checkpoint=str(folder), tasks=["caption", "detect", "count"]))
    family.set_classes(CLASSES, [])
    family.bind(["image", "caption", "objects", "count"])
    thing = {"bbox": [[0, 0, 16, 16]], "category": [1]}
    samples = rows(pictures, caption=["a cat"] * 4, objects=[thing] * 4, count=[1] * 4)
    texts = [family.tokenizer.decode(ids[16:]) for ids in batch(family, samples[:3], [0, 1, 2])["input_ids"]]
    for text, words in zip(texts, ("caption en\na cat<eos>", "detect sea animal\n<loc0000>", "there?\n1<eos>"), strict=True):
        assert words in text
    again = batch(family, samples[:3], [0, 1, 2])
    assert torch.equal(again["input_ids"], batch(family, samples[:3], [0, 1, 2])["input_ids"])
    with pytest.raises(UserError, match=r"no column caption.*Have: image, objects"):
        family.bind(["image", "objects"])
    with pytest.raises(UserError, match=r"learnt with model.tasks=\[given\]"):
        family.bind(["image", "prefix", "suffix"])


def test_views_move_nothing(family, pictures, batch):
    square = batch(family, rows(pictures))
    white = torch.full_like(square["image"], 90)
    white[:, :, :8, :8] = 10
    views = family.augment(square | {"image": white}, Augment(crop=0.3, rotate=90, flip=1, colour=0.3))["image"]
    assert (views[:, :, :8, :8] < 60).all()
    assert (views[:, :, 8:] > 30).all()
    assert not torch.equal(views, white)


def test_lora_reaches_the_language_model_and_nothing_else(family):
    from adapt.methods import lora

    lora.apply(family, lora.Config(name="lora", targets=["q", "k", "v", "o", "gate", "up", "down"]))
    adapted = {name.partition(".lora_A")[0] for name, value in family.backbone.named_parameters() if "lora_A" in name}
    assert len(adapted) == 2 * 7
    assert all("language_model" in name for name in adapted)
    assert family.frozen_features() is not None


def test_what_qlora_quantises_is_every_linear_of_the_language_model(family):
    import re

    linears = {name for name, module in family.backbone.named_modules() if isinstance(module, torch.nn.Linear)}
    chosen = {name for name in linears if re.fullmatch(family.quantised, name)}
    assert chosen == {name for name in linears if "language_model" in name}
    assert len(chosen) == 2 * 7


def test_the_loop_learns_it(folder, pictures, tmp_path):
    from accelerate import Accelerator
    from datasets import Dataset

    from adapt.train.loop import fit
    from adapt.train.views import Views

    family = load(Config(name="paligemma", checkpoint=str(folder)))
    data = Dataset.from_list(
        [{"image": image, "prefix": "caption en", "suffix": text} for image, text in zip(pictures, SUFFIXES)]
    )
    train = Train(epochs=12, batch=4, lr=1e-2, accumulate=2, augment=Augment(crop=1, flip=0, colour=0))
    history = fit(family, Views(data, family.preprocess, 0), train, 0, tmp_path / "run", Accelerator(cpu=True))
    losses = [row["loss"] for row in history if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]


def test_a_wrong_checkpoint_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"this family takes paligemma"):
        load(Config(name="paligemma", checkpoint="clip-tiny"))
    with pytest.raises(UserError, match=r"vae-oid\.npz"):
        load(Config(name="paligemma", tasks=["segment"]))
    write(tmp_path, tokens=9)
    with pytest.raises(UserError, match="has 9 image tokens"):
        load(Config(name="paligemma", checkpoint=str(tmp_path)))


def test_a_tokenizer_without_location_tokens_is_refused(tmp_path):
    write(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint.resolve("clip-tiny")).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content | {"tokenizer_class": "CLIPTokenizer"}))
    with pytest.raises(UserError, match="location and mask tokens, such as <loc") as error:
        load(Config(name="paligemma", checkpoint=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_random_weights_take_the_configuration_alone():
    family = load(Config(name="paligemma", weights="random"))
    parameters = sum(value.numel() for value in family.parameters())
    assert parameters < 8e6
    assert family.input["size"] == (128, 128)


def test_qlora_quantises_the_language_model_and_learns(family, pictures, batch):
    import bitsandbytes as bnb

    from adapt.methods import qlora

    qlora.apply(family, qlora.Config(name="qlora", rank=4))
    small = [name for name, module in family.backbone.named_modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(small) == 2 * 7
    assert all("language_model" in name for name in small)
    loss, _ = family.train()(batch(family, rows(pictures)))
    loss.backward()
    assert all(value.grad is not None for value in family.parameters() if value.requires_grad)


def test_the_recipe_runs_from_scenes_to_boxes_captions_and_counts(tmp_path, monkeypatch):
    from adapt.pipeline import finetune, load_recipe

    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    place = write(tmp_path / "checkpoint")
    small = ["data.train=8", "data.validation=2", "data.test=3", "train.epochs=1", "train.batch=4", "model.max_tokens=6"]
    outcome = finetune(load_recipe("paligemma_lora", [f"model.checkpoint={place}", "tracker=none", *small]))
    before, after = outcome.entries
    assert {"map50", "unread", "exact", "bleu4", "cider", "accuracy", "within_one"} <= set(after["metrics"])
    assert before["protocol"] == after["protocol"]
    assert "mammal animal" in after["protocol"]["classes"]
    assert len(list((outcome.path / "pictures" / "adapted").glob("*.png"))) == 3 * 3, "three scenes by each of three evals"


def test_the_embedded_weights_look_at_the_picture():
    from adapt.data import emoji_scenes
    from adapt.prompting.text import words
    from adapt.recipe import load_recipe

    recipe = load_recipe("zoo/paligemma_tiny")
    scenes = recipe.data.model_copy(update={"train": 24, "seed": 1})  # new ones, by the hands of the pre-training
    data = emoji_scenes.load(scenes)["train"]
    family = load(Config(name="paligemma", tasks=["caption", "detect", "count"])).eval()
    family.set_classes(**words(recipe.prompts, data.features["objects"]["category"].feature.names).told)
    for task in range(3):
        items = [{**family.preprocess(row, True), "seed": task} for row in data]
        seen = family.collate(items)
        seen["image"] = seen["image"].float()
        with torch.no_grad():
            own, another = family.losses(seen).mean(), family.losses({**seen, "image": seen["image"].roll(1, 0)}).mean()
        assert own < 0.7 * another
    answers = family.text(list(data))
    assert sum(answer == row["caption"] for answer, row in zip(answers, data, strict=True)) >= 8
