"""The teaching part of a `Stage`: teacher outputs are cached, a student learns from them, and lies in `student/` afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from adapt import plug
from adapt.plug import UserError
from adapt.provenance import changed, of
from adapt.run import atomic
from adapt.verbs import lineage
from adapt.verbs.measuring import BATCH


class Students:
    """What `distill` needs of a stage."""

    def teach(self):
        """Cache the teacher's outputs, or let it label the images, then train the student; returns it with its best weights."""
        import torch
        from accelerate.utils import set_seed

        from adapt.train.loop import fit
        from adapt.train.views import Views

        config = self.recipe.distill
        objective = plug.load("distill", config.name)
        teacher, rows, extra = self.teacher().eval(), self._student_rows(), None
        if hasattr(objective, "label"):
            rows = self._labelled(objective, teacher, rows)
        have = teacher.predictors()
        if objective.PREDICTOR and objective.PREDICTOR not in have:
            raise UserError(
                f"distill.name: {config.name!r} needs a teacher with {objective.PREDICTOR}; {self.recipe.model.name!r} offers "
                f"{', '.join(have)}."
            )
        function = have[objective.PREDICTOR] if objective.PREDICTOR else None
        set_seed(self.recipe.seed)  # its first weights too, whether the labels were made just now or before
        student = objective.build(config, teacher, None if config.cache else function)
        if function and config.cache:
            made = lineage.answers(self, config.views, config.train.augment)
            extra = self.cache("teacher", made, function, teacher, rows, config.views, config.train.augment)
        del teacher, have, function  # students train without the teacher in memory
        self.forget()
        views = Views(rows, student.preprocess, self.recipe.seed, config.views, extra)
        student.to(self.accelerator.device, memory_format=torch.channels_last)  # convolutions train up to a fifth faster
        self._track("distill")
        folder = self._fresh()
        validate = self.validate if self.selects else None
        options = {"title": "distill", "selection": self.selection(student)}
        fit(student, views, config.train, self.recipe.seed, folder, self.accelerator, validate, **options)
        return student

    def _fresh(self) -> Path:
        """The folder of the training; a state that other settings or contents left there is thrown away, since it cannot be continued."""
        made = lineage.student(self)
        if self.run.read_json("distill/made_of.json") != made:
            self.run.forget("distill")
            self.run.write_json("distill/made_of.json", made)
        self.accelerator.wait_for_everyone()
        return self.run.path / "distill"

    def measure_labels(self) -> dict | None:
        """Where a teacher's labels answer another question than the teacher itself: what they are worth; else none."""
        config = self.recipe.distill
        objective = plug.load("distill", config.name)
        if not hasattr(objective, "teacher"):
            return None
        if not self.measured("labels"):
            family = self.teacher()
            predictors = objective.teacher(config, family)
            self.measure("labels", f"{self.title(config.teacher)}, labelling", family, lambda texts: predictors)
            self.forget()
        return self.entry("labels")

    def cache(self, name: str, made: dict, function: Callable, module, rows, views: int, augmentation):
        """A predictor's outputs for the views of rows, computed once; what a batch then brings under `name`.

        Args:
            made: what the outputs are made of; others are computed anew.
        """
        from adapt.distill.cache import build
        from adapt.train.views import Views

        module.eval()
        views = Views(rows, lambda sample, _: module.preprocess(sample, False), self.recipe.seed, views)
        height, width = module.input["size"]
        batch = max(1, min(BATCH, BATCH * 64 * 64 // (height * width)))  # large pictures have large outputs too
        folder = self._kept(name, made)
        return build(folder, function, views, augmentation, batch, self.accelerator, name, self.processes.place)

    def _kept(self, name: str, made: dict) -> Path:
        """Where something computed once lies: named after all that it is made of; a line says why it is computed again."""
        folder = self.run.path / "cache" / f"{name}-{of(made)}"
        others = sorted(folder.parent.glob(f"{name}-*.json"), key=lambda path: path.stat().st_mtime)
        record = folder.with_name(f"{folder.name}.json")
        if self.processes.keeps and not record.exists():
            if others:
                print(f"{name}: computed again: {', '.join(changed(json.loads(others[-1].read_text()), made))} changed")
            with atomic(record) as temporary:
                temporary.write_text(json.dumps(made))
        return folder

    def _labelled(self, objective, teacher, rows):
        """The teacher's labels of rows, found once, by one process a disk."""
        from datasets import load_from_disk

        place = self._kept("labels", lineage.labels(self))
        if self.processes.keeps and not place.exists():
            with atomic(place) as folder:
                objective.label(self.recipe.distill, teacher, rows).save_to_disk(folder)
        self.accelerator.wait_for_everyone()
        return load_from_disk(place)

    def student(self):
        """The student that `distill` left."""
        from safetensors.torch import load_file

        if not self.finished("distill"):
            raise UserError(f"{self.run.path}: no student yet. First: adapt distill with the same recipe and overrides.")
        config = self.recipe.distill.model_copy(update={"pretrained": False})  # its weights lie here
        student = plug.load("distill", config.name).build(config, self.family)
        folder = self.processes.fetched(self.run.path / "student")
        student.net.load_state_dict(load_file(folder / "model.safetensors"))
        return student.to(self.accelerator.device)

    def save_student(self, student) -> None:
        """Write the student's network as safetensors, with what a user must know of its input."""
        from safetensors.torch import save_file

        from adapt.students.base import origin

        config = self.recipe.distill
        if self.run.writes:
            with atomic(self.run.path / "student") as folder:
                folder.mkdir()
                save_file({k: v.contiguous() for k, v in student.net.state_dict().items()}, folder / "model.safetensors")
                about = {"architecture": config.student} | student.about(self.labels) | {"input": student.input}
                (folder / "config.json").write_text(json.dumps(about, indent=1))
        parent = self.hash("adapter") if config.teacher == "adapted" else None
        facts = {"base": self.base, "parent": parent, "start": origin(config.student, config.pretrained)}
        made = {"made_of": lineage.student(self), "selection": self.selection(student)}
        self.record("distill", student=self.hash("student"), **facts, **made)

    def teacher(self):
        """Who teaches."""
        return self.adapted() if self.recipe.distill.teacher == "adapted" else self.family

    def _student_rows(self):
        """Training rows with their labels, and unlabelled ones."""
        from datasets import concatenate_datasets

        wanted = ("image", "label", "objects", "caption")
        parts = [self.data[name] for name in ("train", "unlabelled") if name in self.data]
        return concatenate_datasets([part.select_columns([c for c in wanted if c in part.column_names]) for part in parts])
