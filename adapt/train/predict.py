"""A predictor over a whole data set: batches, devices and processes are dealt with here, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from adapt.contracts import Predictor
from adapt.plug import UserError
from adapt.progress import progress
from adapt.train.views import Views, batches, joined

Done = TypeVar("Done")


@torch.inference_mode()
def predict(
    predictor: Predictor,
    family,
    dataset,
    batch: int,
    accelerator: Accelerator,
    title: str = "predict",
    name: str = "output",
    workers: int | str = "auto",
    **options: Sequence,
) -> np.ndarray | list:
    """A predictor over all rows, in their order, on every process.

    Args:
        predictor: of images, or of rows.
        batch: rows that it gets at once; fewer, where the device's memory runs out.
        name: what the predictor is called in errors.
        workers: see `views.streamed`.
        options: for a function of samples: an entry a row, such as the boxes that prompt it.

    Returns:
        float32[N, …], or a list of N results. The copies that fill up the last batch of a distributed run are dropped.

    Raises:
        UserError: an output is not finite; the first such row is named, on every process.
    """
    family.eval()
    if predictor.takes == "rows":
        return _of_rows(predictor, dataset, batch, accelerator, title, name, workers, options)
    return _of_images(predictor, family, dataset, batch, accelerator, title, name, workers)


class Fewer:
    """Asks a function about `batch` rows at once; after memory has run out about half as many, now and later, on this process alone."""

    def __init__(self, batch: int):
        self.batch = batch

    def __call__(self, function: Callable[..., Done], *rows: Sequence) -> list[Done]:
        """The function's outputs, in order.

        Args:
            rows: its arguments, sequences of one length that can be sliced.

        Raises:
            OutOfMemoryError: a single row is too much.
        """
        count = len(rows[0])
        try:
            return [function(*(each[at : at + self.batch] for each in rows)) for at in range(0, count, self.batch)]
        except torch.OutOfMemoryError:
            if min(self.batch, count) == 1:
                raise
        self.batch = -(-min(self.batch, count) // 2)  # outside of the handler, which holds what fills the memory
        torch.cuda.empty_cache()
        return self(function, *rows)


def _of_images(
    predictor: Predictor,
    family,
    dataset,
    batch: int,
    accelerator: Accelerator,
    title: str,
    name: str,
    workers: int | str,
) -> np.ndarray:
    """Each process takes every n-th batch."""
    world, rank = accelerator.num_processes, accelerator.process_index
    rows = [range(start, min(start + batch, len(dataset))) for start in range(0, len(dataset), batch)]
    turns = [rows[start : start + world] for start in range(0, len(rows), world)]  # a batch for each process
    mine = [turn[min(rank, len(turn) - 1)] for turn in turns]
    found, done, fewer = np.empty(0, np.float32), 0, Fewer(batch)

    def asked(images: torch.Tensor) -> torch.Tensor:
        with accelerator.autocast():
            return predictor(images.to(accelerator.device, non_blocking=True).float())

    items = batches(Views(dataset, family.preprocess, None, keep=0), mine, family.collate, workers)
    with progress(title, len(turns), shown=accelerator.is_main_process) as tick, closing(items):
        for turn, item in zip(turns, items, strict=True):
            parts = fewer(asked, item["image"])
            output = parts[0] if len(parts) == 1 else torch.cat(parts)
            part = _gathered(output.float(), [len(each) for each in turn], batch, accelerator)
            if not finite(part):
                raise _refusal(name, dataset, done + next(i for i, row in enumerate(part) if not finite(row)))
            if not done:
                found = np.empty((len(dataset), *part.shape[1:]), part.dtype)
            found[done : done + len(part)] = part
            done += len(part)
            tick()
    return found


def _gathered(output: torch.Tensor, sizes: list[int], batch: int, accelerator: Accelerator) -> np.ndarray:
    """The rows of all processes' batches, in their order, which have these sizes; what is above them is dropped."""
    if accelerator.num_processes > 1:
        short = output.new_zeros((batch - len(output), *output.shape[1:]))
        output = accelerator.gather(torch.cat([output, short])).unflatten(0, (-1, batch))
        output = torch.cat([part[:size] for part, size in zip(output, sizes, strict=False)])
    return output.cpu().numpy()


def _of_rows(
    predictor: Predictor,
    dataset,
    batch: int,
    accelerator: Accelerator,
    title: str,
    name: str,
    workers: int | str,
    options: dict,
) -> list:
    """Each process takes a run of the rows."""
    results: list = []
    wrong: list[int] = []  # the first row whose result is not finite, after which this process stops
    fewer = Fewer(batch)

    def asked(samples: list[dict[str, Any]], numbers: list[int]) -> list:
        with accelerator.autocast():
            return predictor(samples, **{option: [values[number] for number in numbers] for option, values in options.items()})

    with accelerator.split_between_processes(list(range(len(dataset)))) as mine:
        parts = [mine[start : start + batch] for start in range(0, len(mine), batch)]
        samples = joined(partial(_looked_up, dataset), parts, list, workers)
        with progress(title, len(parts), shown=accelerator.is_main_process) as tick, closing(samples):
            for numbers, rows in zip(parts, samples, strict=True):
                found = [result for part in fewer(asked, rows, numbers) for result in part]
                wrong = [number for number, result in zip(numbers, found, strict=True) if not finite(result)][:1]
                if wrong:
                    break
                results += found
                tick()
    if accelerator.num_processes > 1:  # all of them stop, or none: one alone would leave the others waiting
        wrong, results = gather_object(wrong), gather_object(results)
    if wrong:
        raise _refusal(name, dataset, min(wrong))
    return results


def _looked_up(dataset, numbers: list[int]) -> list[dict[str, Any]]:
    return [dataset[number] for number in numbers]


def finite(value: Any) -> bool:
    """Is every number of a result finite? Of arrays, tensors, numbers, and lists and dicts of them; of words there is nothing to ask."""
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, list | tuple | np.ndarray) or all(map(finite, value))


def _refusal(name: str, dataset, number: int) -> UserError:
    row = f"row {dataset['id'][number]!r}" if "id" in dataset.column_names else "the row"
    return UserError(
        f"evals: the model's {name} for {row}, number {number + 1} of {len(dataset)}, holds NaN or infinity. Either the training "
        "diverged: lower train.lr (of a student: distill.train.lr). Or the precision is too low: set train.precision=fp32; if this is "
        "the int8 file, look at the fp32 file."
    )
