"""Work that is begun before its result is asked for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Done = TypeVar("Done")


def threads() -> int:
    """That decode pictures: a core each, eight at most; Pillow lets other threads run while it decodes."""
    return min(8, os.cpu_count() or 1)


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
