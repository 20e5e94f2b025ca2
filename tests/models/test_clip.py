"""The CLIP family against plain transformers and open_clip on the same weights."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    CLIPModel,
    CLIPProcessor,
    Siglip2Config,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
)

from adapt.models.checkpoint import resolve
from adapt.models.clip import Config, load
from adapt.plug import UserError

TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "{}"]
CLASSES = ["cat", "fire engine", "apple"]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((64, 64), (90, 61), (50, 133))]


@pytest.fixture(scope="module")
def open_clip_file(tmp_path_factory):
    """Random weights of a small public architecture, as a file."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-32-alt")
    path = tmp_path_factory.mktemp("open_clip") / "weights.pt"
    torch.save(model.state_dict(), path)
    return path


def views(family, pictures):
    return torch.stack([family.preprocess({"image": picture}, False)["image"] for picture in pictures]).float()


def test_zero_shot_logits_equal_plain_transformers(clip_tiny, pictures):
    place = resolve("clip-tiny")
    model, processor = CLIPModel.from_pretrained(place, dtype=torch.float32).eval(), CLIPProcessor.from_pretrained(place)
    inputs = processor(text=CLASSES, images=pictures, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**inputs).logits_per_image
        got = clip_tiny.eval().predictors(CLASSES)["class_logits"](views(clip_tiny, pictures))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_prompt_ensemble_is_normalised_averaged_normalised(clip_tiny):
    clip_tiny.set_classes(CLASSES, TEMPLATES)
    with torch.no_grad():
        expected = []
        for name in CLASSES:
            each = torch.stack([clip_tiny.text_embedding([template.replace("{}", name)])[0] for template in TEMPLATES])
            expected.append(F.normalize(each.mean(0), dim=0))
        torch.testing.assert_close(clip_tiny.text_classifier(TEMPLATES), torch.stack(expected), atol=1e-6, rtol=0)


def test_logits_and_prompt_ensemble_equal_open_clip(open_clip_file, pictures):
    family = load(Config(name="clip", checkpoint=f"open_clip:ViT-S-32-alt/{open_clip_file}")).eval()
    family.set_classes(CLASSES, TEMPLATES)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-S-32-alt", pretrained=str(open_clip_file))
    tokenizer = open_clip.get_tokenizer("ViT-S-32-alt")
    with torch.no_grad():
        images = torch.stack([preprocess(picture) for picture in pictures])
        classifier = open_clip.build_zero_shot_classifier(model.eval(), tokenizer, CLASSES, TEMPLATES)
        expected = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ classifier
        ours = views(family, pictures)
        got = family.predictors()["class_logits"](ours)
        torch.testing.assert_close(family.text_classifier(TEMPLATES), classifier.T, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            family.logits(model.encode_image(family.normalise(ours), normalize=True), classifier.T), got, atol=1e-4, rtol=0
        )
    # PIL resizes on one side, torchvision on the other: both are bicubic and antialiased, rounding differs
    torch.testing.assert_close(got, expected, atol=0.05, rtol=0)


def test_siglip_logits_and_sigmoid_loss_equal_transformers(tmp_path, pictures):
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config=tower | {"vocab_size": 4000, "max_position_embeddings": 16},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
    )
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(resolve("clip-tiny")).save_pretrained(tmp_path)
    family = load(Config(name="clip", checkpoint=str(tmp_path), loss="contrastive")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer(CLASSES, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
    images = views(family, pictures)
    with torch.no_grad():
        output = model(input_ids=tokens, pixel_values=images.div(255).sub(0.5).div(0.5), return_loss=True)
        got = family.predictors(CLASSES)["class_logits"](images)
        loss, _ = family({"image": images, "caption": CLASSES, "seed": torch.zeros(3, dtype=torch.long)})
    torch.testing.assert_close(got, output.logits_per_image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, output.loss, atol=1e-5, rtol=1e-5)


def test_similarities_are_in_float32_whatever_the_autocast(clip_tiny, pictures):
    """bfloat16 would give them steps of 0.125 at this scale."""
    images = views(clip_tiny, pictures)
    clip_tiny.set_classes(CLASSES, TEMPLATES)
    predictors = clip_tiny.eval().predictors()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        seen, logits = predictors["image_embedding"](images), predictors["class_logits"](images)
        loss, _ = clip_tiny({"image": images, "label": torch.arange(3)})
    with torch.no_grad():
        expected = clip_tiny.net.logit_scale.exp() * seen @ clip_tiny.text_classifier(TEMPLATES).T
    assert seen.dtype == logits.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


def test_a_contrastive_loss_is_that_of_float32_similarities(clip_tiny, pictures):
    batch = {"image": views(clip_tiny, pictures), "caption": CLASSES, "seed": torch.zeros(3, dtype=torch.long)}
    clip_tiny.loss = "contrastive"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        loss, _ = clip_tiny.eval()(batch)
        seen, said = clip_tiny.image_embedding(batch["image"]), clip_tiny.text_embedding(CLASSES)
    clip_tiny.loss = "auto"
    logits = clip_tiny.net.logit_scale.detach().exp() * seen @ said.T
    expected = (F.cross_entropy(logits, torch.arange(3)) + F.cross_entropy(logits.T, torch.arange(3))) / 2
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)


def test_a_linear_head_answers_in_float32_too(pictures):
    family = load(Config(name="clip", loss="classification"))
    family.set_classes(CLASSES, TEMPLATES)
    family.new_head("text")
    images = views(family, pictures)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        seen = family.eval().image_embedding(images)
        logits = family.predictors()["class_logits"](images)
    torch.testing.assert_close(logits, seen @ family.head.weight.T + family.head.bias, atol=1e-6, rtol=0)


def test_a_scale_that_learns_stays_below_100_but_for_siglip():
    family = load(Config(name="clip"))
    scale, bound = family.net.logit_scale, torch.tensor(100.0).log()
    for learns, sigmoid, expected in ((True, False, bound), (False, False, 5.0), (True, True, 5.0)):
        scale.requires_grad_(learns).data.fill_(5.0)
        family.towers.sigmoid = sigmoid
        family.stepped()
        torch.testing.assert_close(scale.detach(), torch.as_tensor(expected))


def test_contrastive_loss_equals_clips_when_captions_differ(clip_tiny, pictures):
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    images = views(clip_tiny, pictures)
    clip_tiny.loss = "contrastive"
    with torch.no_grad():
        loss, _ = clip_tiny.eval()({"image": images, "caption": CLASSES, "seed": torch.zeros(3, dtype=torch.long)})
        expected = image_text_contrastive_loss(clip_tiny.predictors(CLASSES)["class_logits"](images).T)
    clip_tiny.loss = "auto"
    torch.testing.assert_close(loss, expected)


def test_pairs_of_one_caption_are_all_positives(clip_tiny, pictures):
    images = views(clip_tiny, pictures)
    clip_tiny.loss = "contrastive"
    with torch.no_grad():
        loss, _ = clip_tiny.eval()(
            {"image": images, "caption": ["cat", "dog", "cat"], "seed": torch.zeros(3, dtype=torch.long)}
        )
        logits = clip_tiny.predictors(["cat", "dog", "cat"])["class_logits"](images)
    clip_tiny.loss = "auto"
    targets = torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])
    expected = -0.5 * ((targets * logits.log_softmax(1)).sum(1).mean() + (targets * logits.T.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(loss, expected)


def test_preprocessing_equals_the_checkpoints_processor(clip_tiny, pictures):
    processor = CLIPProcessor.from_pretrained(resolve("clip-tiny")).image_processor
    expected = processor(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(clip_tiny.normalise(views(clip_tiny, pictures)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ("clip-tinny", ["clip-tinny", "clip-tiny"]),
        ("nobody/nothing", ["nobody/nothing", "network"]),
        ("open_clip:ViT-B-31/x", ["ViT-B-31", "ViT-B-32"]),
        ("open_clip:ViT-B-32/nofile.pt", ["nofile.pt", "openai"]),
    ],
)
def test_a_wrong_checkpoint_is_one_clear_line(checkpoint, words):
    with pytest.raises(UserError) as error:
        load(Config(name="clip", checkpoint=checkpoint))
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_family_is_refused(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'vit' model; this family takes clip, siglip"):
        load(Config(name="clip", checkpoint=str(tmp_path)))


def test_siglip_2_of_variable_resolution_is_refused_and_the_other_named(tmp_path):
    Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'siglip2' model.*NaFlex.*SigLIP 2 of fixed resolution"):
        load(Config(name="clip", checkpoint=str(tmp_path)))


def test_a_file_that_does_not_fit_its_architecture_says_what_and_what_next(tmp_path):
    def problem() -> str:
        with pytest.raises(UserError) as error:
            load(Config(name="clip", checkpoint=f"open_clip:ViT-S-32-alt/{tmp_path}/w.pt"))
        assert len(str(error.value).splitlines()) == 1
        return str(error.value)

    state = open_clip.create_model("ViT-S-32-alt").state_dict()
    other = state | {"visual.proj": torch.zeros(3, 3)}
    del other["logit_scale"]
    torch.save(other, tmp_path / "w.pt")
    assert (
        "is not of ViT-S-32-alt: 2 weights of another size or name, such as 'logit_scale'. Write open_clip:ARCH/" in problem()
    )
    torch.save(state | {"positional_embedding": torch.zeros(77, 3)}, tmp_path / "w.pt")
    assert "is not of ViT-S-32-alt: text pos_embed width changed. Write open_clip:ARCH/" in problem()
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:100_000])
    assert "is cut short or damaged. Download it again." in problem()
    for content in (b"<html>not found</html>", b"e" * 999, b""):
        (tmp_path / "w.pt").write_bytes(content)
        assert "holds more than tensors, or is no torch file. Give the published weights." in problem()


def test_a_pickle_with_code_is_not_run(tmp_path):
    import os

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/pwned",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt' holds more than tensors"):
        load(Config(name="clip", checkpoint=f"open_clip:ViT-S-32-alt/{tmp_path}/evil.pt"))
    assert not (tmp_path / "pwned").exists()


def test_a_frozen_batch_norm_keeps_its_statistics(clip_tiny):
    clip_tiny.backbone.extra = torch.nn.BatchNorm2d(3).requires_grad_(False)
    assert not clip_tiny.train().backbone.extra.training
    clip_tiny.backbone.extra.requires_grad_(True)
    assert clip_tiny.train().backbone.extra.training
    del clip_tiny.backbone.extra
