"""What vision-language families share: rows become questions and answers, answers become texts and objects."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.contracts import Augment, Input, Predictor
from adapt.models.answers import Answer, Confidence, Speed
from adapt.models.base import Family
from adapt.models.checkpoint import image_input
from adapt.plug import UserError, counted
from adapt.prompting import tasks
from adapt.prompting.tokens import Codebook
from adapt.vision.augment import augment
from adapt.vision.images import Normalise, collate, view
from adapt.vision.masks import singles

IGNORED = -100


@dataclass
class Wording:
    """What the family is asked, and how it answers."""

    tasks: Sequence[str] = ("given",)
    codebook: Codebook | None = None
    max_tokens: int = 128
    batch: int = 16
    speed: Speed = field(default_factory=Speed)


class VisionLanguage(Family):
    """A picture and a question in, words out; see `Family` for the surface.

    A family says how questions and answers become tokens (`tokenise`), what the model makes of them (`_answers`), and how objects are
    asked for and read (`_asking`, `read`).
    """

    asked_by_name = True
    located = True

    def __init__(self, backbone: nn.Module, processor, wording: Wording):
        super().__init__()
        self.backbone, self.processor, self.wording = backbone, processor, wording
        self.tokenizer = processor.tokenizer
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
    def input(self) -> Input:
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

    def set_classes(self, classes: list[str], templates: list[str], texts: list | None = None, combine: str = "mean") -> None:
        """Say which words stand for the categories 0, 1, …; an answer is a name, so it is not asked about by other texts."""
        self.classes, self.templates = list(classes), list(templates)

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        item = {"image": view(sample["image"], self.spec)}
        if train:
            if "objects" in self._columns and sample.get("objects") is None:
                raise UserError(
                    f"data: row {sample.get('id', '?')!r} has no objects to ask about. Rows that have prefix and suffix are learnt "
                    "with model.tasks=[given]."
                )
            item["sample"] = {name: sample.get(name) for name in ("id", *self._columns)} | {"size": sample["image"].size}
            if "objects" in self._columns:
                item["sample"]["objects"] = singles(sample["objects"])
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

    @abstractmethod
    def tokenise(self, prefixes: Sequence[str], suffixes: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Questions, and their answers when training → int64[B, T] each; `labels` are −100 where nothing is learnt."""

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views that move nothing: answers hold places, and captions go from left to right."""
        still = config.model_copy(update={"crop": 1.0, "rotate": 0.0, "flip": 0.0})
        return batch | {"image": augment(batch["image"], batch["seed"], still)}

    # ------------------------------------------------------------------------------------------------------------ loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        logits, targets = self._answers(batch)
        learnt = self.weight(batch).clamp(min=1)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum") / learnt
        right = (logits.argmax(-1) == targets) & (targets != IGNORED)
        return loss, {"token_accuracy": right.sum() / learnt}

    def weight(self, batch: dict[str, Any]) -> Tensor:
        """Tokens of the answers."""
        return (batch["labels"] != IGNORED).sum()

    def losses(self, batch: dict[str, Any]) -> Tensor:
        """The mean negative log-likelihood of each row's answer, float[B]."""
        each, counted = self._likelihoods(batch)
        return -each / counted

    def log_likelihoods(self, batch: dict[str, Any]) -> Tensor:
        """The log-likelihood of each row's answer, with its end: a sum over its tokens, float[B], nats."""
        return self._likelihoods(batch)[0]

    def _likelihoods(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The log-likelihood of each row's answer, float[B], and of how many tokens it is the sum, int64[B]."""
        logits, targets = self._answers(batch)
        each = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
        return -each.sum(1), (targets != IGNORED).sum(1)

    @abstractmethod
    def _answers(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits float32[B, K, V], and the tokens int64[B, K] that they should give, −100 where nothing is learnt."""

    def pixels(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → what the tower takes."""
        return self.normalise(images).to(next(self.net.model.vision_tower.parameters()).dtype)

    def frozen_features(self) -> Callable[[Tensor], Tensor] | None:
        """`features`; none when tower or projector learn, or something that the tower sees."""
        parts = self.net.model.vision_tower, self.net.model.multi_modal_projector
        if self.prompts is not None or any(parameter.requires_grad for part in parts for parameter in part.parameters()):
            return None
        return self.features

    def features(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → what the language model sees of them, float[B, N, D]."""
        return self.net.get_image_features(pixel_values=self.pixels(images)).pooler_output

    # --------------------------------------------------------------------------------------------------------- answers

    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        return {"text": Predictor(self.text, "rows"), "detections": Predictor(self.detections, "rows")}

    def text(self, samples: list[dict[str, Any]]) -> list[str]:
        """Answers to each row's `prefix` (none: `caption en`) about its `image`."""
        answers = self.answer(samples, [sample.get("prefix") or tasks.CAPTION for sample in samples])
        return [self.words(answer) for answer in answers]

    def words(self, answer: Answer) -> str:
        """What an answer says."""
        return self.tokenizer.decode(answer.tokens, clean_up_tokenization_spaces=False).strip()

    def detections(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Objects of each row.

        The categories asked for are those of the row's `objects`, where it brings some (the public protocol), else all.

        Returns:
            a row: `bbox` float[N, 4] XYXY in pixels, `category` int[N] (−1: a name that is none of `classes`), `score` float[N]
            (geometric mean of the probabilities of the object's tokens), surest first, without duplicates; `name`, list[str], as the
            model calls them; `unread`: how many objects of the answer could not be read.
        """
        answers = self.answer(samples, [self._asking(sample) for sample in samples])
        return [self.read(answer, sample["image"].size) for answer, sample in zip(answers, samples, strict=True)]

    @abstractmethod
    def _asking(self, sample: dict[str, Any]) -> str:
        """The question after a row's objects."""

    @abstractmethod
    def read(self, answer: Answer, size: tuple[int, int]) -> dict[str, Any]:
        """The objects of an answer about an image of `size` (width, height), as `detections` returns them."""

    def answer(self, samples: list[dict[str, Any]], questions: Sequence[str]) -> list[Answer]:
        """Greedy answers to a question about each row's `image`."""
        self.eval()
        answers, self.wording.speed = greedy(self, samples, questions, self.wording.max_tokens, self.wording.batch)
        return answers

    @property
    def tokens_per_second(self) -> float:
        """Of the last answers."""
        return self.wording.speed.tokens_per_second


def load_backbone(kind: type, place: str, settings, config) -> nn.Module:
    """A model of transformers' class `kind`, with its weights or (`config.weights: random`) without.

    Raises:
        UserError: the checkpoint lacks weights.
    """
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    if config.weights == "random":
        return kind(settings).to(dtype)
    backbone, info = kind.from_pretrained(place, dtype=dtype, output_loading_info=True)
    lacking = sorted(name for name in info["missing_keys"] if "position_ids" not in name)
    if lacking:
        raise UserError(
            f"model.checkpoint: {config.checkpoint!r} lacks {counted(len(lacking), 'weight')}, such as {lacking[0]!r}."
        )
    return backbone


@torch.inference_mode()
def greedy(
    family: VisionLanguage, samples: list[dict[str, Any]], questions: Sequence[str], most: int, batch: int
) -> tuple[list[Answer], Speed]:
    """Answers of `most` tokens at most, in batches of questions of like length, with a cache of keys and values."""
    from transformers import GenerationConfig, LogitsProcessorList

    tokenizer, device = family.tokenizer, next(family.net.parameters()).device
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    silent = {pad, tokenizer.bos_token_id, family.processor.image_token_id}  # an untrained model may say these
    settings = GenerationConfig(do_sample=False, max_new_tokens=most, eos_token_id=end, pad_token_id=pad, use_cache=True)
    settings.update(num_beams=1, early_stopping=False, no_repeat_ngram_size=0)  # whatever the checkpoint is used to
    order = np.argsort([len(tokenizer(question)["input_ids"]) for question in questions], kind="stable")
    answers: dict[int, Answer] = {}
    began, total = time.perf_counter(), 0
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch].tolist()
        images = torch.stack([view(samples[i]["image"], family.input) for i in chosen]).to(device).float()
        tokens = {name: value.to(device) for name, value in family.tokenise([questions[i] for i in chosen]).items()}
        sure = Confidence()
        output = family.net.generate(
            **tokens,
            pixel_values=family.pixels(images),
            generation_config=settings,
            logits_processor=LogitsProcessorList([sure]),
        )
        said = output[:, -len(sure.steps) :].tolist()
        chances = torch.stack(sure.steps, 1).cpu().numpy()
        for i, row, chance in zip(chosen, said, chances, strict=True):
            length = row.index(end) if end in row else len(row)
            words = [at for at in range(length) if row[at] not in silent]
            answers[i] = Answer([row[at] for at in words], chance[words])
            total += length + (length < len(row))
    return [answers[i] for i in range(len(samples))], Speed(total, time.perf_counter() - began)
