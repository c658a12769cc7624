"""The exported network is still PyTorch's: every form, any size, any batch."""

import dataclasses

import numpy as np
import onnx
import pytest

from m2f.bundle import MODEL, Range
from m2f.config import Preprocess
from m2f.export.exporter import Options, check_image
from m2f.export.network import onnx_from_weights
from m2f.export.onnx_file import save
from m2f.export.parity import OnnxSide, TorchSide, compare
from m2f.models.mask2former import model_from_weights
from tests import tolerance
from tests.export.models import SMALL, published, small
from tests.fixtures import R50_BATCH

PUBLISHED = ("coco-panoptic-r50", "coco-panoptic-swin-t", "coco-panoptic-swin-l-in21k")
FORMS = ("portable", "plugin")
DYNAMIC = Options(batch=Range(min=1, max=4))


def exported(checkpoint, folder, options):
    """Writes a checkpoint's network and opens it."""
    preprocess = checkpoint.metadata.preprocess
    model, arrays = onnx_from_weights(
        checkpoint.config,
        checkpoint.weights,
        preprocess=preprocess,
        profile=options.profile(preprocess),
        form=options.form,
        algebra=options.algebra,
    )
    save(model, arrays, folder, external_data=options.external_data)
    return OnnxSide(folder / MODEL, checkpoint.config.transformer_decoder.layers)


def reference(checkpoint):
    model = model_from_weights(checkpoint.config, checkpoint.weights)
    return TorchSide(model, checkpoint.metadata.preprocess)


def image(height, width, batch=1):
    """A batch, of which the last image is smaller than the rest."""
    options = Options(size=(height, width), batch=Range(min=batch, max=batch))
    pixels, valid = check_image(options.profile(Preprocess()))
    valid[:-1] = height, width
    return pixels, valid


@pytest.fixture(scope="module", params=PUBLISHED)
def checkpoint(request):
    return published(request.param)


@pytest.fixture(scope="module")
def torch_side(checkpoint):
    return reference(checkpoint)


@pytest.mark.slow
def test_published_models_as_plugins_of_a_fixed_size(checkpoint, torch_side, tmp_path):
    side = exported(checkpoint, tmp_path, Options(form="plugin", size=(224, 256)))
    found = compare(torch_side, side, *image(224, 256))
    assert found.is_within(), found


@pytest.mark.slow
def test_published_models_in_plain_onnx_of_any_size(checkpoint, torch_side, tmp_path):
    side = exported(checkpoint, tmp_path, dataclasses.replace(DYNAMIC, form="portable"))
    for size, batch in (((224, 256), 1), ((160, 128), 2), ((97, 210), 2)):
        found = compare(torch_side, side, *image(*size, batch=batch))
        assert found.is_within(), (size, found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SMALL)
def test_small_odd_models(name, form, tmp_path):
    """Basic blocks, a plain pyramid, windows that divide nothing; all modules compared."""
    torch_side = reference(small(name))
    options = dataclasses.replace(DYNAMIC, form=form)
    dynamic = exported(small(name), tmp_path, options)
    for size, batch in (((32, 32), 1), ((100, 67), 3), ((1, 300), 2)):
        found = compare(torch_side, dynamic, *image(*size, batch=batch), trace_layers=True)
        assert found.is_within(), (size, found)
        assert found.layers, "no module was compared"
        assert max(found.layers.values()) <= tolerance.MODULE_ERROR, found.layers


@pytest.mark.parametrize("form", FORMS)
def test_the_two_ways_to_fix_a_size_agree(form, tmp_path):
    """Constants computed at export equal what the dynamic graph computes at run time."""
    fixed, dynamic = tmp_path / "fixed", tmp_path / "dynamic"
    fixed.mkdir()
    dynamic.mkdir()
    a = exported(small("odd_windows"), fixed, Options(form=form, size=(96, 130)))
    b = exported(small("odd_windows"), dynamic, dataclasses.replace(DYNAMIC, form=form))
    found = compare(a, b, *image(96, 130))
    assert found.is_within(), found


def test_a_padded_batch_reproduces_the_official_golden(tmp_path):
    """Two images of different sizes, through ONNX, against detectron2's own numbers."""
    checkpoint = published("coco-instance-r50")
    side = exported(checkpoint, tmp_path, DYNAMIC)
    trace = side.run(*R50_BATCH.batch())
    masks = np.abs(trace.mask_logits - R50_BATCH.golden["pred_masks"])
    classes = np.abs(trace.class_logits - R50_BATCH.golden["pred_logits"])
    assert masks.max() <= tolerance.MASK_LOGITS_MAX
    assert masks.mean() <= tolerance.MASK_LOGITS_MEAN
    assert classes.max() <= tolerance.CLASS_LOGITS_MAX


def test_a_batch_is_as_good_as_single_images(tmp_path):
    side = exported(small("basic_blocks"), tmp_path, DYNAMIC)
    pixels, valid = image(64, 96, batch=3)
    together = side.run(pixels, valid)
    for i in range(3):
        alone = side.run(pixels[i : i + 1], valid[i : i + 1])
        assert np.allclose(alone.mask_logits[0], together.mask_logits[i], atol=1e-5)


def test_image_size_may_be_left_out(tmp_path):
    import onnxruntime

    side = exported(small("basic_blocks"), tmp_path, DYNAMIC)
    pixels, _ = image(64, 64)
    session = onnxruntime.InferenceSession(str(tmp_path / MODEL))
    assert [i.name for i in session.get_inputs()] == ["image"]
    whole = side.run(pixels, np.array([[64, 64]]))
    classes, masks = session.run(None, {"image": pixels})
    assert (masks == whole.mask_logits).all()
    assert (classes == whole.class_logits).all()


def test_the_portable_form_is_plain_onnx_without_gridsample(tmp_path):
    exported(small("odd_windows"), tmp_path, Options(form="portable"))
    model = onnx.load(tmp_path / MODEL)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert "GridSample" not in {node.op_type for node in model.graph.node}


def test_the_plugin_form_names_each_op_once_per_layer(tmp_path):
    exported(small("odd_windows"), tmp_path, Options(form="plugin", size=(64, 64)))
    model = onnx.load(tmp_path / MODEL)
    ours = [node for node in model.graph.node if node.domain == "m2f"]
    kinds = [node.op_type for node in ours]
    assert kinds.count("MSDeformAttn") == SMALL_LAYERS["encoder"]
    assert kinds.count("MaskedAttention") == SMALL_LAYERS["decoder"]
    shapes = next(a for a in ours[0].attribute if a.name == "level_shapes")
    assert list(shapes.ints) == [2, 2, 4, 4, 8, 8]


SMALL_LAYERS = {"encoder": 2, "decoder": 4}


def test_weights_in_a_file_of_their_own(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    inside = exported(small("basic_blocks"), a, Options())
    outside = exported(small("basic_blocks"), b, Options(external_data=True))
    assert (b / MODEL).stat().st_size < (a / MODEL).stat().st_size / 2
    found = compare(inside, outside, *image(64, 64))
    assert found.mask_error == 0


def test_tensors_bear_the_names_of_the_modules(tmp_path):
    side = exported(small("odd_windows"), tmp_path, Options())
    names = side.layer_names()
    assert "pixel_decoder.layers.1.norm2" in names
    assert "transformer_decoder.layers.0.attention_logits" in names
    assert "pixel_decoder.input_proj.0.0" in names, "not every number is made up"
    assert not [name for name in names if "MatMul" in name]
