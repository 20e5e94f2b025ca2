"""Linear layers in 4 or 8 bits, in place: the same module with bitsandbytes' layers where a pattern says so."""

from __future__ import annotations

import logging
import re
from functools import cache
from types import ModuleType

import torch
from torch import nn

from adapt.plug import UserError


def library() -> ModuleType:
    """bitsandbytes, without its talk of kernels that it has not found.

    Raises:
        UserError: it is missing, or its library does not load.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"method.name: 'qlora' needs bitsandbytes, which does not load here ({str(error).splitlines()[0]}). "
            "Install it (pip install bitsandbytes), or use method.name=lora."
        ) from None
    return bitsandbytes


def rounded(module: nn.Module) -> list[str]:
    """Names of the layers that are in 4 or 8 bits."""
    kinds = library().nn.Linear4bit | library().nn.Linear8bitLt
    return [name for name, part in module.named_modules() if isinstance(part, kinds)]


def size(module: nn.Module, before: bool = False) -> int:
    """Bytes of a module's weights, buffers and quantisation constants; what is shared counts once.

    Args:
        before: `quantise` rounded a part of them.
    """
    held = {value.data_ptr(): value.numel() * value.element_size() for value in module.state_dict().values()}
    total = sum(held.values())
    for part in module.modules() if before else ():
        if dtype := vars(part).get("int8_original_dtype"):
            constants = [value for name, value in part.state_dict().items() if name != "bias"]
            total += part.in_features * part.out_features * dtype.itemsize
            total -= sum(value.numel() * value.element_size() for value in constants)
    return total


def weights(module: nn.Module) -> int:
    """How many weights a module has; in 4 bits, two of them lie in one number."""
    packed = library().nn.Params4bit
    return sum(p.numel() * (2 if isinstance(p, packed) else 1) for p in module.parameters())


def linears(module: nn.Module, pattern: str) -> list[str]:
    """Names of the linear layers that a pattern of whole names matches.

    Subclasses are left out: `nn.MultiheadAttention` reads the weight of its own past the layer's forward.
    """
    return [name for name, part in module.named_modules() if type(part) is nn.Linear and re.fullmatch(pattern, name)]


def quantise(
    module: nn.Module, names: list[str], bits: int, double: bool, compute: torch.dtype, device: torch.device | None = None
) -> None:
    """Replace the named linear layers by frozen ones of 4 bits (nf4) or 8 bits with the same weights, rounded.

    One layer after the other goes to the device and is rounded there, and what it was made of is let go.

    Args:
        double: the constants of the 4-bit blocks are quantised too (QLoRA §3, arXiv:2305.14314).
        compute: the type in which 4-bit weights are multiplied.
        device: where the rounded weights lie afterwards; none: where the layers are.
    """
    library()
    for name in names:
        old = module.get_submodule(name)
        place = device or old.weight.device
        new = _four(old, double, compute, place) if bits == 4 else _eight(old, place)
        new.int8_original_dtype = old.weight.dtype  # open_clip asks its MLP for the type of the activations
        module.set_submodule(name, new.train(old.training))
    setattr(module, f"is_loaded_in_{bits}bit", True)  # peft looks here to choose its layers


def _four(old: nn.Linear, double: bool, compute: torch.dtype, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    options = {"compress_statistics": double, "quant_type": "nf4"}
    # on meta: no memory, and no random number is drawn
    new = Linear4bit(old.in_features, old.out_features, old.bias is not None, compute, device="meta", **options)
    new.weight = Params4bit(old.weight.data, requires_grad=False, module=new, **options).to(device)
    new.bias = old.bias
    return plain(new)


def plain(layer: nn.Module) -> nn.Module:
    """Keep a 4-bit layer in the layout that it trains in.

    On processors with AVX512-BF16 bitsandbytes repacks the weights at the first prediction, multiplies in bf16 whatever the
    compute type says, and no gradient passes from then on: what is trained after a validation would be noise.
    """
    layer.support_avx512bf16_for_cpu = False
    return layer


def _eight(old: nn.Linear, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Int8Params

    new = _flat_layer()(old.in_features, old.out_features, old.bias is not None, has_fp16_weights=False, device="meta")
    # bitsandbytes rounds to 8 bits on the way from the CPU to anywhere, and only then
    new.weight = Int8Params(old.weight.data.cpu(), requires_grad=False, has_fp16_weights=False).to(device)
    new.bias = old.bias
    return new


@cache
def _flat_layer() -> type[nn.Module]:
    """bitsandbytes' 8-bit layer for inputs of any shape; its own takes [N, D] and [B, N, D], and SAM and ConvNeXt give [B, H, W, D]."""
    from bitsandbytes.nn import Linear8bitLt

    class Flat8bit(Linear8bitLt):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])

    return Flat8bit
