"""The Florence-2 family against plain transformers on the same random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    BartTokenizer,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from adapt.methods import lora, low_rank, qlora
from adapt.models.answers import Answer
from adapt.models.florence2 import Config, load
from adapt.models.florence2.family import decode_box, encode_box, parse
from adapt.plug import UserError
from adapt.recipe import load_recipe

TASKS = ["<CAPTION>", "<OD>", "how many things are there?", "<OCR>"]
PREFIXES = ["caption en", "detect sea animal ; fruit", "answer en how many things are there?", "ocr"]
SUFFIXES = ["a pig face and a bus", "fruit<loc_1><loc_2><loc_500><loc_600>sea animal<loc_0><loc_0><loc_9><loc_999>", "2", "a"]
CLASSES = ["fruit", "sea animal"]
SIDE, SEEN = 64, 5
"""Pixels of the input, and what the tower makes of it: 2 × 2 cells and their mean."""


def words(locations: int = 1000) -> BartTokenizer:
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        SUFFIXES, BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = BartTokenizer(vocab=model["vocab"], merges=merges, extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens([f"<loc_{i}>" for i in range(locations)])
    return tokenizer


def write(folder, tokenizer: BartTokenizer):
    """A checkpoint in the public layout, of 60,000 random weights that are large enough to tell tokens apart."""
    tower = {"depths": (1, 1, 1, 1), "embed_dim": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2), "num_groups": (1, 1, 2, 2)}
    tower |= {"window_size": 2, "projection_dim": 16, "max_position_embeddings": 10, "drop_path_rate": 0.0}
    numbers = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    text = numbers | {"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "max_position_embeddings": 128}
    text |= {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in SIZES.items()}
    text |= {"dropout": 0.0, "decoder_start_token_id": tokenizer.eos_token_id, "forced_eos_token_id": None}
    torch.manual_seed(0)
    settings = Florence2Config(vision_config=tower, text_config=text, image_token_id=tokenizer.image_token_id)
    model = Florence2ForConditionalGeneration(settings).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(0, 1 if "shared" in name else 0.3)
    model.generation_config.update(num_beams=3, no_repeat_ngram_size=3, early_stopping=True)  # as the public ones
    model.save_pretrained(folder)
    size, mean, std = {"height": SIDE, "width": SIDE}, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    images = CLIPImageProcessor(size=size, do_center_crop=False, image_mean=mean, image_std=std, image_seq_length=SEEN)
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder


SIZES = {"layers": 2, "ffn_dim": 32, "attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("florence2"), words())


@pytest.fixture
def family(folder):
    family = load(Config(name="florence2", checkpoint=str(folder), max_tokens=8, batch=3)).eval()
    family.set_classes(CLASSES, [])
    return family


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = ((64, 64), (60, 41), (50, 93), (32, 64))
    return [Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]


def rows(pictures) -> list[dict]:
    return [{"image": image, "prefix": p, "suffix": s} for image, p, s in zip(pictures, PREFIXES, SUFFIXES, strict=True)]


def test_tokens_labels_and_loss_equal_the_processor_and_the_plain_model(folder, family, pictures, batch):
    processor = Florence2Processor.from_pretrained(folder)
    inputs = processor(images=pictures, text=TASKS, padding=True, return_tensors="pt")
    labels = processor.tokenizer(SUFFIXES, padding=True, return_tensors="pt")["input_ids"]
    labels = labels.masked_fill(labels == processor.tokenizer.pad_token_id, -100)
    ours = batch(family, rows(pictures))
    for name, expected in (inputs | {"labels": labels}).items():
        if name != "pixel_values":
            assert torch.equal(ours[name], expected), name
    torch.testing.assert_close(family.pixels(ours["image"]), inputs["pixel_values"], atol=1e-5, rtol=0)
    model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(family(ours)[0], model(**inputs, labels=labels).loss, atol=1e-5, rtol=1e-5)


def test_a_row_alone_and_a_padded_batch_give_the_same_losses(family, pictures, batch):
    with torch.no_grad():
        together = family.losses(batch(family, rows(pictures)))
        alone = torch.cat([family.losses(batch(family, [row])) for row in rows(pictures)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_features_of_a_frozen_tower_stand_for_its_pixels(family, pictures, batch):
    ours = batch(family, rows(pictures))
    assert family.frozen_features() is None
    family.requires_grad_(False)
    with torch.no_grad():
        features = family.frozen_features()(ours["image"])
        assert features.shape == (4, SEEN, 16)
        loss = family({name: value for name, value in ours.items() if name != "image"} | {"features": features})[0]
        torch.testing.assert_close(loss, family(ours)[0])


def test_greedy_answers_equal_a_loop_without_a_cache(folder, family, pictures):
    processor = Florence2Processor.from_pretrained(folder)
    model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    answers = family.answer(rows(pictures), PREFIXES)
    start, end, silent = 2, 2, {processor.tokenizer.bos_token_id, 1, processor.image_token_id}
    for answer, task, picture in zip(answers, TASKS, pictures, strict=True):
        inputs = processor(images=picture, text=task, return_tensors="pt")
        said, chances = [start], []
        with torch.no_grad():
            while len(chances) < 8 and end not in said[1:]:
                output = model(**inputs, decoder_input_ids=torch.tensor([said]), use_cache=False)
                chance, token = output.logits[0, -1].log_softmax(0).max(0)
                said.append(int(token))
                chances.append(float(chance))
        kept = [i for i, token in enumerate(said[1:]) if token not in silent | {end}]
        assert answer.tokens == [said[1:][i] for i in kept]
        np.testing.assert_allclose(answer.confidence, np.array(chances)[kept], atol=1e-3)
    assert sum(len(answer.tokens) for answer in answers) > 8, "an untrained model that says something"
    assert family.text(rows(pictures)) == [family.tokenizer.decode(answer.tokens).strip() for answer in answers]


def test_boxes_are_written_and_read_as_transformers_does(folder):
    reader = Florence2Processor.from_pretrained(folder).post_processor
    random = np.random.default_rng(0)
    for _ in range(100):
        size = tuple(random.integers(20, 2000, 2).tolist())
        corners = np.sort(random.uniform(0, 1, (2, 2)), 0) * size
        corners[1] = np.maximum(corners[1], corners[0] + np.array(size) / 300).clip(max=size)
        box = corners.ravel().tolist()
        text = encode_box(box, size)
        theirs = reader.quantize(torch.tensor([box], dtype=torch.float64), size)[0].tolist()
        assert text == "".join(f"<loc_{place}>" for place in theirs)
        (found,), unread = parse(f"cat{text}")
        assert unread == 0
        back = decode_box(found.locations, size)
        assert (np.abs(np.subtract(back, box)) <= np.tile(size, 2) / 2000 + 1e-9).all(), "half a bin at most"
        assert [int(value) for value in back] == reader.dequantize(torch.tensor([theirs]), size)[0].tolist()


def test_objects_are_read_from_the_answer_with_their_probability(family):
    text = "fruit<loc_100><loc_250><loc_500><loc_750><loc_0><loc_0><loc_50><loc_999>sea animal<loc_0><loc_0><loc_999><loc_999>"
    text += "cake<loc_1><loc_2><loc_3><loc_4>fruit<loc_9><loc_9><loc_8><loc_10>fruit<loc_1><loc_2>"
    tokens = family.tokenizer(text, add_special_tokens=False)["input_ids"]
    chances = np.log(np.linspace(0.9, 0.1, len(tokens)))
    found = family.read(Answer(tokens, chances), (1000, 1000))
    assert found["category"].tolist() == [0, 0, 1, -1]
    np.testing.assert_allclose(found["bbox"][:2], [[100.5, 250.5, 500.5, 750.5], [0.5, 0.5, 50.5, 999.5]])
    assert found["unread"] == 2, "one is reversed, one is no box"
    first = [i for i, name in enumerate(family.tokenizer.convert_ids_to_tokens(tokens)) if name.startswith("<loc")][:4]
    assert np.isclose(found["score"][0], np.exp(chances[: first[-1] + 1].mean()))
    theirs = family.processor.post_processor.parse_description_with_bboxes_from_text_and_spans(text, (1000, 1000))
    assert [each["cat_name"] for each in theirs[:4]] == ["fruit", "fruit", "sea animal", "cake"]


def test_names_outside_ascii_are_read_though_their_characters_lie_in_several_tokens(family):
    """Bytes are the tokens' letters: `é` is two of them, `猫` three."""
    family.set_classes(["café", "猫", "naïve 🐱 cat"], ["{}"])
    text = "".join(f"{name}<loc_{100 * i}><loc_1><loc_{100 * i + 50}><loc_600>" for i, name in enumerate(family.classes))
    tokens = family.tokenizer(text, add_special_tokens=False)["input_ids"]
    names = family.tokenizer.convert_ids_to_tokens(tokens)
    assert "".join(family._pieces(names)) == text
    assert len(names) == len(family._pieces(names)) > len(family.classes) * 5
    found = family.read(Answer(tokens, np.log(np.full(len(tokens), 0.5))), (1000, 1000))
    assert found["category"].tolist() == [0, 1, 2] and found["name"] == family.classes and not found["unread"]
    np.testing.assert_allclose(found["score"], 0.5)


def test_bytes_that_make_no_character_do_not_eat_what_follows(family):
    half, whole = family.tokenizer.tokenize("é")[:1], family.tokenizer.tokenize("apple")
    for names in ([*half, "<loc_1>"], [*half, *whole, "<loc_1>"], half):
        pieces = family._pieces(names)
        assert len(pieces) == len(names)
        assert "".join(pieces) == "".join(
            ["\N{REPLACEMENT CHARACTER}", *(["apple"] if len(names) > 2 else []), *names[1:][-1:]]
        )


def test_detection_learns_and_asks_for_everything(folder, pictures, monkeypatch, batch):
    family = load(Config(name="florence2", checkpoint=str(folder), tasks=["detect", "caption"]))
    family.set_classes(CLASSES, [])
    family.bind(["image", "objects", "caption"])
    objects = {"bbox": [[30.0, 0.0, 60.0, 41.0], [0.0, 0.0, 30.0, 20.5]], "category": [1, 0]}
    sample = {"image": pictures[1], "objects": objects, "caption": "a bus"}
    ours = batch(family, [sample, sample], seeds=[0, 1])
    said = [family.tokenizer.decode(row[row >= 0], skip_special_tokens=True) for row in ours["labels"]]
    assert [text.replace(" <", "<").replace("> ", ">") for text in said] == [
        "fruit<loc_0><loc_0><loc_500><loc_500>sea animal<loc_500><loc_0><loc_999><loc_999>",
        "a bus",
    ]
    asked = []
    monkeypatch.setattr(family, "answer", lambda rows, questions: asked.extend(questions) or [Answer([], np.zeros(0))])
    assert family.detections([sample])[0]["bbox"].shape == (0, 4)
    assert [family.prompt(question) for question in asked] == ["Locate the objects with category name in the image."]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_reach_the_language_model_and_learn(family, pictures, method, batch):
    torch.manual_seed(0)
    if method == "lora":
        lora.apply(family, lora.Config(name="lora", targets=["q", "k", "v", "o", "mlp"], dropout=0))
    else:
        qlora.apply(family, qlora.Config(name="qlora", rank=4, dropout=0))
    adapted = {name.partition(".lora_A")[0] for name, value in family.backbone.named_parameters() if "lora_A" in name}
    assert len(adapted) == 2 * 6 + 2 * 10, "encoder: q k v o fc1 fc2; decoder: the same, and attention to the encoder"
    assert all("language_model" in name for name in adapted)
    assert family.frozen_features() is not None
    learning = [value for value in family.parameters() if value.requires_grad]
    optimizer, losses = torch.optim.AdamW(learning, lr=1e-2), []
    for _ in range(4):
        loss, _ = family.train()(batch(family, rows(pictures)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_the_targets_of_paligemmas_recipes_pass_and_what_is_lacking_is_said(family, capsys):
    assert load_recipe("paligemma_lora").method.targets == ["q", "k", "v", "o", "gate", "up", "down", "vision"]
    low_rank.named(family, load_recipe("paligemma_lora").method.targets)
    assert "method.targets: this checkpoint has no gate, up, down; the others are adapted" in capsys.readouterr().out
    low_rank.named(family, lora.Config(name="lora").targets)
    assert not capsys.readouterr().out


def test_the_recipes_of_paligemma_take_it(folder, tmp_path, monkeypatch):
    from adapt.pipeline import finetune, merge

    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    model = f"model={{name: florence2, checkpoint: '{folder}', tasks: [detect, caption], max_tokens: 6}}"
    small = ["data.train=8", "data.validation=2", "data.test=3", "train.epochs=1", "train.batch=4", "tracker=none"]
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("paligemma_lora", [model, "method.targets=[q, k, v, o, mlp]", *small])
    outcome = finetune(recipe)
    before, after = outcome.entries
    assert {"map50", "unread", "exact", "bleu4", "cider"} <= set(after["metrics"])
    assert before["title"] == "zero-shot Florence-2"
    merged = merge(recipe).path / "merged"
    base, joined = (Florence2ForConditionalGeneration.from_pretrained(place).state_dict() for place in (folder, merged))
    changed = {name for name, value in joined.items() if not torch.equal(value, base[name])}
    assert changed
    assert all("language_model" in name for name in changed)


def test_a_wrong_checkpoint_or_question_is_one_clear_line(folder, family, tmp_path):
    with pytest.raises(UserError, match="this family takes florence2"):
        load(Config(name="florence2", checkpoint="clip-tiny"))
    with pytest.raises(UserError, match="lacks 990 location tokens, such as <loc_10>"):
        load(Config(name="florence2", checkpoint=str(write(tmp_path / "short", words(10)))))
    theirs = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "x.Y"}}
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "config.json").write_text(json.dumps(theirs))
    with pytest.raises(UserError, match=r"brings its own code.*florence-community"):
        load(Config(name="florence2", checkpoint=str(tmp_path / "code")))
    with pytest.raises(UserError, match="'<OD> cats' is not a question"):
        family.prompt("<OD> cats")


def test_a_davit_has_no_place_for_tokens_and_says_so(family):
    from adapt.methods import vpt

    with pytest.raises(UserError) as error:
        vpt.apply(family, vpt.Config(name="vpt"))
    assert "DaViT" in str(error.value) and "Use method.kind=padding, lora, decoder or full." in str(error.value)
    assert "\n" not in str(error.value)
