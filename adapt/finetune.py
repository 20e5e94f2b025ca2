"""Entry for `accelerate launch adapt/finetune.py recipe=clip_lora [key=value …]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A script's own folder comes first on the path, where our children would hide libraries of the same name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path.insert(0, str(HERE.parent))

from adapt import hardware  # noqa: E402
from adapt.cli import checked, main  # noqa: E402

LAUNCHERS = ("launch", "launch.py", "accelerate-launch", "accelerate.commands.launch")


def lacking_processes() -> int:
    """How many processes `accelerate launch --num_processes N` was asked for; 0 if they all run, or only one is wanted.

    Without a GPU accelerate starts one process, whatever N is: its way to several on CPUs is MPI's.
    """
    if "MASTER_ADDR" not in os.environ or "RANK" in os.environ or hardware.device() != "cpu":
        return 0
    import psutil
    from accelerate.commands.launch import launch_command_parser

    words = psutil.Process(os.getppid()).cmdline()
    place = next((place for place, word in enumerate(words) if Path(word).name in LAUNCHERS), None)
    if place is None:
        return 0
    options = launch_command_parser().parse_known_args(words[place + 1 :])[0]
    return options.num_processes or 0


def start(processes: int, arguments: Sequence[str]) -> int:
    """Run this script in as many processes on this machine; returns the exit status of the first that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(["--standalone", "--nproc-per-node", str(processes), str(HERE / "finetune.py"), *arguments]))
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException:
        return 130
    return 0


if __name__ == "__main__":
    wanted = lacking_processes()
    if wanted < 2:
        raise SystemExit(main(["finetune", *sys.argv[1:]]))
    raise SystemExit(checked(sys.argv[1:]) or start(wanted, sys.argv[1:]))
