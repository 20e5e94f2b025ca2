"""The gate: a module against its exported file on real samples; nothing is called exported that has not passed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from adapt.plug import UserError

Runner = Callable[[np.ndarray], np.ndarray]


def check(module: nn.Module, runner: Runner, samples: np.ndarray) -> dict[str, float]:
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
    module: nn.Module, runner: Runner, samples: np.ndarray, tolerance: float, layers: Callable | None = None
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
