"""Many classes: what a step reads of their texts, and the classifier that is kept of a text tower that does not learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from adapt.contracts import Augment, Train
from adapt.methods import lora
from adapt.models.clip import Config, load, words
from adapt.train import loop
from adapt.train.gradient import gradient
from adapt.train.views import Views

CLASSES = [f"thing {i}" for i in range(40)]
TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "{}", "an icon of a {}"]
STILL = Augment(crop=1, flip=0, colour=0)
LENGTH = 16


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "classifiers"


def family(siglip_tiny: str, classes: list[str] = CLASSES, **options):
    """The SigLIP with classes and four templates, and the list of how many texts it encodes at each call."""
    found = load(Config(name="clip", checkpoint=siglip_tiny, loss="classification", **options))
    found.set_classes(classes, TEMPLATES)
    read, encode = [], found.towers.encode_tokens

    def counted(net, tokens):
        read.append(len(tokens))
        return encode(net, tokens)

    found.towers.encode_tokens = counted
    return found, read


def batch(size: int = 8, classes: int = 40) -> dict:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(size, 3, 32, 32, generator=random) * 255
    labels = torch.randint(classes, (size,), generator=random)
    return {"image": images, "label": labels, "seed": torch.arange(size)}


# ----------------------------------------------------------------------------------------------------------------- a step


def test_a_step_reads_a_text_a_class_however_many_templates_there_are(siglip_tiny):
    clip, read = family(siglip_tiny)
    for count in (1, 4, 64):
        clip.set_classes(CLASSES, [f"{i} {{}}" for i in range(count)])
        read.clear()
        clip.train()(batch())
        assert sum(read) == len(CLASSES)
    clip, read = family(siglip_tiny, train_templates=3)
    clip.train()(batch())
    assert sum(read) == 3 * len(CLASSES), "whoever asks for three pays for three"


def test_templates_are_drawn_for_each_class_by_the_steps_seed(siglip_tiny):
    clip, _ = family(siglip_tiny)
    texts = []
    tokenise = clip.towers.tokenise
    clip.towers.tokenise = lambda given: (texts.append(given), tokenise(given))[1]
    losses = {}
    for seed in (5, 6, 5):
        texts.clear()
        clip.begin(seed)
        loss = float(clip.train()(batch())[0].detach())
        assert losses.setdefault(seed, loss) == loss
        (given,) = [part for part in texts if len(part) == 40 and len({text[:4] for text in part}) > 1][-1:]
        drawn = [
            next(i for i, t in enumerate(TEMPLATES) if t.replace("{}", name) == text) for name, text in zip(CLASSES, given)
        ]
        assert drawn == np.random.default_rng(seed).integers(0, 4, 40).tolist()
    assert losses[5] != losses[6]
    assert len(set(drawn)) == 4


def test_with_a_number_of_templates_the_loss_is_over_their_mean(siglip_tiny):
    clip, _ = family(siglip_tiny, train_templates=2)
    given = batch()
    with torch.no_grad():
        loss, _ = clip.eval()(given)
        texts = F.normalize(
            torch.stack([clip.text_embedding([t.replace("{}", name) for name in CLASSES]) for t in TEMPLATES[:2]]).mean(0),
            dim=1,
        )
        expected = F.cross_entropy(clip.logits(clip.image_embedding(given["image"]), texts), given["label"])
    torch.testing.assert_close(loss, expected)


# ------------------------------------------------------------------------------------------------------- a part of the classes


def test_drawn_classes_stand_for_all_in_the_partition_function():
    """The mean over draws of what the softmax divides by is what it divides by with all classes."""
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 30).double(), torch.tensor([0, 3, 3, 12, 29, 7])
    sums = []
    for seed in range(4000):
        drawn = words.draw(seed, 30, 1, 9).classes
        shown = words.seen(drawn, labels)
        some, place = words.sampled(logits[:, shown], shown, drawn, labels, 30)
        assert torch.equal(shown[place], labels)
        torch.testing.assert_close(some.gather(1, place[:, None]), logits.gather(1, labels[:, None]))
        assert (some > -torch.inf).sum(1).tolist() == [9 + int(label not in drawn) for label in labels.tolist()]
        sums.append(some.exp().sum(1))
    torch.testing.assert_close(torch.stack(sums).mean(0), logits.exp().sum(1), rtol=0.01, atol=0)


def test_a_budget_that_holds_all_classes_changes_nothing(siglip_tiny):
    losses = []
    for tokens in (40 * LENGTH, 10**9):
        clip, read = family(siglip_tiny, train_tokens=tokens)
        losses.append(float(clip.eval()(batch())[0].detach()))
        assert sum(read) == 40
    assert losses[0] == losses[1]


@pytest.mark.parametrize("accumulate", [2, 8])
@pytest.mark.parametrize("count", [0, 2])
def test_the_gradient_of_drawn_classes_does_not_depend_on_micro_batches(siglip_tiny, accumulate, count):
    grads, logs = [], []
    for parts in (1, accumulate):
        clip, _ = family(siglip_tiny, train_tokens=max(1, count) * 10 * LENGTH, train_templates=count)
        clip.begin(7)
        logs.append(gradient(clip.train(), batch(), parts, STILL, 0, Accelerator(cpu=True)))
        grads.append({name: p.grad for name, p in clip.named_parameters() if p.grad is not None})
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    assert grads[0].keys() == grads[1].keys()
    largest = max(value.abs().max() for value in grads[0].values())
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], atol=2e-5 * float(largest), rtol=1e-4)


def saved(clip, given) -> int:
    """Bytes that a step's graph keeps for its backward pass."""
    seen = {}

    def pack(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = clip.train()(given)
    loss.backward()
    return sum(seen.values())


def test_ten_thousand_classes_train_in_the_memory_of_a_few_hundred(siglip_tiny, tmp_path, capsys):
    sizes = {}
    for count in (300, 10_000):
        clip, read = family(siglip_tiny, [f"thing {i}" for i in range(count)], train_tokens=100 * LENGTH)
        sizes[count] = saved(clip, batch(8, count))
        assert sum(read) <= 100 + 8
    assert sizes[10_000] < 1.05 * sizes[300]
    assert "the texts of 10,000 classes, 16 tokens each, are more than model.train_tokens=1600" in capsys.readouterr().out
    rows = pictures(24, [f"thing {i}" for i in range(10_000)])
    lora.apply(clip, lora.Config(name="lora", dropout=0))
    read.clear()
    train = Train(steps=3, batch=8, lr=1e-3, augment=STILL)
    history = loop.fit(clip, Views(rows, clip.preprocess, 0), train, 0, tmp_path, Accelerator(cpu=True))
    assert len(history) == 3 and all(row["loss"] < 3 * np.log(10_000) for row in history)
    assert max(read) <= 108


def pictures(count: int, names: list[str]) -> Dataset:
    random = np.random.default_rng(0)
    images = [Picture.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)]
    columns = {"id": [str(i) for i in range(count)], "image": images, "label": random.integers(0, len(names), count)}
    return Dataset.from_dict(columns, Features(id=Value("string"), image=Image(), label=ClassLabel(names=names)))


def test_a_killed_training_with_drawn_classes_ends_in_the_same_weights(siglip_tiny, tmp_path):
    rows = pictures(24, CLASSES)
    train = Train(steps=6, batch=4, lr=1e-2, checkpoint_every=1)

    def trained(dies: bool):
        clip, _ = family(siglip_tiny, train_tokens=10 * LENGTH)
        torch.manual_seed(0)
        lora.apply(clip, lora.Config(name="lora", dropout=0.1))
        given = (Views(rows, clip.preprocess, 0), train, 0, tmp_path / str(dies), Accelerator(cpu=True))
        if dies:
            begin, seeds = clip.begin, []

            def killed(seed: int) -> None:
                seeds.append(seed)
                if len(seeds) > 3:
                    raise KeyboardInterrupt
                begin(seed)

            clip.begin = killed
            with pytest.raises(KeyboardInterrupt):
                loop.fit(clip, *given)
            clip.begin = begin
        history = loop.fit(clip, *given)
        return [row["loss"] for row in history], {n: p.detach().clone() for n, p in clip.named_parameters() if p.requires_grad}

    (losses, weights), (again, same) = trained(False), trained(True)
    assert losses == again
    for name, value in weights.items():
        assert torch.equal(value, same[name]), name


# ------------------------------------------------------------------------------------------------------------- what is kept


def answers(clip) -> torch.Tensor:
    with torch.inference_mode():
        return clip.predictors()["class_logits"](batch()["image"])


def test_a_classifier_is_computed_once_and_then_read(siglip_tiny, cache):
    clip, read = family(siglip_tiny)
    first = answers(clip)
    assert sum(read) == 160 and len(list(cache.iterdir())) == 1
    for other, texts in (family(siglip_tiny), (clip, read)):
        texts.clear()
        assert torch.equal(answers(other), first), "the same bits"
        assert not texts
    with torch.no_grad():
        assert torch.equal(clip.fixed_classifier(TEMPLATES), clip.eval().text_classifier(TEMPLATES))


def test_what_a_classifier_is_made_of_makes_another(siglip_tiny, cache):
    clip, read = family(siglip_tiny)
    answers(clip)

    def asked() -> int:
        read.clear()
        answers(clip)
        return sum(read)

    clip.set_classes(CLASSES, TEMPLATES[:2])
    assert asked() == 80 and asked() == 0
    clip.set_classes([*CLASSES[:-1], "another"], TEMPLATES[:2])
    assert asked() == 80 and asked() == 0
    with torch.no_grad():
        clip.net.vision_model.post_layernorm.bias.add_(1)
        clip.net.logit_scale.add_(1)
    assert asked() == 0, "it sees no pictures and has no scale"
    clip.net.text_model.final_layer_norm.bias.data.add_(1e-3)  # not counted by autograd
    assert asked() == 80 and asked() == 0
    tokenise = clip.towers.tokenise
    clip.towers.tokenise = lambda texts: tokenise([f"{text} x" for text in texts])
    assert asked() == 80


def test_a_spoiled_file_is_made_again(siglip_tiny, cache):
    clip, read = family(siglip_tiny)
    first = answers(clip)
    (file,) = cache.iterdir()
    for content in (b"", b"x" * 99, file.read_bytes()[:-7]):
        file.write_bytes(content)
        read.clear()
        assert torch.equal(answers(clip), first) and sum(read) == 160
    read.clear()
    answers(clip)
    assert not read


def test_a_cache_that_cannot_be_written_costs_time_alone(siglip_tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "file"))
    clip, read = family(siglip_tiny)
    assert answers(clip).shape == (8, 40) and sum(read) == 160


def test_adapters_hooks_and_towers_that_have_learnt_are_not_kept(siglip_tiny, cache):
    adapted, _ = family(siglip_tiny)
    lora.apply(adapted, lora.Config(name="lora"))
    answers(adapted)
    hooked, _ = family(siglip_tiny)
    hooked.net.text_model.head.register_forward_hook(lambda module, given, out: out + 1)
    answers(hooked)
    learning, _ = family(siglip_tiny)
    learning.train()(batch())
    answers(learning)
    assert not cache.exists()


@pytest.mark.parametrize("count", [0, 2])
def test_a_frozen_text_tower_is_read_once_in_a_training(siglip_tiny, cache, count):
    clip, read = family(siglip_tiny, train_templates=count)
    for name, parameter in clip.net.named_parameters():
        parameter.requires_grad_(name.startswith("vision_model"))
    given = batch()
    for _ in range(3):
        loss, _ = clip.train()(given)
        loss.backward()
    assert sum(read) == 40 * (count or 4), "all templates, as evaluation has them, or as many as were asked for"
    with torch.no_grad():
        texts = clip.text_classifier(TEMPLATES[: count or 4])
        expected = F.cross_entropy(clip.logits(clip.image_embedding(given["image"]), texts), given["label"])
    torch.testing.assert_close(loss.detach(), expected)
    read.clear()
    with torch.no_grad():
        clip.net.text_model.final_layer_norm.bias.add_(1)
    clip.train()(given)
    assert sum(read) == 40 * (count or 4), "its tensors are others"


def test_the_config_is_part_of_what_a_classifier_is_made_of(siglip_tiny, cache, tmp_path):
    clip, _ = family(siglip_tiny)
    answers(clip)
    other = tmp_path / "other"
    clip.net.save_pretrained(other)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (other / name).write_bytes((type(other)(siglip_tiny) / name).read_bytes())
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = 4  # the same tensors, other answers
    (other / "config.json").write_text(json.dumps(config))
    changed, read = family(str(other))
    answers(changed)
    assert sum(read) == 160
