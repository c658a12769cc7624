"""Extra lessons for the pixel decoder, so that training from nothing takes hours, not days.

The paper starts from a backbone that has seen ImageNet. Ours has seen nothing, and queries
learn little from features that mean nothing yet. As MaX-DeepLab (Wang et al., CVPR 2021,
section 3.3), the mask features are also asked two things directly: which class each pixel
is, and which segment it belongs to. Only training needs this; nothing of it is exported.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.models.matcher import Target

TEMPERATURE = 0.3
"""Of the contrast between segments; MaX-DeepLab's value."""


class PixelLessons(nn.Module):
    """Semantic and instance losses on the mask features.

    Args:
        channels: Of the mask features.
        classes: K.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, mask_features: Tensor, targets: Sequence[Target]) -> Tensor:
        """Sum of both losses, a scalar.

        Args:
            mask_features: [N, C, H/4, W/4], float32.
            targets: One per image.
        """
        owners = segment_map(targets, (mask_features.shape[2], mask_features.shape[3]))
        if not owners.any():  # a mean over no cell would be NaN
            return mask_features.sum() * 0
        wanted = torch.full_like(owners, -1)
        for i, target in enumerate(targets):
            classes = torch.cat([torch.tensor([-1]), target.classes])
            wanted[i] = classes[owners[i]]
        semantic = F.cross_entropy(self.classify(mask_features), wanted, ignore_index=-1)
        return semantic + _contrast(mask_features, owners)


def segment_map(targets: Sequence[Target], size: tuple[int, int]) -> Tensor:
    """Which segment owns each cell: [N, *size], int64; 0 none, i the segment i - 1.

    Takes the pixel next to the cell's centre.
    """
    maps = []
    for _, masks in targets:
        n, h, w = masks.shape
        step_y, step_x = h // size[0], w // size[1]
        cells = masks[:, step_y // 2 :: step_y, step_x // 2 :: step_x]
        number = torch.arange(1, n + 1)[:, None, None]
        maps.append((cells * number).amax(0) if n else torch.zeros(size, dtype=torch.int64))
    return torch.stack(maps)


def _contrast(features: Tensor, owners: Tensor) -> Tensor:
    """Asks each cell to resemble its own segment's mean more than any other segment's."""
    most = int(owners.max()) + 1
    cells = F.normalize(features.flatten(2).transpose(1, 2), dim=-1)  # [N, S, C]
    member = F.one_hot(owners.flatten(1), most).to(cells)  # [N, S, most]
    means = F.normalize(member.transpose(1, 2) @ cells, dim=-1)  # [N, most, C]
    likeness = cells @ means.transpose(1, 2) / TEMPERATURE
    absent = member.sum(1) == 0
    absent[:, 0] = True  # void is not a segment
    likeness = likeness.masked_fill(absent[:, None], -1e4)[..., 1:]
    wanted = owners.flatten() - 1
    return F.cross_entropy(likeness.flatten(0, 1), wanted, ignore_index=-1)
