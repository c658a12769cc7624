"""Mask2Former (Cheng et al., CVPR 2022): one model for semantic, instance and panoptic.

    images -> backbone -> pixel decoder -> transformer decoder -> classes and masks

Read the files in this order: resnet or swin, msdeform, pixel_decoder, transformer_decoder,
then inference, which turns classes and masks into segments.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.config import SIZE_DIVISOR, ModelConfig, Preprocess, ResNetConfig
from m2f.models.pixel_decoder import PixelFeatures, build_pixel_decoder
from m2f.models.resnet import ResNet
from m2f.models.swin import Swin
from m2f.models.transformer_decoder import Heads, TransformerDecoder


class Output(NamedTuple):
    """All that a forward pass computed.

    Attributes:
        class_logits: [N, Q, K + 1], float; the last class is "no object".
        mask_logits: [N, Q, H/4, W/4], float, before the sigmoid.
        heads: The same pair for the learnt queries and for each decoder layer.
        attention_logits: What each decoder layer's mask was decided from, [N, Q, S]:
            masked where the sigmoid is below one half.
        features: The pixel decoder's output.
    """

    class_logits: Tensor
    mask_logits: Tensor
    heads: list[Heads]
    attention_logits: list[Tensor]
    features: PixelFeatures


class Mask2Former(nn.Module):
    """The reference that everything else is proved against.

    Args:
        config: What to build; see `m2f.models.presets` for the published ones.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.backbone = (
            ResNet(backbone) if isinstance(backbone, ResNetConfig) else Swin(backbone)
        )
        self.pixel_decoder = build_pixel_decoder(config.pixel_decoder, backbone.channels)
        self.transformer_decoder = TransformerDecoder(
            config.transformer_decoder,
            mask_channels=config.pixel_decoder.mask_channels,
            classes=config.classes,
        )

    def forward(
        self, images: Tensor, *, forced_masks: Sequence[Tensor] | None = None
    ) -> Output:
        """Runs the network.

        Args:
            images: [N, 3, H, W], float, normalised; H and W multiples of 32 (see `pixels`).
            forced_masks: Attention masks to use instead of the model's own, one per decoder
                layer; see `TransformerDecoder.forward`.
        """
        features = self.pixel_decoder(self.backbone(images))
        heads, logits = self.transformer_decoder(features, forced_masks=forced_masks)
        answer = heads[-1]
        return Output(answer.class_logits, answer.mask_logits, heads, logits, features)


def model_from_weights(
    config: ModelConfig,
    weights: Mapping[str, NDArray[Any]],
    *,
    dtype: torch.dtype = torch.float32,
) -> Mask2Former:
    """Builds a model around existing arrays, without spending time on initial ones.

    Args:
        config: What to build.
        weights: By our names; `m2f.models.checkpoint` has checked that they fit.
        dtype: Precision to compute in.

    Returns:
        The model, in inference mode.
    """
    with torch.device("meta"):  # no initial weights: they would cost more than the export
        model = Mask2Former(config)
    tensors = {name: torch.tensor(array).to(dtype) for name, array in weights.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def network_input(
    image: Tensor, preprocess: Preprocess, *, image_size: Tensor | None = None
) -> Tensor:
    """Normalises 8-bit images and pads them with zeros.

    Padding comes after normalisation, as in the official code: it is grey, not black.

    Args:
        image: [N, H, W, 3], uint8, RGB.
        preprocess: Mean and standard deviation.
        image_size: [N, 2], int64, height and width of the valid part of each image; what
            lies beyond counts as padding. None: all of it is valid.

    Returns:
        [N, 3, H', W'], float32, H' and W' rounded up to multiples of 32.
    """
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    x = ((image.float() - mean) / std).permute(0, 3, 1, 2)
    _, _, h, w = x.shape
    if image_size is not None:
        rows = torch.arange(h)[None, :] < image_size[:, :1]
        columns = torch.arange(w)[None, :] < image_size[:, 1:]
        x = x * (rows[:, None, :, None] & columns[:, None, None, :])
    return F.pad(x, (0, -w % SIZE_DIVISOR, 0, -h % SIZE_DIVISOR))
