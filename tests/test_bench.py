"The benchmark at smoke size: a row for everything, none where the two sides differ, and the arithmetic of ratios."
import json
import re
import subprocess
from dataclasses import asdict

import numpy as np
import pytest
from test_notebooks import execute

from emoart.core.files import ROOT
from emoart.generate.dcgan import dcgan_discriminator, dcgan_generator
from emoart.models.backbones import has_bfloat16
from emoart.workshop import bench
from emoart.workshop.bench import (
    WORKS, Row, compared, interleaved, measure, operations, ratio, slope, verdict, write_bench)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    "What the chapter measures when it runs."
    folder = tmp_path_factory.mktemp("bench")
    execute("91_bench", folder, out=str(folder / "bench.json"))
    return json.loads((folder / "bench.json").read_text())


COLUMNS = {"work", *Row.__dataclass_fields__, "profile", "machine", "versions", "date"}


def test_the_chapter_measures_everything(rows):
    assert list(dict.fromkeys(row["work"] for row in rows)) == list(WORKS)
    assert len({row["what"] for row in rows}) == len(rows) >= 15
    for row in rows:
        assert set(row) == COLUMNS and row["profile"] == "smoke" and row["sizes"]
        if row["value"] is None: assert "not installed" in row["note"] or "this system" in row["note"], row
        else:
            assert row["low"] <= row["value"] <= row["high"] and row["rounds"] >= 1, row
            assert row["same"] or row["work"] == "growth", row


MARKS = { # how a row begins -> (at least, at most)
    "VGG16+TL": (40, None), "13 CV features": (15, None), "Grad-CAM by ShallNet": (1.5, None),
    "Grad-CAM by ShallNet, keras-vis": (10, None), "Grad-CAM by MobileNetV2": (1.5, None),
    "DCGAN step, float32": (1.4, None), "cleaning": (5, None), "reading": (1.6, None),
    "emoart --help": (None, 0.4), "import emoart": (None, None), "growth: cleaning": (0.9, 1.1),
    "memory: dataset": (None, 1.1)}


def test_rows_know_what_is_to_be_reached(rows):
    marks = {row["what"]: (row["at_least"], row["at_most"]) for row in rows}
    for begins, mark in MARKS.items():
        assert next(found for what, found in marks.items() if what.startswith(begins)) == mark, begins


def test_rows_are_those_of_the_committed_file(rows):
    "Sizes apart, which stand in some names; and its rows can be read out."
    def names(rows): return {re.sub(r"[\d,]+", "", row["what"]) for row in rows}
    committed = json.loads((ROOT / "reports" / "bench.json").read_text())
    expected = {name for name in names(committed) if has_bfloat16() or "bfloat" not in name}
    assert names(rows) == expected
    for row in committed: assert set(row) == COLUMNS and bench.figures(row) and verdict(row) is not None
    assert {row["unit"] for row in rows} == {row["unit"] for row in committed}


def test_sides_take_turns():
    calls = []
    sides = {name: lambda name=name: calls.append(name) for name in "abc"} | {"d": lambda: 3.}
    seconds = interleaved(sides, 3)
    assert "".join(calls) == "abccbaabc" and seconds["d"] == [3.] * 3
    assert all(len(each) == 3 for each in seconds.values())


def test_nothing_is_timed_before_the_check():
    calls = []
    def differ(): raise AssertionError("they differ")
    with pytest.raises(AssertionError, match="they differ"):
        compared("a", lambda: calls.append("a"), "b", lambda: calls.append("b"), differ, 3, warm=True)
    assert not calls


@pytest.mark.parametrize("ours, theirs, expected", [
    ([1, 1, 1], [2, 4, 3], (3, 2, 4)), ([2], [1], (0.5, 0.5, 0.5)), ([1, 10], [4, 20], (3, 2, 4))]) # not of the sums
def test_a_ratio_is_of_rounds(ours, theirs, expected):
    assert tuple(ratio(ours, theirs).values()) == expected


def test_a_verdict_says_by_how_much():
    row = asdict(Row("a", "b", 30., 29., 31.))
    variants = dict(at_least=40), dict(at_least=30), dict(at_most=25), dict(), dict(value=None)
    assert [verdict(row | more) for more in variants] == \
        ["missed by 25.0\u00a0%", "reached", "missed by 20.0\u00a0%", "", "not run"]
    assert slope([10, 20, 40], [1, 2.2, 4.84]) == pytest.approx(np.log2(2.2))


def test_operations_of_dcgan():
    conv = [25 * 3 * 64 * 32**2, 25 * 64 * 128 * 16**2, 25 * 128 * 256 * 8**2, 25 * 256 * 512 * 4**2, 8192]
    assert operations(dcgan_discriminator()) == [2 * n for n in conv]
    assert operations(dcgan_generator()) == [2 * n for n in (100 * 8192, *conv[-2:0:-1], conv[0])]


class OtherColours(bench.MiniBatchKMeans):
    "Both seeds moved alike are as near to each other as before, and far from emoart's."
    @property
    def cluster_centers_(self): return self.__dict__["cluster_centers_"] + [40, 0, 0]

    @cluster_centers_.setter
    def cluster_centers_(self, centres): self.__dict__["cluster_centers_"] = centres


def moved(*columns, by):
    "A change of features that moves some columns."
    return lambda features: features + np.eye(13)[list(columns)].sum(0) * by


@pytest.mark.parametrize("work, name, change, words", [
    ("cleaning", "annex_a", lambda kept: kept[:-1], "rows are kept"),
    ("cleaning", "annex_a", lambda kept: [(row, name, 0) for row, name, _ in kept], "the first difference is"),
    ("reading", "load_images", lambda x: x + np.eye(x.shape[1], dtype="uint8")[..., None], "pictures differ"),
    ("cvfc", "library_features", moved(3, by=0.002), "SSIM differ by 0.00"),
    ("cvfc", "library_features", moved(0, by=0.02), "brightness differ by 0.02"),
    ("maps", "evidence", lambda found: found * 1.01, "differ by 0.01"),
    ("gan", "_our_lesson", lambda costs: costs + 0.02, "costs of two lessons differ"),
    ("start", "_python", lambda said: "{'tensorflow'}", "imports TensorFlow")])
def test_a_side_with_another_result_gets_no_row(work, name, change, words, monkeypatch):
    "The sizes are those of the smoke profile; nothing is timed, for the row fails before."
    if work == "maps": pytest.importorskip("tf_keras_vis")
    was = getattr(bench, name)
    monkeypatch.setattr(bench, name, lambda *args, **kwargs: change(was(*args, **kwargs)))
    monkeypatch.setattr(bench, "interleaved", lambda sides, rounds: {side: [1.] for side in sides})
    with pytest.raises(AssertionError, match=words): measure(work)


def test_other_palettes_get_no_row(monkeypatch):
    monkeypatch.setattr(bench, "MiniBatchKMeans", OtherColours)
    with pytest.raises(AssertionError, match="palettes are"): measure("cvfc")


def test_a_head_that_learned_otherwise_gets_no_row(monkeypatch):
    by_features = bench._by_features
    monkeypatch.setattr(bench, "_by_features", lambda x, y, *others: by_features(x, 1 - y, *others))
    with pytest.raises(AssertionError, match="probabilities"): measure("transfer")


def test_a_stopped_benchmark_goes_on(tmp_path, monkeypatch):
    done = []

    def works(stops=""):
        "Works a, b and c, of which some stop."
        def work(name):
            def rows():
                done.append(name)
                if name in stops: raise KeyboardInterrupt
                return [Row(name, "nothing", 2., 1., 3.)]
            return rows, {}
        monkeypatch.setattr(bench, "WORKS", {name: work(name) for name in "abc"})

    def write(works, say=lambda line: None):
        return [row["what"] for row in write_bench(file, works=tuple(works), parts=parts, say=say)]

    file, parts, said = tmp_path / "bench.json", tmp_path / "parts", []
    works(stops="b")
    with pytest.raises(KeyboardInterrupt): write("abc")
    assert not file.exists()
    works()
    assert write("abc", said.append) == list("abc")
    assert done == list("abbc") and len(said) == 3 and not list(parts.iterdir())
    before = json.loads(file.read_text())
    assert write("b") == list("abc") and done == list("abbcb") # one row measured anew, the others kept
    assert json.loads(file.read_text()) == before


def test_make_bench_is_there():
    said = subprocess.run(["make", "--dry-run", "bench"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0 and "write_bench()" in said.stdout
