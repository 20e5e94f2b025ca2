"""open_clip checkpoints behind the same family."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from textwrap import shorten

from torch import Tensor, nn

from adapt import hardware
from adapt.contracts import Input, VisionSlot
from adapt.models.checkpoint import unreadable_file
from adapt.models.clip.family import Clip
from adapt.models.clip.towers import Towers
from adapt.plug import UserError, counted, nearest

ATTENTION = r"resblocks\.\d+\.attn"
"""open_clip's own, an `nn.MultiheadAttention`: q, k and v are one matrix, and peft adapts the output's beside it."""
QKV = rf"{ATTENTION}|blocks\.\d+\.attn\.(?:qkv|{{}}_proj)"
"""timm's: one layer for all three, or one each."""


class OpenClip(Clip):
    """open_clip's own module, whose image tower may be timm's."""

    adapter_targets = {name: QKV.format(name) for name in "qkv"} | {
        "o": rf"{ATTENTION}|blocks\.\d+\.attn\.proj",
        "mlp": r"resblocks\.\d+\.mlp\.(?:c_fc|c_proj)|blocks\.\d+\.mlp\.fc[12]",
    }
    quantised = r".*(?:resblocks|trunk\.(?:.*\.)?blocks)\..*"


def load_open_clip(config) -> OpenClip:
    """`open_clip:ARCH/PRETRAINED`, where PRETRAINED is a tag or a file; see `adapt.models.clip.load`.

    Raises:
        UserError: no such architecture or tag, no network, or the file's weights do not fit.
    """
    import open_clip
    from open_clip.transformer import VisionTransformer

    arch, _, pretrained = config.checkpoint.removeprefix("open_clip:").partition("/")
    if arch not in open_clip.list_models():
        near = difflib.get_close_matches(arch, open_clip.list_models(), n=8, cutoff=0.3)
        raise UserError(f"model.checkpoint: open_clip has no architecture {arch!r}. Near it: {', '.join(near) or 'none'}.")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    file = Path(pretrained).expanduser()
    if pretrained and pretrained not in tags and not file.is_file():
        raise UserError(f"model.checkpoint: {pretrained!r} is neither a file nor a tag of {arch}.{nearest(pretrained, tags)}")
    wanted = None if config.weights == "random" or not pretrained else (str(file) if file.is_file() else pretrained)
    words = (open_clip.get_model_config(arch) or {}).get("text_cfg", {})
    far = wanted in tags or any(name.startswith("hf_") for name in words)  # weights, text tower or tokenizer are on the hub
    try:
        with hardware.hub() if far else nullcontext(), _quiet():
            backbone = open_clip.create_model(arch, pretrained=wanted, precision="fp32", weights_only=True)
            tokenizer = open_clip.get_tokenizer(arch)
    except Exception as error:
        # open_clip passes on what urllib, the hub, torch.load and load_state_dict raise
        raise _problem(config.checkpoint, arch, file if file.is_file() else None, error) from None
    call_layers(backbone)
    if config.image_size:
        raise UserError("model.image_size: not for open_clip checkpoints. Leave it out, or use the transformers version.")

    def encode_image(net: nn.Module, images: Tensor) -> Tensor:
        return net.encode_image(images)

    def encode_tokens(net: nn.Module, tokens: Tensor) -> Tensor:
        return net.encode_text(tokens)

    sigmoid = getattr(backbone, "logit_bias", None) is not None
    about = f"open_clip {arch} {open_clip.get_model_config(arch)}"
    given = (encode_image, tokenizer, encode_tokens, _input(backbone), ("visual",), about)
    towers = Towers(*given, partial(_vocabulary, tokenizer), _layers(backbone.visual), sigmoid=sigmoid)
    if isinstance(backbone.visual, VisionTransformer) and isinstance(backbone.visual.proj, nn.Parameter):
        towers.projection, towers.unprojected = lambda net: net.visual.proj, _unprojected
        towers.project = lambda net, features: features @ net.visual.proj
    return OpenClip(backbone, towers, config)


def call_layers(backbone: nn.Module) -> None:
    """Let EVA's attention call its layer of q, k and v, where it would read the layer's weight past what LoRA and QLoRA put there."""
    from timm.models.eva import EvaAttention

    for part in backbone.modules():
        if isinstance(part, EvaAttention):
            part.qkv_bias_separate = True


def _layers(tower: nn.Module) -> VisionSlot | None:
    """The layers of a ViT, open_clip's own or timm's; none: it is no plain one (ResNet, ConvNeXt, EVA, whose rotary positions are by place)."""
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    from timm.models.vision_transformer import VisionTransformer as TimmViT

    if isinstance(tower, VisionTransformer) and tower.transformer.batch_first:
        return VisionSlot(tower.transformer.resblocks, tower.transformer.width, 1, tower.patch_size[0])
    if isinstance(tower, TimmModel) and isinstance(tower.trunk, TimmViT):
        trunk = tower.trunk
        return VisionSlot(trunk.blocks, trunk.embed_dim, trunk.num_prefix_tokens, trunk.patch_embed.patch_size[0])
    return None


def _vocabulary(tokenizer) -> list[str]:
    """The tokens of open_clip's own tokenizer, or of transformers' inside of it."""
    from open_clip.tokenizer import SimpleTokenizer

    if isinstance(tokenizer, SimpleTokenizer):
        return [tokenizer.decoder[i] for i in range(len(tokenizer.decoder))]
    return tokenizer.tokenizer.convert_ids_to_tokens(range(len(tokenizer.tokenizer)))


def _unprojected(net: nn.Module, images: Tensor) -> Tensor:
    """What open_clip's ViT makes of images before its projection, which it leaves out where there is none."""
    kept, net.visual.proj = net.visual.proj, None
    try:
        return net.encode_image(images)
    finally:
        net.visual.proj = kept


def _input(backbone: nn.Module) -> Input:
    """What open_clip's own preprocessing does, as `vision/images.py` reads it."""
    import open_clip

    about = open_clip.get_model_preprocess_cfg(backbone)
    size = about["size"] if isinstance(about["size"], (tuple, list)) else (about["size"], about["size"])
    squash = about.get("resize_mode") == "squash"
    return Input(
        size=tuple(size),
        resize=tuple(size) if squash else size[0],
        interpolation=about["interpolation"],
        crop=None if squash else "round",
        mean=list(about["mean"]),
        std=list(about["std"]),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """What open_clip raises it also tells the root logger, which is mute while this lasts."""
    root, nothing = logging.getLogger(), logging.NullHandler()
    root.addFilter(_mute)
    root.addHandler(nothing)  # logging.warning would put one there for good, and every library would be heard twice
    try:
        yield
    finally:
        root.removeFilter(_mute)
        root.removeHandler(nothing)


def _mute(record: logging.LogRecord) -> bool:
    return False


def _problem(checkpoint: str, arch: str, file: Path | None, error: Exception) -> UserError:
    """What to tell a user whose checkpoint open_clip could not load; `file`: of the weights, none if they come from the net."""
    name, text = f"model.checkpoint: {checkpoint!r}", str(error)
    if "loading state_dict" in text or isinstance(error, AssertionError):
        odd = re.findall(r'"([^"]+)"|size mismatch for ([^:]+):', text)
        what = (
            f"{counted(len(odd), 'weight')} of another size or name, such as {''.join(odd[0])!r}"
            if odd
            else shorten(text, 200).rstrip("!.")
        )
        return UserError(f"{name} is not of {arch}: {what}. Write open_clip:ARCH/… with the architecture of the weights.")
    if file and not isinstance(error, OSError):
        return unreadable_file(file, error)
    reason = shorten(" ".join(text.split()).split(". ")[0], 200, placeholder=" …") or type(error).__name__
    step = "" if file else f", or give a file that is here: open_clip:{arch}/FILE"
    return UserError(f"{name} cannot be downloaded ({reason}). Check the network{step}.")
