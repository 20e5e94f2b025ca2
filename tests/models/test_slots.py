"""Token embeddings go into both text towers, transformers' and open_clip's, and come out as the tokens themselves would."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch

from adapt.models.clip import Config, load

TEXTS = ["a photo of a cat", "a dog"]


@pytest.fixture(scope="module", params=["transformers", "open_clip"])
def family(request, tmp_path_factory):
    if request.param == "transformers":
        return load(Config(name="clip")).eval()
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("open_clip") / "weights.pt"
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), path)
    return load(Config(name="clip", checkpoint=f"open_clip:ViT-S-32-alt/{path}")).eval()


def test_embeddings_of_the_tokens_are_the_texts(family):
    slot = family.slots.text
    tokens = slot.tokens(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(slot.encode(tokens, slot.embed(tokens)), family.text_embedding(TEXTS))


def test_other_embeddings_are_other_texts_and_gradients_reach_them(family):
    slot = family.slots.text
    tokens = slot.tokens(TEXTS)
    vectors = slot.embed(tokens).detach().clone()
    vectors[:, 1:3] = slot.embed(slot.tokens(["one tree"]))[:, 1:3].detach()
    vectors.requires_grad_(True)
    found = slot.encode(tokens, vectors)
    assert not torch.allclose(found, family.text_embedding(TEXTS))
    found[0, 0].backward()
    assert vectors.grad[0, 1].abs().sum() > 0
    with torch.no_grad():
        torch.testing.assert_close(family.text_embedding(TEXTS), slot.encode(tokens, slot.embed(tokens)))


def test_a_learned_classifier_stands_for_the_words(family):
    family.set_classes(["cat", "dog"], ["{}"])
    classifier = torch.nn.functional.normalize(torch.randn(3, len(family.text_embedding(["x"])[0])), dim=1)
    family.slots.classifier(Fixed(classifier))
    images = torch.rand(2, 3, *family.input["size"]) * 255
    with torch.no_grad():
        expected = family.logits(family.image_embedding(images), classifier)
        torch.testing.assert_close(family.predictors()["class_logits"](images), expected)
        assert family.predictors(["a cat"])["class_logits"](images).shape == (2, 1), "texts that are asked for are encoded"
    family.learned = None


def test_the_classes_words_and_what_is_like_them_are_those_of_zero_shot(family):
    family.set_classes(["cat", "dog"], ["{}", "a photo of a {}"])
    slot, images = family.slots.text, torch.rand(2, 3, *family.input["size"]) * 255
    with torch.no_grad():
        expected, embedded = family.predictors()["class_logits"](images), family.image_embedding(images)
        torch.testing.assert_close(slot.logits(embedded, slot.classifier()), expected)
        torch.testing.assert_close(slot.scale() * embedded @ slot.classifier().T, expected, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        family.set_classes(["cat", "dog"], ["{}"])
        slot.classifier()
    (slot.classifier() * torch.ones(2, 1, requires_grad=True)).sum().backward()  # of no inference alone


VITS = ["clip", "siglip", "siglip2", "open_clip", "open_clip timm", "dinov2", "registers", "dinov3", "paligemma"]


def seen(family, images):
    """What an image tower makes of pictures."""
    return family.features(images) if "text" in family.predictors() else family.image_embedding(images)


@pytest.mark.parametrize("kind", VITS)
def test_tokens_put_into_an_image_tower_change_its_answers_and_learn(kind, vits):
    tower = vits[kind]()
    slot = tower.slots.vision
    tokens = torch.nn.Parameter(torch.randn(1, 4, slot.width))
    end = slot.first + tokens.shape[1]
    lengths = []

    def put(module, given):
        hidden = given[0]
        lengths.append(hidden.shape[1])
        parts = [hidden[:, : slot.first], tokens.expand(len(hidden), -1, -1), hidden[:, slot.first :]]
        return (torch.cat(parts, 1), *given[1:])  # VPT-shallow, arXiv:2203.12119 eq. 4

    def take(module, given, hidden):
        lengths.append(hidden.shape[1])
        return torch.cat([hidden[:, : slot.first], hidden[:, end:]], 1)

    side = tower.input["size"][0]
    images = torch.rand(2, 3, side, side) * 255
    plain = seen(tower, images)
    hooks = [slot.layers[0].register_forward_pre_hook(put), slot.layers[-1].register_forward_hook(take)]
    prompted = seen(tower, images)
    for hook in hooks:
        hook.remove()
    patches = slot.first + (side // slot.patch) ** 2
    assert lengths == [patches, patches + 4], "the class token and registers, then the patches"
    assert prompted.shape == plain.shape and not torch.allclose(prompted, plain, atol=1e-4)
    prompted.flatten(1)[0, 0].backward()
    assert tokens.grad.abs().sum() > 0
    with torch.no_grad():
        torch.testing.assert_close(seen(tower, images), plain.detach())


def test_a_tower_without_a_place_for_tokens_says_why(tmp_path):
    from adapt.models import sam

    slots = sam.load(sam.Config(name="sam")).slots
    assert slots.vision is None and slots.pixels is None
    assert "windows" in slots.no_vision
    config = json.loads((open_clip.factory._MODEL_CONFIG_PATHS[0] / "RN50.json").read_text())
    config["vision_cfg"] |= {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    (tmp_path / "tiny-resnet.json").write_text(json.dumps(config | {"text_cfg": config["text_cfg"] | {"layers": 1}}))
    open_clip.add_model_config(tmp_path / "tiny-resnet.json")
    slots = load(Config(name="clip", checkpoint="open_clip:tiny-resnet", weights="random")).slots
    assert slots.vision is None and slots.pixels is not None
    assert "no plain ViT" in slots.no_vision


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "open_clip"])
def test_the_vocabulary_has_a_word_for_each_number(kind, vits):
    tower = vits[kind]()
    slot = tower.slots.text
    words = slot.vocabulary()
    number = slot.tokens(["cat"])[0].tolist()
    assert "cat" in "".join(words[i] for i in number)
    assert len(slot.embed(torch.arange(len(words)))) == len(words)


@pytest.mark.parametrize("kind", VITS)
def test_no_feature_is_frozen_that_learned_prompts_have_changed(kind, vits):
    tower = vits[kind]()
    tower.requires_grad_(False)
    if kind in ("dinov2", "registers", "dinov3"):
        tower.new_head()
    assert tower.frozen_features() is not None
    tower.slots.prompts(torch.nn.Linear(1, 1))
    assert tower.frozen_features() is None
    assert "prompts.weight" in dict(tower.named_parameters())


class Fixed(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self):
        return self.value


def test_what_is_projected_is_the_embedding(family):
    slot, images = family.slots.projection, torch.rand(2, 3, *family.input["size"]) * 255
    if family.towers.sigmoid:
        assert slot is None, "SigLIP's pooling ends in no projection"
        return
    with torch.no_grad():
        torch.testing.assert_close(slot.after(slot.before(images)), family.image_embedding(images))
    assert slot.before(images).shape[1] in slot.weight.shape


def test_frozen_features_are_what_the_frozen_part_gives(family):
    family.set_classes(["cat", "dog"], ["{}"])
    images = torch.rand(2, 3, *family.input["size"]) * 255
    learns = {name: value.requires_grad for name, value in family.named_parameters()}
    try:
        family.requires_grad_(True)
        assert family.frozen_features() is None
        family.requires_grad_(False)
        for weight in (None, family.slots.projection and family.slots.projection.weight):
            if weight is not None:
                weight.requires_grad_(True)
            features = family.frozen_features()
            with torch.no_grad():
                torch.testing.assert_close(family.feature_logits(features(images)), family.predictors()["class_logits"](images))
                batch = {"image": images, "label": torch.tensor([0, 1])}
                expected = family(batch)[0]
                torch.testing.assert_close(family(batch | {"features": features(images)})[0], expected)
    finally:
        for name, value in family.named_parameters():
            value.requires_grad_(learns[name])


def test_a_head_makes_the_logits_and_a_penalty_is_added_to_the_loss(family):
    family.set_classes(["cat", "dog"], ["{}"])
    images, labels = torch.rand(2, 3, *family.input["size"]) * 255, torch.tensor([0, 1])
    head = torch.nn.Linear(family.image_embedding(images).shape[1], 2)
    family.slots.head(head)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(head(family.image_embedding(images)), labels)
        torch.testing.assert_close(family({"image": images, "label": labels})[0], expected)
        family.slots.penalty(lambda: torch.tensor(3.0))
        torch.testing.assert_close(family({"image": images, "label": labels})[0], expected + 3)
    family.head = family.penalty = None
