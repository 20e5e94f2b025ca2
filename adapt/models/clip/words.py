"""What a step sees of the classes' texts, and what is kept of a text tower that does not learn.

A tower that learns reads one template a class at each step, drawn anew by the step's seed, so that a step costs the same however many
templates there are, and one of a class's texts where it has several. Of more classes than a budget of tokens holds it sees a part, drawn too; then a row's softmax is over this part and
the row's own class, and each of the others stands for as many as were left out (importance sampling of the partition function:
Bengio and Senécal 2008, §III; Jean et al. 2015, arXiv:1412.2007), whatever the row's batch, micro-batch and process.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapt.plug import UserError
from adapt.provenance import of, packages
from adapt.run import atomic
from adapt.vision.pictures import cache_folder

VERSION = 1
"""Raised when kept classifiers are to be made again."""
TEXTS = 512
"""Texts that are encoded together, at most."""
FEWEST = 2
"""Classes that are drawn at least: a row needs another class than its own."""


@dataclass(frozen=True)
class Drawn:
    """What a step sees of C classes, by its seed alone."""

    templates: np.ndarray
    """For each class the number of its template, int64[C]."""
    classes: np.ndarray | None
    """The classes that are seen beside the rows' own, int64[K], rising; none: all."""


def draw(seed: int, classes: int, templates: int, most: int) -> Drawn:
    """Draw templates, and `most` of the classes where there are more."""
    random = np.random.default_rng(seed)
    chosen = random.integers(0, templates, classes)
    most = max(FEWEST, most)
    return Drawn(chosen, np.sort(random.permutation(classes)[:most]) if most < classes else None)


def seen(drawn: np.ndarray, labels: Tensor) -> Tensor:
    """The classes that are drawn and those of the rows, int64[S], rising, each once."""
    return torch.cat([torch.from_numpy(drawn).to(labels.device), labels]).unique()


def sampled(logits: Tensor, shown: Tensor, drawn: np.ndarray, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Logits of some classes as a softmax over all of them takes them, and the place of each row's own class.

    Args:
        logits: float32[B, S], of the classes `shown`, int64[S], rising.
        drawn: those among them that were drawn for all rows, int64[K].
        labels: int64[B].
        classes: C, how many there are.

    Returns:
        float32[B, S]: −∞ for classes that are there for the sake of other rows; log((C − 1) / n) is added to each of the n drawn
        ones that are not the row's own. int64[B].
    """
    place = torch.searchsorted(shown, labels)
    common = torch.isin(shown, torch.from_numpy(drawn).to(shown.device))
    own = F.one_hot(place, len(shown)).bool()
    others = common.sum() - common[place].long()
    stands_for = torch.log((classes - 1) / others.float())[:, None].expand_as(logits)
    logits = logits + torch.where(own, 0.0, stands_for)
    return logits.masked_fill(~(common | own), -math.inf), place


def one_each(texts: Sequence[Sequence[str]], shown: Sequence[int], seed: int) -> list[str]:
    """Of each class that is shown one of its texts, drawn by the step's seed and the class alone."""
    if all(len(several) == 1 for several in texts):
        return [texts[i][0] for i in shown]
    chosen = np.random.default_rng([seed, 1]).integers(0, [len(several) for several in texts])
    return [texts[i][chosen[i]] for i in shown]


def cut(texts: list[str], tokenise: Callable[[list[str]], Tensor]) -> list[str]:
    """Those of the texts whose end the text tower does not see: a word behind them changes no token."""
    tokens, longer = tokenise(texts), tokenise([f"{text} x" for text in texts])
    if tokens.shape != longer.shape:  # the longest of them grew, so it was not as long as a text can be
        return []
    return [text for text, same in zip(texts, (tokens == longer).all(1).tolist(), strict=True) if same]


def classifier(
    texts: Sequence[Sequence[str]], templates: list[str], combine: str, encode: Callable[[list[str]], Tensor]
) -> Tensor:
    """The rows that pictures are compared with: what several texts of a class become.

    Args:
        texts: for each of C classes one or more, N in all, each of which stands in every template.
        combine: `mean`: each text's row averaged, normalised again, float32[C, D]; `similarity`: averaged as it is, so that the product with a
            picture is the mean of the similarities (Menon and Vondrick 2022, eq. 1, arXiv:2210.07183; WaffleCLIP); `max`: float32[N, D].
        encode: N texts → float32[N, D], L2-normalised.
    """
    rows = embedded([text for several in texts for text in several], templates, encode, combine != "similarity")
    counts = [len(several) for several in texts]
    if combine == "max" or max(counts) == 1:
        return rows
    means = torch.stack([part.mean(0) for part in rows.split(counts)])
    return F.normalize(means, dim=-1) if combine == "mean" else means


def greatest(logits: Tensor, texts: Sequence[Sequence[str]]) -> Tensor:
    """float32[B, N] of all texts → float32[B, C], the greatest of each class's."""
    return torch.stack([part.amax(1) for part in logits.split([len(several) for several in texts], dim=1)], dim=1)


def embedded(classes: list[str], templates: list[str], encode: Callable[[list[str]], Tensor], again: bool = True) -> Tensor:
    """float32[C, D]: each prompt normalised, averaged over the templates, normalised again (CLIP §3.1.4, open_clip).

    What is gathered is a row a class, not a text.

    Args:
        encode: N texts → float32[N, D], L2-normalised.
        again: normalise again? Without it, the product with a picture is the mean of the similarities.
    """
    step = max(1, TEXTS // len(templates))
    means = []
    for start in range(0, len(classes), step):
        part = classes[start : start + step]
        texts = [template.replace("{}", name) for name in part for template in templates]
        means.append(encode(texts).view(len(part), len(templates), -1).mean(1))
    return F.normalize(torch.cat(means), dim=-1) if again else torch.cat(means)


# -------------------------------------------------------------------------------------------------------------------- kept


def fixed(part: nn.Module) -> bool:
    """Is what a module makes of its input a function of its tensors alone? Not with adapters, which have scales, nor with hooks."""
    peft = sys.modules.get("peft.tuners.tuners_utils")  # seconds to import; where nobody has, there is no layer of its
    parts = list(part.modules())
    adapted = peft is not None and any(isinstance(each, peft.BaseTunerLayer) for each in parts)
    return not adapted and not any(each._forward_hooks or each._forward_pre_hooks for each in parts)


def key(about: str, tensors: Mapping[str, Tensor], tokens: Tensor, classes: list, templates: list[str]) -> str:
    """What a classifier is a function of: the tower's tensors and configuration, the texts, the tokenizer's answer to some of them, and
    what rounds: device, threads, libraries. Contents, never names: weights that have learnt are others than their checkpoint's."""
    total = hashlib.sha256()
    for name, value in sorted({**tensors, " tokens": tokens}.items()):
        value = value.detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    device = next(iter(tensors.values())).device
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {torch.get_num_threads()}"
    return of(VERSION, about, total.hexdigest(), classes, templates, machine, packages())


def kept(name: str, build: Callable[[], Tensor], device: torch.device) -> Tensor:
    """A classifier that lies in the cache under its key; where it does not, or cannot be read, it is built and put there.

    A cache that cannot be written costs time and nothing else.
    """
    path = cache_folder("classifiers") / f"{name}.safetensors"
    with suppress(OSError, KeyError, SafetensorError):
        return load_file(path)["classifier"].to(device)
    found = build()
    with suppress(OSError, UserError, SafetensorError), atomic(path) as temporary:
        save_file({"classifier": found.detach().cpu().contiguous()}, temporary)
    return found
