"""Where single precision is needed, whatever is around."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def full() -> Iterator[None]:
    """No autocast inside; also a decorator, `@full()`.

    For similarities, softmaxes and losses: logits of 16 to 32 come in bf16 in steps of 0.125, so that different answers tie. It does
    not change tensors: cast what comes from an autocast region with `.float()`. Without an autocast around, exporters see nothing.
    """
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
