"""A timm CNN whose feature maps are fused into one: what students with dense outputs stand on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import ConvNormAct
from torch import Tensor, nn

from adapt.plug import UserError
from adapt.students.cnn import chosen, create, known, no_weights, timm_model


class Pyramid(nn.Module):
    """Feature maps of `stride` and coarser, each brought to `width` channels and to the finest grid, and summed.

    That is the top-down path of FPN (Lin et al. 2017, arXiv:1612.03144) with one output, as a small student on a device needs it.

    Args:
        arch: a timm model name.
        stride: pixels of the image to a cell of the map; 4 or more.
        grid: (height, width) of the map, in cells.
        width: channels of the map.
        pretrained: see `create`.
    """

    def __init__(self, arch: str, stride: int, grid: tuple[int, int], width: int, pretrained: bool | str = False):
        super().__init__()
        self.grid = grid
        net = feature_maps(arch, pretrained)
        steps, channels = net.feature_info.reduction(), net.feature_info.channels()
        self.used = [i for i, step in enumerate(steps) if step >= stride] or [len(steps) - 1]
        self.net = net
        self.lateral = nn.ModuleList([ConvNormAct(channels[i], width, 1, apply_act=False) for i in self.used])
        self.smooth = ConvNormAct(width, width, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float[B, 3, H, W] → float[B, width, *grid]."""
        maps = self.net(images)
        fused: Tensor | None = None
        for i, lateral in zip(self.used, self.lateral, strict=True):
            one = lateral(maps[i])
            one = one if one.shape[-2:] == self.grid else F.interpolate(one, self.grid, mode="nearest")
            fused = one if fused is None else fused + one
        assert fused is not None
        return self.smooth(torch.relu(fused))


def feature_maps(arch: str, pretrained: bool | str, **more: Any) -> nn.Module:
    """A timm CNN that returns its feature maps; `more` goes to timm.

    Raises:
        UserError: there is no such architecture, it has no feature maps, or there are no such weights.
    """
    known(arch)
    pretrained, _ = chosen(arch, pretrained)
    options: dict[str, Any] = {"features_only": True, "pretrained": bool(pretrained)} | more
    if isinstance(pretrained, str):
        options["pretrained_cfg_overlay"] = {"state_dict": create(arch, 0, pretrained).state_dict()}
    try:
        net = timm_model(arch, pretrained is True, **options)
    except (OSError, RuntimeError) as error:
        if pretrained:
            raise no_weights(arch, error) from None
        raise UserError(f"distill.student: {arch!r} gives no feature maps. Have, for example: resnet18, resnet10t.") from None
    if len(net.feature_info.reduction()) < 2:
        raise UserError(f"distill.student: {arch!r} has a single feature map. Have, for example: resnet18, resnet10t.")
    return net
