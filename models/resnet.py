"""ResNet (He et al., CVPR 2016) as Mask2Former uses it: RGB, stride in the 3x3 convolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.config import ResNetConfig


class BatchNorm2d(nn.Module):
    """Batch normalisation; published models keep its statistics frozen.

    A module of our own because `nn.BatchNorm2d` insists on a step counter, which is not a
    weight and is in some checkpoints only.
    """

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [N, C, H, W]: batch statistics in training, running ones else."""
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(
            x, mean, var, self.weight, self.bias, training=self.training, eps=self.eps
        )


class ConvNorm(nn.Conv2d):
    """A convolution without bias, followed by batch normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.norm = BatchNorm2d(outputs)

    def forward(self, input: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, outputs, H / stride, W / stride]."""
        out: Tensor = self.norm(super().forward(input))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; the last widens four times."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = ConvNorm(inputs, width, 1)
        self.conv2 = ConvNorm(width, width, 3, stride=stride)
        self.conv3 = ConvNorm(width, outputs, 1)
        if inputs != outputs or stride != 1:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, 4 * width, H / stride, W / stride]."""
        y = F.relu(self.conv1(x))
        y = F.relu(self.conv2(y))
        return F.relu(self.conv3(y) + (self.shortcut(x) if hasattr(self, "shortcut") else x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 3, stride=stride)
        self.conv2 = ConvNorm(width, width, 3)
        if inputs != width or stride != 1:
            self.shortcut = ConvNorm(inputs, width, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, width, H / stride, W / stride]."""
        y = self.conv2(F.relu(self.conv1(x)))
        return F.relu(y + (self.shortcut(x) if hasattr(self, "shortcut") else x))


class Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling: a quarter of the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, width, 7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 3, H, W] to [N, width, H / 4, W / 4]."""
        return F.max_pool2d(F.relu(self.conv1(x)), 3, stride=2, padding=1)


class ResNet(nn.Module):
    """Four stages of residual blocks after a stem.

    Args:
        config: Depth and widths.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        block = Bottleneck if config.block == "bottleneck" else BasicBlock
        self.stem = Stem(config.width)
        inputs = config.width
        for stage, count in enumerate(config.blocks):
            width = config.width << stage
            blocks = []
            for b in range(count):
                blocks.append(block(inputs, width, stride=2 if stage and not b else 1))
                inputs = width * block.expansion
            self.add_module(f"res{stage + 2}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns res2..res5 at strides 4, 8, 16, 32 of normalised images [N, 3, H, W]."""
        res2 = self.get_submodule("res2")(self.stem(x))
        res3 = self.get_submodule("res3")(res2)
        res4 = self.get_submodule("res4")(res3)
        return res2, res3, res4, self.get_submodule("res5")(res4)
