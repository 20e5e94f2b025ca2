"""What the processes of a run agree on; nothing to do where there is one.

Only the main process reads the disk: nodes need not share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import TensorInformation, broadcast, broadcast_object_list, get_data_structure, recursively_apply
from torch import Tensor


class OutOfMemory(Exception):
    """Memory ran out on one process; all of them raise this."""


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """Around work without collectives: memory that runs out on one process has run out on all.

    Raises:
        OutOfMemory: on every process.
    """
    failed = False  # not the exception, whose traceback holds what fills the memory
    try:
        yield
    except RuntimeError as error:
        # CPU allocations fail with a plain RuntimeError
        failed = "out of memory" in str(error) or "can't allocate memory" in str(error)
        if not failed:
            raise
    if accelerator.num_processes > 1:
        flag = torch.tensor(float(failed), device=accelerator.device)
        add([flag], accelerator)
        failed = bool(flag > 0)
    if failed:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise OutOfMemory


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


def add(tensors: Iterable[Tensor], accelerator: Accelerator) -> None:
    """Replace tensors by their sums over the processes."""
    if accelerator.num_processes > 1:
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def follow(tensors: Iterable[Tensor], accelerator: Accelerator) -> None:
    """Replace tensors by those of the main process."""
    if accelerator.num_processes > 1:
        for work in [dist.broadcast(tensor, 0, async_op=True) for tensor in tensors]:
            work.wait()


def shared(value: Any, accelerator: Accelerator) -> Any:
    """What the main process has, on all of them; what the others give is ignored.

    Args:
        value: nested dictionaries and lists of numbers, strings and tensors, which come back on the CPU.
    """
    if accelerator.num_processes == 1:
        return value
    main = accelerator.is_main_process
    about = [get_data_structure(value) if main else None]
    broadcast_object_list(about)
    if not main:
        value = recursively_apply(_empty, about[0], test_type=lambda part: isinstance(part, TensorInformation))
    return recursively_apply(lambda tensor: broadcast(tensor.to(accelerator.device)).cpu(), value)


def once(function: Callable[[], Any]) -> Any:
    """What a function without collectives gives: the main process alone computes it, for all of them.

    Raises:
        RuntimeError: on the others, when it has failed on the main one, which raises its own error.
    """
    state = PartialState()
    if state.num_processes == 1:
        return function()
    found: list[Any] = [None, False]
    try:
        if state.is_main_process:
            found = [function(), True]
    finally:
        broadcast_object_list(found)
    if not found[1]:
        raise RuntimeError("the main process has failed")
    return found[0]


def _empty(about: TensorInformation) -> Tensor:
    return torch.empty(about.shape, dtype=about.dtype)
