"""The gate: a module against its exported file on real samples; nothing is called exported that has not passed it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from adapt.contracts import Artifact, Deployable, Runner, TargetConfig
from adapt.plug import UserError

Run = Callable[..., Any]
"""A file that runs: arrays in, an array or a list of them out."""
SAMPLES, LARGE = 64, 16
"""Pictures on which a file is proven; one with parts, whose pictures are large, on fewer."""
EXAMPLES = Path(__file__).parent / "examples"
"""How exported files are used without this package."""


def export(
    target: ModuleType,
    config: TargetConfig,
    deployable: Deployable,
    samples: np.ndarray,
    folder: Path,
    metadata: Mapping[str, Any],
    validation: np.ndarray | None = None,
) -> list[Artifact]:
    """Let a target write its files, and prove those of full precision equal to the module; what was proven is noted in each.

    Args:
        target: a module of `adapt/export`; the other arguments are those of its `convert`.
        folder: what is refused is left there, for the caller to remove.

    Returns:
        the artifacts; `proof` is among the facts of what was proven.

    Raises:
        UserError: the gate refuses a file; the first layer that differs is named, where the target can say it.
    """
    artifacts = []
    for artifact in target.convert(config, deployable, samples, folder, metadata, validation):
        facts = dict(artifact.facts)
        if artifact.precision != "int8":  # what int8 may lose is measured, and has a budget
            facts["proof"] = _prove(target, config, deployable, artifact, samples, metadata)
            target.Runner(artifact.path).note({"proof": facts["proof"]})
        if artifact.before_nms:
            artifact.before_nms.unlink()
        artifacts.append(replace(artifact, facts=facts, before_nms=None))
    for name, part in deployable.parts.items():
        runner = target.Runner(artifacts[0].parts[name])
        runner.note({"proof": gate_outputs(part, runner, part.samples, config.max_abs_error)})
    if deployable.example:
        shutil.copy(EXAMPLES / deployable.example, folder)
    return artifacts


def _prove(
    target: ModuleType, config: TargetConfig, deployable: Deployable, artifact: Artifact, samples: np.ndarray, metadata: Mapping
) -> dict[str, Any]:
    """The gate that suits what is deployed."""
    runner, tolerance = target.Runner(artifact.path), config.max_abs_error
    if deployable.samples:
        return gate_outputs(deployable, runner, deployable.samples, tolerance)
    if deployable.parts or (len(deployable.outputs) > 1 and not deployable.nms):
        return gate_outputs(deployable, runner, [(samples[: LARGE if deployable.parts else SAMPLES],)], tolerance)
    if not deployable.nms:
        return gate(deployable.module, runner, samples[:SAMPLES], tolerance, runner.layers)
    # each box as pixels of the input, so the tolerance grows with it
    proof, some = {}, samples[:SAMPLES]
    if artifact.before_nms:
        before = target.Runner(artifact.before_nms)
        proof, dense = gate_outputs(deployable, before, [(some,)], tolerance), before(some)
    else:
        with torch.inference_mode():
            dense = [output.numpy() for output in deployable.module.eval()(torch.from_numpy(some))]

    def lower(score: float) -> Run:
        other = replace(deployable, nms={**deployable.nms, "score": score})
        only = config.model_copy(update={"int8": False})
        (one,) = (
            a for a in target.convert(only, other, samples, Path(place), metadata, None) if a.precision == artifact.precision
        )
        return target.Runner(one.path)

    with tempfile.TemporaryDirectory() as place:
        return proof | {"nms": gate_detections(dense, runner, some, deployable.nms, tolerance, lower)}


# ------------------------------------------------------------------------------------------------------------ one output


def check(module: nn.Module, runner: Run, samples: np.ndarray) -> dict[str, float]:
    """Compare outputs.

    Args:
        module: images float[N, 3, H, W] 0–255 → float[N, C, …].
        runner: the same in numpy.
        samples: float32[N, 3, H, W].

    Returns:
        max_abs_error, cosine (the smallest over the samples), argmax_agreement (a fraction), tie (where argmax differs, how far
        apart the module's two best are, at most), samples (how many were compared).

    Raises:
        UserError: there is nothing to compare.
    """
    if not len(samples):
        raise UserError("export: refused: there are no samples, so nothing was compared. Give at least one picture.")
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(samples)).numpy()
    got = runner(samples)
    comparable(expected, got)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    differ = expected.argmax(1) != got.argmax(1)
    best = np.sort(expected, 1)[:, -2:]
    return {
        "max_abs_error": float(np.abs(expected - got).max()),
        "cosine": float(((expected * got).sum(1) / np.maximum(norms, 1e-12)).min()),
        "argmax_agreement": float(1 - differ.mean()),
        "tie": float((best[:, -1] - best[:, 0])[differ].max(initial=0)),
        "samples": len(expected),
    }


def gate(
    module: nn.Module, runner: Run, samples: np.ndarray, tolerance: float, layers: Callable | None = None
) -> dict[str, float]:
    """`check`, and refuse a file that differs.

    Args:
        tolerance: the largest absolute error that passes; argmax may differ only where the module's two best are closer than it.
        layers: (names of layers, inputs) → {name: output}, computed by the exported file, to find the first that differs.

    Raises:
        UserError: with the numbers and the layer.
    """
    try:
        result = check(module, runner, samples)
    except UserError as error:
        where = first_difference(module, layers, [samples[:2]], tolerance) if len(samples) else ""
        raise UserError(f"{error} {where}".strip()) from None
    if result["max_abs_error"] < tolerance and result["tie"] < tolerance:
        return result
    raise UserError(
        f"export: refused: on {result['samples']} samples max abs error {result['max_abs_error']:.2e} (allowed {tolerance:.0e}), "
        f"argmax agreement {result['argmax_agreement']:.1%}, where it differs the two best are up to {result['tie']:.2e} apart. "
        f"{first_difference(module, layers, [samples[:2]], tolerance)}"
    )


def comparable(expected: np.ndarray, got: np.ndarray, name: str = "the output") -> None:
    """Refuse two outputs that cannot be held against each other: of different shapes, without a value, or not finite.

    Args:
        expected: by torch.
        got: by the file.

    Raises:
        UserError: with what is wrong, and on which side.
    """
    if np.shape(got) != expected.shape:
        raise UserError(f"export: refused: {name} of the file has shape {np.shape(got)}, that of torch {expected.shape}.")
    if not expected.size:
        raise UserError(f"export: refused: {name} has shape {expected.shape}: nothing was compared.")
    for side, values in (("torch", expected), ("the file", got)):
        bad = int((~np.isfinite(values)).reshape(len(values), -1).any(1).sum())
        if bad:
            raise UserError(f"export: refused: {name} of {side} is not finite for {bad} of {len(values)} samples.")


def first_difference(module: nn.Module, layers: Callable | None, inputs: Sequence[np.ndarray], tolerance: float) -> str:
    """A sentence that names the first leaf, in the order of execution, whose output in the exported file differs.

    Of a leaf that runs several times, as a head shared by the levels of a pyramid does, the last output is compared.
    """
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str):
        def hook(_, __, output) -> None:
            if isinstance(output, torch.Tensor):
                outputs[name] = output.clone().numpy()  # an in-place activation would change it

        return hook

    leaves = [(name, leaf) for name, leaf in module.named_modules() if name and not list(leaf.children())]
    hooks = [leaf.register_forward_hook(keep(name)) for name, leaf in leaves]
    try:
        with torch.inference_mode():
            module.eval()(*(torch.from_numpy(array) for array in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    exported = layers(list(outputs), inputs) if layers else {}
    for name, expected in outputs.items():
        got = exported.get(name)
        if got is None:
            continue
        scale = max(1.0, float(np.abs(expected).max()))
        if got.shape != expected.shape or not np.abs(expected - got).max(initial=0) <= tolerance * scale:
            return f"First layer that differs: {name}."
    return "First layer that differs: not found."


# ------------------------------------------------------------------------------------------------------- several outputs


@torch.inference_mode()
def check_outputs(deployable: Deployable, runner: Run, samples: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
    """Compare outputs on several sets of inputs.

    Returns:
        max_abs_error of each output by its name, as a fraction of the output's largest value where that is above 1.

    Raises:
        UserError: there is nothing to compare, or an output is not finite, whichever side gives it.
    """
    if not sum(len(arrays[0]) for arrays in samples):
        raise UserError("export: refused: there are no inputs: nothing was compared.")
    worst, module = dict.fromkeys(deployable.outputs, 0.0), deployable.module.eval()
    for arrays in samples:
        expected = module(*(torch.from_numpy(array) for array in arrays))
        expected = expected if isinstance(expected, tuple) else (expected,)
        got = runner(*arrays)
        got = got if isinstance(got, list) else [got]
        if len(got) != len(expected):
            raise UserError(f"export: refused: the file has {len(got)} outputs, the module {', '.join(deployable.outputs)}.")
        for name, ours, theirs in zip(deployable.outputs, expected, got, strict=True):
            comparable(ours.numpy(), theirs, name)
            error = np.abs(ours.numpy() - theirs).max() / max(1.0, float(ours.abs().max()))
            worst[name] = max(worst[name], float(error))
    return worst


def gate_outputs(
    deployable: Deployable, runner: Runner, samples: Sequence[Sequence[np.ndarray]], tolerance: float
) -> dict[str, float]:
    """`check_outputs`, and refuse a file that differs.

    Returns:
        max_abs_error, as `check_outputs` gives it, the largest; samples (how many were compared).

    Raises:
        UserError: with the numbers and the layer.
    """
    try:
        worst = check_outputs(deployable, runner, samples)
        bad = {name: error for name, error in worst.items() if not error < tolerance}
        if not bad:
            return {"max_abs_error": max(worst.values()), "samples": sum(len(arrays[0]) for arrays in samples)}
        said = ", ".join(f"{name} differs by {error:.2e}" for name, error in bad.items())
        raise UserError(f"export: refused: {said} (allowed {tolerance:.0e}).")
    except UserError as error:
        inputs = next((arrays for arrays in samples if len(arrays[0])), None)
        where = first_difference(deployable.module, runner.layers, inputs, tolerance) if inputs else ""
        raise UserError(f"{error} {where}".strip()) from None


# ------------------------------------------------------------------------------------------------------------ detections


def gate_detections(
    dense: Sequence[np.ndarray],
    runner: Run,
    samples: np.ndarray,
    options: Mapping[str, float],
    tolerance: float,
    lower: Callable[[float], Run],
) -> dict[str, float]:
    """`check_detections` on real samples, and refuse a file that differs.

    Boxes and scores before the removal have been compared with torch's; here they are given, since of two boxes that score the same
    but for rounding, either may be the duplicate. One detection in a hundred may be missing, whose overlap is the threshold but for
    rounding; none may be elsewhere. Where nothing scores enough, the file is run with a lower threshold, so that it finds something.

    Args:
        dense: boxes float32[B, N, 4] and scores float32[B, C, N] of the samples, before duplicates are removed.
        runner: the file that removes them.
        lower: (a least score) → the same file with it.

    Returns:
        as `check_detections`; score (the threshold that was run), samples (how many were compared).

    Raises:
        UserError: with the numbers.
    """
    found = runner(samples)
    if not len(found[0]) and not (dense[1] > options["score"]).any():
        options = {**options, "score": _lower(dense[1])}
        found = lower(options["score"])(samples)
    for name, array in zip(("boxes", "scores"), found, strict=False):
        if not np.isfinite(array).all():
            raise UserError(f"export: refused: {name} of the file that removes duplicates are not finite.")
    result = check_detections(dense, found, options, samples.shape[-1]) | {"score": options["score"], "samples": len(samples)}
    if result["max_abs_error"] < tolerance and result["agreement"] >= 0.99:
        return result
    raise UserError(
        f"export: refused: of {result['detections']} detections on {len(samples)} samples {result['agreement']:.1%} agree; max abs "
        f"error {result['max_abs_error']:.2e} (allowed {tolerance:.0e})."
    )


def check_detections(
    dense: Sequence[np.ndarray], found: Sequence[np.ndarray], options: Mapping[str, float], side: int
) -> dict[str, float]:
    """Compare a file's detections with what torchvision leaves of boxes and scores.

    Args:
        dense: boxes float32[B, N, 4] and scores float32[B, C, N], before duplicates are removed.
        found: what the file gives; see `contracts.Runner`.
        options: `score` and `nms`, as in `Deployable`.
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


def _lower(scores: np.ndarray) -> float:
    """A threshold that about twenty scores a picture are above; float32[B, C, N]."""
    values = np.sort(scores, None)
    place = max(0, values.size - 20 * len(scores))
    below = values[values < values[place]]
    return float(below[-1]) if len(below) else float(values[0]) - 1
