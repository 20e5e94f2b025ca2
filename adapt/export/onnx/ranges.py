"""Which range of an activation int8 keeps: all that was seen, or less, so that the common values get finer steps.

    minmax      all that was seen
    average     the mean over batches of their lowest and highest
    percentile  all but the `TAIL` outermost values
    entropy     the cut that loses the least information

Two passes over the pictures. The first keeps a few numbers of each activation; the second, for percentile and entropy alone, a
histogram of `BINS` bins, of `PICTURES` pictures and `VALUES` values at most. Neither keeps activations. So memory and work are
bounded, and nothing depends on the machine or on its load.

Source: Wu et al. 2020, arXiv:2004.09602 (§3.3: max, percentile, entropy); Migacz 2017 (entropy, in TensorRT).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from adapt.plug import UserError

METHODS = ("minmax", "average", "percentile", "entropy")
BATCH = 4
"""Pictures at a time in the first pass; more do not fit a processor's cache."""
GROUP = 32
"""Pictures whose lowest and highest values `average` takes as one."""
BINS = 4096
"""Of a histogram, from −largest to +largest."""
TAIL = 1e-4
"""The share of values that a percentile cuts off, half of it at each end."""
PICTURES = 64
"""Of them histograms are made, at most."""
VALUES = 2**19
"""So many values of an activation are counted, at most, those of all pictures together."""
BYTES = 256 * 2**20
"""Of activations in memory in the second pass; a single tensor may be more."""
LEVELS = {False: 128, True: 255}
"""Is nothing negative → steps on a side of zero."""


@dataclass
class Seen:
    """What the first pass keeps of an activation."""

    lowest: np.ndarray
    """float32[groups of pictures]."""
    highest: np.ndarray
    """float32[groups of pictures]."""
    size: float
    """Values in one picture."""
    mean: np.ndarray | None
    """float32[channels], where it was asked for."""

    @property
    def largest(self) -> float:
        return max(abs(float(self.lowest.min())), abs(float(self.highest.max())))


def observe(model: onnx.ModelProto, names: Sequence[str], inputs: dict[str, int], samples: np.ndarray) -> dict[str, Seen]:
    """The first pass.

    Args:
        model: of one input.
        names: activations, float.
        inputs: those of them whose mean over all but the channels is wanted, [N, C, …], with their number of dimensions.
        samples: float32[N, 3, H, W].

    Raises:
        UserError: an activation is not finite.
    """
    kinds = {"ReduceMin": {"keepdims": 0}, "ReduceMax": {"keepdims": 0}, "Size": {}}
    extra = [helper.make_node(kind, [name], [f"{name}/{kind}"], **kinds[kind]) for name in names for kind in kinds]
    axes = {rank: numpy_helper.from_array(np.arange(2, rank), f"{rank}/axes") for rank in inputs.values()}
    for name, rank in inputs.items():
        options = {"keepdims": 0, "noop_with_empty_axes": 1}
        extra.append(helper.make_node("ReduceMean", [name, f"{rank}/axes"], [f"{name}/mean"], **options))
    run = _watched(model, [node.output[0] for node in extra], extra, list(axes.values()))
    found = [run(samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)]
    groups = np.arange(0, len(found), GROUP // BATCH)
    seen = {}
    for name in names:
        low, high, size = (np.array([one[f"{name}/{kind}"] for one in found]) for kind in kinds)
        if not np.isfinite([low, high]).all():
            raise UserError(f"export: int8: refused: the values of {name!r} are not finite on the calibration pictures.")
        mean = np.concatenate([one[f"{name}/mean"] for one in found]).mean(0) if name in inputs else None
        lowest, highest = np.minimum.reduceat(low, groups), np.maximum.reduceat(high, groups)
        seen[name] = Seen(lowest, highest, size.sum() / len(samples), mean)
    return seen


def histograms(model: onnx.ModelProto, seen: dict[str, Seen], samples: np.ndarray) -> dict[str, np.ndarray]:
    """The second pass: int64[BINS] of each activation, over [−largest, largest], of evenly chosen pictures."""
    chosen = evenly(samples, PICTURES)
    counts = {name: np.zeros(BINS, np.int64) for name in seen}
    for names in _groups(seen):
        run = _watched(model, names)
        for number in range(len(chosen)):
            for name, values in run(chosen[number : number + 1]).items():
                step = max(1, int(values.size * len(chosen) / VALUES)) | 1  # odd, so that it does not fall on the same columns
                scale = BINS / 2 / max(seen[name].largest, 1e-30)
                bins = (values.ravel()[number % step :: step] * scale + BINS / 2).astype(np.int32)
                counts[name] += np.bincount(bins.clip(0, BINS - 1), minlength=BINS)
    return counts


def evenly(samples: np.ndarray, count: int) -> np.ndarray:
    """So many samples, at most, from the first to the last."""
    return samples[np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)]


def cut(method: str, seen: Seen, counts: np.ndarray | None = None) -> tuple[np.float32, np.float32]:
    """The range of an activation by one of the `METHODS`.

    Args:
        counts: its histogram, for percentile and entropy.
    """
    low, high = float(seen.lowest.min()), float(seen.highest.max())
    if method == "average":
        low, high = float(seen.lowest.mean()), float(seen.highest.mean())
    elif method == "percentile":
        share = counts.cumsum() / counts.sum()
        edges = np.linspace(-seen.largest, seen.largest, BINS + 1)
        low = max(low, edges[np.searchsorted(share, TAIL / 2, "right")])
        high = min(high, edges[np.searchsorted(share, 1 - TAIL / 2) + 1])
    elif method == "entropy":
        most = seen.largest * _least_lost(counts[BINS // 2 :] + counts[BINS // 2 - 1 :: -1], LEVELS[low >= 0])
        low, high = max(low, -most), min(high, most)
    return np.float32(low), np.float32(high)


def _least_lost(counts: np.ndarray, levels: int) -> float:
    """Where magnitudes are cut, as a share of the largest, so that their distribution loses the least in so many steps.

    Args:
        counts: int64[bins], from 0 to the largest magnitude.
    """
    counts = counts.astype(float)
    counts[0] = counts[1]  # zeros, which any cut keeps, would outweigh all else
    best, place = np.inf, len(counts)
    for end in range(levels, len(counts) + 1, 16):
        kept = counts[:end]
        ours = kept.copy()
        ours[-1] += counts[end:].sum()
        starts = np.arange(levels) * end // levels
        filled = np.add.reduceat((kept > 0).astype(float), starts)
        level = np.add.reduceat(kept, starts) / np.maximum(filled, 1)
        theirs = np.repeat(level, np.diff(np.r_[starts, end])) * (kept > 0)
        if not theirs.any():
            continue
        ours, theirs = ours / ours.sum(), np.maximum(theirs / theirs.sum(), 1e-9)
        lost = float((ours * np.log(np.maximum(ours, 1e-30) / theirs)).sum())
        if lost < best:
            best, place = lost, end
    return place / len(counts)


def _groups(seen: dict[str, Seen]) -> Iterator[list[str]]:
    """The names, in runs whose values of one picture take `BYTES` at most."""
    group: list[str] = []
    for name, one in seen.items():
        if group and 4 * (one.size + sum(seen[other].size for other in group)) > BYTES:
            yield group
            group = []
        group.append(name)
    yield group


def _watched(
    model: onnx.ModelProto, outputs: Sequence[str], nodes: Sequence = (), initializers: Sequence = ()
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The model with other outputs, as a function of images; it is run as it is written, without fusions."""
    import onnxruntime as ort

    watched = onnx.ModelProto.FromString(model.SerializeToString())
    watched.graph.node.extend(nodes)
    watched.graph.initializer.extend(initializers)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (images,) = (one.name for one in session.get_inputs())
    return lambda batch: dict(zip(outputs, session.run(list(outputs), {images: batch}), strict=True))
