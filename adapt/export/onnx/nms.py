"""The removal of duplicates, inside the file of a detector.

The network and its decoding come from torch; behind them stands ONNX's own NonMaxSuppression, so that the number of boxes is
dynamic and every runtime knows the operator. In int8 only the network is quantised: boxes and scores are decoded in float.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OUTPUTS = ("boxes", "scores", "labels", "rows")
"""See `contracts.Runner`."""


def append(dense: Path, path: Path, score: float, nms: float) -> None:
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
