"""WindowAttention natively, by its definition, in a PyTorch block, and as exported nodes."""

import ctypes

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from m2f.export import backbones
from m2f.export.graph import IR_VERSION, OPSET, Graph
from m2f.models.swin import SwinBlock, shift_mask
from m2f.plugins import FUSED
from tests.ops.native import MESSAGE_BYTES, PATH
from tests.ops.reference import softmax

(SPEC,) = (spec for spec in FUSED if spec.name == "WindowAttention")


class Case:
    """A map of queries, keys and values, made as a block makes it from a map of pixels.

    Each channel of q, k and v is a pixel's channel and a bias, all of them multiples of 1/64:
    sums that round nothing, so that whatever computes them starts from the same numbers. A
    padded pixel is 0, so that the bias is its q, k and v.

    Args:
        n: N.
        h: H.
        w: W.
        heads: M.
        depth: D.
        window: Side of a window.
        shift: Half the window in a shifted block, or 0; any other is for the op alone.
        seed: Of the numbers.
        scale: Their standard deviation.
    """

    def __init__(self, n, h, w, heads, depth, window, *, shift=0, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        channels = heads * depth
        self.heads, self.attributes = heads, {"window": window, "shift": shift}
        self.pixels = (rng.standard_normal((n, h, w, channels)) * scale * 64).round() / 64
        bias = (rng.standard_normal(3 * channels) * scale * 64).round() / 64
        order = np.concatenate([rng.permutation(channels) for _ in range(3)])
        table = rng.standard_normal(((2 * window - 1) ** 2, heads)).astype(np.float32)
        self.weights = {
            "qkv.weight": np.eye(channels)[order],
            "qkv.bias": bias,
            "proj.weight": np.eye(channels),
            "proj.bias": np.zeros(channels),
            "relative_position_bias_table": table,
        }
        y, x = np.divmod(np.arange(window**2), window)
        dy, dx = (a[:, None] - a + window - 1 for a in (y, x))
        self.arrays = [
            (self.pixels[..., order] + bias).astype(np.float32),
            bias.reshape(3, -1).astype(np.float32),
            table[dy * (2 * window - 1) + dx].transpose(2, 0, 1).copy(),
        ]

    def actual(self, kernels, *, threads=1):
        return attended(kernels, *self.arrays, **self.attributes, threads=threads)

    def by_definition(self):
        return window_attention(*self.arrays, **self.attributes)

    def by_block(self):
        """What PyTorch's block adds to its input where it has no norm and no MLP, float64."""
        window, shift = self.attributes.values()
        block = SwinBlock(self.pixels.shape[-1], self.heads, window, shifted=shift > 0)
        weights = {f"attn.{n}": torch.from_numpy(a) for n, a in self.weights.items()}
        block.load_state_dict(weights, strict=False)
        block.norm1 = torch.nn.Identity()
        for parameter in block.mlp.parameters():
            parameter.requires_grad_(requires_grad=False).zero_()
        padded = (-(-size // window) * window for size in self.pixels.shape[1:3])
        pixels = torch.from_numpy(self.pixels)
        with torch.no_grad():
            mask = shift_mask(*padded, window).double()
            return (block.double()(pixels, mask) - pixels).numpy()

    def nodes(self):
        """The nodes that the exporter writes, linear layers included, from the pixels."""
        window, shift = self.attributes.values()
        g = Graph({f"attn.{n}": a.astype(np.float32) for n, a in self.weights.items()})
        _, h, w, channels = self.pixels.shape
        windows = backbones.Windows(g, window, (h, w), channels, self.heads)
        y = windows.split(g, backbones._rolled(g, windows.pad(g, "pixels"), shift))
        with g.scope("attn"):
            y = backbones._window_attention(g, y, windows, windows.mask if shift else None)
        y = windows.crop(g, backbones._rolled(g, windows.join(g, y), -shift))
        g.prune([y])
        return model_of(g.nodes, {"pixels": self.pixels.shape}, y, g.initializers)

    def node(self):
        """The op itself."""
        inputs = {t.name: a.shape for t, a in zip(SPEC.inputs, self.arrays, strict=True)}
        node = helper.make_node(SPEC.name, inputs, ["y"], domain=SPEC.domain, **self.attributes)
        return model_of([node], inputs, "y")


def model_of(nodes, inputs, output, constants=None):
    """With inputs of these shapes; the output's is inferred."""
    graph = helper.make_graph(
        nodes,
        "windows",
        [helper.make_tensor_value_info(n, 1, shape) for n, shape in inputs.items()],
        [onnx.ValueInfoProto(name=output)],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(SPEC.domain, SPEC.version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def window_attention(qkv, padding, position_bias, *, window, shift):
    """The definition in float64: pad, roll, cut, attend, and back."""
    n, h, w, channels = *qkv.shape[:3], padding.shape[1]
    heads = position_bias.shape[0]
    rows, columns = -(-h // window), -(-w // window)
    whole = np.empty((n, rows * window, columns * window, 3 * channels))
    whole[:] = padding.reshape(-1)
    whole[:, :h, :w] = qkv
    # Before the roll the pixels below `shift` are those that it takes to the other side.
    side = [np.arange(count * window) < shift for count in (rows, columns)]
    side = np.broadcast_to(2 * side[0][:, None] + side[1], whole.shape[1:3])[None, :, :, None]

    def cut(x):
        x = np.roll(x, (-shift, -shift), (1, 2))
        x = x.reshape(len(x), rows, window, columns, window, -1)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), rows * columns, window**2, -1)

    parts = cut(whole).reshape(n, rows * columns, window**2, 3, heads, channels // heads)
    q, k, v = np.moveaxis(parts, 3, 0)
    scores = np.einsum("nwqmd,nwkmd->nwmqk", q, k) / np.sqrt(channels // heads) + position_bias
    apart = cut(side) != np.swapaxes(cut(side), 2, 3)
    scores = np.where(apart[:, :, None], scores - 1e4, scores)
    y = np.einsum("nwmqk,nwkmd->nwqmd", softmax(scores), v)
    y = y.reshape(n, rows, columns, window, window, channels).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(n, rows * window, columns * window, channels)
    return np.roll(y, (shift, shift), (1, 2))[:, :h, :w]


def attended(kernels, qkv, padding, position_bias, *, window, shift, threads=1):
    """One call of the native library."""
    inputs = [np.ascontiguousarray(a, np.float32) for a in (qkv, padding, position_bias)]
    output = np.full((*qkv.shape[:3], padding.shape[-1]), 77, np.float32)  # all is written
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    failed = ctypes.CDLL(str(PATH)).m2f_window_attention(
        kernels.index,
        threads,
        *(x for a in inputs for x in (_address(a), (ctypes.c_int64 * a.ndim)(*a.shape))),
        ctypes.c_int64(window),
        ctypes.c_int64(shift),
        _address(output),
        message,
        ctypes.c_size_t(MESSAGE_BYTES),
    )
    if failed:
        raise ValueError(message.value.decode())
    return output


def _address(array):
    return array.ctypes.data_as(ctypes.c_void_p)
