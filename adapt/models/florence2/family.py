"""The Florence-2 family: `transformers`' model, the loss on the answer, boxes as `name<loc_x1><loc_y1><loc_x2><loc_y2>`.

Locations as in `Florence2PostProcessor`: bin = ⌊1000 · coordinate / side⌋, cut to 0 … 999; back: the middle of the bin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from adapt.contracts import Slots
from adapt.models.answers import Answer, objects
from adapt.models.checkpoint import UNLOADABLE, read_config, resolve, unreadable
from adapt.models.vision_language import IGNORED, VisionLanguage, Wording, load_backbone
from adapt.plug import UserError
from adapt.prompting import tasks
from adapt.prompting.tokens import Found

BINS = 1000
DETECT = "<OD>"
PROMPTS = {tasks.CAPTION: "<CAPTION>", tasks.OCR: "<OCR>"}
ASKED = "answer en "
RUN = re.compile(r"([^<]*)((?:<loc_\d+>)+)")
NUMBER = re.compile(r"\d+")
BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer of bytes makes of a part of a character."""


class Florence2(VisionLanguage):
    """A DaViT tower, a BART encoder and decoder; see `Family` for the surface."""

    asked_by_name = False  # <OD> asks for all there is
    adapter_targets = {
        # gate, up and down, which PaliGemma's recipes name, are not in BART
        **{name: rf"language_model\..*\.{name}_proj" for name in ("q", "k", "v", "gate", "up", "down")},
        "o": r"language_model\..*\.out_proj",
        "mlp": r"language_model\..*\.(?:fc1|fc2)",
        "vision": r"vision_tower\..*\.(?:qkv|proj|fc1|fc2)",
    }
    quantised = r"(?:.*\.)?language_model\..*\.(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)"

    @property
    def slots(self) -> Slots:
        why = (
            "Florence-2's DaViT sees the windows and the channels of a grid that shrinks, in which further tokens have no place"
        )
        return Slots(pixels=self.normalise, prompts=partial(setattr, self, "prompts"), no_vision=why)

    def _pair(self, sample: dict[str, Any], seed: int) -> tuple[str, str]:
        if self.wording.tasks[seed % len(self.wording.tasks)] != "detect":
            return super()._pair(sample, seed)
        boxes = sample["objects"]["bbox"]
        words = tasks.category_words(sample["objects"]["category"], self.classes)
        return DETECT, "".join(words[i] + encode_box(boxes[i], sample["size"]) for i in tasks.reading(boxes))

    def prompt(self, prefix: str) -> str:
        """A question in PaliGemma's syntax, in words, or one of Florence-2's task tokens → the words that Florence-2 is asked."""
        if prefix.startswith("detect "):
            prefix = DETECT
        prefix = PROMPTS.get(prefix, prefix.removeprefix(ASKED)).replace(self.processor.image_token, "")
        try:
            return self.processor._construct_prompts(prefix)[0]
        except ValueError as error:
            raise UserError(f"data: the prefix {prefix!r} is not a question for Florence-2: {error}") from None

    def tokenise(self, prefixes: Sequence[str], suffixes: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Questions, and their answers when training → int64[B, T] each, padded on the right.

        `input_ids`: image tokens, bos, the question, eos; `labels`: bos, the answer, eos. The same as `Florence2Processor` gives.
        """
        start, end = self.tokenizer.bos_token, self.tokenizer.eos_token
        head = self.processor.image_token * self.processor.num_image_tokens + start
        texts = [f"{head}{self.prompt(prefix)}{end}" for prefix in prefixes]
        tokens = self.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        batch = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if suffixes is not None:
            answers = [start + suffix.replace(self.processor.image_token, "") + end for suffix in suffixes]
            said = self.tokenizer(answers, add_special_tokens=False, padding=True, return_tensors="pt")
            batch["labels"] = said["input_ids"].masked_fill(said["attention_mask"] == 0, IGNORED)
        return batch

    def _answers(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits float32[B, K, V] and the answers int64[B, K]; K: the longest answer."""
        from transformers.models.florence2.modeling_florence2 import shift_tokens_right

        words, labels = self.net.config.text_config, batch["labels"]
        seen = batch["features"] if "features" in batch else self.features(batch["image"])
        embedded = self.net.get_input_embeddings()(batch["input_ids"])
        places = (batch["input_ids"] == self.processor.image_token_id)[..., None]
        output = self.net(
            inputs_embeds=embedded.masked_scatter(places, seen.to(embedded.dtype)),
            attention_mask=batch["attention_mask"],
            decoder_input_ids=shift_tokens_right(labels, words.pad_token_id, words.decoder_start_token_id),
            use_cache=False,
        )
        return output.logits.float(), labels

    def _asking(self, sample: dict[str, Any]) -> str:
        return DETECT

    def read(self, answer: Answer, size: tuple[int, int]) -> dict[str, Any]:
        names = self.tokenizer.convert_ids_to_tokens(answer.tokens)
        return objects(self._pieces(names), answer, size, self.classes, parse, decode_box)

    def _pieces(self, names: Sequence[str]) -> list[str]:
        """The text of each token; a character whose bytes lie in several belongs to the last of them."""
        pieces, held = [], []
        for name, following in zip(names, [*names, "<"][1:], strict=True):
            if name.startswith("<"):
                pieces.append(name)
                continue
            held.append(name)
            text = self.tokenizer.convert_tokens_to_string(held)
            whole = not text.endswith(BROKEN) or following.startswith("<")
            pieces.append(text if whole else "")
            held = [] if whole else held
        return pieces


def encode_box(box: Sequence[float], size: tuple[int, int]) -> str:
    """A box XYXY in pixels of an image of `size` (width, height) → four location words."""
    bins = np.floor(np.asarray(box, float) * BINS / np.tile(size, 2)).clip(0, BINS - 1)
    return "".join(f"<loc_{place:.0f}>" for place in bins)


def decode_box(locations: Sequence[int], size: tuple[int, int]) -> list[float]:
    """Four locations x1 y1 x2 y2 → a box XYXY in pixels of an image of `size` (width, height)."""
    return ((np.asarray(locations) + 0.5) * np.tile(size, 2) / BINS).tolist()


def parse(text: str) -> tuple[list[Found], int]:
    """What a generated text says of objects, and how many could not be read: a run of locations whose length is no multiple of four, a
    box that is reversed or empty, a location above 999."""
    found, unread = [], 0
    for run in RUN.finditer(text):
        places = [(int(number[0]), number.start(), number.end()) for number in NUMBER.finditer(run[2])]
        if len(places) % 4:
            unread += 1
            continue
        for i in range(0, len(places), 4):
            left, top, right, bottom = (place for place, _, _ in places[i : i + 4])
            if left < right < BINS and top < bottom < BINS:
                words = (run.start(2) + places[i][1], run.start(2) + places[i + 3][2])
                found.append(Found((left, top, right, bottom), (), run[1].strip(), (words, run.span(1))))
            else:
                unread += 1
    return found, unread


def load_transformers(config) -> Florence2:
    """`Florence2ForConditionalGeneration` from a folder or the hub; see `adapt.models.florence2.load`."""
    from transformers import AutoConfig, Florence2ForConditionalGeneration, Florence2Processor

    values = read_config(config.checkpoint, ("florence2",))
    if "auto_map" in values:
        raise UserError(
            f"model.checkpoint: {config.checkpoint!r} brings its own code, which is not run. Take the transformers version, such as "
            "florence-community/Florence-2-base."
        )
    place = resolve(config.checkpoint)
    try:
        processor = Florence2Processor.from_pretrained(place)
        settings = AutoConfig.from_pretrained(place)
        _check_tokens(config.checkpoint, processor.tokenizer, settings)
        backbone = load_backbone(Florence2ForConditionalGeneration, place, settings, config)
    except UNLOADABLE as error:
        raise unreadable(config.checkpoint, error) from None
    return Florence2(backbone, processor, Wording(config.tasks, None, config.max_tokens, config.batch))


def _check_tokens(checkpoint: str, tokenizer, settings) -> None:
    """Refuse a tokenizer whose location tokens are missing, or that the model has no embeddings for."""
    known, nothing = settings.text_config.vocab_size, tokenizer.unk_token_id
    numbers = {f"<loc_{i}>": tokenizer.convert_tokens_to_ids(f"<loc_{i}>") for i in range(BINS)}
    lacking = [word for word, number in numbers.items() if number in (None, nothing) or number >= known]
    if lacking:
        raise UserError(
            f"model.checkpoint: the tokenizer of {checkpoint!r} lacks {len(lacking)} location tokens, such as {lacking[0]}. Take a "
            "Florence-2 checkpoint with its own tokenizer."
        )
