"""The exporting part of a `Stage`: the student is written for its devices, and teacher and files are timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import plug
from adapt.run import atomic

if TYPE_CHECKING:
    import numpy as np


class Exports:
    """What `export` needs of a stage."""

    def convert(self, config, student) -> dict[str, Path]:
        """Write the student for a target, through its gate, into `export/<target>/`; returns name → file."""
        target = plug.load("export", config.name)
        metadata = student.about(self.labels) | {
            "input": student.input | {"range": [0, 255], "layout": "NCHW", "channels": "RGB"},
            "architecture": self.recipe.distill.student,
            "student": self.hash("student"),
            "adapter": self.hash("adapter"),
            "base": self.base,
        }
        place = self.run.path / "export" / config.name
        if self.run.writes:
            with atomic(place) as folder:
                folder.mkdir()
                target.export(config, student.cpu().deployed(), self.samples(student, config.calibration), folder, metadata)
        self.accelerator.wait_for_everyone()
        return {name: place / file for name, file in target.FILES.items() if (place / file).exists()}

    def samples(self, module, count: int) -> np.ndarray:
        """Views of training images, evenly chosen: float32[count, 3, H, W]."""
        import numpy as np

        rows = self.data["train"]
        chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
        return np.stack([module.preprocess(rows[int(i)], False)["image"].numpy() for i in chosen]).astype(np.float32)

    def time(self, config, student) -> None:
        """Latency of the teacher in torch and of the files, one thread, one image, in turn.

        What is timed is a function of images that teacher and student share, else one of rows; a teacher that shares none is not.
        """
        import torch

        from adapt.export._bench import compare

        teacher = (self.adapted() if self.finished("finetune") else self.family).cpu()
        whole = all(p.is_floating_point() for p in teacher.backbone.parameters())  # not in 4 bits
        if whole and hasattr(teacher.backbone, "merge_and_unload"):
            teacher.backbone = teacher.backbone.merge_and_unload()
        have = teacher.predictors()
        shared = [name for name in student.predictors() if name in have]
        images = next((name for name in shared if not getattr(have[name], "rows", False)), None)
        target = plug.load("export", config.name)
        place = self.run.path / "export" / config.name
        files = {f"{config.name} {name}": place / file for name, file in target.FILES.items() if (place / file).exists()}
        runners: dict[str, Callable] = {name: target.Runner(path) for name, path in files.items()}
        if images or not shared:
            example = self.samples(student, 1)
            timed = runners | ({"adapted": lambda views: have[images](torch.from_numpy(views))} if images else {})
        else:
            example = [self.data["train"][0]]
            timed = {name: student.file_predictors(runner)[shared[0]] for name, runner in runners.items()}
            timed["adapted"] = have[shared[0]]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                times = compare(timed, example)
        finally:
            torch.set_num_threads(threads)
        size = sum(p.numel() * p.element_size() for p in teacher.backbone.parameters())
        for name in ("zero-shot", "adapted") if whole else ("adapted",):  # merged, they are one network
            self.update(name, latency=times.get("adapted"), size_bytes=size)
        for name in runners:
            self.update(name, latency=times[name])
