"""Training state on disk: written to a temporary name and renamed, so a kill at any moment leaves a whole one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from adapt.run import atomic
from adapt.train import processes


def trainable(module: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, by name: parameters that require gradients, and persistent buffers (BatchNorm's)."""
    names = {name for name, value in module.named_parameters() if value.requires_grad}
    names |= {name for name, _ in module.named_buffers()}
    return {name: value for name, value in module.state_dict().items() if name in names}


def load_trainable(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Copy a state of `trainable` back; raises KeyError when the names differ."""
    own = trainable(module)
    if own.keys() != state.keys():
        raise KeyError(f"checkpoint and model differ in {sorted(own.keys() ^ state.keys())[:3]}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


def save(path: Path, state: dict) -> None:
    """Write a state of tensors, numbers and strings, whole or not at all."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> dict | None:
    """The state that `save` wrote, or none; never unpickles code."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def shared_load(path: Path, accelerator: Accelerator) -> dict | None:
    """The state at `path` on the main process's disk, or none, on every process; the others' disks are not looked at."""
    return processes.shared(load(path) if accelerator.is_main_process else None, accelerator)


class History:
    """`history.jsonl`: a row a step and a row a validation; a resumed run forgets what came after its checkpoint.

    The main process reads and writes it; the others have the same rows.
    """

    def __init__(self, path: Path, until: int, accelerator: Accelerator):
        self.path, self.writes = path, accelerator.is_main_process
        rows = []
        if self.writes and path.exists():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            rows = [row for row in map(json.loads, lines) if row["step"] <= until]
        self.rows = processes.shared(rows, accelerator)
        if self.writes:
            with atomic(path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, **row) -> None:
        self.rows.append(row)
        if self.writes:
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")
