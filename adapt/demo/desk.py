"""What the tabs work with: models that load when they are first asked, and pictures that are read when they are first looked at.

    with desk.using("clip-tiny") as model:             # one at a time: a model answers one question after the other
        answer = model.module.predictors()[…](…)
    picture = desk.picture(upload.path)                # RGB, turned upright, as the sources' pictures are read

Nothing here knows the page: a script can use a desk alone.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from PIL import Image as Picture

from adapt.data.problems import KINDS
from adapt.data.scan import inspect, quiet
from adapt.models.checkpoint import read_config
from adapt.plug import UserError, nearest
from adapt.recipe import Recipe, load_recipe
from adapt.run import Run
from adapt.verbs import kept, ready
from adapt.verbs.predicting import answerers
from adapt.verbs.session import Session
from adapt.vision.pictures import open_picture, rgb

EMBEDDED = ("clip_lora", "sam_lora", "dinov2_lora", "paligemma_lora")
"""Recipes whose checkpoints are always there, as they come."""
# what a checkpoint's config.json says it is, or what stands before its colon → the recipe that its family is asked by
KINDS_OF_CHECKPOINTS = {
    **dict.fromkeys(("clip", "siglip", "open_clip"), ("clip_lora",)),
    **dict.fromkeys(("sam", "segment_anything"), ("sam_lora",)),
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext"), ("dinov2_lora",)),
    "paligemma": ("paligemma_lora",),
    "florence2": ("paligemma_lora", "model.name=florence2", "model.tasks=[detect,caption]", "method.targets=[q,k,v,o,mlp]"),
}
PIXELS = 40_000_000
"""Of a picture, at most: in memory it has three bytes each. Phones take 12 to 50 million; our own limit is below Pillow's."""
PICTURES, ANSWERS = 512 * 2**20, 256 * 2**20
"""Bytes of pictures, and of what encoders made of them, that are kept at most."""
STRIDE = 89
"""Rows from one example to the next: neighbours are often alike."""
COMES, ADAPTED = "as it comes", "adapted"


class Shelf:
    """What was made once and is kept, the newest used first, up to a number of bytes; the last one always stays.

    Args:
        most: bytes.
        weigh: a thing → its bytes.
    """

    def __init__(self, most: int, weigh: Callable[[Any], int]):
        self.most, self.weigh = most, weigh
        self._things: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The thing of this key; made if it is not there, once, however many ask for it at the same time."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
                return self._things[key][0]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._things:  # another has made it meanwhile
                    return self._things[key][0]
            try:
                made = make()
            finally:
                with self._lock:
                    self._making.pop(key, None)
            self._put(key, made)
        return made

    def _put(self, key: Hashable, made: Any) -> None:
        with self._lock:
            self._things[key] = made, self.weigh(made)
            while len(self._things) > 1 and self.bytes > self.most:
                self._things.popitem(last=False)

    @property
    def bytes(self) -> int:
        """That all of it has."""
        return sum(weight for _, weight in self._things.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._things


@dataclass(frozen=True)
class Choice:
    """A model that the page offers; nothing of it is in memory yet."""

    name: str
    """As the page shows it."""
    recipe: Recipe | None
    """None: of an exported file alone."""
    by: str = COMES
    """`as it comes`, `adapted`, or a student's or an exported file's name."""
    place: Path | None = None
    """The student's folder, or the file."""
    make: Callable[[Session], None] | None = None
    """What makes them, where they are not there yet."""

    @property
    def family(self) -> str:
        """The name of the model's plug-in: clip, sam, dinov2, paligemma, florence2; of a student, its teacher's; of a file alone, empty."""
        return self.recipe.model.name if self.recipe else ""

    @property
    def student(self) -> bool:
        """Is it a student, from its folder or exported?"""
        return self.place is not None

    @property
    def exported(self) -> bool:
        """Is it a file?"""
        return self.student and self.place.suffix == ".onnx"


@dataclass
class Model:
    """A model that is in memory, in evaluation."""

    choice: Choice
    session: Session | None
    """None: of an exported file, which needs neither."""
    module: Any
    """A `Family`, or a `Student`; of an exported file, its `Answerer` (`verbs/predicting/answerers.py`)."""
    classes: list[str]
    """That it answers for when it is told none; empty without any."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def device(self):
        """Where its tensors are."""
        return self.session.accelerator.device if self.session else "cpu"

    @property
    def bytes(self) -> int:
        """Of its weights."""
        if self.choice.exported:
            return self.choice.place.stat().st_size
        return sum(tensor.nbytes for tensor in self.module.state_dict().values())


class Desk:
    """Models by name, and pictures by path.

    Args:
        choices: what is offered, the first of a family first.
        memory: bytes of models that are kept, at most; none: a quarter of the machine's.
    """

    def __init__(self, choices: list[Choice], memory: int | None = None):
        self.choices = {choice.name: choice for choice in choices}
        self.models = Shelf(memory or psutil.virtual_memory().total // 4, lambda model: model.bytes)
        self.pictures = Shelf(PICTURES, lambda picture: 3 * picture.width * picture.height)
        self.answers = Shelf(ANSWERS, lambda tensor: tensor.nbytes)
        """What encoders made of pictures, so that a picture is encoded once: `desk.answers.get((model, path, …), make)`."""
        self._opening = threading.Lock()

    def names(self, *families: str, students: bool = False) -> list[str]:
        """The models of these families that can be asked, the user's own first; with students and exported files, or without."""
        wanted = {*families, ""} if students else families
        return [name for name, choice in self.choices.items() if choice.family in wanted and (students or not choice.student)]

    @contextmanager
    def using(self, name: str) -> Iterator[Model]:
        """A model, for one question; others wait. Loaded, if need be.

        Raises:
            UserError: there is none of this name, or it cannot be loaded.
        """
        if name not in self.choices:
            raise UserError(f"model: there is no {name!r} here.{nearest(name, self.choices)}")
        model = self.models.get(name, lambda: self.open(self.choices[name]))
        with model.lock:
            yield model

    def open(self, choice: Choice) -> Model:
        """A model of the caller's own, in memory beside those that are kept; for what takes so long that others must not wait.

        Raises:
            UserError: it cannot be loaded.
        """
        with self._opening:  # libraries load one model at a time
            if choice.make and not choice.place.exists():
                choice.make(Session(choice.recipe))
            if choice.exported:
                found = answerers.of_file(choice.place)
                return Model(choice, None, found, found.names)
            session = Session(choice.recipe)
            if choice.student:
                from adapt.students import open_student

                module = open_student(choice.place).to(session.accelerator.device)
                return Model(choice, session, module.eval(), module.classes)
            module = kept.adapted(session) if choice.by == ADAPTED else session.as_it_comes()
            return Model(choice, session, module.eval(), list(module.classes))

    def picture(self, path: str) -> Picture.Image:
        """A file → its picture in RGB, by the same door as the sources' pictures; read once, and kept a while.

        Raises:
            UserError: it is no usable picture, or has more than `PIXELS`.
        """
        return self.pictures.get(path, lambda: _read(path))

    def loaded(self, name: str) -> bool:
        """Is a model in memory?"""
        return name in self.models

    def example(self, name: str, number: int) -> Picture.Image:
        """A picture of the data of a model's recipe: of the test split, another one for each number."""
        with self.using(name) as model:
            data = model.session.data
            rows = data["test"] if "test" in data else data["train"]
            return rows[number * STRIDE % len(rows)]["image"]


def _read(path: str) -> Picture.Image:
    value = {"path": path, "bytes": None}
    with quiet():
        if many := _too_many(value):
            raise UserError(f"picture: {many} are too many; up to {PIXELS // 10**6} million are read. Scale it down.")
        problems = inspect(value).problems
    for kind, detail in problems:
        if KINDS[kind][0]:
            raise UserError(f"picture: not a usable picture: {kind}{f' ({detail})' if detail else ''}. Give another file.")
    return rgb(open_picture(value))


def _too_many(value: dict[str, Any]) -> str:
    """A picture's pixels, in words, if they are more than `PIXELS`; by its header alone, since all of them may not fit into memory."""
    try:
        width, height = open_picture(value).size
    except Picture.DecompressionBombError:
        return "its pixels"
    except Exception:  # decoders raise nearly anything; `inspect` says what it is
        return ""
    return f"{width:,} × {height:,} pixels" if width * height > PIXELS else ""


# ---------------------------------------------------------------------------------------------------------------- choices


def choices(recipe: Recipe | None = None, checkpoint: str | None = None, file: str | None = None) -> list[Choice]:
    """What the page offers: what the user names, and the embedded checkpoints.

    Args:
        recipe: its model as it comes; adapted, its students and their exported files, as far as its run has them.
        checkpoint: as `model.checkpoint`.
        file: an exported student.

    Raises:
        UserError: the checkpoint or the file is none.
    """
    found = [Choice(one.model.checkpoint, one) for one in (load_recipe(name, ["tracker=none"]) for name in EMBEDDED)]
    if checkpoint and checkpoint not in {choice.name for choice in found}:
        found.insert(0, Choice(checkpoint, _asked_by(checkpoint)))
    elif checkpoint:
        found.sort(key=lambda choice: choice.name != checkpoint)
    if file:
        path = Path(file).expanduser().resolve()
        answerers.of_file(path)  # refused before the page opens
        found.insert(0, Choice(path.name, None, path.name, path))
    if recipe:
        found = [*_of_run(recipe.model_copy(update={"tracker": "none"})), *found]
    return found


def embedded_student() -> list[Choice]:
    """The student that is always there, and its files; they are made when the first is asked, and kept for the next time."""
    recipe, place = load_recipe(EMBEDDED[0], ["tracker=none"]), ready.place()
    files = [place.parents[1] / "export" / ready.NAME / "onnx" / f"{stem}.onnx" for stem in ("model", "model.int8")]
    named = [(ready.NAME, place), *((f"{ready.NAME} {file.stem}", file) for file in files)]
    return [Choice(name, recipe, name, each, ready.make) for name, each in named]


def _asked_by(checkpoint: str) -> Recipe:
    """The recipe that a checkpoint is asked by, with the checkpoint in it."""
    kind = checkpoint.partition(":")[0]
    if kind not in ("open_clip", "segment_anything"):
        kind = read_config(checkpoint, tuple(KINDS_OF_CHECKPOINTS))["model_type"]
    name, *overrides = KINDS_OF_CHECKPOINTS[kind]
    return load_recipe(name, [*overrides, f"model.checkpoint={json.dumps(checkpoint)}", "tracker=none"])


def _of_run(recipe: Recipe) -> list[Choice]:
    """The model of a recipe, in all that its run folder has of it."""
    run = Run.open(recipe, writes=True)
    title = run.path.name if run.path.is_dir() else recipe.name
    by = [*([ADAPTED] if run.facts("finetune") and (run.path / "adapter").exists() else []), COMES]
    places = sorted(file.parent.resolve() for file in run.path.glob("student/[!.]*/config.json"))
    models = [Choice(f"{title}: {each}", recipe, each) for each in by]
    files = sorted(file.resolve() for file in run.path.glob("export/*/onnx/model*.onnx"))
    named = [*((place.name, place) for place in places), *((f"{file.parent.parent.name} {file.stem}", file) for file in files)]
    return [*models, *(Choice(f"{title}: {name}", recipe, name, place) for name, place in named)]
