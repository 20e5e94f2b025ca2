"""What words are worth without any training: names, aliases, descriptions and random words for one CLIP, on the same pictures.

    python -m benchmarks.words                        # clip-tiny on OpenMoji, which no pre-training saw
    python -m benchmarks.words checkpoint=FOLDER      # another CLIP

Things and keywords (CLDR) are those of the training split, whose things are none of validation's and the test's. Rows are chosen by validation;
the test's column is what the choice is worth. Random words (WaffleCLIP) are drawn seven times, and a picture counts as often as it was right.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import numpy as np
import pyarrow.parquet as pq
from accelerate import Accelerator

from adapt import plug
from adapt.data.world import file
from adapt.evals.bootstrap import interval, mean
from adapt.prompting.text import words
from adapt.recipe import Prompts, load_recipe
from adapt.train.predict import predict

DRAWS = 7
SPLITS = ("validation", "test")


def main(checkpoint: str) -> None:
    recipe = load_recipe("clip_lora", [f"model.checkpoint={checkpoint}"])
    data = plug.load("data", recipe.data.source).load(recipe.data)
    clip = plug.load("models", "clip").load(recipe.model).eval()
    labels = data["train"].features["label"].names
    accelerator = Accelerator(cpu=True)

    def right(prompts: dict, split: str) -> np.ndarray:
        """Is each picture's class the first? float[N]."""
        with redirect_stdout(sys.stderr):  # it tells which texts it cuts
            clip.set_classes(**words(Prompts(**prompts), labels).told)
        logits = predict(clip.predictors()["class_logits"], clip, data[split], 256, accelerator)
        return (logits.argmax(1) == np.asarray(data[split]["label"])).astype(float)

    base = {split: right(recipe.prompts.values(), split) for split in SPLITS}
    print("| words | texts a class | validation | test (95 % interval) | against the recipe's, test |\n|---|---|---|---|---|")
    for title, several in questions(recipe.prompts, known(data["train"], labels)).items():
        each = {split: [right(prompts, split) for prompts in several] for split in SPLITS}
        found = {split: np.mean(values, axis=0) for split, values in each.items()}
        told = words(Prompts(**several[0]), labels)
        count = np.mean([len(own) for own in told.texts]) * len(told.templates)
        low, high = interval(mean(found["test"]), 1000)
        down, up = interval(mean(found["test"] - base["test"]), 1000)
        tops = [100 * values.mean() for values in each["test"]]
        spread = f"; draws {min(tops):.1f}–{max(tops):.1f}" if len(tops) > 1 else ""
        print(
            f"| {title} | {count:.0f} | {100 * found['validation'].mean():.1f} | {100 * found['test'].mean():.1f} "
            f"({100 * low:.1f}–{100 * high:.1f}{spread}) | {100 * (found['test'] - base['test']).mean():+.1f} "
            f"({100 * down:+.1f} to {100 * up:+.1f}) |"
        )


def questions(own: Prompts, of: dict[str, dict[str, list[str]]]) -> dict[str, list[dict]]:
    """Title → the prompts whose mean is a row; all stand in the recipe's templates but the first."""
    plain, named = {"templates": own.templates}, {"templates": own.templates, "classes": own.classes}
    found = {
        "the labels' own names, 7 templates of photographs": [{}],
        "the labels' own names": [plain],
        "names of emoji.yaml (the recipe's)": [named],
    }
    for combine in ("mean", "similarity", "max"):
        found[f"names of the training things, {combine}"] = [plain | {"classes": of["things"], "combine": combine}]
        found[f"class name and names of the training things, {combine}"] = [plain | {"classes": of["both"], "combine": combine}]
        found[f"class name and keywords (CLDR) of one class alone, {combine}"] = [
            plain | {"classes": of["keywords"], "combine": combine}
        ]
        found[f"descriptions: such as a training thing, {combine}"] = [named | {"descriptions": of["such"], "combine": combine}]
    for combine in ("mean", "similarity"):
        drawn = [named | {"random": {"seed": seed}, "combine": combine} for seed in range(DRAWS)]
        found[f"random words, 15 pairs, {combine}; the mean of {DRAWS} draws"] = drawn
    return found


def known(train, labels: list[str]) -> dict[str, dict[str, list[str]]]:
    """What the training split's things are called: for each label the texts of a kind."""
    ids = {name.rpartition("/")[2] for name in train["id"][:]}
    table = [
        row
        for row in pq.read_table(file("openmoji"), columns=["id", "name", "keywords", "subgroup"]).to_pylist()
        if row["id"] in ids
    ]
    things = {label: sorted({row["name"] for row in table if row["subgroup"] == label}) for label in labels}
    keywords = {label: {word for row in table if row["subgroup"] == label for word in row["keywords"]} for label in labels}
    shared = {word for label in labels for word in keywords[label] if sum(word in other for other in keywords.values()) > 1}
    names = dict(zip(labels, words(Prompts(classes="emoji"), labels).classes))
    taken = set(names.values())
    return {
        "things": things,
        "both": {label: [names[label], *(thing for thing in things[label] if thing not in taken)] for label in labels},
        "keywords": {label: [names[label], *sorted(keywords[label] - shared - taken)] for label in labels},
        "such": {label: [f"{{}} such as {thing}" for thing in things[label]] for label in labels},
    }


if __name__ == "__main__":
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    main(given.get("checkpoint", "clip-tiny"))
