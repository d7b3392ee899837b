"The benchmark at smoke size: a row for everything, none where the two sides differ, and the arithmetic of ratios."
import json
import subprocess

import numpy as np
import pytest
from test_notebooks import execute

from emoart.workshop import bench
from emoart.workshop.bench import SMOKE, WORKS, Row, asdict, interleaved, measure, operations, ratio, slope, verdict, write_bench
from emoart.generate.dcgan import dcgan_discriminator, dcgan_generator
from emoart.core.files import ROOT


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    "What the chapter measures when it runs."
    folder = tmp_path_factory.mktemp("bench")
    execute("91_bench", folder, out=str(folder / "bench.json"))
    return json.loads((folder / "bench.json").read_text())


def test_the_chapter_measures_everything(rows):
    assert list(dict.fromkeys(row["work"] for row in rows)) == list(WORKS) == list(SMOKE)
    assert len({row["what"] for row in rows}) == len(rows) >= 15
    for row in rows:
        assert set(row) == {"work", *Row.__dataclass_fields__, "profile", "machine", "versions", "date"} and row["profile"] == "smoke"
        if row["value"] is None: assert row["note"] and "not installed" in row["note"] or "this system" in row["note"], row
        else: assert row["low"] <= row["value"] <= row["high"] and (row["same"] or row["work"] == "growth") and row["sizes"] and row["rounds"] >= 1, row


def test_rows_know_what_is_to_be_reached(rows):
    marks = {row["what"]: (row["at_least"], row["at_most"]) for row in rows}
    expected = {"VGG16+TL": (40, None), "13 CV features": (15, None), "Grad-CAM by ShallNet": (1.5, None), "Grad-CAM by ShallNet, keras-vis": (10, None), "DCGAN step, float32": (1.4, None), "cleaning": (5, None),
                "reading": (1.6, None), "emoart --help": (None, 0.4), "growth: cleaning": (0.9, 1.1), "memory: dataset": (None, 1.1)}
    for begins, mark in expected.items(): assert next(found for what, found in marks.items() if what.startswith(begins)) == mark, begins


def test_sides_take_turns():
    calls = []
    seconds = interleaved({name: lambda name=name: calls.append(name) for name in "abc"} | {"d": lambda: 3.}, 3)
    assert "".join(calls) == "abccbaabc" and seconds["d"] == [3.] * 3 and all(len(each) == 3 for each in seconds.values())


@pytest.mark.parametrize("ours, theirs, expected", [
    ([1, 1, 1], [2, 4, 3], (3, 2, 4)), ([2], [1], (0.5, 0.5, 0.5)), ([1, 10], [4, 20], (3, 2, 4))]) # of the rounds, not of the sums
def test_a_ratio_is_of_rounds(ours, theirs, expected):
    assert tuple(ratio(ours, theirs).values()) == expected


def test_a_verdict_says_by_how_much():
    row = asdict(Row("a", "b", 30., 29., 31.))
    assert [verdict(row | more) for more in (dict(at_least=40), dict(at_least=30), dict(at_most=25), dict(), dict(value=None))] == ["missed by 25.0\u00a0%", "reached", "missed by 20.0\u00a0%", "", "not run"]
    assert slope([10, 20, 40], [1, 2.2, 4.84]) == pytest.approx(np.log2(2.2))


def test_operations_of_dcgan():
    conv = [25 * 3 * 64 * 32**2, 25 * 64 * 128 * 16**2, 25 * 128 * 256 * 8**2, 25 * 256 * 512 * 4**2, 8192]
    assert operations(dcgan_discriminator()) == [2 * n for n in conv]
    assert operations(dcgan_generator()) == [2 * n for n in (100 * 8192, *conv[-2:0:-1], conv[0])]


@pytest.mark.parametrize("work, name, change, words", [
    ("cleaning", "annex_a", lambda kept: kept[:-1], "rows are kept"),
    ("cleaning", "annex_a", lambda kept: [(row, name, 0) for row, name, _ in kept], "the first difference is"),
    ("reading", "load_images", lambda x: x + np.eye(x.shape[1], dtype="uint8")[..., None], "pictures differ"),
    ("cvfc", "library_features", lambda f: f + np.eye(13)[3] * 0.002, "SSIM by 0.00"),
    ("cvfc", "library_palette", lambda palette: palette + [40, 0, 0], "palettes are"), # both seeds moved alike are as near to each other as before, and far from emoart's
    ("maps", "evidence", lambda found: found * 1.01, "maps differ by"),
    ("gan", "_our_lesson", lambda costs: costs + 0.02, "two lessons cost"),
    ("start", "_process", lambda said: "True", "imports TensorFlow")])
def test_a_side_with_another_result_gets_no_row(work, name, change, words, monkeypatch):
    "The sizes are those of the smoke profile; nothing is timed, for the row fails before."
    if work == "maps": pytest.importorskip("tf_keras_vis")
    was = getattr(bench, name)
    monkeypatch.setattr(bench, name, lambda *args, **kwargs: change(was(*args, **kwargs)))
    monkeypatch.setattr(bench, "interleaved", lambda sides, rounds: {side: [1.] for side in sides})
    with pytest.raises(AssertionError, match=words): measure(work)


def test_a_stopped_benchmark_goes_on(tmp_path, monkeypatch):
    done = []
    def row(name, fails=()):
        def rows():
            done.append(name)
            if name in fails: raise KeyboardInterrupt
            return [Row(name, "nothing", 2., 1., 3.)]
        return rows
    file, parts = tmp_path / "bench.json", tmp_path / "parts"
    monkeypatch.setattr(bench, "WORKS", {name: row(name, "b") for name in "abc"})
    with pytest.raises(KeyboardInterrupt): write_bench(file, works=tuple("abc"), parts=parts, say=lambda line: None)
    assert not file.exists()
    monkeypatch.setattr(bench, "WORKS", {name: row(name) for name in "abc"})
    said = []
    assert [r["what"] for r in write_bench(file, works=tuple("abc"), parts=parts, say=said.append)] == list("abc")
    assert done == list("abbc") and len(said) == 3 and not list(parts.iterdir())
    before = json.loads(file.read_text())
    assert [r["what"] for r in write_bench(file, works=("b",), parts=parts, say=said.append)] == list("abc") and done == list("abbcb") # one row measured anew, the others kept
    assert json.loads(file.read_text()) == before


def test_make_bench_is_there():
    said = subprocess.run(["make", "--dry-run", "bench"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0 and "write_bench()" in said.stdout
