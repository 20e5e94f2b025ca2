"""Predictions over a data set: the same rows in the same order, whatever the number of processes."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import json, torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset
from adapt.models._clip import gather
from adapt.train.images import collate
from adapt.train.predict import predict

accelerator = Accelerator(cpu=True)

class Family(torch.nn.Module):
    def preprocess(self, sample, train):
        return {"image": torch.full((3, 2, 2), sample["value"], dtype=torch.uint8)}

    def collate(self, items):
        return collate(items)

def rows(samples):
    return [sample["value"] for sample in samples]

rows.rows = True
found = {}
for count in (1, 2, 3, 5, 8, 9):
    data = Dataset.from_dict({"value": list(range(count))})
    images = predict(lambda x: x.mean((2, 3))[:, :1], Family(), data, 2, accelerator)
    found[count] = [images.ravel().astype(int).tolist(), predict(rows, Family(), data, 2, accelerator)]

# a contrastive loss over gathered rows: each process holds half of the batch, and the gradients add up to those of one process
torch.manual_seed(0)
inputs, weight = torch.randn(6, 4), torch.randn(4, 4, requires_grad=True)
def loss(features):
    logits = F.normalize(features) @ F.normalize(features.flip(1)).T
    return F.cross_entropy(logits, torch.arange(6))
expected, = torch.autograd.grad(loss(inputs @ weight), weight)
rank = accelerator.process_index
got, = torch.autograd.grad(loss(gather(inputs[3 * rank : 3 * rank + 3] @ weight)), weight)
torch.distributed.all_reduce(got)
got = got / accelerator.num_processes  # as DDP does
if accelerator.is_main_process:
    print(json.dumps([accelerator.num_processes, found, torch.allclose(got, expected, atol=1e-6)]))
"""


def test_two_processes_predict_every_row_once_and_gather_with_gradients(tmp_path):
    import json

    (tmp_path / "two.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "two.py"]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    processes, found, equal = json.loads(done.stdout.splitlines()[-1])
    assert processes == 2
    assert {int(count): values for count, values in found.items()} == {n: [list(range(n))] * 2 for n in (1, 2, 3, 5, 8, 9)}
    assert equal
