"""The gradient of one optimiser step: over micro-batches and processes, as if the batch had been one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from adapt.contracts import Augment
from adapt.train import processes
from adapt.train.learner import Learner


def gradient(
    learner: Learner, batch: dict[str, Any], accumulate: int, config: Augment, seed: int, accelerator: Accelerator
) -> dict[str, float]:
    """Put the mean gradient into `.grad` of all that learns; returns loss and logs, over all parts and processes.

    Each part counts by its `weight`: micro-batches of 5, 40 and 0 tokens give the gradient of one batch of 45. Processes wait
    for each other between their parts only, never within, so that one which runs out of memory can tell the others.

    Args:
        batch: this process's rows, before their random views.
        accumulate: micro-batches.
        config: of the random views.
        seed: of dropout, this process's own.

    Raises:
        OutOfMemory: on every process; what is in `.grad` then is worth nothing.
    """
    sums, weight, unit = (_cached if learner.contrastive else _direct)(learner, batch, accumulate, config, seed, accelerator)
    processes.add([weight], accelerator)
    share = unit / weight.clamp(min=1)
    logs = torch.stack(list(sums.values())) * share
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    for parameter in learning:
        if parameter.grad is not None:
            parameter.grad *= share
        elif accelerator.num_processes > 1:  # another process may have one
            parameter.grad = torch.zeros_like(parameter)
    processes.add([logs, *(parameter.grad for parameter in learning if parameter.grad is not None)], accelerator)
    return dict(zip(sums, logs.tolist(), strict=True))


def _direct(
    learner: Learner, batch: dict[str, Any], accumulate: int, config: Augment, seed: int, accelerator: Accelerator
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Micro-batch after micro-batch.

    Returns:
        sums over them of loss and logs, each times its weight, in units of the first weight, as the gradients are, so that a
        single part is multiplied by 1; the sum of the weights; the unit.
    """
    _seeded(seed, accelerator)
    sums: dict[str, Tensor] = {}
    total, unit = torch.zeros((), device=accelerator.device), torch.ones((), device=accelerator.device)
    with processes.together(accelerator):
        for i, micro in enumerate(_micro_batches(learner, batch, accumulate, config, accelerator)):
            with accelerator.autocast():
                loss, logs = learner(micro)
            weight = torch.as_tensor(learner.weight(micro), dtype=torch.float32, device=accelerator.device)
            unit = unit if i else weight.clamp(min=1)
            times = weight.clamp(min=1) / unit
            accelerator.backward(loss * times)
            for name, value in ({"loss": loss} | logs).items():
                sums[name] = sums.get(name, 0) + value.detach().float() * times
            total += weight
    return sums, total, unit


def _cached(
    learner: Learner, batch: dict[str, Any], accumulate: int, config: Augment, seed: int, accelerator: Accelerator
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """A contrastive loss sees all embeddings at once; its gradient goes back part by part: GradCache §3, arXiv:2101.06983."""

    def embedded(keep: bool) -> Iterator[tuple[Tensor, ...]]:
        for i, micro in enumerate(_micro_batches(learner, batch, accumulate, config, accelerator)):
            _seeded(seed + i, accelerator)  # the second pass has the dropout of the first
            with torch.set_grad_enabled(keep), accelerator.autocast():
                out = learner.embed(micro)
            yield out

    with processes.together(accelerator):
        parts = list(embedded(keep=accumulate == 1))
    leaves = tuple(torch.cat(each).detach().requires_grad_() for each in zip(*parts, strict=True))
    with accelerator.autocast():
        loss, logs = learner.compare(leaves, batch)
    accelerator.backward(loss)
    with processes.together(accelerator):
        place = 0
        for part in parts if accumulate == 1 else embedded(keep=True):
            rows = slice(place, place + len(part[0]))
            pairs = [(out, leaf.grad[rows]) for out, leaf in zip(part, leaves, strict=True) if out.requires_grad]
            if pairs:
                torch.autograd.backward(*zip(*pairs, strict=True))
            place = rows.stop
    weight = torch.as_tensor(learner.weight(batch), dtype=torch.float32, device=accelerator.device)
    return {name: value.detach().float() for name, value in ({"loss": loss} | logs).items()}, weight, weight.clone()


def _micro_batches(
    learner: Learner, batch: dict[str, Any], accumulate: int, config: Augment, accelerator: Accelerator
) -> Iterator[dict[str, Any]]:
    """The rows of a batch in parts, on the device, as their random views."""
    size = len(batch["seed"])
    for i in range(accumulate):
        rows = slice(i * size // accumulate, (i + 1) * size // accumulate)
        micro = {name: _move(value[rows], accelerator.device) for name, value in batch.items()}
        # features are a frozen encoder's, of the plain view or of one whose truth has no places
        yield micro if "features" in micro else learner.augment(micro, config)


def _seeded(seed: int, accelerator: Accelerator) -> None:
    """Let what is random begin anew; on a CPU torch would queue the same for devices that are not there, which takes longer than a step."""
    if accelerator.device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
