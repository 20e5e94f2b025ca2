"""A LoRA step of clip-tiny from the second epoch on: ours, a bare loop with the same tensors, and Trainer + peft.

All train the same adapters with AdamW and clipped gradients on the same pictures, without random views, so that each step sees the same
pixels. The bare loop has all pictures decoded, and the words as tokens, before it begins; Trainer and ours start from the files. What is
done between two epochs is counted: ours keeps a state from which a killed run resumes, the others keep nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as V

from adapt import pipeline
from benchmarks.speed import clock, made
from benchmarks.speed.table import BARE, OURS, Rows, interleaved

EPOCHS = 3
BOTH = r".*self_attn\.(?:q|k|v)_proj"
IMAGES = r".*vision_model\..*self_attn\.(?:q|k|v)_proj"
"""Adapters in the image tower alone: the words' tower is frozen."""
ADAPTERS = {"rank": 16, "alpha": 32, "dropout": 0, "rslora": False}
TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "a picture of the {}.", "one {}.", "{}"]
STILL = {"crop": 1, "flip": 0, "colour": 0}
"""No random views."""


def both(task: made.Task) -> list[Rows]:
    """Both towers learn; ten classes."""
    return [compared(task, 10, BOTH, TEMPLATES[:1])]


def frozen(task: made.Task) -> list[Rows]:
    """The words' tower is frozen; a hundred classes in five templates each, which Trainer encodes in every step."""
    return [compared(task, task.sizes.many, IMAGES, TEMPLATES)]


def frozen_large(task: made.Task) -> list[Rows]:
    """The same at the size of the public ViT-B/32; Trainer's texts are as long as the longest, or 77 tokens as CLIP was trained."""
    sizes = replace(task.sizes, steps=max(2, task.sizes.steps // 5))
    checkpoint = made.base_clip(Path("vit-b-32"), sizes.side // 32 * 32, sizes.layers, patch=32, words=True)
    return [compared(replace(task, sizes=sizes), sizes.many, IMAGES, TEMPLATES, checkpoint)]


@dataclass(frozen=True)
class Work:
    """What all of them learn."""

    task: made.Task
    checkpoint: Path
    data: Path
    targets: str
    """A regular expression of the layers that get adapters."""
    templates: list[str]

    @property
    def files(self) -> list[Path]:
        """The training pictures."""
        return sorted((self.data / "train").rglob("*.jpg"))

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.task.sizes.steps

    @property
    def batch(self) -> int:
        return self.task.sizes.batch


def compared(task: made.Task, classes: int, targets: str, templates: list[str], checkpoint: Path | None = None) -> Rows:
    """Seconds a step.

    Args:
        checkpoint: of random weights and of a public one's size; without: clip-tiny.
    """
    split = {"train": task.sizes.batch * task.sizes.steps, "val": 2 * classes, "test": 2 * classes}
    side = checkpoint and json.loads((checkpoint / "preprocessor_config.json").read_text())["size"]["shortest_edge"]
    data = made.pictures(Path("photos"), split, classes, side or 32)
    work = Work(task, checkpoint or made.tiny(), data, targets, templates)
    towers = "both towers" if targets == BOTH else "frozen words"
    net = "ViT-B/32" if checkpoint else "clip-tiny"
    what = f"LoRA step of {work.batch}, {net}, {towers}, {classes} × {len(templates)} texts"
    works = [
        lambda turn: {BARE: bare(work)},
        lambda turn: {OURS: ours(work, f"still-{turn}", STILL)},
        lambda turn: {"Trainer + peft": trainer(work)},
    ]
    if checkpoint:
        works += [lambda turn: {"Trainer + peft, 77 tokens": trainer(work, "max_length")}]
    else:
        works[2:2] = [lambda turn: {"ours, with random views": ours(work, f"views-{turn}", {})}]
    return interleaved(what, works, task.turns)


def ours(work: Work, name: str, augment: dict) -> float:
    """Seconds a step of `adapt finetune`."""
    sections = {
        "model": made.model(work.checkpoint) | {"train_templates": len(work.templates)},
        "prompts": {"templates": work.templates},
        "method": {"name": "lora", "targets": [work.targets]} | ADAPTERS,
        "train": {"epochs": EPOCHS, "batch": work.batch, "augment": augment},
    }
    with clock.steps(work.steps) as ends:
        pipeline.finetune(made.recipe(name, work.data, **sections))
    return clock.later(ends) / work.steps


class Net(nn.Module):
    """CLIP with adapters and a cross-entropy over its classes' words, as one writes it with transformers and peft."""

    def __init__(self, work: Work, names: list[str], padding: str = "longest"):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoTokenizer

        super().__init__()
        adapters = LoraConfig(r=16, lora_alpha=32, lora_dropout=0, target_modules=work.targets)
        self.net = get_peft_model(made.network(work.checkpoint), adapters)
        texts, self.classes = [template.format(name) for name in names for template in work.templates], len(names)
        tokenizer, longest = (
            AutoTokenizer.from_pretrained(str(work.checkpoint)),
            self.net.config.text_config.max_position_embeddings,
        )
        tokens = tokenizer(texts, padding=padding, max_length=longest, truncation=True, return_tensors="pt")
        self.tokens = tokens["input_ids"].to(work.task.device)
        self.to(work.task.device)

    def words(self) -> Tensor:
        """float[C, D], L2-normalised."""
        texts = F.normalize(self.net.get_text_features(input_ids=self.tokens).pooler_output, dim=-1)
        return F.normalize(texts.view(self.classes, -1, texts.shape[1]).mean(1), dim=-1)

    def forward(self, pixel_values: Tensor, labels: Tensor, words: Tensor | None = None) -> dict[str, Tensor]:
        images = F.normalize(self.net.get_image_features(pixel_values=pixel_values).pooler_output, dim=-1)
        logits = self.net.logit_scale.exp() * images @ (self.words() if words is None else words).T
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Files(torch.utils.data.Dataset):
    """Pictures read, scaled and normalised when asked for."""

    def __init__(self, work: Work):
        config = json.loads((work.checkpoint / "preprocessor_config.json").read_text())
        self.size, self.files = config["size"]["shortest_edge"], work.files
        self.mean, self.std = config["image_mean"], config["image_std"]
        self.names = sorted({file.parent.name for file in self.files})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict:
        file = self.files[number]
        pixels = V.pil_to_tensor(Image.open(file).convert("RGB"))
        pixels = V.resize(pixels, self.size, interpolation=V.InterpolationMode.BICUBIC, antialias=True)
        pixels = V.normalize(V.center_crop(pixels, [self.size, self.size]).float() / 255, self.mean, self.std)
        return {"pixel_values": pixels, "labels": self.names.index(file.parent.name)}


def bare(work: Work) -> float:
    """Seconds a step of a loop whose pictures lie ready; the words' classifier is made once where its tower is frozen."""
    rows, device = Files(work), work.task.device
    items = [rows[number] for number in range(len(rows))]
    pixels, labels = torch.stack([item["pixel_values"] for item in items]), torch.tensor([item["labels"] for item in items])
    pixels, labels, net = pixels.to(device), labels.to(device), Net(work, rows.names).train()
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=2e-4, weight_decay=0.01)
    with torch.no_grad():
        words = net.words() if work.targets == IMAGES else None
    with clock.steps(work.steps) as ends:
        for _ in range(EPOCHS):
            for part in torch.randperm(len(items), device=device).split(work.batch):
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
                    loss = net(pixels[part], labels[part], words)["loss"]
                loss.backward()
                nn.utils.clip_grad_norm_(learning, 1.0)
                optimizer.step()
    return clock.later(ends) / work.steps


def trainer(work: Work, padding: str = "longest") -> float:
    """Seconds a step of Hugging Face's Trainer with peft's adapters; on a GPU with a loading process a core."""
    from transformers import Trainer, TrainingArguments

    rows, cuda = Files(work), work.task.device == "cuda"
    arguments = TrainingArguments(
        output_dir="trainer",
        per_device_train_batch_size=work.batch,
        num_train_epochs=EPOCHS,
        learning_rate=2e-4,
        weight_decay=0.01,
        dataloader_num_workers=os.cpu_count() if cuda else 0,
        dataloader_drop_last=True,
        remove_unused_columns=False,
        use_cpu=not cuda,
        bf16=cuda,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    with clock.steps(work.steps) as ends:
        Trainer(Net(work, rows.names, padding), arguments, train_dataset=rows).train()
    return clock.later(ends) / work.steps
