"""The teaching part of a `Stage`: teacher outputs are cached, a student learns from them, and lies in `student/NAME/` afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.plug import UserError
from adapt.provenance import changed, of
from adapt.run import atomic
from adapt.verbs import lineage
from adapt.verbs.measuring import BATCH


class Students:
    """What `distill` needs of a stage."""

    @property
    def called(self) -> str:
        """The student's name: of its folders `student/NAME`, `distill/NAME` and `export/NAME`, and of its entries."""
        return self.recipe.distill.called

    def student_entry(self, role: str = "student") -> str:
        """The name of the student's entry, or of the one of its teacher's `labels`."""
        return f"{role} {self.called}"

    def file_entry(self, config, precision: str) -> str:
        """The name of the entry of an exported file."""
        return f"{config.name} {precision} {self.called}"

    def taught(self) -> bool:
        """Has this student been taught, of just this?

        Raises:
            UserError: it was made of other contents, or with other options: training again must be the user's own wish.
        """
        facts = self.run.facts(f"distill {self.called}")
        if not facts or self.hash(f"student/{self.called}") is None:
            return False
        before, now = facts["made_of"], lineage.student(self)
        now["start"] = now["start"] or before["start"]  # out of reach by now, it is no other
        if options := [name.partition(".")[2] for name in changed(before, now) if name.startswith("options")]:
            raise UserError(
                f"distill: {self.run.path / 'student' / self.called} was taught with other options: {', '.join(options)} changed; nothing "
                "was touched. Name another student with distill.as=…, or delete that folder to make it again."
            )
        self._refuse("the student", before, now, f"student/{self.called}")
        return True

    def teach(self):
        """Cache the teacher's outputs, or let it label the images, then train the student; returns it with its best weights."""
        import torch
        from accelerate.utils import set_seed

        from adapt.train.loop import fit
        from adapt.train.views import Views

        objective = plug.load("distill", self.recipe.distill.name)
        folder, config = self._begun()
        teacher, rows, extra = self.teacher().eval(), self._student_rows(), None
        lesson = objective.lesson(config, teacher, self._another)
        self._measure_labels(teacher, lesson)
        if lesson.label:
            rows = self._labelled(lesson.label, rows)
        have = teacher.predictors()
        if lesson.predictor and lesson.predictor not in have:
            raise UserError(
                f"distill.name: {config.name!r} needs a teacher with {lesson.predictor}; {self.recipe.model.name!r} offers "
                f"{', '.join(have)}."
            )
        function = have[lesson.predictor] if lesson.predictor else None
        set_seed(self.recipe.seed)  # its first weights too, whether the labels were made just now or before
        learner = objective.learner(config, teacher, None if config.cache else function)
        if function and config.cache:
            made = lineage.answers(self, lesson.predictor, config.views, config.train.augment)
            extra = self.cache("teacher", made, function, teacher, rows, config.views, config.train.augment)
        del teacher, have, function, lesson  # students train without the teacher in memory
        self.forget()
        student = learner.student
        if student.classes:
            student.classes = self.labels  # the data's own names; the teacher may know them by other words
        views = Views(rows, learner.preprocess, self.recipe.seed, config.views, extra)
        learner.to(self.accelerator.device, memory_format=torch.channels_last)  # convolutions train up to a fifth faster
        self._track("distill")
        validate = self.validate if self.selects else None
        options = {"title": "distill", "selection": self.selection(student)}
        fit(learner, views, config.train, self.recipe.seed, folder, self.accelerator, validate, **options)
        self._save_student(student, config.pretrained)
        return student

    def _begun(self) -> tuple[Path, Any]:
        """The folder of the training, and the objective's config with the start that was chosen when it began.

        A state that other settings or contents left there is thrown away, since it cannot be continued.
        """
        config, place = self.recipe.distill, f"distill/{self.called}"
        made, kept = lineage.student(self), self.run.read_json(f"distill/{self.called}/made_of.json", {})
        if kept.get("made_of") != made:
            from adapt.students.cnn import chosen

            start, said = self.processes.share(chosen(config.student, config.pretrained) if self.run.writes else None)
            if said:
                self.say(said)
            kept = {"made_of": made, "start": start}
            self.run.forget(place)
            self.run.write_json(f"{place}/made_of.json", kept)
        self.accelerator.wait_for_everyone()
        return self.run.path / place, config.model_copy(update={"pretrained": kept["start"]})

    def _another(self, name: str, checkpoint: str):
        """Another model than the teacher, for an objective that needs one: the family `name` with a checkpoint, ready to answer."""
        module = plug.load("models", name)
        return module.load(module.Config(name=name, checkpoint=checkpoint)).to(self.accelerator.device).eval()

    def labels_entry(self) -> dict | None:
        """What the teacher's labels are worth, where they answer another question than the teacher itself, measured again if need be."""
        name = self.student_entry("labels")
        if self.entry(name) and not self.measured(name):
            teacher = self.teacher().eval()
            config = self.recipe.distill
            self._measure_labels(teacher, plug.load("distill", config.name).lesson(config, teacher, self._another))
            self.forget()
        return self.entry(name)

    def _measure_labels(self, teacher, lesson) -> None:
        name = self.student_entry("labels")
        if lesson.reference and not self.measured(name):
            predictors = lesson.reference()
            title = f"{self.title(self.recipe.distill.teacher)}, labelling"
            self.measure(name, title, teacher, lambda texts: predictors, student=self.called)

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

    def _labelled(self, label: Callable, rows):
        """The teacher's labels of rows, found once, by one process a disk."""
        from datasets import load_from_disk

        place = self._kept("labels", lineage.labels(self))
        if self.processes.keeps and not place.exists():
            with atomic(place) as folder:
                label(rows).save_to_disk(folder)
        self.accelerator.wait_for_everyone()
        return load_from_disk(place)

    def student(self):
        """The student that `distill` left, from its folder alone."""
        from adapt.students import open_student

        if not self.taught():
            raise UserError(
                f"{self.run.path}: no student {self.called!r} yet. First: adapt distill with the same recipe and overrides."
            )
        return open_student(self.processes.fetched(self.run.path / "student" / self.called)).to(self.accelerator.device)

    def _save_student(self, student, start: bool | str) -> None:
        """Write the student's folder, and what it came from; `start`: what `distill.pretrained` meant."""
        from adapt.students.cnn import origin

        config = self.recipe.distill
        if self.run.writes:
            with atomic(self.run.path / "student" / self.called) as folder:
                student.save(folder)
        parent = self.hash("adapter") if config.teacher == "adapted" else None
        facts = {"base": self.base, "parent": parent, "pretrained": start, "start": origin(config.student, start)}
        made = {"made_of": lineage.student(self), "selection": self.selection(student)}
        self.record(f"distill {self.called}", student=self.hash(f"student/{self.called}"), **facts, **made)
        self.drop_files()

    def teacher(self):
        """Who teaches."""
        return self.adapted() if self.recipe.distill.teacher == "adapted" else self.family

    def _student_rows(self):
        """Training rows with their labels, and unlabelled ones."""
        from datasets import concatenate_datasets

        wanted = ("image", "label", "objects", "caption")
        parts = [self.data[name] for name in ("train", "unlabelled") if name in self.data]
        return concatenate_datasets([part.select_columns([c for c in wanted if c in part.column_names]) for part in parts])
