"""The parts of the reference model alone, on inputs that the whole model never sees."""

import numpy as np
import pytest
import torch

from m2f.config import PixelDecoderConfig, SwinConfig
from m2f.models.msdeform import deformable_attention, reference_points
from m2f.models.pixel_decoder import FPNPixelDecoder, PixelFeatures
from m2f.models.position import sine_position
from m2f.models.swin import Swin
from tests import golden, tolerance
from tests.fixtures import R50_PANOPTIC, SWIN_T_SEMANTIC
from tests.synth_weights import IH_STD, lattice


def draw(name, shape, scale, *, relu=False):
    """An input made by the fixtures' rule."""
    x = (lattice(name, int(np.prod(shape))) * (scale / IH_STD)).astype(np.float32)
    x = x.reshape(shape)
    return torch.from_numpy(np.maximum(x, 0) if relu else x)


@pytest.fixture(scope="module")
def r50():
    return R50_PANOPTIC.model()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deformable_attention(dtype):
    fixture = golden.load("components", "msdeform_core.npz")
    value = draw("comp.msda.value", [2, 735, 8, 32], 1).to(dtype)
    sizes = [tuple(size) for size in fixture["spatial_shapes"].tolist()]
    locations, weights = (
        torch.from_numpy(fixture[name]).to(dtype)
        for name in ("sampling_locations", "attention_weights")
    )
    out = deformable_attention(value, sizes, locations, weights)
    stated = golden.load("components", "config.json")["msdeform_core"]
    assert np.abs(out.numpy() - fixture["output"]).max() <= (
        stated["float64_vs_float32_max"] * tolerance.STATED_DIGITS
    )


@pytest.mark.parametrize(("height", "width"), [(7, 9), (1, 1), (5, 16)])
def test_sine_position(height, width):
    expected = golden.load("components", "sine_position.npz")[f"pe_{height}x{width}"]
    actual = sine_position(256, height, width, like=torch.zeros(()))
    assert np.abs(actual.numpy() - expected).max() <= tolerance.POSITION_MAX


@torch.inference_mode()
def test_pixel_decoder(r50):
    shapes = {"res2": (256, 24, 40), "res3": (512, 12, 20), "res4": (1024, 6, 10)}
    shapes["res5"] = (2048, 3, 5)
    features = [draw(f"comp.pd.{n}", [2, *s], 1, relu=True) for n, s in shapes.items()]
    out = r50.pixel_decoder(features)
    expected = golden.load("components", "pixel_decoder_r50.npz")
    for name, actual in {
        "ms0": out.scales[0],
        "ms1": out.scales[1],
        "ms2": out.scales[2][:, ::2],
        "mask_features_c8": out.mask_features[:, ::8],
    }.items():
        assert np.abs(actual.numpy() - expected[name]).max() <= tolerance.FEATURES_MAX, name


@torch.inference_mode()
def test_transformer_decoder(r50):
    scales = tuple(draw(f"comp.td4.ms{i}", [2, 256, 4 << i, 6 << i], 1) for i in range(3))
    features = draw("comp.td4.mask_features", [2, 256, 32, 48], 0.5)
    heads, logits = r50.transformer_decoder(PixelFeatures(scales, features))
    expected = golden.load("components", "transformer_decoder_r50.npz")
    classes = np.abs(heads[-1].class_logits.numpy() - expected["pred_logits"])
    masks = np.abs(heads[-1].mask_logits[:, :, ::2, ::2].numpy() - expected["pred_masks"])
    assert classes.max() <= tolerance.CLASS_LOGITS_MAX
    assert masks.max() <= tolerance.MASK_LOGITS_MAX
    for i, layer in enumerate(logits):
        masked = layer.numpy() < 0
        assert (masked == golden.unpack_mask(expected, i, masked.shape)).all(), f"layer {i}"


def test_swin_on_odd_sizes():
    """Neither patches nor windows nor merges divide 90x121."""
    model = SWIN_T_SEMANTIC.model()
    with torch.inference_mode():
        features = model.backbone(draw("comp.swin.x", [1, 3, 90, 121], 1))
    expected = golden.load("components", "swin_t_odd.npz")
    for i, actual in enumerate(features):
        name = f"res{i + 2}"
        actual = actual[:, ::2] if name == "res2" else actual
        assert np.abs(actual.numpy() - expected[name]).max() <= tolerance.COMPONENT_MAX, name


def test_reference_points_are_the_cell_centres():
    points = reference_points([(1, 2), (2, 1)], like=torch.zeros(()))
    assert points.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]


@pytest.mark.parametrize("window", [7, 12])
def test_swin_takes_images_smaller_than_a_window(window):
    config = SwinConfig(embed_dim=24, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4), window=window)
    with torch.inference_mode():
        sizes = [tuple(x.shape[2:]) for x in Swin(config)(torch.zeros(1, 3, 32, 64))]
    assert sizes == [(8, 16), (4, 8), (2, 4), (1, 2)]


def test_the_plain_pyramid_sees_the_whole_image_at_every_scale():
    """Each output depends on each input at or above its scale, and on nothing else."""
    decoder = FPNPixelDecoder(
        PixelDecoderConfig(kind="fpn", channels=32, mask_channels=32), [8] * 4
    )
    features = [torch.randn(1, 8, 32 >> i, 32 >> i, requires_grad=True) for i in range(4)]
    out = decoder(features)
    assert [tuple(x.shape[2:]) for x in out.scales] == [(4, 4), (8, 8), (16, 16)]
    assert tuple(out.mask_features.shape) == (1, 32, 32, 32)
    for i, scale in enumerate(out.scales):
        grads = torch.autograd.grad(
            scale.square().sum(), features, retain_graph=True, allow_unused=True
        )
        reached = [g is not None and bool(g.abs().sum() > 0) for g in grads]
        assert reached == [level >= 3 - i for level in range(4)]
