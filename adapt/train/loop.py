"""The training loop: one for every family and every student.

Data order, views and dropout are functions of (seed, step), so a run that is killed and started again ends in the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from timm.optim import Muon
from torch import nn

from adapt.contracts import Train
from adapt.plug import UserError
from adapt.progress import progress
from adapt.train import checkpoint, processes
from adapt.train.foretold import foretold
from adapt.train.gradient import gradient
from adapt.train.learner import Learner
from adapt.train.views import Views, batches, order
from adapt.vision.augment import view_seed

WHOLE = 2**63
"""In the place of a process's number: of a step as a whole."""


def fit(
    family: Learner,
    views: Views,
    train: Train,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], float] | None = None,
    title: str = "train",
    selection: str = "",
    apart: float = 0.0,
    later: Mapping[str, float] | None = None,
) -> list[dict]:
    """Train the parameters of `family` that require gradients; on return they are the best on validation.

    Every process works on its own rows with its own copy of the family. It is not wrapped for DDP, which sums gradients within
    the backward pass: here they are summed after it, when all have said that they had the memory for it. What is decided, and
    what is read from disk, is the main process's.

    Args:
        views: the training rows; the family augments each batch on the device, by its `seed`s.
        folder: gets `history.jsonl` and `checkpoints/`; a state found there is continued.
        validate: a score of the family, higher is better; none: the last weights are kept.
        selection: what the score is, its metric and protocol; a state with other ones is refused.
        apart: seconds between two states of ends of epochs, at least: of short epochs not each leaves one.
        later: seconds of what follows, which are told with this training's own after its first steps.

    Returns:
        the rows of `history.jsonl`.

    Raises:
        UserError: the batch cannot be shared among the processes, a state has another selection, the loss is no number, or a
            single picture is too much for the memory.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    train = _divided(train, len(views), world)
    epoch_steps = len(order(seed, 0, len(views), train.batch))
    total = train.steps or train.epochs * epoch_steps
    family.to(accelerator.device)
    with _prepared(_optimizer(family, train), accelerator) as optimizer:
        last, kept = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best.pt"
        state = checkpoint.shared_load(last, accelerator)
        step, best, stale, accumulate = 0, -math.inf, 0, train.accumulate
        if state:
            _same_selection(state, selection, folder)
            checkpoint.load_trainable(family, state["model"])
            optimizer.load_state_dict(state["optimizer"])
            step, best, stale = state["step"], state["best"], state["stale"]
            accumulate = min(state["accumulate"], train.batch // world)  # there may be more processes now
            accelerator.print(f"{title}: resumed at step {step} of {total}")
        elif accelerator.is_main_process:
            kept.unlink(missing_ok=True)  # of a training that was killed before its first state
        processes.follow([value.detach() for value in checkpoint.trainable(family).values()], accelerator)
        history = checkpoint.History(folder / "history.jsonl", step, accelerator)
        saved = time.monotonic()

        def save() -> None:
            nonlocal saved
            saved = time.monotonic()
            if accelerator.is_main_process:
                values = {"model": checkpoint.trainable(family), "optimizer": optimizer.state_dict()}
                counters = {"step": step, "best": best, "stale": stale, "accumulate": accumulate, "selection": selection}
                checkpoint.save(last, values | counters)

        with progress(title, total, step, accelerator.is_main_process) as tick:
            tick = foretold(tick, title, total - step, later)
            while step < total and not (train.patience and stale >= train.patience):
                epoch, inside = divmod(step, epoch_steps)
                views.epoch = epoch
                rows = order(seed, epoch, len(views), train.batch)[inside : inside + total - step]
                mine = (step_rows[rank::world] for step_rows in rows)
                for batch in batches(views, mine, family.collate, train.workers):
                    began = time.perf_counter()
                    _set_lr(optimizer, train, step, total)
                    while True:
                        try:
                            logs = _step(family, optimizer, batch, train, accumulate, seed, step, accelerator)
                            break
                        except processes.OutOfMemory:
                            accumulate = _smaller(accumulate, train.batch // world, title, accelerator)
                    step += 1
                    history.add(step=step, epoch=epoch, lr=optimizer.param_groups[0]["lr"], **logs)
                    accelerator.log({f"{title}/{name}": value for name, value in logs.items()}, step=step)
                    tick(logs["loss"], train.batch / (time.perf_counter() - began))
                    if step % train.checkpoint_every == 0 and step % epoch_steps:
                        save()
                if validate and ((epoch + 1) % train.validate_every == 0 or step == total):
                    score = processes.shared(validate(family), accelerator)
                    history.add(step=step, epoch=epoch, validation=score)
                    accelerator.log({f"{title}/validation": score}, step=step)
                    best, stale = (score, 0) if score > best else (best, stale + 1)
                    if stale == 0 and accelerator.is_main_process:
                        checkpoint.save(kept, {"model": checkpoint.trainable(family), "selection": selection})
                if time.monotonic() - saved >= apart:
                    save()
        accelerator.wait_for_everyone()
        if validate and (chosen := checkpoint.shared_load(kept, accelerator)):
            checkpoint.load_trainable(family, chosen["model"])
        return history.rows


@contextmanager
def _prepared(optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> Iterator[torch.optim.Optimizer]:
    """An optimiser that the accelerator forgets afterwards, which would keep it, and all that it has learnt, as long as it lives itself."""
    prepared = accelerator.prepare(optimizer)
    try:
        yield prepared
    finally:
        accelerator._optimizers.remove(prepared)


def _step(
    family: Learner, optimizer, batch: dict, train: Train, accumulate: int, seed: int, step: int, accelerator: Accelerator
) -> dict[str, float]:
    """One optimiser step over `accumulate` micro-batches; returns the logs, averaged over them and over the processes."""
    family.train()
    optimizer.zero_grad()
    family.begin(view_seed(seed, step, WHOLE))
    own = view_seed(seed, step, accelerator.process_index)  # dropout: a function of the step
    logs = gradient(family, batch, accumulate, train.augment, own, accelerator)
    if train.clip:
        accelerator.clip_grad_norm_(family.parameters(), train.clip)
    optimizer.step()
    family.stepped()
    processes.follow(family.buffers(), accelerator)  # running statistics, queues: those that are saved
    if not math.isfinite(logs["loss"]):
        raise UserError(
            f"train: the loss is {logs['loss']} at step {step + 1}. Lower train.lr ({train.lr}) or set train.clip=1."
        )
    return logs


def _divided(train: Train, rows: int, world: int) -> Train:
    """With the number of pictures for each step, which all processes and accumulation steps share.

    Raises:
        UserError: they cannot.
    """
    parts = world * train.accumulate
    if train.batch == "all":
        return train.model_copy(update={"batch": max(1, rows // parts) * parts})
    if train.batch % parts:
        raise UserError(
            f"train.batch: {train.batch} is not divisible by {world} processes × train.accumulate={train.accumulate}."
        )
    return train


def _smaller(accumulate: int, size: int, title: str, accelerator: Accelerator) -> int:
    """After memory has run out: twice the accumulation steps.

    Args:
        size: pictures a process and step.

    Raises:
        UserError: a micro-batch is a single picture already.
    """
    if accumulate >= size:
        raise UserError(
            f"{title}: out of memory with a micro-batch of one picture. Take smaller pictures or a smaller network; "
            "method.checkpointing=true and train.optimizer=paged_adamw_8bit save memory too."
        )
    more = min(2 * accumulate, size)
    accelerator.print(f"{title}: out of memory: micro-batch halved to {math.ceil(size / more)}, accumulation doubled to {more}")
    return more


def _same_selection(state: dict, selection: str, folder: Path) -> None:
    """Refuse to go on with a training whose best weights were chosen by something else."""
    before = state.get("selection", "")
    if before != selection:
        old, new = (repr(words) if words else "no eval" for words in (before, selection))
        raise UserError(
            f"train: the best weights in {folder} were chosen by {old}, those of this run would be by {new}; the two cannot be "
            "compared. Set the same evals as before, or begin another run with name=…"
        )


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

        return PagedAdamW8bit(groups, lr=train.lr, eps=train.eps)
    return torch.optim.AdamW(groups, lr=train.lr, eps=train.eps)


def _hidden(name: str, parameter: torch.Tensor) -> bool:
    """Is it a hidden layer's matrix, or a convolution that mixes enough channels to be one? Embeddings are look-ups."""
    mixes = parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[1] > 16)
    return mixes and "embed" not in name


def _set_lr(optimizer, train: Train, step: int, total: int) -> None:
    """Warm-up, linear or at a rate of its own; then cosine to the least rate, or constant."""
    warm, lr = math.ceil(train.warmup * total), train.lr
    if step < warm:
        lr = train.warmup_lr or train.lr * ((step + 1) / warm)
    elif train.schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        lr = train.min_lr + (train.lr - train.min_lr) * share
    for group in optimizer.param_groups:
        group["lr"] = lr
