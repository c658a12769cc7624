"""`m2f bench` and `m2f inspect --cost`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from m2f.bench import machine
from m2f.bench.parts import KINDS, PARTS
from m2f.bench.peers import PEERS
from tests.bench.fakes import Fake

README = (Path(__file__).parents[2] / "bench/README.md").read_text(encoding="utf-8")
QUICK = ("--runs", 2, "--threads", 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Peaks of small products: what they are is not what is tested here."""
    monkeypatch.setattr(machine, "SIDE", 64)
    monkeypatch.setattr(machine, "COPIED", 1 << 16)


@pytest.fixture
def fake_peer(monkeypatch):
    """Puts a contestant in the place of the first peer."""

    def replace(fake):
        monkeypatch.setattr("m2f.bench.peers.Peer.open", lambda *words, **options: fake)
        return PEERS[0].key

    return replace


def keys_of(value, free):
    """Every key of a report that is not a name of something found, such as a part."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in free:
                yield key
            yield from keys_of(inner, free)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner, free)


def test_bundle(m2f, exported, photo, tmp_path):
    out = tmp_path / "deep/report.json"
    text = m2f("bench", exported, photo, *QUICK, "-o", out).stdout
    for piece in ("tiny.m2f", "encoder layers", "convolution", "of peak", "decode", "post"):
        assert piece in text
    report = json.loads(out.read_text())
    assert (report["format_version"], report["runs"]) == (1, 2)
    (network,) = report["networks"]
    assert (network["role"], network["precision"], len(network["ms"])) == ("bundle", "fp32", 2)
    assert 0 < network["check"]["mask_error"] <= network["check"]["limit"]
    stages = report["stages"][0]["stages"]
    assert list(stages) == ["decode", "pre", "network", "post", "all"]
    for i in range(2):
        whole = sum(stages[name]["ms"][i] for name in list(stages)[:-1])
        assert stages["all"]["ms"][i] == pytest.approx(whole)


def test_the_json_is_the_documented_one(m2f, exported, checkpoint, photo, fake_peer):
    words = ("--checkpoint", checkpoint, "--peer", fake_peer(Fake("broken", fails=True)))
    found = m2f("bench", exported, photo, *words, *QUICK, "--json")
    report = json.loads(found.stdout)
    named = {*PARTS, *KINDS, "decode", "pre", "network", "post", *report["tools"]}
    documented = set(re.findall(r"`(\w+)`", README))
    assert set(keys_of(report, named)) <= documented
    assert {one["role"] for one in report["networks"]} == {"bundle", "reference"}
    assert report["untimed"][0]["why"] == "did not run: no such kernel"


def test_checkpoint_alone_is_exported(m2f, checkpoint):
    words = ("--checkpoint", checkpoint, "--size", "64x96", "--steps", *QUICK, "--json")
    report = json.loads(m2f("bench", *words).stdout)
    names = [one["name"] for one in report["networks"]]
    steps = ["m2f", "m2f, unfused", "m2f, portable", "m2f, as the paper writes it"]
    assert names[:4] == steps
    assert report["networks"][4]["role"] == "reference"
    products = [one["all"]["macs"] for one in report["networks"][:4]]
    assert products[0] == products[1] == products[2] < products[3]
    assert report["size"] == [64, 96]
    assert report["stages"] == []  # no image was named


def test_a_wrong_result_has_no_time(m2f, exported, checkpoint, fake_peer):
    words = ("--checkpoint", checkpoint, "--peer", fake_peer(Fake("wrong")), *QUICK)
    found = m2f("bench", exported, *words, "--size", "64", code=1)
    (row,) = (line for line in found.stdout.splitlines() if line.strip().startswith("wrong"))
    assert re.fullmatch(r"\s*wrong\s+fp32\s+wrong\s*", row)
    assert "wrong is not timed, its result is wrong" in found.stderr
    assert found.stderr.splitlines()[-1].startswith("m2f: not timed, because the result is")


def test_a_bundle_that_was_never_compared_is_refused(refused, bundle, edit_manifest):
    edit_manifest(lambda raw: raw.update(parity=None))
    assert "never compared with PyTorch" in refused("bench", bundle, *QUICK, code=1)


def test_a_bundle_needs_no_pytorch(exported):
    program = """
import sys
sys.modules["torch"] = None
from m2f.bench import machine
from m2f.cli import app
machine.SIDE, machine.COPIED = 64, 1 << 16
app(sys.argv[1:])
"""
    words = ("bench", exported, "--size", "64", "--runs", "1", "--threads", "1")
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "encoder layers" in done.stdout


def test_missing_peers_are_named(m2f, exported, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    words = ("--checkpoint", checkpoint, "--peers", "--size", "64", *QUICK, "--json")
    found = m2f("bench", exported, *words)
    untimed = json.loads(found.stdout)["untimed"]
    assert len(untimed) == len(PEERS)
    assert all("not installed; run: pip install transformers" in one["why"] for one in untimed)
    assert "note: transformers, eager (fp32): not installed" in found.stderr


def test_plot(m2f, exported, tmp_path):
    pytest.importorskip("matplotlib")
    words = ("--size", "64", *QUICK, "--plot", tmp_path / "a.svg")
    m2f("bench", exported, *words)
    picture = (tmp_path / "a.svg").read_text()
    assert "tiny.m2f" in picture


def test_plot_without_matplotlib(refused, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = refused("bench", exported, "--plot", tmp_path / "a.png", code=3)
    assert "pip install 'm2f-deploy[bench]'" in line


def test_an_interruption_leaves_nothing(m2f, exported, tmp_path, monkeypatch):
    def interrupt(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("m2f.bench.benchmark.stages", interrupt)
    out = tmp_path / "report.json"
    found = m2f("bench", exported, "--size", "64", *QUICK, "-o", out, code=130)
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to time"),
        (("--peers",), "nothing to time"),
        (("{bundle}", "--peers"), "add --checkpoint or --preset"),
        (("{bundle}", "--peer", "eager"), "add --checkpoint or --preset"),
        (("--preset", "coco-panoptic-r5"), "no preset is named"),
        (("--checkpoint", "{checkpoint}", "--peer", "tensorrt"), "no peer is named"),
        (("{bundle}", "--steps", "--checkpoint", "{checkpoint}"), "name no bundle"),
        (("{bundle}", "--size", "4000x64"), "choose another --size"),
        (("{bundle}", "--backend", "other"), "unknown backend 'other'"),
        (("--checkpoint", "{checkpoint}", "--device", "cpu"), "name one"),
        (("{bundle}", "--preset", "coco-panoptic-r50"), "is not the model of"),
        (("{bundle}", "--plot", "a.doc"), "a plot ends in .png, .svg, .pdf"),
    ],
)
def test_bad_requests(refused, exported, checkpoint, words, said):
    names = {"{bundle}": exported, "{checkpoint}": checkpoint}
    assert said in refused("bench", *(names.get(w, w) for w in words), *QUICK, code=2)


@pytest.mark.parametrize("name", ["none.m2f", "none.jpg"])
def test_what_does_not_exist(refused, exported, name, tmp_path):
    assert name in refused("bench", exported, tmp_path / name, *QUICK, code=3)


def test_cost(m2f, refused, exported, checkpoint):
    text = m2f("inspect", exported, "--cost", "--size", "64x96").stdout
    for piece in ("tiny.m2f, plugin, fp32, 1 image of 64x96", "GMAC", "heads", "small_masks"):
        assert piece in text
    ours = json.loads(m2f("inspect", exported, "--cost", "--size", "64x96", "--json").stdout)
    words = ("inspect", checkpoint, "--cost", "--size", "64x96", "--json")
    planned = json.loads(m2f(*words).stdout)
    assert ours["total"]["macs"] == planned["total"]["macs"] > 0
    assert set(ours["rewrites"]) == {*ours["made"], "all"}
    for size in ((), ("--size", "9999x64")):
        assert "--size" in refused("inspect", exported, "--cost", *size, code=2)
    assert "--cost" in refused("inspect", exported, "--size", "64", code=2)
