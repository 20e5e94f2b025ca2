"""What every foundation-model family offers; the training loop, the methods, evals and students know only this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from adapt.plug import UserError
from adapt.train.images import collate


class Family(nn.Module, ABC):
    """A foundation model with its loss.

    `images` are always float[B, 3, H, W], RGB, 0–255, resized and cropped by `preprocess`; normalisation happens inside.
    """

    backbone: nn.Module
    """The foundation model; a `peft.PeftModel` around it after LoRA."""
    adapter_targets: ClassVar[dict[str, str]]
    """LoRA targets: what a recipe calls them (`q`, `k`, `mlp`, …) → the end of the module's name."""
    quantised: ClassVar[str]
    """Pattern of the modules whose linear layers QLoRA puts in 4 bits: the encoder's, the language model's; the rest stays."""

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a collated batch, and scalars to log."""

    @abstractmethod
    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → one item: `image` is uint8[3, H, W], resized and cropped as the checkpoint's own processor does."""

    @abstractmethod
    def predictors(self, texts: list[str] | None = None) -> dict[str, Callable[..., Tensor]]:
        """Named functions of images, such as `class_logits` and `image_embedding`; `texts` stand for the classes, if given."""

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
            )

    @property
    @abstractmethod
    def input(self) -> dict[str, Any]:
        """What a user of an exported file must know of its input; see `adapt/train/images.py`."""

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items → a batch."""
        return collate(items)
