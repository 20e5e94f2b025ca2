"""The CLIP family: losses and predictors over either library's two towers."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.contracts import Input, Predictor, ProjectionSlot, Slots, TextSlot
from adapt.mistakes import short
from adapt.models.base import Family
from adapt.models.clip import Config, regions, words
from adapt.models.clip.towers import Towers
from adapt.plug import UserError
from adapt.train.processes import gather
from adapt.vision.images import Normalise, view

LARGEST = math.log(100)
"""Of a learnt `logit_scale`."""
SCALES = ("logit_scale", "logit_bias")
EMBEDDINGS = ("token_embedding", "word_embeddings")
"""What both libraries call the layer that makes vectors of tokens."""


class Clip(Family):
    """Two towers with `logit_scale` (and SigLIP's `logit_bias`); see `Family` for the surface."""

    knows_texts = True
    adapter_targets = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj", "mlp": "fc1|fc2"}
    quantised = r"(?:vision|text)_model\.encoder\..*"

    def __init__(self, backbone: nn.Module, towers: Towers, config: Config):
        super().__init__()
        self.backbone, self.towers, self.loss, self.config = backbone, towers, config.loss, config
        self.image_parts = towers.image
        self.drawn_by = 0
        """The seed of the step, by which it draws templates and classes."""
        self.head: nn.Module | None = None
        """Embeddings float32[B, D], L2-normalised → class logits float32[B, C]; a linear one of `new_head`, or a method's own."""
        self.learned: nn.Module | None = None
        """What a method has put in the place of the words: () → float32[C, D], L2-normalised."""
        self.penalty: Callable[[], Tensor] | None = None
        """What a method adds to the loss: () → float32[]."""
        self._moved, self._known, self._fitting = False, None, None
        self.set_classes([], ["{}"])
        self.normalise = Normalise(towers.input)

    @property
    def input(self) -> Input:
        return self.towers.input

    def set_classes(self, classes: list[str], templates: list[str], texts: list | None = None, combine: str = "mean") -> None:
        super().set_classes(classes, templates, texts, combine)
        self._known = self._fitting = None
        if classes and templates and main_process() and (text := words.cut(self.texts, templates, self.towers.tokenise)):
            print(f"prompts: texts are longer than the model reads, and are cut, such as {short(text)}")

    @property
    def own_classes_alone(self) -> bool:
        return self.head is not None or self.learned is not None

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
        weight = self.fixed_classifier(self.templates) * self.net.logit_scale.exp()  # WiSE-FT §3, arXiv:2109.01903
        self.head = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
        self.head.weight.copy_(torch.zeros_like(weight) if init == "zero" else weight)
        self.head.bias.zero_()

    # ------------------------------------------------------------------------------------------------------ embeddings

    def image_embedding(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float32[B, D], L2-normalised."""
        return F.normalize(self.towers.encode_image(self.net, self.normalise(images)).float(), dim=-1)

    def text_embedding(self, texts: list[str]) -> Tensor:
        """N texts → float32[N, D], L2-normalised; `words.TEXTS` are encoded together."""
        device, step = self.net.logit_scale.device, words.TEXTS
        batches = [texts[i : i + step] for i in range(0, max(1, len(texts)), step)]
        return torch.cat([self._encoded(self.towers.tokenise(batch).to(device)) for batch in batches])

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
        tower = self.towers.tokenise, self._embed, self._encoded
        text = TextSlot(*tower, self._still_classifier, self.logits, self._scale, self._vocabulary)
        put = {name: partial(setattr, self, name) for name in ("head", "penalty", "prompts")}
        put["classifier"] = partial(setattr, self, "learned")
        why = "the image tower of this checkpoint is no plain ViT"
        return Slots(text, self.towers.vision, self._projection, pixels=self.normalise, no_vision=why, **put)

    def _embed(self, tokens: Tensor) -> Tensor:
        """int64[N, T] → float[N, T, W], before positions are added."""
        return self._token_embedding(tokens)

    def _scale(self) -> Tensor:
        """exp of the learned scale, float32[]."""
        return self.net.logit_scale.float().exp()

    def _vocabulary(self) -> list[str]:
        return self.towers.vocabulary()[: self._token_embedding.num_embeddings]

    @property
    def _projection(self) -> ProjectionSlot | None:
        if self.towers.projection is None:
            return None
        before = lambda images: self.towers.unprojected(self.net, self.normalise(images)).float()  # noqa: E731
        return ProjectionSlot(self.towers.projection(self.net), before, self._projected)

    def _projected(self, features: Tensor) -> Tensor:
        """float32[B, W] → float32[B, D], L2-normalised."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.towers.project(self.net, features), dim=-1)

    def frozen_features(self) -> Callable[[Tensor], Tensor] | None:
        """`image_embedding`; where the projection alone learns, what it is given."""
        if (
            self.contrastive
            or self.prompts is not None
            or not all(words.fixed(part) for name, part in self.net.named_children() if name in self.towers.image)
        ):
            return None
        slot = self._projection
        named = self.net.named_parameters()
        learning = [value for name, value in named if name.partition(".")[0] in self.towers.image and value.requires_grad]
        if not learning:
            return self.image_embedding
        return slot.before if slot and len(learning) == 1 and learning[0] is slot.weight else None

    def _embedded(self, features: Tensor) -> Tensor:
        """What `frozen_features` gives → float32[B, D], L2-normalised."""
        slot = self._projection
        return slot.after(features) if slot and slot.weight.requires_grad else features

    def feature_logits(self, features: Tensor) -> Tensor:
        images = self._embedded(features)
        if self.head is not None:
            return self.head_logits(images)
        return self._by_class(self.logits(images, self._still_rows()))

    def text_classifier(self, templates: list[str]) -> Tensor:
        """float32[C, D], each prompt normalised: those of a class made one, see `words.classifier`; or learned.

        Raises:
            UserError: there are no classes, or `combine` is max, which no single vector a class can say.
        """
        self._linear()
        return self._text_rows(templates)

    def _text_rows(self, templates: list[str]) -> Tensor:
        """The same; where the greatest counts, a row for each text of each class, float32[N, D], for `_by_class`."""
        if self.learned is not None:
            return self.learned()
        if not self.classes:
            raise UserError(
                "prompts.classes: the data have no classes to ask about. Use data with labels, or evals=[{name: retrieval}]."
            )
        return words.classifier(self.texts, templates, self.combine, self.text_embedding)

    def _by_class(self, logits: Tensor) -> Tensor:
        """float32[B, N] of `_text_rows` → float32[B, C]."""
        return words.greatest(logits, self.texts) if self._greatest else logits

    @property
    def _greatest(self) -> bool:
        """Has a class several texts, of which the greatest counts?"""
        return self.combine == "max" and self.learned is None and any(len(several) > 1 for several in self.texts)

    def _linear(self) -> None:
        if self._greatest:
            raise UserError(
                "prompts.combine: max takes the greatest of several texts' scores, which is no linear classifier, and this needs one. "
                "Use mean or similarity."
            )

    @torch.no_grad()
    def fixed_classifier(self, templates: list[str]) -> Tensor:
        """The same in single precision, without gradient and dropout; kept on disk, by content, unless the tower has learnt here."""
        self._linear()
        return self._fixed_rows(templates)

    @torch.no_grad()
    def _fixed_rows(self, templates: list[str]) -> Tensor:
        if self.learned is not None or self._moved or not self.classes or not self._plain():
            return self._still(self._text_rows, templates)
        tokens = self.towers.tokenise([templates[0].replace("{}", several[0]) for several in self.texts])
        plain = self.combine == "mean" and self.texts == [[name] for name in self.classes]
        told = self.classes if plain else [self.combine, self.texts]
        name = words.key(self.towers.about, self._text_tensors(), tokens, told, templates)
        return words.kept(name, lambda: self._still(self._text_rows, templates), self.net.logit_scale.device)

    def _still(self, function: Callable[..., Tensor], *given: Any) -> Tensor:
        """What a function gives in single precision, with every module in evaluation."""
        modes = [(part, part.training) for part in self.modules()]
        self.eval()
        try:
            with torch.autocast(self.net.logit_scale.device.type, enabled=False):
                return function(*given)
        finally:
            for part, mode in modes:
                part.training = mode

    def _reads(self, name: str) -> bool:
        """Is a child, parameter or buffer of the module of the text tower, by its name?"""
        return name.partition(".")[0] not in (*self.towers.image, *SCALES)

    def _plain(self) -> bool:
        return all(words.fixed(part) for name, part in self.net.named_children() if self._reads(name))

    def _reader_learns(self) -> bool:
        """Does the text tower learn? What hooks bring may, wherever its parameters are."""
        own = (value for name, value in self.net.named_parameters() if self._reads(name))
        return any(value.requires_grad for value in own) or not self._plain()

    def _text_tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.net.state_dict().items() if self._reads(name)}

    def _unmoved(self, templates: list[str]) -> Tensor:
        """`_fixed_rows` while the text tower does not learn: made once for these templates, until a tensor of it is another."""
        stamp = [(value.data_ptr(), value._version) for value in self._text_tensors().values()]
        if self._known is None or self._known[0] != stamp:
            self._known = (stamp, {})
        known = self._known[1]
        if tuple(templates) not in known:
            with torch.inference_mode(False):  # a training multiplies by it too
                known[tuple(templates)] = self._fixed_rows(templates)
        return known[tuple(templates)]

    def _still_rows(self) -> Tensor:
        """`_fixed_rows` of all templates, made as seldom as can be."""
        learns = self.learned is not None or self._reader_learns()
        return self._fixed_rows(self.templates) if learns else self._unmoved(self.templates)

    def _still_classifier(self) -> Tensor:
        """The same, float32[C, D]; refused where the greatest of several texts counts."""
        self._linear()
        return self._still_rows()

    def _training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of embeddings float32[B, D]: logits float32[B, S] of the classes that the step sees, and the place of each row's own."""
        count = self.config.train_templates
        templates = self.templates[:count] if count else self.templates
        if self.learned is not None:
            return self.logits(images, self.learned()), labels
        if not self._reader_learns():
            return self._by_class(self.logits(images, self._unmoved(templates))), labels
        self._moved = True
        drawn = words.draw(self.drawn_by, len(self.classes), len(templates), self._most(templates))
        shown = torch.arange(len(self.classes)) if drawn.classes is None else words.seen(drawn.classes, labels)
        names = words.one_each(self.texts, shown.tolist(), self.drawn_by)
        if not count:  # a whole text in the place of each name
            chosen = drawn.templates[shown.cpu().numpy()]
            names, templates = [templates[i].replace("{}", name) for i, name in zip(chosen, names, strict=True)], ["{}"]
        again = self.combine != "similarity"
        logits = self.logits(images, words.embedded(names, templates, self.text_embedding, again))
        if drawn.classes is None:
            return logits, labels
        return words.sampled(logits, shown, drawn.classes, labels, len(self.classes))

    def _most(self, templates: list[str]) -> int:
        """How many classes a step reads at most beside the batch's own: those whose texts `train_tokens` holds."""
        if self._fitting is None:
            longest, many = max(templates, key=len), len(templates) if self.config.train_templates else 1
            tokens = self.towers.tokenise([longest.replace("{}", max(several, key=len)) for several in self.texts]).shape[1]
            self._fitting = max(words.FEWEST, self.config.train_tokens // (tokens * many))
            if self._fitting < len(self.classes) and main_process():
                print(
                    f"finetune: the texts of {len(self.classes):,} classes, {tokens} tokens each, are more than model.train_tokens="
                    f"{self.config.train_tokens}: each step reads those of {self._fitting:,} classes, drawn anew, and of the batch's own"
                )
        return self._fitting

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Embeddings float32[B, D] and float32[N, D] → scaled similarities float32[B, N].

        Never in half precision: at a scale of 16 to 32 bfloat16 has steps of 0.125, which ties what is not tied.
        """
        with torch.autocast(images.device.type, enabled=False):
            logits = self.net.logit_scale.float().exp() * images @ texts.T
        return logits + self.net.logit_bias if self.towers.sigmoid else logits

    def head_logits(self, images: Tensor) -> Tensor:
        """Embeddings float32[B, D] → float32[B, C], by the head."""
        with torch.autocast(images.device.type, enabled=False):
            return self.head(images)

    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        own = {"class_logits": Predictor(self._class_logits(texts)), "image_embedding": Predictor(self.image_embedding)}
        return own | regions.predictors(self, texts)

    def _class_logits(self, texts: list[str] | None) -> Callable[[Tensor], Tensor]:
        self.eval()
        if self.head is not None and texts is None:
            return lambda images: self.head_logits(self.image_embedding(images))

        @functools.cache  # encoded when first needed: data without classes have no words, and are asked for none
        @torch.no_grad()
        def classifier() -> Tensor:
            return self._fixed_rows(self.templates) if texts is None else self._still(self.text_embedding, texts)

        by_class = self._by_class if texts is None else lambda logits: logits
        return lambda images: by_class(self.logits(self.image_embedding(images), classifier()))

    # ------------------------------------------------------------------------------------------------------------ loss

    @property
    def contrastive(self) -> bool:
        return self.loss == "contrastive"

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.contrastive:
            return self.compare(self.embed(batch), batch)
        features = batch.get("features")
        images = self.image_embedding(batch["image"]) if features is None else self._embedded(features)
        if self.head is not None:
            logits, labels = self.head_logits(images), batch["label"]
        else:
            logits, labels = self._training_logits(images, batch["label"])
        accuracy = (logits.argmax(1) == labels).float().mean()  # of a part of the classes, among these
        loss = F.cross_entropy(logits, labels)
        return loss if self.penalty is None else loss + self.penalty(), {"accuracy": accuracy}

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

    def begin(self, seed: int) -> None:
        self.drawn_by = seed

    @torch.no_grad()
    def stepped(self) -> None:
        """A softmax's scale stays below 100 (CLIP §2.5; open_clip's training loop); SigLIP's authors do not bound theirs."""
        if self.net.logit_scale.requires_grad and not self.towers.sigmoid:
            self.net.logit_scale.clamp_(0, LARGEST)

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        image = view(sample["image"], self.towers.input)
        return {"image": image} | {name: sample[name] for name in (self.columns[1:] if train else ())}


def main_process() -> bool:
    """Is this the first of all processes, or the only one?"""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _texts(batch: dict[str, Any]) -> list[str]:
    """Each row's caption; of several, one by the view's seed."""
    pairs = zip(batch["caption"], batch["seed"].tolist(), strict=True)
    return [caption if isinstance(caption, str) else caption[seed % len(caption)] for caption, seed in pairs]
