"""The same weights and pictures as CLIP_benchmark would see them: its own metrics, of each library's own road, equal our evals'.

Its package does not resolve under our lock, so what is used of it is written out below: https://github.com/LAION-AI/CLIP_benchmark at
48de38c, clip_benchmark/metrics/zeroshot_classification.py and zeroshot_retrieval.py.

    MIT License. Copyright (c) 2022-2023 LAION, Romain Beaumont, Mehdi Cherti
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, Features, List, Value
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from adapt.evals import multilabel, retrieval, zeroshot
from adapt.models.checkpoint import resolve
from adapt.train.predict import predict
from adapt.vision.pictures import RGB

KINDS = ["clip", "siglip", "siglip2", "open_clip"]
CLASSES = ["cat", "fire engine", "street", "big dog", "12 apples", "photo", "engine", "apples"]
TEMPLATES = ["a photo of a {c}", "{c} in the street", "a big {c}"]
COUNT = 60


# ------------------------------------------------------------------------------------------- CLIP_benchmark's, written out


def zero_shot_classifier(encode_text, classnames, templates):
    zeroshot_weights = []
    for classname in classnames:
        texts = [template.format(c=classname) for template in templates]
        class_embeddings = encode_text(texts)
        class_embedding = F.normalize(class_embeddings, dim=-1).mean(dim=0)
        class_embedding /= class_embedding.norm()
        zeroshot_weights.append(class_embedding)
    return torch.stack(zeroshot_weights, dim=1)


def accuracy(output, target, topk=(1,)):
    pred = output.topk(max(topk), 1, True, True)[1].t()
    correct = pred.eq(target.view(1, -1).expand_as(pred))
    n = len(target)
    return [float(correct[:k].reshape(-1).float().sum(0)) / n for k in topk]  # without keepdim=True, which numpy 2 refuses


def average_precision_per_class(scores, targets):
    ap = torch.zeros(scores.size(1))
    rg = torch.arange(1, scores.size(0) + 1).float()
    for k in range(scores.size(1)):
        _, sortind = torch.sort(scores[:, k], 0, True)
        truth = targets[:, k][sortind]
        precision = truth.float().cumsum(0).div(rg)
        ap[k] = precision[truth.bool()].sum() / max(float(truth.sum()), 1)
    return ap


def recall_at_k(scores, positive_pairs, k):
    nb_texts, nb_images = scores.shape
    topk_indices = torch.topk(scores, k, dim=1)[1]
    nb_positive = positive_pairs.sum(dim=1)
    topk_indices_onehot = F.one_hot(topk_indices, num_classes=nb_images)
    positive_pairs_reshaped = positive_pairs.view(nb_texts, 1, nb_images)
    nb_true_positive = (topk_indices_onehot * positive_pairs_reshaped).sum(dim=(1, 2))
    return nb_true_positive / nb_positive


# ------------------------------------------------------------------------------------------------- the libraries' own roads


def of_transformers(place: str):
    """(pictures → embeddings, texts → embeddings), by the library's own model, processor and tokenizer."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model, processor = AutoModel.from_pretrained(place, dtype=torch.float32).eval(), AutoImageProcessor.from_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    padding = "longest" if model.config.model_type == "clip" else "max_length"
    length = model.config.text_config.max_position_embeddings
    tell = {"padding": padding, "max_length": length, "truncation": True, "return_tensors": "pt"}
    image = lambda pictures: model.get_image_features(**processor(pictures, return_tensors="pt")).pooler_output  # noqa: E731
    return image, lambda texts: model.get_text_features(input_ids=tokenizer(texts, **tell)["input_ids"]).pooler_output


def of_open_clip(place: str):
    """The same, of open_clip."""
    import open_clip

    arch, _, file = place.removeprefix("open_clip:").partition("/")
    model, _, preprocess = open_clip.create_model_and_transforms(arch, pretrained=file, weights_only=True)
    model.eval()
    tokenizer = open_clip.get_tokenizer(arch)
    return lambda pictures: model.encode_image(
        torch.stack([preprocess(each) for each in pictures])
    ), lambda texts: model.encode_text(tokenizer(texts))


@pytest.fixture(scope="module", params=KINDS)
def both(request, vits, emoji):
    """A family; pictures of the network's own size, so that no library resizes them in its own way; its library's embeddings of pictures
    and of texts."""
    family = vits[request.param]()
    place = family.config.checkpoint
    road = of_open_clip(place) if place.startswith("open_clip:") else of_transformers(resolve(place))
    family.set_classes(CLASSES, [template.replace("{c}", "{}") for template in TEMPLATES])
    height, width = family.input["size"]
    return family, [each.resize((width, height)) for each in emoji["test"][::3]["image"][:COUNT]], *road


def rows(images: list[Image.Image], **columns) -> Dataset:
    kinds = {"label": ClassLabel(names=CLASSES), "labels": List(ClassLabel(names=CLASSES)), "caption": List(Value("string"))}
    features = {"id": Value("string"), "image": RGB()} | {name: kinds[name] for name in columns}
    return Dataset.from_dict({"id": [f"r{i}" for i in range(len(images))], "image": images} | columns, Features(features))


def asked(family):
    """As `verbs/measuring.py` asks a family."""
    accelerator = Accelerator(cpu=True)
    return lambda part, name="class_logits", texts=None: predict(
        family.predictors(texts)[name], family, part, 16, accelerator, name=name
    )


# ---------------------------------------------------------------------------------------------------------------- the tests


@torch.no_grad()
def test_classes_are_scored_as_clip_benchmark_scores_them(both):
    """Top-1, top-5, mean per class; mAP of several classes a picture."""
    family, shown, image, text = both
    random = np.random.default_rng(1)
    logits = 100.0 * F.normalize(image(shown), dim=-1) @ zero_shot_classifier(text, CLASSES, TEMPLATES)
    answers = logits.argmax(1).numpy()
    assert len(set(answers.tolist())) > 1, "a network that says the same of all pictures would show nothing"
    labels = np.where(random.random(COUNT) < 0.4, answers, random.integers(0, len(CLASSES), COUNT))
    target = torch.from_numpy(labels)
    first, fifth = accuracy(logits, target, topk=(1, 5))
    theirs = {"top1": first, "top5": fifth, "mean_per_class": balanced_accuracy_score(target, logits.argmax(axis=1))}
    assert first != pytest.approx(theirs["mean_per_class"])
    ours = zeroshot.evaluate(zeroshot.Config(name="zeroshot"), asked(family), rows(shown, label=labels.tolist()), {})
    assert {name: ours.metrics[name] for name in theirs} == pytest.approx(theirs)

    truth = torch.from_numpy(random.random((COUNT, len(CLASSES))) < 0.25)
    several = [np.flatnonzero(each).tolist() for each in truth.numpy()]
    config = multilabel.Config(name="multilabel")
    found = multilabel.evaluate(config, asked(family), rows(shown, labels=several), {})
    assert found.metrics["map"] == pytest.approx(float(average_precision_per_class(logits, truth).mean()), abs=1e-6)


@torch.no_grad()
def test_several_captions_a_picture_are_found_as_clip_benchmark_finds_them(both):
    family, shown, image, text = both
    random = np.random.default_rng(2)
    every = [f"{a} and a {b} {c}" for a in CLASSES for b in CLASSES for c in ("street", "cat", "fire", "apples")]
    owner = np.repeat(np.arange(COUNT), random.integers(1, 6, COUNT))
    texts = random.permutation(every)[: len(owner)].tolist()
    scores = F.normalize(text(texts), dim=-1) @ F.normalize(image(shown), dim=-1).t()
    positive_pairs = torch.zeros_like(scores, dtype=bool)
    positive_pairs[torch.arange(len(scores)), owner] = True
    theirs = {}
    for k in (1, 5, 10):
        theirs[f"text_r{k}"] = (recall_at_k(scores, positive_pairs, k) > 0).float().mean().item()
        theirs[f"r{k}"] = (recall_at_k(scores.T, positive_pairs.T, k) > 0).float().mean().item()
    assert theirs["r10"] > theirs["r1"]
    captions = [[texts[j] for j in np.flatnonzero(owner == i)] for i in range(COUNT)]
    ours = retrieval.evaluate(retrieval.Config(name="retrieval"), asked(family), rows(shown, caption=captions), {})
    assert {name: ours.metrics[name] for name in theirs} == pytest.approx(theirs)
