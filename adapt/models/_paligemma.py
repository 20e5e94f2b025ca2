"""The PaliGemma family: `transformers`' model, the loss on the answer alone, and answers read back as objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.models import _checkpoint
from adapt.models._answers import Answer, Speed, greedy, objects
from adapt.models._clip import image_input
from adapt.models._family import Family
from adapt.plug import UserError
from adapt.prompting import tasks
from adapt.prompting.tokens import WORDS, Codebook
from adapt.recipe import Augment
from adapt.train.augment import augment
from adapt.train.images import Normalise, collate, view

IGNORED = -100
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass
class Wording:
    """What the family is asked, and how it answers."""

    tasks: Sequence[str] = ("given",)
    codebook: Codebook | None = None
    max_tokens: int = 128
    batch: int = 16
    speed: Speed = field(default_factory=Speed)


class PaliGemma(Family):
    """A SigLIP tower and a Gemma decoder; see `Family` for the surface."""

    adapter_targets = {name: rf"language_model\..*\.{name}_proj" for name in LINEARS} | {
        "vision": r"vision_tower\..*\.(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
    }
    quantised = rf"(?:.*\.)?language_model\..*\.(?:{'|'.join(LINEARS)})_proj"

    def __init__(self, backbone: nn.Module, processor, wording: Wording):
        super().__init__()
        self.backbone, self.processor, self.wording = backbone, processor, wording
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"  # the answers end together, and generation goes on from there
        self.spec = image_input(processor.image_processor.to_dict())
        self.normalise = Normalise(self.spec)
        self.classes: list[str] = []
        self.templates: list[str] = []
        self._columns: tuple[str, ...] = tuple(dict.fromkeys(name for task in wording.tasks for name in tasks.COLUMNS[task]))

    @property
    def decoder(self) -> nn.Module:
        """What the method `decoder` lets learn: all but the image tower."""
        return nn.ModuleList([self.net.model.multi_modal_projector, self.net.model.language_model])

    @property
    def input(self) -> dict[str, Any]:
        return self.spec

    @property
    def columns(self) -> tuple[str, ...]:
        return ("image", *self._columns)

    def bind(self, columns: list[str]) -> None:
        needed = [name for task in self.wording.tasks for name in tasks.needs(task, columns)]
        self._columns = tuple(dict.fromkeys(needed))
        super().bind(columns)

    def hint(self, columns: list[str]) -> str:
        return (
            " Rows that have prefix and suffix are learnt with model.tasks=[given]."
            if {"prefix", "suffix"} <= set(columns)
            else ""
        )

    def set_classes(self, classes: list[str], templates: list[str]) -> None:
        """Say which words stand for the categories 0, 1, …"""
        self.classes, self.templates = list(classes), list(templates)

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        item = {"image": view(sample["image"], self.spec)}
        if train:
            item["sample"] = {name: sample.get(name) for name in ("id", *self._columns)} | {"size": sample["image"].size}
        return item

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items → a batch; here the view's seed chooses the task, and the words become tokens."""
        batch = collate([{name: value for name, value in item.items() if name != "sample"} for item in items])
        if "sample" in items[0]:
            pairs = [self._pair(item["sample"], int(item.get("seed", 0))) for item in items]
            batch |= self.tokenise([prefix for prefix, _ in pairs], [suffix for _, suffix in pairs])
        return batch

    def _pair(self, sample: dict[str, Any], seed: int) -> tuple[str, str]:
        rest, task = divmod(seed, len(self.wording.tasks))
        return tasks.pair(self.wording.tasks[task], sample, self.classes, rest, self.wording.codebook)

    def tokenise(self, prefixes: Sequence[str], suffixes: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Questions, and their answers when training → int64[B, T] each, padded on the left.

        `input_ids`: image tokens, bos, prefix, newline, suffix, eos; `token_type_ids`: 0 where attention goes both ways (image and
        prefix), 1 in the suffix; `labels`: the suffix, −100 elsewhere. The same as `PaliGemmaProcessor(…, suffix=…)`.
        """
        image, start, end = self.processor.image_token, self.tokenizer.bos_token, self.tokenizer.eos_token
        # an image token in somebody's data would be one for which there is no image
        head = image * self.processor.image_seq_length + start
        texts = [f"{head}{prefix.replace(image, '')}\n" for prefix in prefixes]
        answers = None if suffixes is None else [suffix.replace(image, "") + end for suffix in suffixes]
        tokens = self.tokenizer(texts, answers, padding=True, return_token_type_ids=True, return_tensors="pt")
        batch = {name: tokens[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        if suffixes is not None:
            batch["labels"] = batch["input_ids"].masked_fill(batch["token_type_ids"] == 0, IGNORED)
        return batch

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views that move nothing: answers hold places, and captions go from left to right."""
        still = config.model_copy(update={"crop": 1.0, "rotate": 0.0, "flip": 0.0})
        return batch | {"image": augment(batch["image"], batch["seed"], still)}

    # ------------------------------------------------------------------------------------------------------------ loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        logits, targets = self._answers(batch)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        right = (logits.argmax(-1) == targets) & (targets != IGNORED)
        return loss, {"token_accuracy": right.sum() / (targets != IGNORED).sum()}

    def losses(self, batch: dict[str, Any]) -> Tensor:
        """The mean negative log-likelihood of each row's answer, float[B]."""
        logits, targets = self._answers(batch)
        each = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
        return each.sum(1) / (targets != IGNORED).sum(1)

    def _answers(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits float32[B, K, V] of the last K tokens, and those tokens int64[B, K]; K: the longest answer.

        A vocabulary of a quarter of a million words is too wide for the logits of image and question tokens, which no loss sees.
        """
        labels = batch["labels"]
        longest = int((labels != IGNORED).sum(1).max())
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        output = self.net(**tokens, **self._seen(batch), logits_to_keep=longest + 1, use_cache=False)
        return output.logits[:, :-1].float(), labels[:, -longest:]

    def _seen(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The picture as the decoder takes it: pixels, or the features that were cached."""
        if "features" not in batch:
            return {"pixel_values": self.pixels(batch["image"])}
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=batch["features"])}}

    def pixels(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → what the tower takes."""
        return self.normalise(images).to(next(self.net.model.vision_tower.parameters()).dtype)

    def frozen_features(self) -> Callable[[Tensor], Tensor] | None:
        """images float[B, 3, H, W] 0–255 → what the decoder sees of them, float[B, N, D]; none when tower or projector learn."""
        parts = self.net.model.vision_tower, self.net.model.multi_modal_projector
        if any(parameter.requires_grad for part in parts for parameter in part.parameters()):
            return None
        return lambda images: self.net.get_image_features(pixel_values=self.pixels(images)).pooler_output

    # --------------------------------------------------------------------------------------------------------- answers

    def predictors(self, texts: list[str] | None = None) -> dict[str, Callable[..., Any]]:
        def text(samples: list[dict[str, Any]]) -> list[str]:
            return self.text(samples)

        def detections(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return self.detections(samples)

        text.rows = detections.rows = True
        return {"text": text, "detections": detections}

    def text(self, samples: list[dict[str, Any]]) -> list[str]:
        """Answers to each row's `prefix` (none: `caption en`) about its `image`."""
        answers = self.answer(samples, [sample.get("prefix") or tasks.CAPTION for sample in samples])
        return [self.tokenizer.decode(answer.tokens, clean_up_tokenization_spaces=False).strip() for answer in answers]

    def detections(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Objects of each row.

        The categories asked for are those of the row's `objects`, where it brings some (the public protocol), else all.

        Returns:
            a row: `bbox` float[N, 4] XYXY in pixels, `category` int[N] (−1: a name that is none of `classes`), `score` float[N]
            (geometric mean of the probabilities of the object's tokens), surest first, without duplicates; `unread`: how many
            objects of the answer could not be read.
        """
        questions = [tasks.detect(self._asked(sample)) for sample in samples]
        answers = self.answer(samples, questions)
        sizes = [sample["image"].size for sample in samples]
        return [objects(self.tokenizer, answer, size, self.classes) for answer, size in zip(answers, sizes, strict=True)]

    def _asked(self, sample: dict[str, Any]) -> list[str]:
        present = (sample.get("objects") or {}).get("category") or range(len(self.classes))
        return tasks.category_words(present, self.classes)

    def answer(self, samples: list[dict[str, Any]], questions: Sequence[str]) -> list[Answer]:
        """Greedy answers to a question about each row's `image`."""
        self.eval()
        answers, self.wording.speed = greedy(self, samples, questions, self.wording.max_tokens, self.wording.batch)
        return answers

    @property
    def tokens_per_second(self) -> float:
        """Of the last answers."""
        return self.wording.speed.tokens_per_second


def load_transformers(config) -> PaliGemma:
    """`PaliGemmaForConditionalGeneration` from a folder or the hub; see `adapt.models.paligemma.load`."""
    from transformers import AutoConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

    _checkpoint.config(config.checkpoint, ("paligemma",))
    place = _checkpoint.resolve(config.checkpoint)
    codebook = Codebook(config.masks) if config.masks or "segment" in config.tasks else None
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    try:
        processor = PaliGemmaProcessor.from_pretrained(place)
        settings = AutoConfig.from_pretrained(place)
        _check_tokens(config.checkpoint, processor, settings)
        if config.weights == "random":
            backbone = PaliGemmaForConditionalGeneration(settings).to(dtype)
        else:
            backbone, info = PaliGemmaForConditionalGeneration.from_pretrained(place, dtype=dtype, output_loading_info=True)
            lacking = sorted(name for name in info["missing_keys"] if "position_ids" not in name)
            if lacking:
                raise UserError(
                    f"model.checkpoint: {config.checkpoint!r} lacks {len(lacking)} weights, such as {lacking[0]!r}."
                )
    except (OSError, ValueError) as error:
        raise _checkpoint.unreadable(config.checkpoint, error) from None
    return PaliGemma(backbone, processor, Wording(config.tasks, codebook, config.max_tokens, config.batch))


def _check_tokens(checkpoint: str, processor, settings) -> None:
    """Refuse a tokenizer whose location tokens the model has no embeddings for, and image tokens that do not fit the tower.

    `PaliGemmaProcessor` adds the words to a tokenizer that lacks them, under numbers that the model does not know.
    """
    known = settings.text_config.vocab_size
    lacking = [word for word in WORDS if not 0 <= processor.tokenizer.convert_tokens_to_ids(word) < known]
    if lacking:
        raise UserError(
            f"model.checkpoint: the tokenizer of {checkpoint!r} lacks {len(lacking)} location and mask tokens, such as {lacking[0]}: "
            f"the model has {known} embeddings. Take a PaliGemma checkpoint with its own tokenizer."
        )
    tower = settings.vision_config
    if processor.image_seq_length != (tower.image_size // tower.patch_size) ** 2:
        raise UserError(
            f"model.checkpoint: {checkpoint!r} has {processor.image_seq_length} image tokens in its processor, and its tower gives "
            f"({tower.image_size} / {tower.patch_size})². Take the processor of the same checkpoint."
        )
