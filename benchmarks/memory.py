"""Peak memory and time of a training step: full fine-tuning, LoRA and QLoRA, each in a process of its own.

    python -m benchmarks.memory                    # public sizes on a GPU, smaller ones on CPU
    python -m benchmarks.memory families=clip,sam batch=2 steps=3 out=table.md

Backbones have random weights and synthetic inputs: memory and time do not depend on their values. What is measured is our own
methods (`adapt/methods`) and optimiser, as `adapt finetune` uses them, without data loading. On CPU the time is one thread's own.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

METHODS = {
    "full": {"name": "full"},
    "LoRA": {"name": "lora", "rank": 16, "alpha": 32, "rslora": False, "dropout": 0, "targets": ["all"]},
    "QLoRA": {"name": "qlora", "rank": 16, "alpha": 32, "dropout": 0, "checkpointing": False},
    "QLoRA, checkpointing": {"name": "qlora", "rank": 16, "alpha": 32, "dropout": 0, "checkpointing": True},
}
OPTIONS = {"families": "clip,dinov2,sam,paligemma", "batch": "", "steps": "3", "out": ""}


def clip(large: bool):
    """CLIP L/14 or B/16: images against 77 tokens each, contrastive loss."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    depth = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    small = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "patch_size": 16,
    }
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12} if large else {}
    net = CLIPModel(CLIPConfig(vision_config=depth if large else small, text_config=text, projection_dim=768 if large else 512))

    def loss(net, images):
        tokens = torch.randint(1, 49000, (len(images), 77), device=images.device)
        tokens[:, -1] = 49407
        return net(input_ids=tokens, pixel_values=images, return_loss=True).loss

    return net, loss, 224, r"(?:vision|text)_model\.encoder\..*", f"CLIP {'L/14' if large else 'B/16'}"


def dinov2(large: bool):
    """DINOv2 L/14 or B/14: a linear classifier's loss on the class token."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    size = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16} if large else {}
    net = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **size))

    def loss(net, images):
        labels = torch.arange(len(images), device=images.device)
        return torch.nn.functional.cross_entropy(net(images).pooler_output[:, :100], labels)

    return net, loss, 224, r"encoder\..*", f"DINOv2 {'L' if large else 'B'}/14"


def sam(large: bool):
    """SAM ViT-B, a point a picture, at 1024 pixels, or 512 on CPU; the image encoder learns with the mask decoder."""
    import torch
    from transformers import SamConfig, SamModel

    size = 1024 if large else 512
    prompts = {"image_size": size, "image_embedding_size": size // 16}
    net = SamModel(SamConfig(vision_config={"image_size": size}, prompt_encoder_config=prompts))

    def loss(net, images):
        found = net.vision_encoder(images).last_hidden_state  # `net(pixel_values)` is the same
        points = torch.full((len(images), 1, 1, 2), size / 2, device=images.device)
        masks = net(image_embeddings=found, input_points=points).pred_masks.float()
        return torch.nn.functional.binary_cross_entropy_with_logits(masks, torch.ones_like(masks))

    return net, loss, size, r"vision_encoder\.layers\..*", f"SAM ViT-B, {size} px"


def paligemma(large: bool):
    """PaliGemma 3B at 224 pixels: 256 image tokens, 16 of prefix, 16 of suffix; a tenth of its layers on CPU."""
    import torch
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    vision = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    text = {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 1, "head_dim": 256, "vocab_size": 257216}
    if not large:
        vision["num_hidden_layers"], text["num_hidden_layers"], text["vocab_size"] = 3, 2, 32000
    image = text["vocab_size"] - 64
    config = PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": 224, "projection_dim": 2048} | vision,
        text_config={"model_type": "gemma"} | text,
        projection_dim=2048,
        image_token_index=image,
    )

    def loss(net, images):
        device, count = images.device, len(images)
        ids = torch.cat([torch.full((count, 256), image), torch.randint(5, 1000, (count, 32))], 1).to(device)
        kinds = (torch.arange(288, device=device) >= 272).long().repeat(count, 1)
        labels = ids.masked_fill(kinds == 0, -100)
        return net(pixel_values=images, input_ids=ids, token_type_ids=kinds, labels=labels).loss

    name = "PaliGemma 3B" if large else "PaliGemma, 2 of 18 layers"
    return PaliGemmaForConditionalGeneration(config), loss, 224, r".*language_model\.layers\..*", name


FAMILIES = {"clip": clip, "dinov2": dinov2, "sam": sam, "paligemma": paligemma}


def measure(name: str, method: str, batch: int, steps: int) -> dict:
    """One family, one method, in this process: bytes of weights, peak of the steps, seconds of the fastest step."""
    import torch
    from torch import nn

    from adapt import plug
    from adapt.contracts import Train
    from adapt.methods import low_rank
    from adapt.methods.qlora import quantise
    from adapt.models.base import Family
    from adapt.train.loop import _optimizer

    quantise.library()
    for module in ("peft.tuners.lora.bnb", f"transformers.models.{name}.modeling_{name}"):
        importlib.import_module(module)  # what is imported is no part of the peak
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(1)
    clock = time.perf_counter if cuda else time.process_time  # one thread's own time: what else the machine does counts little
    torch.manual_seed(0)
    began = resident()

    class Bare(Family):
        """What the methods ask of a family."""

        columns, input = (), {}

        def __init__(self, backbone: nn.Module, pattern: str):
            super().__init__()
            names = quantise.linears(backbone, low_rank.ending(pattern))
            self.backbone, self.quantised = backbone, pattern
            self.adapter_targets = {"all": "|".join(sorted({name.rpartition(".")[2] for name in names}))}
            if method == "LoRA":  # the very layers that QLoRA takes
                self.adapter_targets = {"all": "|".join(names).replace(".", r"\.")}

        def forward(self, images):
            return loss(self.backbone, images), {}

        def preprocess(self, sample, train):
            return sample

        def predictors(self, texts=None):
            return {}

    net, loss, size, pattern, title = FAMILIES[name](large=cuda)
    count = sum(p.numel() for p in net.parameters())
    family = Bare(net.to(device), pattern)
    target = plug.load("methods", METHODS[method]["name"])
    target.apply(family, target.Config(**METHODS[method]))
    family.to(device).train()
    learning = sum(p.numel() for p in family.parameters() if p.requires_grad)
    optimizer = _optimizer(family, Train(optimizer="paged_adamw_8bit" if method.startswith("Q") else "adamw"))
    images = torch.randn(batch, 3, size, size, device=device)
    reset_peak()
    times = []
    for _ in range(steps + 1):
        start = clock()
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            value, _ = family(images)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        times.append(clock() - start)
    return {
        "title": title,
        "method": method,
        "parameters": count,
        "learning": learning,
        "weights": quantise.size(family.backbone),
        "peak": torch.cuda.max_memory_allocated() if cuda else peak() - began,
        "seconds": min(times[1:]),
        "batch": batch,
    }


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset_peak() -> None:
    """Forget what loading took: from here on the peak is that of training."""
    import ctypes
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew; see proc(5)


def peak() -> int:
    """The most bytes of this process in memory since `reset_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def table(rows: list[dict], device: str) -> str:
    """Markdown: a row a family and method, with device and versions above."""
    names = ("torch", "transformers", "peft", "bitsandbytes")
    lines = [
        f"{device}; " + ", ".join(f"{name} {version(name)}" for name in names) + ".",
        "",
        "| model | batch | method | weights that learn | weights, MB | peak in training, MB | s a step |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = row["learning"] / row["parameters"]
        lines.append(
            f"| {row['title']} | {row['batch']} | {row['method']} | {share:.1%} of {row['parameters'] / 1e6:.0f} M "
            f"| {row['weights'] / 1e6:,.0f} | {row['peak'] / 1e6:,.0f} | {row['seconds']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Measure every family with every method, each in a child process, and print the table."""
    if arguments[:1] == ["child"]:
        print(json.dumps(measure(arguments[1], arguments[2], int(arguments[3]), int(arguments[4]))))
        return
    given = OPTIONS | dict(argument.split("=", 1) for argument in arguments)
    if unknown := set(given) - set(OPTIONS):
        raise SystemExit(f"{sorted(unknown)[0]!r} is unknown. Have: {', '.join(OPTIONS)}.")
    from adapt import hardware

    hardware.guard()
    facts = hardware.describe()
    cuda = facts["GPU"] != "none"
    batch = given["batch"] or ("8" if cuda else "2")
    rows = []
    for name in given["families"].split(","):
        for method in METHODS:
            command = [sys.executable, "-m", "benchmarks.memory", "child", name, method, batch, given["steps"]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name}, {method}: {(done.stderr.strip() or 'killed').splitlines()[-1]}", file=sys.stderr)
                continue
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]), file=sys.stderr)
    device = f"{facts['GPU']}, bf16" if cuda else f"One thread of a {facts['processor'] or platform.machine()}, fp32"
    text = table(rows, device)
    print(text)
    if given["out"]:
        Path(given["out"]).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
