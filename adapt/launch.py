"""A verb in as many processes as `accelerate launch --num_processes N` was asked for, on CPUs too."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import psutil

from adapt import hardware
from adapt.cli import ALONE, checked, main

LAUNCHERS = ("launch", "launch.py", "accelerate-launch", "accelerate.commands.launch")


def launched(entry: Sequence[str], verb: Sequence[str], arguments: Sequence[str]) -> int:
    """Run a verb in this process, or in all that were asked for; returns the exit status.

    Args:
        entry: what torchrun starts, such as `--module adapt`, or a script.
        verb: the verb, where the entry does not name it itself.
        arguments: what the entry takes.
    """
    given = [*verb, *arguments]
    processes = 0 if not given or given[0] in ALONE else lacking_processes()
    share_threads(processes or hardware.processes())
    if processes < 2:
        return main(given)
    return checked(given) or start(processes, [*entry, *arguments])


def lacking_processes() -> int:
    """How many processes `accelerate launch --num_processes N` was asked for; 0 if they all run, or only one is wanted.

    Without a GPU accelerate starts one process, whatever N is: its way to several on CPUs is MPI's.
    """
    if "MASTER_ADDR" not in os.environ or "RANK" in os.environ or hardware.device() != "cpu":
        return 0
    launcher = _launcher()
    options = _accelerate(launcher[0]) if launcher else None
    return options.num_processes or 0 if options else 0


def share_threads(processes: int) -> None:
    """Give each process of a launcher its share of the cores; call it before torch computes.

    A launcher that was told nothing gives a thread to each, or all cores to all, which then wait for each other. What the user has set,
    OMP_NUM_THREADS or accelerate's `--num_cpu_threads_per_process`, stays.
    """
    launcher = _launcher()
    if launcher is None:
        return
    words, theirs = launcher
    options = _accelerate(words)
    if options is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        return  # no launcher of ours: torch's own default
    if "OMP_NUM_THREADS" in theirs or (options and options.num_cpu_threads_per_process):
        return
    threads = hardware.threads(processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _launcher() -> tuple[list[str], dict[str, str]] | None:
    """The command and the environment of the process that has started this one; none: it is gone, not ours, or outside of the container."""
    try:
        parent = psutil.Process(os.getppid())
        return parent.cmdline(), parent.environ()
    except (psutil.Error, OSError):
        return None


def _accelerate(words: list[str]) -> Namespace | None:
    """The options of `accelerate launch`, if that is the command."""
    place = next((place for place, word in enumerate(words) if Path(word).name in LAUNCHERS), None)
    if place is None:
        return None
    from accelerate.commands.launch import launch_command_parser

    return launch_command_parser().parse_known_args(words[place + 1 :])[0]


def start(processes: int, command: Sequence[str]) -> int:
    """Run a command of torchrun in as many processes on this machine; returns the exit status of the first that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(["--standalone", "--nproc-per-node", str(processes), *command]))
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException:
        return 130
    return 0
