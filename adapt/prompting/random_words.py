"""Random words in the place of descriptions: what an ensemble of texts gains without any meaning.

    a photo of a hen, which has slug tabl.      a photo of a hen, which has kqzv, pnua.

Each pair is a text of random words and a text of random characters, the same for all classes; both are as long as the class names are on
average. Descriptions that do not beat them have added texts, not knowledge. The paper draws 15 pairs, repeats that at least seven times
(`prompts.random.seed=0` … `6`) and reports the mean.

Source: Roth et al. 2023 (WaffleCLIP), arXiv:2306.07282, §3.3; word counts and lengths as in its code. The words are of our own list, those of
ImageNet's class names, without those that name a class of the data.
"""

from __future__ import annotations

import math
import random
import re
import string
from collections.abc import Sequence
from statistics import mean

from adapt.prompting.word_lists import read

SHORTEST = 3
"""Letters of a word that can be drawn, at least."""


def descriptions(classes: Sequence[str], pairs: int, seed: int) -> list[str]:
    """2 × `pairs` random texts for these classes: words, characters, words, …

    Args:
        classes: the class names, by which their lengths go.
        pairs: how many texts of each kind.
        seed: the same seed and names give the same texts, on any machine.
    """
    if not classes:
        return []
    draw, own = random.Random(seed), vocabulary(classes)
    count, letters = word_shape(classes)
    groups, length = character_shape(classes)
    found = []
    for _ in range(pairs):
        found.append(" ".join(draw.choice(own)[:letters] for _ in range(count)))
        found.append(", ".join("".join(draw.choice(string.ascii_lowercase) for _ in range(length)) for _ in range(groups)))
    return found


def word_shape(classes: Sequence[str]) -> tuple[int, int]:
    """How many words a text has, and how many letters each is cut to: a class name's on average, rounded."""
    words = [name.split() or [""] for name in classes]
    return max(1, round(mean(map(len, words)))), max(1, round(mean(mean(map(len, parts)) for parts in words)))


def character_shape(classes: Sequence[str]) -> tuple[int, int]:
    """How many groups of characters a text has, and how many characters each: the longest word's on average, shared among the groups.

    The total is raised to the next multiple of the groups; where it is one already, to the one after, as the paper's code does.
    """
    groups = round(mean(name.count(" ") for name in classes)) + 1
    total = math.ceil(mean(max(map(len, name.split(" "))) for name in classes))
    total += groups - total % groups
    return groups, total // groups


def vocabulary(classes: Sequence[str]) -> list[str]:
    """The words that can be drawn, sorted: lower case, of three letters or more, none of a class of the data."""
    named = read("clip/imagenet", "classes").entries()
    taken = {word for name in classes for word in _words(name)}
    return sorted({word for entry in named for text in entry.texts for word in _words(text) if len(word) >= SHORTEST} - taken)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.casefold())
