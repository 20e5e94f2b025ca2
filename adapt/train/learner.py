"""What the loop trains: a module with its own loss. What a family or a student may leave out has its default here."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from adapt.contracts import Asked


class Learner(Asked, nn.Module):
    """A module whose `forward(batch)` returns (loss, scalars to log)."""

    contrastive: bool = False
    """Does the loss hold each row of a batch against all others? Then it is no mean over parts of the batch; `embed` and
    `compare` make it."""

    def weight(self, batch: dict[str, Any]) -> float | Tensor:
        """What the loss of a batch is a mean over: its pictures; overridden where it is tokens, pixels or objects.

        The loss is a sum divided by this number, or by 1 where it is less; so the loop can join the parts of a batch.
        """
        return float(len(batch["seed"]))

    def embed(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        """Of a contrastive loss: what is made of each row alone, float32[B, …] each; no collective in it."""
        raise NotImplementedError

    def compare(self, embedded: tuple[Tensor, ...], batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of a contrastive loss: the loss of the embeddings of all rows, those of other processes too, and scalars to log."""
        raise NotImplementedError

    def begin(self, seed: int) -> None:
        """Called before each optimiser step; what the loss draws for a whole step, whatever its parts, it draws by this seed.

        Args:
            seed: a function of the run's seed and the step, the same on every process.
        """

    def stepped(self) -> None:
        """Called after each optimiser step: a weight that has bounds is put back into them."""
