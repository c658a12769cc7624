import dataclasses

import numpy as np
import pytest
import torch

from m2f.bundle import InputProfile, Range
from m2f.config import (
    Metadata,
    ModelConfig,
    PixelDecoderConfig,
    Preprocess,
    ResNetConfig,
    TransformerDecoderConfig,
)
from m2f.errors import UsageError
from m2f.models.checkpoint import Checkpoint
from m2f.models.mask2former import Mask2Former
from m2f.runtime.backend_torch import TorchBackend, session_from_checkpoint
from m2f.runtime.session import Session
from tests.runtime import toy

TINY = ModelConfig(
    backbone=ResNetConfig(blocks=(1, 1, 1, 1), width=8, block="basic"),
    pixel_decoder=PixelDecoderConfig(channels=64, mask_channels=32, heads=4, layers=1, ffn=32),
    transformer_decoder=TransformerDecoderConfig(
        queries=5, layers=3, channels=64, heads=4, ffn=32
    ),
    classes=3,
)


@pytest.fixture(scope="module")
def backend():
    torch.manual_seed(0)
    return TorchBackend(Mask2Former(TINY), Preprocess())


def test_it_pads_to_the_stride(backend):
    image = np.zeros((2, 40, 70, 3), np.uint8)
    class_logits, mask_logits = backend.run(image, np.array([[40, 70], [40, 70]]))
    assert (class_logits.shape, class_logits.dtype) == ((2, 5, 4), np.float32)
    assert (mask_logits.shape, mask_logits.dtype) == ((2, 5, 16, 24), np.float32)


def test_what_lies_beyond_image_size_does_not_matter(backend):
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    other = image.copy()
    other[:, 50:] = 255
    size = np.array([[50, 64]])
    for a, b in zip(backend.run(image, size), backend.run(other, size), strict=True):
        assert np.array_equal(a, b)
    whole = backend.run(image, np.array([[64, 64]]))
    assert not np.array_equal(whole[1], backend.run(image, size)[1])


def test_a_session_runs_on_it(backend):
    metadata = Metadata(
        task="semantic",
        tasks=("semantic",),
        categories=toy.CATEGORIES,
        preprocess=Preprocess(min_size=64, max_size=100),
    )
    sides = Range(min=1, max=128)
    profile = InputProfile(batch=Range(min=1, max=2), height=sides, width=sides)
    session = Session(backend, metadata, profile)
    predictions = session([np.full((30, 50, 3), 90, np.uint8), np.zeros((9, 9, 3), np.uint8)])
    assert [p.label_map.shape for p in predictions] == [(30, 50), (9, 9)]
    none = dataclasses.replace(metadata, preprocess=Preprocess(resize="none"))
    assert Session(backend, none, profile)(np.zeros((1, 1, 3), np.uint8)).size == (1, 1)


def test_a_checkpoint_becomes_a_session(backend):
    torch.manual_seed(0)
    weights = {name: w.numpy() for name, w in Mask2Former(TINY).state_dict().items()}
    checkpoint = Checkpoint(
        path="tiny",
        format="official",
        sha256="0" * 64,
        weights=weights,
        config=TINY,
        metadata=Metadata(
            task="instance", tasks=("instance", "semantic"), categories=toy.CATEGORIES
        ),
        preset=None,
        notes=(),
    )
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    size = np.array([[64, 64]])
    with session_from_checkpoint(checkpoint, task="semantic") as session:
        assert session.task == "semantic"
        ours = session.backend.run(image, size)
    for a, b in zip(ours, backend.run(image, size), strict=True):
        assert np.array_equal(a, b)


def test_a_closed_backend():
    backend = TorchBackend(Mask2Former(TINY), Preprocess())
    backend.close()
    with pytest.raises(UsageError, match="was closed"):
        backend.run(np.zeros((1, 32, 32, 3), np.uint8), np.array([[32, 32]]))
