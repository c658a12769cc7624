"""From a bundle and pictures to a quantised bundle."""

import json
import math

import numpy as np
import onnx
import onnxruntime
import pytest

from m2f.bench.cost import cost_of_bundle
from m2f.bundle import Bundle
from m2f.calib import Form, Limit, Options, RangeRule, calibrate, judge
from m2f.calib.calibration import RANGES
from m2f.calib.images import Feeder
from m2f.calib.images import pictures as find
from m2f.calib.network import Network, block_of
from m2f.calib.record import record
from m2f.calib.sensitivity import rank
from m2f.errors import CheckFailed, DataError, UsageError
from m2f.export.parity import OnnxSide, relative_error
from m2f.plugins import library
from m2f.runtime.preprocess import assemble
from m2f.runtime.session import load
from tests import tolerance
from tests.calib.conftest import SIZE


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "ranges.npz"


@pytest.fixture(scope="module")
def made(bundle, pictures, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "int8.m2f"
    return calibrate(bundle, [pictures], out, cache=cache, threads=1)


@pytest.fixture(scope="module")
def network(bundle, pictures, cache, made):
    network = Network(bundle, Form())
    network.take(record(bundle, find([pictures]), network.sampled, kept=cache), RangeRule())
    return network


def test_every_layer_is_quantised(bundle, made):
    model = onnx.load(str(made.bundle / "model.onnx"))
    manifest = Bundle.open(made.bundle).manifest
    assert manifest.precision == "int8"
    about = manifest.quantization
    assert (about.method, about.images, about.layers) == ("mse", 12, len(made.quantized))
    assert about.kept == () == made.kept
    int8 = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8]
    weights = {i.name.removesuffix(".quantized") for i in int8 if i.name.endswith("quantized")}
    without = ("residual", "MSDeformAttn")  # these have none
    assert weights >= {f"{n}.weight" for n in made.quantized if not n.endswith(without)}
    sizes = [sum(f.bytes for f in m.files) for m in (manifest, bundle.manifest)]
    assert sizes[0] < 0.6 * sizes[1]


def test_it_needs_the_same_products(bundle, made):
    exact, quantised = (
        cost_of_bundle(one, SIZE).total for one in (bundle, Bundle.open(made.bundle))
    )
    assert quantised.macs == exact.macs
    assert quantised.weights < 0.6 * exact.weights


def test_the_scales_are_those_of_the_ranges(made, network):
    model = onnx.load(str(made.bundle / "model.onnx"))
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    ranges = json.loads((made.bundle / RANGES).read_text())
    assert ranges["thresholds"] == network.thresholds
    for name in network.sampled:
        if f"{name}.scale" in arrays:
            assert arrays[f"{name}.scale"] * 127 == pytest.approx(network.thresholds[name])


def test_it_runs_and_is_close(bundle, made, pictures):
    picture = sorted(pictures.iterdir())[0]
    with load(bundle, threads=1) as one, load(made.bundle, threads=1) as other:
        prepared = one.prepare(picture)
        (a, b), (c, d) = one.logits([prepared]), other.logits([prepared])
    assert 0 < relative_error(c, a) < tolerance.INT8_OUTPUTS
    assert a.shape == c.shape
    assert b.shape == d.shape


def test_the_same_again_is_the_same_file(bundle, made, pictures, cache, tmp_path):
    again = calibrate(bundle, [pictures], tmp_path / "again.m2f", cache=cache, threads=1)
    for name in ("model.onnx", RANGES):
        assert (again.bundle / name).read_bytes() == (made.bundle / name).read_bytes()


def test_peaks_are_of_what_runs(bundle, made, network):
    """What `--precision fp16` asks for: the largest number of each result."""
    assert set(made.peaks) >= set(network.sampled)
    assert all(math.isfinite(peak) and peak >= 0 for peak in made.peaks.values())
    assert json.loads((made.bundle / RANGES).read_text())["peaks"] == made.peaks


def test_blocks_of_layers():
    names = {
        "backbone.res2.0.conv1": "backbone.res2.0",
        "backbone.res2.0.conv3.residual": "backbone.res2.0",
        "backbone.stem.conv1": "backbone.stem",
        "backbone.layers.2.blocks.11.mlp.fc1": "backbone.layers.2.blocks.11",
        "backbone.patch_embed.proj": "backbone.patch_embed",
        "pixel_decoder.layers.5.attn.value_proj": "pixel_decoder.layers.5",
        "pixel_decoder.lateral": "pixel_decoder.lateral",
    }
    assert {name: block_of(name) for name in names} == names


def test_noise_of_a_part_is_measured(bundle, network, pictures):
    """Against running the two files side by side."""
    feed = Feeder(bundle.manifest.metadata.preprocess, bundle.manifest.profile)
    fed = [feed(picture.path) for picture in find([pictures])[:2]]
    blocks = network.blocks
    parts = {name: blocks[name] for name in ("backbone.stem", "pixel_decoder.layers.0")}
    ranking = rank(network, parts, fed, threads=1)
    assert [p.noise for p in ranking] == sorted((p.noise for p in ranking), reverse=True)
    reference = OnnxSide(bundle.model_path, 4, threads=1, library=library.find())
    for part in ranking:
        with network.quantised(part.layers) as candidate:
            other = OnnxSide(candidate.model_path, 4, threads=1, library=library.find())
            a = [reference.run(*one) for one in fed]
            b = [other.run(*one, forced=x.decisions) for one, x in zip(fed, a, strict=True)]
        error = relative_error(
            *(np.concatenate([t.mask_logits.ravel() for t in s]) for s in (b, a))
        )
        assert part.masks_db == pytest.approx(-20 * math.log10(error), abs=0.01)
        assert 10 < part.masks_db < 120


def test_an_allowed_drop_is_kept_to(bundle, pictures, cache, tmp_path):
    free = Limit(max_drop=99.0)
    report = calibrate(
        *(bundle, [pictures], tmp_path / "a.m2f"),
        options=Options(limit=free),
        cache=cache,
        threads=1,
    )
    assert (report.metric, report.reference, report.kept) == ("agreement", 100.0, ())
    assert report.judged == 12
    allowed = (100.0 - report.reached) / 2
    assert allowed > 0
    tight = calibrate(
        *(bundle, [pictures], tmp_path / "b.m2f"),
        options=Options(limit=Limit(max_drop=allowed)),
        cache=cache,
        threads=1,
    )
    assert tight.reached >= 100.0 - allowed
    assert tight.kept
    assert len(tight.ranking) == len({block_of(n) for n in (*tight.quantized, *tight.kept)})
    manifest = Bundle.open(tight.bundle).manifest
    assert manifest.quantization.kept == tight.kept
    told = json.loads((tight.bundle / RANGES).read_text())
    assert [part["part"] for part in told["ranking"]] == [p.name for p in tight.ranking]


def test_a_drop_that_cannot_be_kept_to(bundle, pictures, cache, tmp_path):
    with pytest.raises(CheckFailed, match=r"the best of 2 choices, .* loses"):
        calibrate(
            *(bundle, [pictures], tmp_path / "c.m2f"),
            options=Options(limit=Limit(max_drop=0.0), rule=RangeRule(method="minmax")),
            cache=cache,
            threads=1,
        )
    assert not any(tmp_path.iterdir())


def test_agreement_about_nothing_is_refused(bundle, pictures, cache, tmp_path, monkeypatch):
    def never_sure(*args, **options):
        return load(*args, **options, object_mask_threshold=1.0)

    monkeypatch.setattr(judge, "load", never_sure)
    with pytest.raises(DataError, match="finds nothing in any of 12 images"):
        calibrate(
            *(bundle, [pictures], tmp_path / "d.m2f"),
            options=Options(limit=Limit(max_drop=1.0)),
            cache=cache,
            threads=1,
        )


@pytest.mark.parametrize("drop", [-0.1, 100.0, math.nan])
def test_drops_that_make_no_sense(drop):
    with pytest.raises(UsageError, match="cannot be asked for"):
        Limit(max_drop=drop)


def test_a_quantised_bundle_is_not_quantised_again(made, pictures, tmp_path):
    with pytest.raises(UsageError, match=r"int8\.m2f: is int8 already"):
        calibrate(made.bundle, [pictures], tmp_path / "e.m2f")


def test_a_tensor_that_is_always_zero_keeps_its_layer(network):
    name, layer = next(iter(network.layers.items()))
    before = dict(network.thresholds)
    try:
        network.thresholds[layer.input] = 0.0
        assert name in network.dead
        assert not any(name in names for names in network.blocks.values())
    finally:
        network.thresholds = before


@pytest.mark.parametrize("base", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_session_computes_what_the_file_says(bundle, pictures, tmp_path, kind, base):
    """A session's outputs are the file's own, run without any of a runtime's rewriting."""
    options = Options(form=Form(kind=kind, base=base))
    out = tmp_path / "out.m2f"
    calibrate(bundle, [pictures], out, options=options, threads=1)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if library.find() is not None:
        plain.register_custom_ops_library(str(library.find()))
    file = str(out / "model.onnx")
    exact = onnxruntime.InferenceSession(file, plain, providers=["CPUExecutionProvider"])
    with load(out, threads=1) as session, load(bundle, threads=1) as float32:
        prepared = session.prepare(sorted(pictures.iterdir())[0])
        feeds = dict(zip(("image", "image_size"), assemble([prepared]), strict=True))
        expected = exact.run(["class_logits", "mask_logits"], feeds)
        noise = map(relative_error, float32.logits([prepared]), expected)
        found = map(relative_error, session.logits([prepared]), expected)
        # Rounding may tip a few values to the next step, where quantising moved them all.
        for error, whole in zip(found, noise, strict=True):
            assert error < 0.5 * whole
