"""Detectors as ONNX, fp32 and int8, with the removal of duplicates inside the file.

The network and its decoding come from torch; behind them stands ONNX's own NonMaxSuppression, so that the number of boxes is
dynamic and every runtime knows the operator. In int8 only the network is quantised: boxes and scores are decoded in float.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from adapt.export.onnx import FILES, graphs, note
from adapt.export.onnx.int8 import quantize
from adapt.plug import UserError

if TYPE_CHECKING:
    from torch import nn

    from adapt.export.onnx import Config

OUTPUTS = ("boxes", "scores", "labels", "rows")
"""boxes float[M, 4] XYXY in pixels of the input, scores float[M] best first, labels int64[M], rows int64[M]: of which image of
the batch."""


def export(
    config: Config,
    module: nn.Module,
    samples: np.ndarray,
    folder: Path,
    metadata: dict[str, Any],
    validation: np.ndarray | None = None,
) -> None:
    """Write the `FILES` of a detector into `folder`; the fp32 file has passed the gate when this returns.

    Args:
        module: images 0–255 → boxes float[B, N, 4], scores float[B, C, N]; `options` with `score` and `nms`.
        samples: float32[N, 3, S, S] of the training split.
        validation: the same of the validation split; see `quantize`.
        metadata: kept in the files, values as JSON.

    Raises:
        UserError: the gate refuses the file.
    """
    dense, small = folder / "dense.onnx", folder / "dense.int8.onnx"
    metadata = metadata | {"outputs": list(OUTPUTS), "nms": module.options}
    try:
        graphs.convert(module, (torch.from_numpy(samples[:2]),), dense, metadata)
        # each box as pixels of the input, so the tolerance grows with it
        proof = graphs.gate(module, dense, [(samples[:64],)], config.max_abs_error)
        with_nms(dense, folder / FILES["fp32"], **module.options)
        runners = graphs.Runner(dense), graphs.Runner(folder / FILES["fp32"])
        proof |= {"nms": gate(*runners, samples[:64], module.options, config.max_abs_error)}
        note(folder / FILES["fp32"], metadata | {"proof": proof})
        if config.int8:
            quantize(dense, small, config, samples, validation)
            with_nms(small, folder / FILES["int8"], **module.options)
    finally:
        dense.unlink(missing_ok=True)
        small.unlink(missing_ok=True)


def with_nms(dense: Path, path: Path, score: float, nms: float) -> None:
    """Append the removal of duplicates, class by class, to a file with outputs boxes[B, N, 4] and scores[B, C, N].

    Args:
        score: only what scores more is kept.
        nms: of two boxes of a class that overlap by more than this IoU, the better stays.
    """
    model = onnx.load(dense)
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = f"dense_{name}" if name in ("boxes", "scores") else name
    constants = {
        "most": np.array([2**31 - 1], np.int64),
        "overlap": np.array([nms], np.float32),
        "least": np.array([score], np.float32),
        "columns_02": np.array([0, 2], np.int64),
        "column_0": np.array(0, np.int64),
        "column_1": np.array(1, np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"nms_{name}") for name, value in constants.items())

    def node(kind: str, inputs: str, outputs: str, **attributes) -> None:
        graph.node.append(
            helper.make_node(kind, inputs.split(), outputs.split(), f"nms_{kind}_{outputs.split()[0]}", **attributes)
        )

    # the operator asks for y1 x1 y2 x2; swapping both axes leaves every overlap as it is
    node("NonMaxSuppression", "dense_boxes dense_scores nms_most nms_overlap nms_least", "nms_found")
    node("GatherND", "dense_scores nms_found", "nms_scores")
    node("Shape", "nms_scores", "nms_count")
    node("TopK", "nms_scores nms_count", "scores nms_order")
    node("Gather", "nms_found nms_order", "nms_sorted", axis=0)
    node("Gather", "nms_sorted nms_columns_02", "nms_places", axis=1)
    node("GatherND", "dense_boxes nms_places", "boxes")
    node("Gather", "nms_sorted nms_column_1", "labels", axis=1)
    node("Gather", "nms_sorted nms_column_0", "rows", axis=1)
    del graph.output[:]
    kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "labels": TensorProto.INT64, "rows": TensorProto.INT64}
    for name, kind in kinds.items():
        graph.output.append(helper.make_tensor_value_info(name, kind, ["detections", 4][: 2 if name == "boxes" else 1]))
    keep = [value for value in graph.value_info if value.name not in OUTPUTS]
    del graph.value_info[:]
    graph.value_info.extend(keep)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def check(dense: Sequence[np.ndarray], found: Sequence[np.ndarray], options: dict[str, float], side: int) -> dict[str, float]:
    """Compare a file's detections with what torchvision leaves of boxes and scores.

    Args:
        dense: boxes float32[B, N, 4] and scores float32[B, C, N], before duplicates are removed.
        found: `OUTPUTS` of the file.
        options: `score` and `nms`, as for `with_nms`.
        side: of the input, pixels.

    Returns:
        max_abs_error (boxes as a fraction of the input's side, and scores, over the detections that both have), agreement (the
        share of all detections that both have), detections (their number).
    """
    from torchvision.ops import nms

    boxes, scores = (torch.from_numpy(array) for array in dense)
    errors, total = [], 0
    theirs = np.concatenate([found[0] / side, found[1][:, None]], 1)
    for row, (box, points) in enumerate(zip(boxes, scores, strict=True)):
        for label, point in enumerate(points):
            cells = (point > options["score"]).nonzero().flatten()
            cells = cells[nms(box[cells], point[cells], options["nms"])]
            ours = torch.cat([box[cells] / side, point[cells, None]], 1).numpy()
            mine = theirs[(found[2] == label) & (found[3] == row)]
            errors += _matched(ours, mine, 1e-3)
            total += max(len(ours), len(mine))
    known = (found[2] >= 0) & (found[2] < scores.shape[1]) & (found[3] >= 0) & (found[3] < len(boxes))
    total += int((~known).sum())  # of no class or picture that there is
    return {"max_abs_error": max(errors, default=0.0), "agreement": len(errors) / max(total, 1), "detections": total}


def _matched(ours: np.ndarray, theirs: np.ndarray, limit: float) -> list[float]:
    """The errors of the pairs that are nearest to each other, one to one, of float[N, 5] and float[M, 5]."""
    far = np.abs(ours[:, None] - theirs[None]).max(2, initial=0)
    errors = []
    while far.size and far.min() < limit:
        i, j = np.unravel_index(far.argmin(), far.shape)
        errors.append(float(far[i, j]))
        far[i], far[:, j] = np.inf, np.inf
    return errors


def gate(
    dense: graphs.Runner, runner: graphs.Runner, samples: np.ndarray, options: dict[str, float], tolerance: float
) -> dict[str, float]:
    """`check` on real samples, and refuse a file that differs.

    The boxes and scores of `dense` have been compared with torch's; here they are given, since of two boxes that score the same
    but for rounding, either may be the duplicate. One detection in a hundred may be missing, whose overlap is the threshold but for
    rounding; none may be elsewhere. Where nothing scores enough, the file is run with a lower threshold, so that it finds something.

    Args:
        dense: the file before duplicates are removed.
        runner: the file that removes them.

    Returns:
        as `check`; score (the threshold that was run), samples (how many were compared).

    Raises:
        UserError: with the numbers.
    """
    arrays, found = dense(samples), runner(samples)
    if not len(found[0]) and not (arrays[1] > options["score"]).any():
        options = options | {"score": _lower(arrays[1])}
        with tempfile.TemporaryDirectory() as folder:
            lower = Path(folder) / "lower.onnx"
            _with_score(runner.path, lower, options["score"])
            found = graphs.Runner(lower)(samples)
    for name, array in zip(OUTPUTS[:2], found, strict=False):
        if not np.isfinite(array).all():
            raise UserError(f"export: refused: {name} of the file with NonMaxSuppression are not finite.")
    result = check(arrays, found, options, samples.shape[-1]) | {"score": options["score"], "samples": len(samples)}
    if result["max_abs_error"] < tolerance and result["agreement"] >= 0.99:
        return result
    raise UserError(
        f"export: refused: of {result['detections']} detections on {len(samples)} samples {result['agreement']:.1%} agree; max abs "
        f"error {result['max_abs_error']:.2e} (allowed {tolerance:.0e})."
    )


def _lower(scores: np.ndarray) -> float:
    """A threshold that about twenty scores a picture are above; float32[B, C, N]."""
    values = np.sort(scores, None)
    place = max(0, values.size - 20 * len(scores))
    below = values[values < values[place]]
    return float(below[-1]) if len(below) else float(values[0]) - 1


def _with_score(path: Path, lower: Path, score: float) -> None:
    """A file with NonMaxSuppression once more, with another least score."""
    model = onnx.load(path)
    (least,) = (one for one in model.graph.initializer if one.name == "nms_least")
    least.CopyFrom(numpy_helper.from_array(np.array([score], np.float32), least.name))
    onnx.save(model, lower)
