"""A predictor over a whole data set: batches, devices and processes are dealt with here, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader

from adapt.train.progress import progress
from adapt.train.views import Views


@torch.inference_mode()
def predict(
    function: Callable, family, dataset, batch: int, accelerator: Accelerator, title: str = "predict", **options: Sequence
) -> np.ndarray | list:
    """A predictor over all rows, in their order, on every process.

    Args:
        function: of images, float[B, 3, H, W] 0–255 → [B, …]; or, with `function.rows`, of samples → a list of results.
        options: for a function of samples: an entry a row, such as the boxes that prompt it.

    Returns:
        float32[N, …], or a list of N results. The copies that fill up the last batch of a distributed run are dropped.
    """
    family.eval()
    if getattr(function, "rows", False):
        return _of_rows(function, dataset, batch, accelerator, title, options)
    loader = DataLoader(Views(dataset, family.preprocess, None), batch_size=batch, collate_fn=family.collate)
    loader = accelerator.prepare_data_loader(loader)
    parts = []
    with progress(title, len(loader), shown=accelerator.is_main_process) as tick:
        for item in loader:
            with accelerator.autocast():
                output = function(item["image"].float())
            parts.append(accelerator.gather_for_metrics(output.float()).cpu().numpy())
            tick()
    return np.concatenate(parts)


def _of_rows(function: Callable, dataset, batch: int, accelerator: Accelerator, title: str, options: dict) -> list:
    """Each process takes a run of the rows."""
    results = []
    with accelerator.split_between_processes(list(range(len(dataset)))) as mine:
        starts = range(0, len(mine), batch)
        with progress(title, len(starts), shown=accelerator.is_main_process) as tick:
            for start in starts:
                numbers = mine[start : start + batch]
                own = {name: [values[number] for number in numbers] for name, values in options.items()}
                with accelerator.autocast():
                    results += function([dataset[number] for number in numbers], **own)
                tick()
    return gather_object(results) if accelerator.num_processes > 1 else results
