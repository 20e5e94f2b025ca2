"""The teaching part of a `Stage`: teacher outputs are cached, a student learns from them, and lies in `student/` afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from adapt import plug
from adapt.measuring import BATCH
from adapt.plug import UserError
from adapt.run import SECTIONS, atomic


class Students:
    """What `distill` needs of a stage."""

    def teach(self):
        """Cache the teacher's outputs, or let it label the images, then train the student; returns it with its best weights."""
        import torch

        from adapt.train.loop import fit
        from adapt.train.views import Views

        config = self.recipe.distill
        target = plug.load("distill", config.name)
        teacher, rows, extra = self._teacher().eval(), self._student_rows(), None
        _ = self.words  # what evals need of the teacher when it is gone
        if hasattr(target, "label"):
            rows = self._labelled(target, teacher, rows)
        have = teacher.predictors()
        if target.PREDICTOR and target.PREDICTOR not in have:
            raise UserError(
                f"distill.name: {config.name!r} needs a teacher with {target.PREDICTOR}; {self.recipe.model.name!r} offers "
                f"{', '.join(have)}."
            )
        function = have[target.PREDICTOR] if target.PREDICTOR else None
        student = target.build(config, teacher, None if config.cache else function)
        if function and config.cache:
            extra = self.cache("teacher", function, teacher, rows, config.views, config.train.augment)
        del teacher, have, function  # students train without the teacher in memory
        self.forget()
        views = Views(rows, student.preprocess, self.recipe.seed, config.views, extra)
        student.to(self.accelerator.device, memory_format=torch.channels_last)  # convolutions train up to a fifth faster
        self._track("distill")
        folder = self._fresh()
        validate = self.validate if "validation" in self.data else None
        fit(student, views, config.train, self.recipe.seed, folder, self.accelerator, validate, title="distill")
        return student

    def _fresh(self) -> Path:
        """The folder of the training; a state that other settings or data left there is thrown away, since it cannot be continued."""
        folder = self.run.path / "distill"
        made_of = {"key": self.distill_key, "data": self.fingerprints}
        if self.run.writes and self.run.read_json("distill/key.json") != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self.run.write_json("distill/key.json", made_of)
        self.accelerator.wait_for_everyone()
        return folder

    def measure_labels(self) -> dict | None:
        """Where a teacher's labels answer another question than the teacher itself: what they are worth; else none."""
        config = self.recipe.distill
        target = plug.load("distill", config.name)
        if not hasattr(target, "teacher"):
            return None
        if not self.measured("labels"):
            family = self._teacher()
            predictors = target.teacher(config, family)
            self.measure("labels", f"{self.title(config.teacher)}, labelling", family, lambda texts: predictors)
            self.forget()
        return self.entry("labels")

    def cache(self, name: str, function: Callable, module, rows, views: int, augmentation):
        """A predictor's outputs for the views of rows, computed once; what a batch then brings under `name`."""
        from adapt.distill import _cache
        from adapt.train.views import Views

        module.eval()
        views = Views(rows, lambda sample, _: module.preprocess(sample, False), self.recipe.seed, views)
        height, width = module.input["size"]
        batch = max(1, min(BATCH, BATCH * 64 * 64 // (height * width)))  # large pictures have large outputs too
        return _cache.build(self._cached(name), function, views, augmentation, batch, self.accelerator, name)

    def _cached(self, name: str) -> Path:
        """Where something computed once lies; named after all that it depends on."""
        sections, splits = (SECTIONS, ["train"]) if name == "features" else ((*SECTIONS, "distill"), ["train", "unlabelled"])
        data = "".join(self.fingerprints[split][:8] for split in splits if split in self.data)
        return self.run.path / "cache" / f"{name}-{self.recipe.key(*sections)}{data}"

    def _labelled(self, target, teacher, rows):
        """The teacher's labels of rows, found once, by the main process."""
        from datasets import load_from_disk

        place = self._cached("labels")
        if self.run.writes and not place.exists():
            with atomic(place) as folder:
                target.label(self.recipe.distill, teacher, rows).save_to_disk(folder)
        self.accelerator.wait_for_everyone()
        return load_from_disk(place)

    def student(self):
        """The student that `distill` left."""
        from safetensors.torch import load_file

        if not self.finished("distill", self.distill_key):
            raise UserError(f"{self.run.path}: no student yet. First: adapt distill with the same recipe and overrides.")
        config = self.recipe.distill
        student = plug.load("distill", config.name).build(config, self.family)
        student.net.load_state_dict(load_file(self.run.path / "student" / "model.safetensors"))
        return student

    def save_student(self, student) -> None:
        """Write the student's network as safetensors, with what a user must know of its input."""
        from safetensors.torch import save_file

        from adapt.distill._student import weights_file

        start = self.recipe.distill.pretrained
        if self.run.writes:
            with atomic(self.run.path / "student") as folder:
                folder.mkdir()
                save_file({k: v.contiguous() for k, v in student.net.state_dict().items()}, folder / "model.safetensors")
                about = {"architecture": self.recipe.distill.student} | student.about(self.labels) | {"input": student.input}
                (folder / "config.json").write_text(json.dumps(about, indent=1))
        self.record(
            "distill",
            self.distill_key,
            data=self.fingerprints,
            parent=self.hash(self.run.path / "adapter"),
            student=self.hash(self.run.path / "student"),
            start=self.hash(weights_file(start)) if isinstance(start, str) else start,
        )

    def _teacher(self):
        return self.adapted() if self.recipe.distill.teacher == "adapted" else self.family

    def _student_rows(self):
        """Training rows with their labels, and unlabelled ones."""
        from datasets import concatenate_datasets

        wanted = ("image", "label", "objects", "caption")
        parts = [self.data[name] for name in ("train", "unlabelled") if name in self.data]
        return concatenate_datasets([part.select_columns([c for c in wanted if c in part.column_names]) for part in parts])
