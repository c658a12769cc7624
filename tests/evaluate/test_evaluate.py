"""Whole runs: figures over files, keeping, going on, refusing to mix."""

import fcntl
import json
import os

import pytest

from m2f.errors import DataError, UsageError
from m2f.evaluate import Keep, Matching, evaluate, open_data
from tests.evaluate import official_pq
from tests.evaluate.made import METADATA, Oracle, edit
from tests.tolerance import IOU_SUM

TASKS = ("panoptic", "instance", "semantic")


def data_of(folder, task):
    return open_data(folder, task=task, labels="indices" if task == "semantic" else None)


def keep(folder, mode="new", identity="oracle"):
    return Keep(folder=folder, mode=mode, identity=identity)


def test_pq_of_files_equals_panopticapi(written, scenes, oracle, tmp_path):
    pytest.importorskip("panopticapi", reason="pip install --no-deps panopticapi-lite")
    from tests.evaluate.made import IDS

    cases = {
        str(i): (
            s.ids,
            {k: (IDS[v], k in s.crowds) for k, v in s.labels.items()},
            s.guess,
            {p.id: IDS[p.label] for p in s.predict("panoptic").segments},
        )
        for i, s in enumerate(scenes)
    }
    _, averages = official_pq.run(cases, tmp_path)
    metrics = evaluate(oracle, written, task="panoptic").scores.metrics
    assert 0 < metrics["PQ"] < 100
    for suffix, expected in averages.items():
        for name in ("PQ", "SQ", "RQ"):
            found = metrics[name + suffix]
            assert found == pytest.approx(100 * expected[name.lower()], abs=100 * IOU_SUM)


@pytest.mark.parametrize("task", TASKS)
def test_an_interrupted_run_goes_on_to_the_same_report(written, scenes, oracle, tmp_path, task):
    data = data_of(written, task)
    whole = evaluate(oracle, data, task=task)
    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Oracle(scenes, tired_after=5), data, task=task, keep=keep(folder))
    rested = Oracle(scenes)
    report = evaluate(rested, data, task=task, keep=keep(folder, "resume"))
    assert report.resumed == 5
    assert rested.asked == len(scenes) - 5
    assert report.scores == whole.scores
    assert report.images == whole.images
    written_report = json.loads((folder / "report.json").read_text())
    assert written_report["metrics"] == dict(whole.scores.metrics)


def test_twice_is_the_same_to_the_byte(written, scenes, tmp_path):
    for name in ("a", "b"):
        evaluate(Oracle(scenes), written, task="panoptic", keep=keep(tmp_path / name))
    for file in ("settings.json", "images.jsonl", "report.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_line_cut_off_by_a_crash_is_done_again(written, scenes, oracle, tmp_path):
    whole = evaluate(oracle, written, keep=keep(tmp_path))
    lines = tmp_path / "images.jsonl"
    content = lines.read_bytes()
    lines.write_bytes(content[:-9])
    again = Oracle(scenes)
    report = evaluate(again, written, keep=keep(tmp_path, "resume"))
    assert again.asked == 1
    assert report.scores == whole.scores
    assert lines.read_bytes() == content


def test_a_damaged_line_within_is_an_error(written, oracle, tmp_path):
    evaluate(oracle, written, keep=keep(tmp_path))
    lines = tmp_path / "images.jsonl"
    content = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join([content[0], content[1][:20] + "\n", *content[2:]]))
    with pytest.raises(DataError, match=r"images.jsonl: line 2 is damaged"):
        evaluate(oracle, written, keep=keep(tmp_path, "resume"))


def test_a_limited_run_goes_on_to_more_images(written, scenes, oracle, tmp_path):
    part = evaluate(oracle, written, limit=3, keep=keep(tmp_path))
    assert (len(part.images), part.count) == (3, len(scenes))
    assert any("only 3 of 12 images" in remark for remark in part.remarks())
    report = evaluate(oracle, written, keep=keep(tmp_path, "resume"))
    assert (report.resumed, len(report.images)) == (3, len(scenes))


def test_kept_results_are_not_touched_unless_asked(written, oracle, tmp_path):
    evaluate(oracle, written, keep=keep(tmp_path))
    with pytest.raises(UsageError, match="holds results already; pass --resume"):
        evaluate(oracle, written, keep=keep(tmp_path))
    report = evaluate(oracle, written, keep=keep(tmp_path, "replace"))
    assert report.resumed == 0


def test_results_are_never_mixed(odd, tmp_path):
    folder, oracle = odd
    kept = tmp_path / "kept"
    evaluate(oracle, folder, task="panoptic", keep=keep(kept))

    def refused(text, model=oracle, task="panoptic", identity="oracle", matching=None):
        with pytest.raises(UsageError, match=text):
            evaluate(
                model,
                folder,
                task=task,
                matching=matching,
                keep=keep(kept, "resume", identity),
            )

    refused("model_sha256 was .oracle., is .other.", identity="other")
    refused("task was .panoptic., is .instance.", task="instance")
    refused("matching was", matching=Matching(allow_missing=True))
    changed = Oracle([])
    changed.metadata = type(METADATA)(
        task="panoptic", tasks=METADATA.tasks, categories=METADATA.categories[::-1]
    )
    refused("metadata_sha256 was", model=changed)
    edit(folder / "panoptic.json", lambda c: c["categories"].reverse())
    refused("data_sha256 was")


def test_an_image_exchanged_between_two_runs_is_noticed(odd, tmp_path):
    folder, oracle = odd
    evaluate(oracle, folder, keep=keep(tmp_path / "kept"))
    with (folder / "images/0002.png").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(UsageError, match=r"0002.png: it or its label image had \["):
        evaluate(oracle, folder, keep=keep(tmp_path / "kept", "resume"))


def test_an_image_mended_between_two_runs_is_fine(odd, tmp_path):
    folder, oracle = odd
    file = folder / "panoptic/0002.png"
    good = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(DataError):
        evaluate(oracle, folder, keep=keep(tmp_path / "kept"))
    file.write_bytes(good)
    assert evaluate(oracle, folder, keep=keep(tmp_path / "kept", "resume")).resumed == 1


def test_two_runs_at_once_do_not_share_a_folder(written, oracle, tmp_path):
    evaluate(oracle, written, keep=keep(tmp_path))
    handle = os.open(tmp_path / "images.jsonl", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another evaluation is writing"):
        evaluate(oracle, written, keep=keep(tmp_path, "resume"))
    os.close(handle)
    evaluate(oracle, written, keep=keep(tmp_path, "resume"))


def test_a_predictor_needs_an_identity_to_be_kept(written, oracle, tmp_path):
    with pytest.raises(UsageError, match="not a bundle"):
        evaluate(oracle, written, keep=Keep(folder=tmp_path))


def test_progress_is_told_every_image(written, oracle):
    told = []
    evaluate(oracle, written, limit=2, progress=lambda *step: told.append(step))
    assert told == [(1, 2, "0001.png"), (2, 2, "0002.png")]
