"""A LoRA step of clip-tiny from the second epoch on: ours, a bare loop with the same tensors, and Trainer + peft.

All train the same adapters with AdamW and clipped gradients on the same pictures, without random views, so that each step sees the same
pixels. The bare loop has all pictures decoded, and the words as tokens, before it begins; Trainer and ours start from the files. What is
done between two epochs is counted: ours keeps a state from which a killed run resumes, the others keep nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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


def compared(task: made.Task, classes: int, targets: str, templates: list[str]) -> Rows:
    batch, steps = task.sizes.batch, task.sizes.steps
    data = made.pictures(Path("photos"), {"train": batch * steps, "val": 2 * classes, "test": 2 * classes}, classes)
    files = sorted((data / "train").rglob("*.jpg"))
    towers = "both towers" if targets == BOTH else "frozen words"
    what = f"LoRA step of {batch}, clip-tiny, {towers}, {classes} × {len(templates)} texts"
    model = {"name": "clip", "checkpoint": "clip-tiny", "train_templates": len(templates)}
    common = {"model": model, "prompts": {"templates": templates}}
    works = [
        lambda turn: {BARE: bare(files, targets, templates, task)},
        lambda turn: {OURS: ours(data, targets, task, f"still-{turn}", augment=STILL, **common)},
        lambda turn: {"ours, with random views": ours(data, targets, task, f"views-{turn}", **common)},
        lambda turn: {"Trainer + peft": trainer(files, targets, templates, task)},
    ]
    return interleaved(what, works, task.turns)


def ours(data: Path, targets: str, task: made.Task, name: str, augment: dict | None = None, **sections: Any) -> float:
    """Seconds a step of `adapt finetune`."""
    train = {"epochs": EPOCHS, "batch": task.sizes.batch, "augment": augment or {}}
    method = {"name": "lora", "targets": [targets]} | ADAPTERS
    with clock.steps(task.sizes.steps) as ends:
        pipeline.finetune(made.recipe(name, data, method=method, train=train, **sections))
    return clock.later(ends) / task.sizes.steps


class Net(nn.Module):
    """CLIP with adapters and a cross-entropy over its classes' words, as one writes it with transformers and peft."""

    def __init__(self, names: list[str], templates: list[str], targets: str, device: str):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel, AutoTokenizer

        super().__init__()
        net = AutoModel.from_pretrained(str(made.tiny()), dtype=torch.float32)
        self.net = get_peft_model(net, LoraConfig(r=16, lora_alpha=32, lora_dropout=0, target_modules=targets))
        texts, self.classes = [template.format(name) for name in names for template in templates], len(names)
        tokens = AutoTokenizer.from_pretrained(str(made.tiny()))(texts, padding="longest", return_tensors="pt")
        self.tokens = tokens["input_ids"].to(device)
        self.to(device)

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

    def __init__(self, files: list[Path]):
        config = json.loads((made.tiny() / "preprocessor_config.json").read_text())
        self.size, self.files = config["size"]["shortest_edge"], files
        self.mean, self.std = config["image_mean"], config["image_std"]
        self.names = sorted({file.parent.name for file in files})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict:
        file = self.files[number]
        pixels = V.pil_to_tensor(Image.open(file).convert("RGB"))
        pixels = V.resize(pixels, self.size, interpolation=V.InterpolationMode.BICUBIC, antialias=True)
        pixels = V.normalize(V.center_crop(pixels, [self.size, self.size]).float() / 255, self.mean, self.std)
        return {"pixel_values": pixels, "labels": self.names.index(file.parent.name)}


def bare(files: list[Path], targets: str, templates: list[str], task: made.Task) -> float:
    """Seconds a step of a loop whose pictures lie ready; the words' classifier is made once where its tower is frozen."""
    rows, batch, device = Files(files), task.sizes.batch, task.device
    items = [rows[number] for number in range(len(rows))]
    pixels, labels = torch.stack([item["pixel_values"] for item in items]), torch.tensor([item["labels"] for item in items])
    pixels, labels, net = pixels.to(device), labels.to(device), Net(rows.names, templates, targets, device).train()
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=2e-4, weight_decay=0.01)
    with torch.no_grad():
        words = net.words() if targets == IMAGES else None
    with clock.steps(task.sizes.steps) as ends:
        for _ in range(EPOCHS):
            for part in torch.randperm(len(items), device=device).split(batch):
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
                    loss = net(pixels[part], labels[part], words)["loss"]
                loss.backward()
                nn.utils.clip_grad_norm_(learning, 1.0)
                optimizer.step()
    return clock.later(ends) / task.sizes.steps


def trainer(files: list[Path], targets: str, templates: list[str], task: made.Task) -> float:
    """Seconds a step of Hugging Face's Trainer with peft's adapters; on a GPU with a loading process a core."""
    from transformers import Trainer, TrainingArguments

    rows, cuda = Files(files), task.device == "cuda"
    arguments = TrainingArguments(
        output_dir="trainer",
        per_device_train_batch_size=task.sizes.batch,
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
    with clock.steps(task.sizes.steps) as ends:
        Trainer(Net(rows.names, templates, targets, task.device), arguments, train_dataset=rows).train()
    return clock.later(ends) / task.sizes.steps
