"""A stranger adds one file of each kind to a folder of their own, touches nothing else, and goes the whole road with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from adapt import plug
from adapt.cli import main
from adapt.students import open_student

FILES = {
    "data/patches.py": '''
        """Pictures that are mostly red, green or blue."""

        import numpy as np
        from pydantic import Field

        from adapt.contracts import SourceConfig


        class Config(SourceConfig):
            """How many."""

            each: int = Field(12, ge=2)
            """Pictures of each class in a split."""


        def load(config):
            from datasets import ClassLabel, Dataset, Features, Value
            from PIL import Image

            from adapt.data.split import Splits
            from adapt.vision.pictures import RGB, encoded

            names = ["red", "green", "blue"]
            kinds = Features(id=Value("string"), image=RGB(), label=ClassLabel(names=names))
            parts = {}
            for seed, split in enumerate(("train", "validation", "test")):
                random = np.random.default_rng(seed)
                rows = {"id": [], "image": [], "label": []}
                for i in range(config.each * 3):
                    pixels = random.integers(0, 120, (16, 16, 3), np.uint8)
                    pixels[..., i % 3] += 40
                    rows["id"].append(f"{split}-{i}")
                    rows["image"].append(encoded(Image.fromarray(pixels)))
                    rows["label"].append(i % 3)
                parts[split] = Dataset.from_dict(rows, features=kinds)
            return Splits(parts, dict.fromkeys(parts, "drawn here"))
    ''',
    "models/averages.py": '''
        """A family that looks at mean colours."""

        from pathlib import Path

        from adapt.contracts import FamilyConfig


        class Config(FamilyConfig):
            """Its weights."""

            title = "averages"
            checkpoint: str
            """A folder."""


        def load(config):
            import torch
            import torch.nn.functional as F
            from safetensors.torch import load_file
            from torch import nn

            from adapt.contracts import Predictor
            from adapt.models.base import Family
            from adapt.vision.images import view

            class Averages(Family):
                adapter_targets = {"all": "out"}
                input = {"size": (16, 16), "resize": (16, 16), "interpolation": "bilinear", "crop": None, "mean": [0.5] * 3, "std": [0.5] * 3}
                columns = ("image", "label")

                def __init__(self):
                    super().__init__()
                    self.backbone = nn.Sequential()
                    self.backbone.add_module("out", nn.Linear(3, 3))
                    self.backbone.load_state_dict(load_file(Path(config.checkpoint) / "weights.safetensors"))

                def logits(self, images):
                    return self.backbone(images.mean((2, 3)) / 255 - 0.3)

                def forward(self, batch):
                    return F.cross_entropy(self.logits(batch["image"]), batch["label"]), {}

                def preprocess(self, sample, train):
                    return {"image": view(sample["image"], self.input)} | ({"label": sample["label"]} if train else {})

                def predictors(self, texts=None):
                    return {"class_logits": Predictor(self.logits)}

            return Averages()
    ''',
    "methods/scaled.py": '''
        """Weights learn, biases do not."""

        from adapt.contracts import MethodConfig


        class Config(MethodConfig):
            """Nothing to choose."""

            title = "scaled"
            train = {"lr": 0.3, "warmup": 0.0, "weight_decay": 0.0}


        def apply(family, config, rows):
            assert rows.column_names == ["id", "image", "label"]
            family.requires_grad_(False)
            for name, value in family.named_parameters():
                value.requires_grad_(name.endswith("weight"))
    ''',
    "evals/hits.py": '''
        """The share of right answers."""

        from adapt.contracts import EvalConfig


        class Config(EvalConfig):
            """As every eval."""

            main = "hits"
            predictor = "class_logits"


        def evaluate(config, predict, rows, protocol, bank=None):
            from adapt.evals.bootstrap import interval
            from adapt.evals.result import Result

            found = predict(rows, config.predictor).argmax(1)
            right = found == rows["label"]
            table = {"id": list(rows["id"]), "prediction": [str(k) for k in found], "correct": right.tolist()}
            about = protocol | {"eval": "hits", "split": config.split}
            return Result({"hits": float(right.mean())}, about, {"hits": interval(statistic(table), config.bootstrap)}, table, floor=1 / 3)


        def statistic(table):
            from adapt.evals.bootstrap import mean

            return mean(table["correct"])
    ''',
    "students/pooled.py": '''
        """One layer on the mean colour."""

        from torch import nn

        from adapt.contracts import Deployable, Predictor
        from adapt.students import base


        class Student(base.Student):
            def __init__(self, architecture, input, classes):
                super().__init__(architecture, input, classes)
                self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, len(classes)))

            def forward(self, images):
                return self.net(self.normalise(images))

            def predictors(self, texts=None):
                return {"class_logits": Predictor(self.forward)}

            def deployed(self):
                return Deployable(base.Deployed(self.normalise, self.net))

            def file_predictors(self, runner):
                return {"class_logits": base.of_images(runner)}
    ''',
    "distill/nearer.py": '''
        """The student's logits come nearer to the teacher's."""

        from adapt.contracts import Lesson, ObjectiveConfig, Train


        class Config(ObjectiveConfig):
            """A student of one layer."""

            views: int = 1
            """One view a picture."""
            train: Train = Train(epochs=40, batch=12, lr=0.1, augment={"crop": 1, "flip": 0, "colour": 0})
            """Short."""


        def lesson(config, teacher, load):
            return Lesson(predictor="class_logits")


        def learner(config, teacher, live=None):
            from adapt import plug
            from adapt.distill.taught import Taught

            student = plug.load("students", "pooled").Student("pooled", dict(teacher.input), ["red", "green", "blue"])
            return Taught(student, teacher, live, lambda ours, theirs, batch: ((ours - theirs).square().mean(), {}))
    ''',
    "export/program.py": '''
        """PyTorch's exported programs."""

        from adapt import contracts
        from adapt.contracts import Artifact, TargetConfig


        class Config(TargetConfig):
            """As every target."""

            runtime = "torch.export"


        def convert(config, deployable, samples, folder, metadata, validation=None):
            import torch

            path = folder / "model.pt2"
            shapes = ({0: torch.export.Dim("batch", min=1, max=999)},)
            program = torch.export.export(deployable.module.eval(), (torch.from_numpy(samples[:2]),), dynamic_shapes=shapes)
            torch.export.save(program, path)
            return [Artifact("fp32", path, (path,))]


        class Runner(contracts.Runner):
            def __init__(self, path):
                import torch

                super().__init__(path)
                self.module = torch.export.load(path).module()

            def __call__(self, images):
                import torch

                with torch.no_grad():
                    return self.module(torch.from_numpy(images)).numpy()
    ''',
}
RECIPE = """
# A stranger's road.
name: stranger
model: {name: averages, checkpoint: start}
data: {source: patches}
method: {name: scaled}
train: {epochs: 6, batch: 12, augment: {crop: 1, flip: 0, colour: 0}}
evals: [{name: hits}]
distill: {name: nearer, student: test_resnet, pretrained: false}
export: [{name: program, bench: 0.05}]
tracker: none
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The stranger's folder of plug-ins; weights and recipe lie in the working folder."""
    import torch
    from safetensors.torch import save_file

    for name, text in FILES.items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    Path("start").mkdir()
    torch.manual_seed(0)
    save_file({"out.weight": torch.randn(3, 3) / 10, "out.bias": torch.zeros(3)}, "start/weights.safetensors")
    Path("mine.yaml").write_text(RECIPE)
    monkeypatch.setenv("ADAPT_PLUGINS", "")  # put back afterwards, whatever the command line says
    return tmp_path / "mine"


def test_one_file_of_each_kind_goes_the_whole_road(mine, capsys):
    assert main(["road", f"plugins={mine}", "recipe=mine.yaml"]) == 0, capsys.readouterr().err
    (folder,) = Path("runs").glob("stranger-*")
    metrics = {
        entry["name"]: entry["metrics"]["hits"] for entry in json.loads((folder / "metrics.json").read_text())["entries"]
    }
    assert list(metrics) == ["zero-shot", "adapted", "student nearer-test_resnet", "program fp32 nearer-test_resnet"]
    assert metrics["zero-shot"] < 0.9 < metrics["adapted"]
    assert metrics["student nearer-test_resnet"] == metrics["program fp32 nearer-test_resnet"] > 0.9
    student = open_student(folder / "student" / "nearer-test_resnet")
    assert student.kind == "pooled" and student.classes == ["red", "green", "blue"]
    said = capsys.readouterr().out
    assert "averages + scaled" in said and "zero-shot averages" in said
    assert (folder / "report.html").is_file()


def test_a_strangers_options_are_explained_and_checked_as_ours(mine, capsys):
    assert main(["options", "data", "patches", f"plugins={mine}"]) == 0
    assert "Pictures of each class in a split." in capsys.readouterr().out
    assert main(["evaluate", f"plugins={mine}", "recipe=mine.yaml", "data.eech=3"]) == 2
    assert "data.eech: no such option. Did you mean 'each'?" in capsys.readouterr().err


def test_a_name_that_is_taken_a_missing_folder_and_a_broken_file_are_one_line(mine, capsys):
    (mine / "methods" / "lora.py").write_text("")
    assert main(["evaluate", f"plugins={mine}", "recipe=mine.yaml"]) == 2
    assert "there is a method 'lora' already" in capsys.readouterr().err
    (mine / "methods" / "lora.py").unlink()
    (mine / "methods" / "scaled.py").write_text("import nothing_of_that_name")
    assert main(["evaluate", f"plugins={mine}", "recipe=mine.yaml"]) == 2
    assert "this plug-in cannot be imported: ModuleNotFoundError" in capsys.readouterr().err
    assert main(["evaluate", "plugins=nowhere", "recipe=mine.yaml"]) == 2
    assert "there is no folder 'nowhere'" in capsys.readouterr().err


def test_a_recipe_cannot_name_plug_ins(mine, capsys):
    Path("mine.yaml").write_text(f"{RECIPE}plugins: {mine}\n")
    assert main(["evaluate", "recipe=mine.yaml"]) == 2
    assert "plugins: no such option" in capsys.readouterr().err


def test_a_strangers_plug_ins_are_known_in_a_new_process(mine):
    code = "from adapt import plug; print(*(set(plug.names(kind)) & set('averages patches scaled hits nearer pooled program'.split())"
    code += " for kind in ('models', 'data', 'methods', 'evals', 'distill', 'students', 'export')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=dict(__import__("os").environ, ADAPT_PLUGINS=str(mine)),
    )
    assert done.stdout.split() == [
        "{'averages'}",
        "{'patches'}",
        "{'scaled'}",
        "{'hits'}",
        "{'nearer'}",
        "{'pooled'}",
        "{'program'}",
    ]
    assert "averages" not in plug.names("models")
