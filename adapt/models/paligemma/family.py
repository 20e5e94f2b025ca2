"""The PaliGemma family: `transformers`' model, the loss on the answer alone, and answers read back as objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from adapt.contracts import Slots, VisionSlot
from adapt.models.answers import Answer, objects
from adapt.models.checkpoint import UNLOADABLE, read_config, resolve, unreadable
from adapt.models.vision_language import IGNORED, VisionLanguage, Wording, load_backbone
from adapt.plug import UserError
from adapt.prompting import tasks
from adapt.prompting.tokens import WORDS, Codebook, decode_box, parse

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


class PaliGemma(VisionLanguage):
    """A SigLIP tower and a Gemma decoder; see `Family` for the surface."""

    adapter_targets = {name: rf"language_model\..*\.{name}_proj" for name in LINEARS} | {
        "vision": r"vision_tower\..*\.(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
    }
    quantised = rf"(?:.*\.)?language_model\..*\.(?:{'|'.join(LINEARS)})_proj"

    def __init__(self, backbone: nn.Module, processor, wording: Wording):
        super().__init__(backbone, processor, wording)
        self.tokenizer.padding_side = "left"  # the answers end together, and generation goes on from there

    @property
    def slots(self) -> Slots:
        tower, about = self.net.model.vision_tower, self.net.config.vision_config
        vision = VisionSlot(tower.encoder.layers, about.hidden_size, 0, about.patch_size)
        return Slots(vision=vision, pixels=self.normalise, prompts=partial(setattr, self, "prompts"))

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

    def _asking(self, sample: dict[str, Any]) -> str:
        present = (sample.get("objects") or {}).get("category") or range(len(self.classes))
        return tasks.detect(tasks.category_words(present, self.classes))

    def read(self, answer: Answer, size: tuple[int, int]) -> dict[str, Any]:
        pieces = [piece.replace("▁", " ") for piece in self.tokenizer.convert_ids_to_tokens(answer.tokens)]
        return objects(pieces, answer, size, self.classes, parse, decode_box)


def load_transformers(config) -> PaliGemma:
    """`PaliGemmaForConditionalGeneration` from a folder or the hub; see `adapt.models.paligemma.load`."""
    from transformers import AutoConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

    read_config(config.checkpoint, ("paligemma",))
    place = resolve(config.checkpoint)
    codebook = Codebook(config.masks) if config.masks or "segment" in config.tasks else None
    try:
        processor = PaliGemmaProcessor.from_pretrained(place)
        settings = AutoConfig.from_pretrained(place)
        _check_tokens(config.checkpoint, processor, settings)
        backbone = load_backbone(PaliGemmaForConditionalGeneration, place, settings, config)
    except UNLOADABLE as error:
        raise unreadable(config.checkpoint, error) from None
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
