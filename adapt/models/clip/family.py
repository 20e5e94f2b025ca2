"""The CLIP family: losses and predictors over either library's two towers."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.contracts import Input, Predictor, Slots, TextSlot, VisionSlot
from adapt.models.base import Family
from adapt.models.checkpoint import UNLOADABLE, image_input, read_config, resolve, unreadable
from adapt.plug import UserError, counted
from adapt.vision.images import Normalise, view

FAMILIES = ("clip", "siglip")
LACKING = {
    "siglip2": "pictures of variable resolution (NaFlex) are not supported; SigLIP 2 of fixed resolution, whose config says 'siglip', is"
}
"""Relatives that cannot be loaded, and why."""
LARGEST = math.log(100)
"""Of a learnt `logit_scale`."""
EMBEDDINGS = ("token_embedding", "word_embeddings")
"""What both libraries call the layer that makes vectors of tokens."""


@dataclass
class Towers:
    """What a library gives: two encoders of its module, and what goes into them."""

    encode_image: Callable[[nn.Module, Tensor], Tensor]
    """(module, normalised float[B, 3, H, W]) → float[B, D], not L2-normalised."""
    tokenise: Callable[[list[str]], Tensor]
    """N texts → int64[N, T]."""
    encode_tokens: Callable[[nn.Module, Tensor], Tensor]
    """(module, int64[N, T]) → float[N, D], not L2-normalised."""
    input: Input
    """See `adapt/vision/images.py`."""
    vision: VisionSlot | None = None
    """The layers of the image tower, where it is a ViT."""
    sigmoid: bool = False
    """SigLIP's loss and logit bias."""


class Clip(Family):
    """Two towers with `logit_scale` (and SigLIP's `logit_bias`); see `Family` for the surface."""

    knows_texts = True
    adapter_targets = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj", "mlp": "fc1|fc2"}
    quantised = r"(?:vision|text)_model\.encoder\..*"

    def __init__(self, backbone: nn.Module, towers: Towers, loss: str = "auto", train_templates: int = 1):
        super().__init__()
        self.backbone, self.towers, self.loss, self.train_templates = backbone, towers, loss, train_templates
        self.head: nn.Linear | None = None
        self.learned: nn.Module | None = None
        """What a method has put in the place of the words: () → float32[C, D], L2-normalised."""
        self.set_classes([], ["{}"])
        self.normalise = Normalise(towers.input)

    @property
    def input(self) -> Input:
        return self.towers.input

    @property
    def columns(self) -> tuple[str, ...]:
        return ("image", "caption" if self.loss == "contrastive" else "label")

    def bind(self, columns: list[str]) -> None:
        if self.loss == "auto":
            self.loss = "contrastive" if "caption" in columns and "label" not in columns else "classification"
        super().bind(columns)

    @torch.no_grad()
    def new_head(self, init: str = "auto") -> None:
        if not self.classes:
            raise UserError("method.name: 'head' needs labelled data; this source has no labels. Use lora or full.")
        weight = self.text_classifier(self.templates) * self.net.logit_scale.exp()  # WiSE-FT §3, arXiv:2109.01903
        self.head = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
        self.head.weight.copy_(torch.zeros_like(weight) if init == "zero" else weight)
        self.head.bias.zero_()

    # ------------------------------------------------------------------------------------------------------ embeddings

    def image_embedding(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float32[B, D], L2-normalised."""
        return F.normalize(self.towers.encode_image(self.net, self.normalise(images)).float(), dim=-1)

    def text_embedding(self, texts: list[str]) -> Tensor:
        """N texts → float32[N, D], L2-normalised."""
        return self._encoded(self.towers.tokenise(texts).to(self.net.logit_scale.device))

    def _encoded(self, tokens: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """int64[N, T] → float32[N, D], L2-normalised; `embeddings` float[N, T, W] stand in the place of the tokens' own."""
        if embeddings is None:
            return F.normalize(self.towers.encode_tokens(self.net, tokens).float(), dim=-1)
        hook = self._token_embedding.register_forward_hook(lambda *_: embeddings)
        try:
            return self._encoded(tokens)
        finally:
            hook.remove()

    @property
    def _token_embedding(self) -> nn.Embedding:
        named = self.net.named_modules()
        return next(part for name, part in named if isinstance(part, nn.Embedding) and name.rpartition(".")[2] in EMBEDDINGS)

    @property
    def slots(self) -> Slots:
        text = TextSlot(self.towers.tokenise, lambda tokens: self._token_embedding(tokens), self._encoded)
        return Slots(text, self.towers.vision, self._learn)

    def _learn(self, classifier: nn.Module) -> None:
        self.learned = classifier

    def text_classifier(self, templates: list[str]) -> Tensor:
        """float32[C, D]: each prompt normalised, averaged over the templates, normalised again (CLIP §3.1.4, open_clip); or learned."""
        if self.learned is not None:
            return self.learned()
        if not self.classes:
            raise UserError(
                "prompts.classes: the data have no classes to ask about. Use data with labels, or evals=[{name: retrieval}]."
            )
        texts = [template.replace("{}", name) for name in self.classes for template in templates]
        embeddings = torch.cat([self.text_embedding(texts[i : i + 512]) for i in range(0, len(texts), 512)])
        return F.normalize(embeddings.view(len(self.classes), len(templates), -1).mean(1), dim=-1)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Embeddings float32[B, D] and float32[N, D] → scaled similarities float32[B, N].

        Never in half precision: at a scale of 16 to 32 bfloat16 has steps of 0.125, which ties what is not tied.
        """
        with torch.autocast(images.device.type, enabled=False):
            logits = self.net.logit_scale.float().exp() * images @ texts.T
        return logits + self.net.logit_bias if self.towers.sigmoid else logits

    def head_logits(self, images: Tensor) -> Tensor:
        """Embeddings float32[B, D] → float32[B, C], by the linear head."""
        with torch.autocast(images.device.type, enabled=False):
            return self.head(images)

    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        return {"class_logits": Predictor(self._class_logits(texts)), "image_embedding": Predictor(self.image_embedding)}

    def _class_logits(self, texts: list[str] | None) -> Callable[[Tensor], Tensor]:
        self.eval()
        if self.head is not None and texts is None:
            return lambda images: self.head_logits(self.image_embedding(images))

        @functools.cache  # encoded when first needed: data without classes have no words, and are asked for none
        @torch.no_grad()
        def classifier() -> Tensor:
            with torch.autocast(self.net.logit_scale.device.type, enabled=False):
                return self.text_classifier(self.templates) if texts is None else self.text_embedding(texts)

        return lambda images: self.logits(self.image_embedding(images), classifier())

    # ------------------------------------------------------------------------------------------------------------ loss

    @property
    def contrastive(self) -> bool:
        return self.loss == "contrastive"

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.contrastive:
            return self.compare(self.embed(batch), batch)
        images = self.image_embedding(batch["image"])
        if self.head is not None:
            logits = self.head_logits(images)
        else:
            templates = self.templates[: self.train_templates]
            logits = self.logits(images, self.text_classifier(templates))
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return F.cross_entropy(logits, batch["label"]), {"accuracy": accuracy}

    def embed(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Embeddings of the images and of their captions, float32[B, D] each."""
        texts = _texts(batch)
        unique = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return self.image_embedding(batch["image"]), self.text_embedding(list(unique))[[unique[text] for text in texts]]

    def compare(self, embedded: tuple[Tensor, Tensor], batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Image–text contrastive; pairs of one text are all positives (UniCL eq. 2, arXiv:2204.03610)."""
        same = torch.tensor([zlib.crc32(text.encode()) for text in _texts(batch)], device=embedded[0].device)
        images, embeddings, same = (gather(values) for values in (*embedded, same))
        logits = self.logits(images, embeddings)
        positive = same[:, None] == same[None]
        if self.towers.sigmoid:
            loss = -F.logsigmoid(torch.where(positive, logits, -logits)).sum(1).mean()
        else:
            targets = positive / positive.sum(1, keepdim=True)
            loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
        hit = positive.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        return loss, {"retrieval": hit}

    @torch.no_grad()
    def stepped(self) -> None:
        """A softmax's scale stays below 100 (CLIP §2.5; open_clip's training loop); SigLIP's authors do not bound theirs."""
        if self.net.logit_scale.requires_grad and not self.towers.sigmoid:
            self.net.logit_scale.clamp_(0, LARGEST)

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        image = view(sample["image"], self.towers.input)
        return {"image": image} | {name: sample[name] for name in (self.columns[1:] if train else ())}


def gather(values: Tensor) -> Tensor:
    """Rows of all processes, in the order of their ranks; gradients flow back to each."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    import torch.distributed.nn as dist_nn

    if values.requires_grad:
        return torch.cat(dist_nn.all_gather(values.contiguous()))
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def _texts(batch: dict[str, Any]) -> list[str]:
    """Each row's caption; of several, one by the view's seed."""
    pairs = zip(batch["caption"], batch["seed"].tolist(), strict=True)
    return [caption if isinstance(caption, str) else caption[seed % len(caption)] for caption, seed in pairs]


# ------------------------------------------------------------------------------------------------------------ transformers


def load_transformers(config) -> Clip:
    """`CLIPModel` or `SiglipModel` from a folder or the hub; see `adapt.models.clip.load`."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    kind = read_config(config.checkpoint, FAMILIES, LACKING)["model_type"]
    place = resolve(config.checkpoint)
    try:
        processor = AutoImageProcessor.from_pretrained(place)
        tokenise = tokens_of(place, sigmoid=kind == "siglip")
        if config.weights == "random":
            backbone = AutoModel.from_config(AutoConfig.from_pretrained(place), dtype=torch.float32)
        else:
            backbone, info = AutoModel.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
            lacking = [name for name in info["missing_keys"] if "position_ids" not in name]
            if lacking:
                raise UserError(
                    f"model.checkpoint: {config.checkpoint!r} lacks {counted(len(lacking), 'weight')}, such as {lacking[0]!r}."
                )
    except UNLOADABLE as error:
        raise unreadable(config.checkpoint, error) from None

    spec = image_input(processor.to_dict(), config.image_size)
    own = backbone.config.vision_config.image_size
    other = {"interpolate_pos_encoding": True} if spec["size"] != (own, own) else {}
    length = backbone.config.text_config.max_position_embeddings

    def encode_image(net: nn.Module, images: Tensor) -> Tensor:
        return net.get_image_features(pixel_values=images, **other).pooler_output

    def encode_tokens(net: nn.Module, tokens: Tensor) -> Tensor:
        return net.get_text_features(input_ids=tokens).pooler_output

    layers, width = backbone.vision_model.encoder.layers, backbone.config.vision_config.hidden_size
    vision = VisionSlot(layers, width, first=0 if kind == "siglip" else 1)
    towers = Towers(encode_image, lambda texts: tokenise(texts, length), encode_tokens, spec, vision, sigmoid=kind == "siglip")
    return Clip(backbone, towers, config.loss, config.train_templates)


def tokens_of(place: str, sigmoid: bool) -> Callable[[list[str], int], Tensor]:
    """The tokenizer of a checkpoint's folder or hub id: (N texts, T) → int64[N, at most T].

    SigLIP and SigLIP 2 (`sigmoid`) have only seen lower case without punctuation, and their text towers read the last place of
    a text that is padded to its full length: big_vision, evaluators/proj/image_text/prompt_engineering.py. SigLIP's own
    tokenizer cleans a part of that and Gemma's nothing, so it is done here, by open_clip's function for these checkpoints.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except ImportError:  # SiglipTokenizer wants sentencepiece; the tokenizer.json beside its pieces does without
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(place)
        except UNLOADABLE:
            raise UserError(
                f"model.checkpoint: {place!r} has no tokenizer.json. Add that of its public checkpoint, "
                "or pip install sentencepiece."
            ) from None
    if not sigmoid:
        options = {"padding": "longest", "truncation": True, "return_tensors": "pt"}
        return lambda texts, length: tokenizer(texts, max_length=length, **options)["input_ids"]
    from open_clip.tokenizer import get_clean_fn

    clean, tokenizer.padding_side = get_clean_fn("canonicalize"), "right"
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return lambda texts, length: tokenizer([clean(text) for text in texts], max_length=length, **options)["input_ids"]
