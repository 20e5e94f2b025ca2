"""A predictor over a whole data set: batches, devices and processes are dealt with here, once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from adapt.train.progress import progress
from adapt.train.views import Views


@torch.inference_mode()
def predict(function: Callable, family, dataset, batch: int, accelerator: Accelerator, title: str = "predict") -> np.ndarray:
    """`function(images float[B, 3, H, W] 0–255) -> [B, …]` over all rows, in their order, on every process: float32[N, …].

    The copies that fill up the last batch of a distributed run are dropped (`gather_for_metrics`).
    """
    loader = DataLoader(Views(dataset, family.preprocess, None), batch_size=batch, collate_fn=family.collate)
    loader = accelerator.prepare_data_loader(loader)
    family.eval()
    parts = []
    with progress(title, len(loader), shown=accelerator.is_main_process) as tick:
        for item in loader:
            with accelerator.autocast():
                output = function(item["image"].float())
            parts.append(accelerator.gather_for_metrics(output.float()).cpu().numpy())
            tick()
    return np.concatenate(parts)
