"""The words of `adapt help` and `adapt help VERB`: three lines a verb, and how to call it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

PAGES = {
    "init": """Look at your data, say what is there, and write a recipe for it.
Knows class folders, masks, JSON lines, tables, COCO, YOLO, VOC, LabelMe and
Label Studio by their files; the recipe is short and commented: change it.

  adapt init photos
  adapt init labels.csv write=mine.yaml""",
    "evaluate": """Measure the model, and its adapted version if there is one.
By the recipe's `evals`, or on the sets of a suite, several models at once. Each
main number has a 95 % interval. What is up to date is not measured again.

  adapt evaluate recipe=clip_lora
  adapt evaluate recipe=clip_lora suite=embedded
  adapt evaluate run=runs/clip_lora-1a2b3c4d evals.0.split=validation""",
    "finetune": """Adapt the model to your data; measure it before and after.
The recipe's `method` says what learns, `train` how. The best weights on the
validation split are kept. A stopped run continues with the same command.

  adapt finetune recipe=yours/photos data.path=photos
  adapt finetune recipe=clip_lora method.name=full train.lr=1e-5
  adapt finetune run=runs/clip_lora-1a2b3c4d extend=5    # five epochs more""",
    "distill": """Teach a small CNN what the adapted model knows.
The recipe's `distill` names the objective and the student. The teacher's
answers are computed once and kept. First: adapt finetune.

  adapt distill run=runs/clip_lora-1a2b3c4d
  adapt distill recipe=clip_lora distill.train.epochs=30""",
    "export": """Write the student for its device; check the file; time it.
Each target of the recipe's `export` writes fp32 and, with int8=true, int8; a
file whose outputs differ from the student's is refused. First: adapt distill.

  adapt export run=runs/clip_lora-1a2b3c4d
  adapt export recipe=clip_lora export.0.int8=false""",
    "merge": """Join what was learnt and the base into one checkpoint.
scale= takes a share of it (0 to 1), or `sweep`: the best on validation that
keeps keep= of zero-shot: of its score on the canary, or else of its hits here.

  adapt merge run=runs/clip_lora-1a2b3c4d
  adapt merge run=runs/clip_lora-1a2b3c4d scale=sweep canary=source_hands""",
    "road": """Finetune, distill and export, one after the other.
Parts that the recipe does not have are left out; parts that are finished are
not done again. One table at the end has them all.

  adapt road recipe=clip_lora
  adapt road recipe=yours/photos data.path=photos""",
    "shots": """See what few labels buy: methods × labelled pictures a class.
One table and one plot, with intervals against zero-shot. Features are computed
once; a killed sweep goes on with the same command, cell by cell.

  adapt shots recipe=clip_lora
  adapt shots recipe=clip_lora shots=1,4 seeds=1 methods=coop,lora cap=100""",
    "workbench": """Find the words and drawings that ask the model best.
Half of a few labelled pictures choose among templates, drawings, subtraction;
the other half confirm. Both figures are shown; the choice becomes a recipe.

  adapt workbench recipe=clip_boxes
  adapt workbench recipe=clip_lora pictures=200 write=mine.yaml""",
    "prompt": """Ask the model about one picture: masks, boxes, words or classes.
The answer is printed, written as JSON and, with a mask or boxes, drawn on the
picture. The adapted model answers, if the recipe's run has one.

  adapt prompt recipe=sam_lora image=photo.jpg text='segment the red apple'
  adapt prompt recipe=clip_lora image=photo.jpg text='ants, bees'""",
    "predict": """Answer for any number of pictures, in a format that others read.
A run answers by its student, or its adapted model; an exported file answers
alone. A killed run goes on with the same command, and no picture is lost.

  adapt predict run=runs/clip_lora-1a2b3c4d images=photos to=csv
  adapt predict file=model.int8.onnx images='photos/*.jpg' to=coco out=found""",
    "convert": """Write your data, with splits and classes, in another format.
Any source that Adapt reads; COCO to COCO keeps every entry word by word. What
a format cannot hold is said. Pictures are linked, or copied.

  adapt convert data.path=photos to=csv out=photos_csv    # classes
  adapt convert data.path=shelf to=yolo out=shelf_yolo    # boxes
  adapt convert data.path=COCO to=coco out=b data.classes='{cup: null}'""",
    "demo": """Show the models in a browser, on your own pictures.
Six tabs: labels as you type, masks by clicks, features, questions, students and
runs. Offline with the embedded checkpoints; or the model of a recipe or a run.

  adapt demo
  adapt demo run=runs/clip_lora-1a2b3c4d port=8000
  adapt demo checkpoint=openai/clip-vit-base-patch32 auth=people.txt""",
    "report": """Write a run's report anew, from the numbers in its folder.
report.html has curves, confusion, mistakes and pictures; report.md the table.
Every other verb does this at its end.

  adapt report run=runs/clip_lora-1a2b3c4d
  adapt report recipe=clip_lora""",
    "runs": """List the runs in runs/, compare some, or remove some.
compare prints options that differ, numbers, and changes from the first run, or
why two were not measured alike and have none. remove asks first, or yes=true.

  adapt runs
  adapt runs clip_lora-1a2b3c4d clip_lora-5e6f7a8b
  adapt runs remove clip_lora-1a2b3c4d yes=true""",
    "recipes": """List the recipes, or print one with all its options.
A printed recipe shows each option's value, meaning, type, range and default.
It is a recipe itself: save it and change it. plain=true leaves comments out.

  adapt recipes
  adapt recipes clip_lora train.epochs=3 > mine.yaml""",
    "options": """Explain the options of a section, of a plug-in, or a single one.
Each has its type, range, default and meaning; the paths are those that you
type as overrides. Without a name: all sections and plug-ins.

  adapt options train
  adapt options distill logits
  adapt options evals.knn.k""",
    "completion": """Let bash or zsh complete verbs, recipes, options and values.
It prints a script for the shell: put source <(adapt completion bash) into
~/.bashrc, or with zsh in the place of bash into ~/.zshrc, behind compinit.

  adapt completion bash
  adapt completion zsh""",
    "doctor": """Describe this machine; or look for problems in data or suites.
`doctor data` counts, finds broken and repeated pictures and boxes, and draws a
contact sheet; noise=true doubts labels. `doctor suite`: which sets are here?

  adapt doctor
  adapt doctor data data.path=photos write=problems.csv noise=true
  adapt doctor suite=core data.path=sets""",
}
"""Verb → its page; the first line is what it does."""

REQUESTS = {
    "convert": "adapt.verbs.converting.request",
    "demo": "adapt.demo.request",
    "doctor": "adapt.verbs.doctoring.request",
    "evaluate": "adapt.verbs.suiting.request",
    "predict": "adapt.verbs.predicting.request",
    "prompt": "adapt.verbs.question",
    "shots": "adapt.verbs.shooting.request",
    "workbench": "adapt.verbs.searching.request",
}
"""Verb → the module that reads what is typed after it: `OWN` names what it takes beside the recipe's options, `HELP` explains it."""
MERGE = """  scale=1          the share of what was learnt that is added, 0 to 1; 1 by
                   default. 0.5 is half of it (WiSE-FT), with no new training
  scale=sweep      measure 0, 0.1, … 1 on validation, and take the best of those
                   that keep enough
  keep=0.98        the share that must be kept, 0 to 1: of zero-shot's score on
                   the canary (0.98 by default), or without a canary of the
                   pictures here that zero-shot had right (0.9)"""
"""The options of `merge`."""

OVERVIEW = """adapt VERB recipe=NAME|FILE.yaml [key=value …]
adapt VERB run=runs/NAME-HASH [key=value …]

{verbs}

`adapt help VERB` explains a verb, with examples.

Overrides are paths into the recipe: train.epochs=5, method.name=full,
data.source=folder data.path=photos. `adapt options` explains them.

--json prints one JSON document instead of text: entries, guards, paths, or the
error. Progress and notes go to the standard error output.

Several processes: accelerate launch -m adapt VERB …

Exit status: 0 done; 1 a guard is broken and strict=true; 2 a mistake in the
recipe, the data or the command; 130 stopped by Ctrl-C.
ADAPT_DEBUG=1 shows where in the code an error was raised."""


def overview() -> str:
    """All verbs, a line each, and what holds for all."""
    return OVERVIEW.format(verbs="\n".join(f"  {verb:<10} {text.splitlines()[0]}" for verb, text in PAGES.items()))


def page(verb: str) -> str:
    """What a verb does, and how to call it."""
    options = MERGE if verb == "merge" else request(verb).HELP if verb in REQUESTS else ""
    return f"adapt {verb}: {PAGES[verb]}" + (f"\n\n{options}" if options else "")


def request(verb: str) -> ModuleType:
    """The module of `REQUESTS` that reads what is typed after a verb."""
    return import_module(REQUESTS[verb])
