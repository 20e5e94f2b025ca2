"""The training loop: one for every family and every student.

Data order, views and dropout are functions of (seed, step), so a run that is killed and started again ends in the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from timm.optim import Muon
from torch import nn

from adapt.plug import UserError
from adapt.recipe import Train
from adapt.train import checkpoint
from adapt.train.augment import view_seed
from adapt.train.progress import progress
from adapt.train.views import Views, batches, order


def fit(
    family: nn.Module,
    views: Views,
    train: Train,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], float] | None = None,
    title: str = "train",
) -> list[dict]:
    """Train the parameters of `family` that require gradients; on return they are the best on validation.

    Args:
        views: the training rows; the family augments each batch on the device, by its `seed`s.
        folder: gets `history.jsonl` and `checkpoints/`; a state found there is continued.
        validate: a score of the family, higher is better; none: the last weights are kept.

    Returns:
        the rows of `history.jsonl`.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    if train.batch % (world * train.accumulate):
        raise UserError(
            f"train.batch: {train.batch} does not divide by {world} processes × train.accumulate={train.accumulate}."
        )
    epoch_steps = len(order(seed, 0, len(views), train.batch))
    total = train.epochs * epoch_steps
    optimizer = _optimizer(family, train)
    model, optimizer = accelerator.prepare(family, optimizer)

    state = checkpoint.load(folder / "checkpoints" / "last.pt")
    step, best, stale, accumulate = 0, -math.inf, 0, train.accumulate
    if state:
        checkpoint.load_trainable(family, state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, best, stale, accumulate = state["step"], state["best"], state["stale"], state["accumulate"]
    history = checkpoint.History(folder / "history.jsonl", step, accelerator.is_main_process)
    if step and accelerator.is_main_process:
        print(f"{title}: resumed at step {step} of {total}")

    def save() -> None:
        if accelerator.is_main_process:
            values = {"model": checkpoint.trainable(family), "optimizer": optimizer.state_dict()}
            counters = {"step": step, "best": best, "stale": stale, "accumulate": accumulate}
            checkpoint.save(folder / "checkpoints" / "last.pt", values | counters)

    with progress(title, total, step, accelerator.is_main_process) as tick:
        while step < total and not (train.patience and stale >= train.patience):
            epoch, inside = divmod(step, epoch_steps)
            views.epoch = epoch
            rows = order(seed, epoch, len(views), train.batch)[inside:]
            for batch in batches(views, rows, family.collate, train.workers, rank, world):
                began = time.perf_counter()
                _set_lr(optimizer, train, step, total)
                while True:
                    try:
                        logs = _step(model, family, optimizer, batch, train, accumulate, seed, step, accelerator)
                        break
                    except RuntimeError as error:
                        accumulate = _smaller(error, accumulate, train.batch // world, title)
                step += 1
                history.add(step=step, epoch=epoch, lr=optimizer.param_groups[0]["lr"], **logs)
                accelerator.log({f"{title}/{name}": value for name, value in logs.items()}, step=step)
                tick(logs["loss"], train.batch / (time.perf_counter() - began))
                if step % train.checkpoint_every == 0 and step % epoch_steps:
                    save()
            if validate and ((epoch + 1) % train.validate_every == 0 or step == total):
                score = validate(family)
                history.add(step=step, epoch=epoch, validation=score)
                accelerator.log({f"{title}/validation": score}, step=step)
                best, stale = (score, 0) if score > best else (best, stale + 1)
                if stale == 0 and accelerator.is_main_process:
                    checkpoint.save(folder / "checkpoints" / "best.pt", {"model": checkpoint.trainable(family)})
            save()
    accelerator.wait_for_everyone()
    kept = checkpoint.load(folder / "checkpoints" / "best.pt")
    if validate and kept:
        checkpoint.load_trainable(family, kept["model"])
    return history.rows


def _step(model, family, optimizer, batch: dict, train: Train, accumulate: int, seed: int, step: int, accelerator) -> dict:
    """One optimiser step over `accumulate` micro-batches; returns the logs, averaged over them and over the processes.

    `model` is the family, perhaps wrapped for several processes.
    """
    model.train()
    optimizer.zero_grad()
    torch.manual_seed(view_seed(seed, step, accelerator.process_index))  # dropout: a function of the step
    totals: dict[str, torch.Tensor] = {}
    size = len(batch["seed"])
    for i in range(accumulate):
        rows = slice(i * size // accumulate, (i + 1) * size // accumulate)
        micro = {name: _move(value[rows], accelerator.device) for name, value in batch.items()}
        if "features" not in micro:  # a frozen encoder's, of the plain view
            micro = family.augment(micro, train.augment)
        last = i == accumulate - 1
        with nullcontext() if last else accelerator.no_sync(model):
            with accelerator.autocast():
                loss, logs = model(micro)
            accelerator.backward(loss / accumulate)
        for name, value in ({"loss": loss} | logs).items():
            totals[name] = totals.get(name, 0) + value.detach().float() / accumulate
    if train.clip:
        accelerator.clip_grad_norm_(model.parameters(), train.clip)
    optimizer.step()
    packed = accelerator.reduce(torch.stack(list(totals.values())), "mean").tolist()
    logs = dict(zip(totals, packed, strict=True))
    if not math.isfinite(logs["loss"]):
        raise UserError(
            f"train: the loss is {logs['loss']} at step {step + 1}. Lower train.lr ({train.lr}) or set train.clip=1."
        )
    return logs


def _move(value, device):
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def _smaller(error: RuntimeError, accumulate: int, size: int, title: str) -> int:
    """After an out-of-memory error: twice the accumulation steps; any other error, or a micro-batch of one, is raised again."""
    # CPU allocations fail with a plain RuntimeError
    if ("out of memory" not in str(error) and "can't allocate memory" not in str(error)) or size % (2 * accumulate):
        raise error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(f"{title}: out of memory: micro-batch halved to {size // (2 * accumulate)}, accumulation doubled to {2 * accumulate}")
    return 2 * accumulate


def _optimizer(family: nn.Module, train: Train) -> torch.optim.Optimizer:
    """AdamW (also in 8 bits), SGD or Muon; no decay on vectors and scalars (biases, norms, scales)."""
    learning = {name: parameter for name, parameter in family.named_parameters() if parameter.requires_grad}
    if train.optimizer == "muon":
        hidden = [p for name, p in learning.items() if _hidden(name, p)]
        rest = [p for name, p in learning.items() if p.ndim > 1 and not _hidden(name, p)]
        vectors = [p for p in learning.values() if p.ndim <= 1]
        groups = [{"params": hidden}, {"params": rest, "use_fallback": True}]
        groups += [{"params": vectors, "use_fallback": True, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        return Muon(groups, lr=train.lr, weight_decay=train.weight_decay, fallback_lr_scale=0.3, conv_mode="flatten")
    groups = [
        {"params": [p for p in learning.values() if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in learning.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=train.lr, momentum=0.9)
    if train.optimizer == "paged_adamw_8bit" and next(family.parameters()).is_cuda:
        from bitsandbytes.optim import PagedAdamW8bit

        return PagedAdamW8bit(groups, lr=train.lr)
    return torch.optim.AdamW(groups, lr=train.lr)


def _hidden(name: str, parameter: torch.Tensor) -> bool:
    """Is it a hidden layer's matrix, or a convolution that mixes enough channels to be one? Embeddings are look-ups."""
    mixes = parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[1] > 16)
    return mixes and "embed" not in name


def _set_lr(optimizer, train: Train, step: int, total: int) -> None:
    """Linear warm-up, then cosine to zero or constant."""
    warm = math.ceil(train.warmup * total)
    if step < warm:
        factor = (step + 1) / warm
    elif train.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    else:
        factor = 1.0
    for group in optimizer.param_groups:
        group["lr"] = train.lr * factor
