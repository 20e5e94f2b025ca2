"""SAM checkpoints in the format of transformers."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoImageProcessor, SamConfig, SamModel

from adapt.contracts import Input
from adapt.models import checkpoint
from adapt.models.sam.family import Sam
from adapt.plug import UserError, counted

SCALES = "its decoder also takes feature maps of two finer scales, which this family does not hand on"
LACKING = {
    "sam_hq": "transformers (5.23) draws its masks from the embedding before its decoder's transformer, the original from that after it",
    "sam2": SCALES,
    "sam2_video": SCALES,  # on the hub, the checkpoints for pictures are of this type too
    "sam3": "it is prompted by words, and this family takes points and boxes",
}
"""Relatives that cannot be loaded, and what is missing here."""


def load_transformers(config) -> Sam:
    """`SamModel` from a folder or the hub; see `adapt.models.sam.load`."""
    checkpoint.read_config(config.checkpoint, ("sam",), LACKING)
    place = checkpoint.resolve(config.checkpoint)
    try:
        processor = AutoImageProcessor.from_pretrained(place)
        if config.weights == "random":
            net = fresh(SamConfig.from_pretrained(place))
        else:
            net, info = SamModel.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
            if lacking := sorted(info["missing_keys"]):
                raise UserError(
                    f"model.checkpoint: {config.checkpoint!r} lacks {counted(len(lacking), 'weight')}, such as {lacking[0]!r}."
                )
    except checkpoint.UNLOADABLE as error:
        raise checkpoint.unreadable(config.checkpoint, error) from None
    return family(net, config, processor.image_mean, processor.image_std)


def family(net: SamModel, config, mean: list[float], std: list[float]) -> Sam:
    """The family around a model.

    Args:
        mean, std: float[3], of values 0–1.
    """
    size = net.config.vision_config.image_size
    spec = Input(size=(size, size), resize="longest", interpolation="bilinear", crop=None)
    freeze_frequencies(net)
    return Sam(net, spec | {"mean": list(mean), "std": list(std)}, config)


def fresh(config: SamConfig) -> SamModel:
    """A model with new weights, drawn as segment-anything draws them: torch's own, and frequencies of deviation 1.

    transformers would draw them of deviation hidden_size / 2, which no network can read, and the encoder's weights of 1e-10.
    """
    net = SamModel(config)
    for part in net.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    nn.init.normal_(net.shared_image_embedding.positional_embedding)
    return net


def freeze_frequencies(net: SamModel) -> None:
    """Make the random frequencies of positions a buffer, as they are in segment-anything, so that no method lets them learn.

    transformers ties two of them; as buffers they would part when the model moves, so only the first is kept and used.
    """
    value = net.shared_image_embedding.positional_embedding.detach()
    for module in (net.shared_image_embedding, net.prompt_encoder.shared_embedding):
        del module.positional_embedding
        module.register_buffer("positional_embedding", value, persistent=module is net.shared_image_embedding)
