"""What this machine can do, and a guard against what kills it.

Some virtual machines advertise AMX, and oneDNN's AMX kernels die there with SIGILL. `guard` probes once in a child process,
remembers the answer by processor and library version, and caps oneDNN before the library starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

CAP = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16"}
PROBE = "import torch; a = torch.randn(64, 64).bfloat16(); (a @ a).sum().item()"


def guard() -> None:
    """Cap oneDNN if this machine's AMX is broken; call it before torch is used. The user's own setting wins."""
    if "ONEDNN_MAX_CPU_ISA" in os.environ or "amx" not in _flags():
        return
    if not _survives():
        os.environ.update(CAP)


def _flags() -> str:
    """The processor's name and features, as the kernel lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return " ".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "microcode"))))


def _survives() -> bool:
    """Does a child process that uses AMX live? Asked once for each processor and torch."""
    key = hashlib.sha256(f"{_flags()} {_version('torch')}".encode()).hexdigest()[:16]
    path = cache_folder() / f"amx-{key}.json"
    try:
        known = json.loads(path.read_text())["survives"]
        if isinstance(known, bool):
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no answer yet, or a spoiled one: ask again
    child = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False)
    answer = child.returncode == 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"survives": answer, "returncode": child.returncode}))
        os.replace(temporary, path)
    except OSError:
        pass  # a read-only home: the probe runs again next time
    return answer


def cache_folder() -> Path:
    """Where things are kept that can be made again: `$ADAPT_CACHE`, or `~/.cache/adapt`."""
    return Path(os.environ.get("ADAPT_CACHE") or "~/.cache/adapt").expanduser()


@contextmanager
def hub() -> Iterator[None]:
    """While it lasts, libraries look for the hub's files in their caches alone, if there is no network.

    They would ask the hub six times in half a minute for each file. Where its name can be resolved, all is left to them.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _resolves(urlsplit(constants.ENDPOINT).hostname)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(host: str | None, tries: int = 3) -> bool:
    """Has a name an address? Where a proxy asks for it, we cannot know, and say yes; a passing failure is asked again."""
    if getproxies().keys() & {"http", "https", "all"}:
        return True
    for rest in reversed(range(tries)):
        try:
            return bool(socket.getaddrinfo(host, None))
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                break
            time.sleep(min(rest, 1))
    return False


def device() -> str:
    """cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def cores() -> int:
    """That this process may use; two threads of one core do not compute faster than one."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def processes() -> int:
    """That a launcher has started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def threads(processes: int) -> int:
    """That each of so many processes on this machine computes with: together as many as there are cores."""
    return max(1, cores() // max(1, processes))


def precision(wanted: str) -> str:
    """auto → bf16 on GPU, fp32 elsewhere: bf16 on CPUs is slower."""
    if wanted != "auto":
        return wanted
    return "bf16" if device() == "cuda" else "fp32"


def describe() -> dict[str, str]:
    """The machine in words, for `adapt doctor`."""
    import torch

    about = _flags().split("flags")[0].split("microcode")[0]
    name = about.partition(":")[2].strip() or platform.processor()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = (
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "bitsandbytes",
        "open-clip-torch",
        "timm",
        "datasets",
        "onnxruntime",
    )
    return {
        "processor": name,
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.1f} GiB",
        "GPU": gpu,
        "device": device(),
        "precision": precision("auto"),
        "oneDNN cap": os.environ.get("ONEDNN_MAX_CPU_ISA", "none"),
        "cache": str(cache_folder()),
        "python": platform.python_version(),
    } | {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
