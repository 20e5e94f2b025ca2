"""Two machines without a shared disk, rehearsed: two processes with working folders and homes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SMALL = ["recipe=clip_lora", "tracker=none", "data.shots=2", "data.unlabelled=[]", "train.epochs=2", "train.batch=16"]
SMALL += ["train.checkpoint_every=1", "distill.train.epochs=1", "distill.views=1", "export.0.calibration=8"]


def start(folder: Path, verb: str) -> list[subprocess.Popen]:
    """The verb on two nodes of one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    launch += ["--master-port", str(port)]
    nodes = []
    for rank in range(2):
        place = folder / f"node{rank}"
        place.mkdir(parents=True, exist_ok=True)
        home = {"HOME": str(place), "ADAPT_CACHE": str(place / "cache"), "HF_HOME": str(place / "hf"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *launch, "--node-rank", str(rank), "-m", "adapt.cli", verb, *SMALL]
        with open(place / f"{verb}.txt", "w") as out:
            nodes.append(subprocess.Popen(command, cwd=place, stdout=out, stderr=subprocess.STDOUT, env=os.environ | home))
    return nodes


def finished(folder: Path, verb: str) -> str:
    """What the main node said; both must end well."""
    for rank, node in enumerate(start(folder, verb)):
        assert node.wait(300) == 0, (folder / f"node{rank}" / f"{verb}.txt").read_text()[-3000:]
    return (folder / "node0" / f"{verb}.txt").read_text()


def losses(folder: Path, part: str = "") -> list[float]:
    (file,) = (folder / "node0" / "runs").glob(f"*/{part}history.jsonl")
    return [row["loss"] for row in map(json.loads, file.read_text().splitlines()) if "loss" in row]


@pytest.mark.outside
def test_two_machines_with_a_disk_each_walk_the_road_and_go_on_after_a_kill(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finished(whole, "finetune")
    assert len(losses(whole)) > 4
    assert not list((whole / "node1").glob("runs/*/metrics.json")), "the main process alone writes results"

    nodes = start(broken, "finetune")
    until = time.monotonic() + 200
    while not list(broken.glob("node0/runs/*/checkpoints/last.pt")) and time.monotonic() < until:
        time.sleep(0.05)
    for node in nodes:
        for process in [*psutil.Process(node.pid).children(recursive=True), node]:
            process.kill()
        node.wait()
    said = finished(broken, "finetune")
    assert "resumed at step" in said
    assert losses(broken) == losses(whole), "the state came from the main process's disk"

    finished(broken, "distill")
    assert losses(broken, "distill/*/")
    assert list((broken / "node1").glob("runs/*/adapter/adapter_model.safetensors")), "the teacher was fetched"
    finished(broken, "export")
    (metrics,) = (broken / "node0").glob("runs/*/metrics.json")
    assert [entry["name"] for entry in json.loads(metrics.read_text())["entries"]][-2:] == [
        "onnx fp32 logits-resnet10t",
        "onnx int8 logits-resnet10t",
    ]
    assert not [path for path in broken.rglob(".*") if path.name.startswith(".disk")], "no probe is left"
