"""What every foundation-model family offers; the training loop, the methods, evals and students know only this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from adapt.contracts import Augment, Input, Predictor, Slots
from adapt.plug import UserError
from adapt.train.learner import Learner
from adapt.vision.augment import augment
from adapt.vision.images import collate


class Family(Learner, ABC):
    """A foundation model with its loss.

    `images` are always float[B, 3, H, W], RGB, 0–255, resized and cropped by `preprocess`; normalisation happens inside.
    """

    backbone: nn.Module
    """The foundation model; a `peft.PeftModel` around it after LoRA."""
    adapter_targets: ClassVar[dict[str, str]]
    """LoRA targets: what a recipe calls them (`q`, `k`, `mlp`, …) → the end of the module's name."""
    quantised: ClassVar[str] = ""
    """A regular expression of the backbone's modules that QLoRA puts in 4 bit; empty: none can be."""
    image_parts: Sequence[str] = ()
    """Where a tower for images stands beside one for words: the backbone's children that see images; empty: not so."""
    located: bool = False
    """Has its truth places in the picture (boxes, masks, words for places), which go where a random view moves its pixels?"""
    decoder: nn.Module | None = None
    """The part that answers, where an encoder in front of it can stay frozen (`method: decoder`)."""
    classes: Sequence[str] = ()
    """The words that stand for the labels 0, 1, …, where the family has such."""
    templates: Sequence[str] = ()
    """The templates these words are put in."""
    texts: Sequence[Sequence[str]] = ()
    """What stands in them for each label: its names or descriptions, one at least."""
    combine: str = "mean"
    """How several of them become one score."""

    def __init__(self):
        super().__init__()
        self.prompts: nn.Module | None = None
        """What a method has put to change what the image tower sees; nothing that the tower makes is a frozen feature then."""

    @property
    def net(self) -> nn.Module:
        """The library's own module, inside a `PeftModel` or not."""
        return self.backbone.get_base_model() if hasattr(self.backbone, "get_base_model") else self.backbone

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a collated batch, and scalars to log."""

    @abstractmethod
    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → one item: `image` is uint8[3, H, W], resized and cropped as the checkpoint's own processor does."""

    @abstractmethod
    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        """Named functions of two kinds; `texts` stand for the classes, if given.

        Of images, such as `class_logits` and `image_embedding`; of rows, such as `masks`.
        """

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that the loss needs."""

    def bind(self, columns: list[str]) -> None:
        """Refuse data that lack a column; a family with several losses chooses here, by the columns there are.

        Raises:
            UserError: with what is needed and what there is.
        """
        lacking = [name for name in self.columns if name not in columns]
        if lacking:
            raise UserError(
                f"data: no column {', '.join(lacking)}; training needs {', '.join(self.columns)}. Have: {', '.join(columns)}."
                + self.hint(columns)
            )

    def hint(self, columns: list[str]) -> str:
        """What to do about data with these columns, which lack one; begins with a blank."""
        return ""

    def set_classes(self, classes: list[str], templates: list[str], texts: list | None = None, combine: str = "mean") -> None:
        """Say which words stand for the labels 0, 1, …; `templates` have one `{}` each.

        Args:
            texts: for each label what is put in the templates: names or descriptions, one at least; none: its class name.
            combine: how several become one score: `mean`, `similarity` or `max`; see `Prompts.combine`.
        """
        self.classes, self.templates = classes, templates
        self.texts, self.combine = texts or [[name] for name in classes], combine

    @property
    def own_classes_alone(self) -> bool:
        """Do its class logits stand for the classes it was told when it learnt, whatever it is told later?"""
        return not self.knows_texts

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """A batch with random views in the place of its images, by its `seed`s; overridden where boxes or masks must follow."""
        return batch | {"image": augment(batch["image"], batch["seed"], config)}

    def frozen_features(self) -> Callable[[Tensor], Tensor] | None:
        """What a frozen encoder makes of images; the trainer computes it once, and `batch["features"]` brings it to `forward`.

        None: nothing is frozen, or random views are needed.
        """
        return None

    def feature_logits(self, features: Tensor) -> Tensor:
        """Class logits float32[B, C] of what `frozen_features` gives, in float32 whatever the autocast."""
        raise NotImplementedError

    @property
    @abstractmethod
    def input(self) -> Input:
        """How pictures become its input."""

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items → a batch."""
        return collate(items)

    @property
    def slots(self) -> Slots:
        """Where a method can put what it learns; a family without a text tower has none."""
        return Slots()

    @property
    def logit_scale(self) -> float | None:
        """By what its text tower's cosines are multiplied."""
        text = self.slots.text
        return None if text is None else round(text.scale().item(), 3)

    # ------------------------------------------------------------------------------------------------------------ head

    def new_head(self, init: str = "auto") -> None:
        """Put a fresh linear head, which learns, on the frozen features (`method: head`).

        Args:
            init: `zero`; `random`, for a backbone that learns too; `text`: from the zero-shot classifier; `auto`: text where
                the family has a text tower, else zero.

        Raises:
            UserError: the family has no head of its own, or the data have no classes.
        """
        raise UserError("method.name: 'head' is not for this family, which has no linear head. Use lora or full.")

    def train(self, mode: bool = True) -> Family:
        """As any module's, but a frozen BatchNorm keeps its running statistics: no adapter would carry changed ones."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def complete(self) -> None:
        """What a method that changes the backbone calls last: a family that needs a head to learn its task makes it here."""
