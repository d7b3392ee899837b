"The gallery's promises: the same bytes, independent dials, and the planted truth that the models must find or miss."
import hashlib
import json

import pandas as pd
import pytest
from conftest import assert_one_sentence, run_emoart

from emoart.data.clean import cleaned_gallery
from emoart.run.experiments import parameters_from, run_notebook
from emoart.data.gallery import ceiling, make_gallery, plan_gallery
from emoart.core.files import NOTEBOOKS, find_notebook
from emoart.core.settings import load_settings


def digest(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_bytes_from_any_number_of_workers(tmp_path):
    one = make_gallery(tmp_path / "one", n_labelled=40, n_unlabelled=3, seed=5, jobs=1)
    two = make_gallery(tmp_path / "two", n_labelled=40, n_unlabelled=3, seed=5, jobs=2)
    assert digest(one) == digest(two) and len(digest(one)) > 2 * 43
    assert digest(make_gallery(tmp_path / "three", n_labelled=40, n_unlabelled=3, seed=6, jobs=2)) != digest(one)


def test_a_finished_gallery_is_left_as_it_is(tmp_path):
    gallery = make_gallery(tmp_path / "g", n_labelled=8, jobs=1)
    before = digest(gallery)
    make_gallery(tmp_path / "g", n_labelled=12, jobs=1)
    assert digest(gallery) == before and [p.name for p in tmp_path.iterdir()] == ["g"]


@pytest.mark.parametrize("dial, column", [("global_cue", "look"), ("local_cue", "face")])
def test_a_dial_changes_one_column_only(dial, column):
    others = [c for c in plan_gallery(40) if c != column]
    low, high = plan_gallery(400, **{dial: 0}), plan_gallery(400, **{dial: 1})
    pd.testing.assert_frame_equal(low[others], high[others])
    assert not low[column].equals(high[column])


@pytest.mark.parametrize("arguments, word", [(dict(global_cue=1.1), "global_cue"), (dict(local_cue=-1), "local_cue"), (dict(n_labelled=0), "n_labelled")])
def test_impossible_galleries(arguments, word):
    with pytest.raises(ValueError, match=word): plan_gallery(**arguments)


def test_the_command(tmp_path, emoart):
    done = run_emoart("gallery", "--out", tmp_path / "g", "--profile", "smoke", "-p", "n_labelled=40")
    assert done.returncode == 0 and (tmp_path / "g" / "art.xlsx").exists()
    assert_one_sentence(emoart("gallery", "--out", tmp_path / "h", "-p", "n_labelled=4"), "n_labelled")
    (tmp_path / "file").write_text("")
    for taken in (tmp_path / "file", tmp_path, tmp_path / "file" / "below"):
        assert_one_sentence(emoart("gallery", "--out", taken, "--profile", "smoke"), str(taken if taken.exists() else taken.parent))


def test_planted_truth(tmp_path):
    "CV+FC finds global cues, is at chance when only local ones are planted, and when none are, on a smaller gallery than the quick profile's."
    scores = {}
    for dials in ((1, 0), (0, 1), (0, 0)):
        settings = load_settings("quick", n_labelled=240, n_bootstrap=200, cache=str(tmp_path / "cache"), global_cue=dials[0], local_cue=dials[1])
        folder = tmp_path / f"{dials[0]}-{dials[1]}"
        notebook = find_notebook("cvfc")
        parameters = dict(parameters_from(notebook, settings), paintings=str(cleaned_gallery(settings)), out=str(folder))
        assert run_notebook(notebook, folder, parameters)
        scores[dials] = json.loads((folder / "metrics.json").read_text())["test"]
    assert ceiling(1) == 1 and scores[1, 0]["balanced_accuracy"]["value"] > 0.75
    for dials in ((0, 1), (0, 0)):
        for metric in ("accuracy", "balanced_accuracy"): assert scores[dials][metric]["low"] <= 0.25 <= scores[dials][metric]["high"], scores[dials]
