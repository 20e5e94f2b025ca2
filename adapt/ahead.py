"""Work that is begun before its result is asked for."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Done = TypeVar("Done")


def threads(processes: int = 1, most: int = 8) -> int:
    """That decode pictures in each of so many processes of this machine: a core each, `most` at most.

    Pillow lets other threads run while it decodes.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(most, max(1, allowed // processes))


def ahead(jobs: Iterable[Callable[[], Done]], most: int, workers: int | None = None) -> Iterator[Done]:
    """Each job's result, in their order, done in threads.

    Args:
        most: jobs, at most, that are begun before their results are asked for.
        workers: threads; none: `threads()`.
    """
    pool = ThreadPoolExecutor(workers or threads())
    try:
        waiting: deque = deque()
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
