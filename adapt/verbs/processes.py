"""Several processes that work on one run, on one disk or on several: the main one decides, reads and writes for all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import hardware
from adapt.run import atomic

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """What the processes of an accelerator must agree on. Every method but `main` is called by all of them."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.count = accelerator.num_processes

    @property
    def main(self) -> bool:
        """Is this the one that decides?"""
        return self.accelerator.is_main_process

    def share(self, value: Any) -> Any:
        """The main process's value, on every process."""
        from adapt.train.processes import shared

        return shared(value, self.accelerator)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Around work without collectives that is remembered on disk: one process of each machine does it, then the others find it done.

        They follow also when it has failed, and meet the same error.
        """
        first = self.accelerator.is_local_main_process
        if not first:
            self.accelerator.wait_for_everyone()
        try:
            yield
        finally:
            if first:
                self.accelerator.wait_for_everyone()

    @cached_property
    def one_disk(self) -> bool:
        """Do all processes see the main process's files?"""
        import torch

        if self.count == 1:
            return True
        probe = Path(self.share(f"runs/.disk-{os.getpid()}-{time.time_ns()}"))
        if self.main:
            probe.parent.mkdir(exist_ok=True)
            probe.touch()
        self.accelerator.wait_for_everyone()
        seen = torch.tensor([int(probe.exists())], device=self.accelerator.device)
        everyone = bool(self.accelerator.gather(seen).all())
        if self.main:
            probe.unlink()
        return everyone

    @property
    def keeps(self) -> bool:
        """Is this the process that writes what those on its disk read: the main one, or the first of another machine?"""
        return self.main if self.one_disk else self.accelerator.is_local_main_process

    @property
    def place(self) -> tuple[int, int]:
        """This process's number among those that share its disk, and how many these are."""
        if self.one_disk:
            return self.accelerator.process_index, self.count
        return self.accelerator.local_process_index, hardware.processes()

    def fetched(self, folder: Path) -> Path:
        """A folder that the main process has, on this process's disk as well."""
        if self.one_disk:
            return folder
        files = sorted(file for file in folder.rglob("*") if file.is_file()) if self.main else []
        for name in self.share([file.relative_to(folder).as_posix() for file in files]):
            content = self.share((folder / name).read_bytes() if self.main else None)
            if self.keeps and not self.main:
                with atomic(folder / name) as temporary:
                    temporary.write_bytes(content)
        self.accelerator.wait_for_everyone()
        return folder
