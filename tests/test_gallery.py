"The gallery's promises: the same bytes, independent dials, and the planted truth that the models must find or miss."
import hashlib

import pandas as pd
import pytest
from conftest import assert_one_sentence

from emoart.core.backend import seed_everything
from emoart.core.files import InputError
from emoart.core.settings import load_settings
from emoart.data.gallery import ceiling, make_gallery, plan_gallery
from emoart.evaluate.run import load_data, run


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small_gallery(tmp_path_factory):
    "A gallery of all genres, made in this process."
    return make_gallery(tmp_path_factory.mktemp("small") / "g", n_labelled=20, n_unlabelled=3, seed=5, jobs=1)


def test_the_same_bytes_from_any_number_of_workers(small_gallery, tmp_path):
    again = make_gallery(tmp_path / "again", n_labelled=20, n_unlabelled=3, seed=5, jobs=2)
    assert digest(again) == digest(small_gallery) and len(digest(again)) > 2 * 23


def test_another_seed_gives_other_paintings(small_gallery, tmp_path):
    other = make_gallery(tmp_path / "other", n_labelled=4, seed=6, jobs=1)
    paintings = [path.relative_to(other) for path in other.glob("images/0*")]
    assert len(paintings) == 4
    for path in paintings: assert (other / path).read_bytes() != (small_gallery / path).read_bytes()


def test_a_finished_gallery_is_left_as_it_is(small_gallery):
    before = digest(small_gallery)
    make_gallery(small_gallery, n_labelled=24, jobs=1)
    assert digest(small_gallery) == before and [path.name for path in small_gallery.parent.iterdir()] == ["g"]


@pytest.mark.parametrize("dial, column", [("global_cue", "look"), ("local_cue", "face")])
def test_a_dial_changes_one_column_only(dial, column):
    low, high = plan_gallery(400, **{dial: 0}), plan_gallery(400, **{dial: 1})
    pd.testing.assert_frame_equal(low.drop(columns=column), high.drop(columns=column))
    assert not low[column].equals(high[column])


@pytest.mark.parametrize("name, value", [("global_cue", 1.1), ("local_cue", -1), ("n_labelled", 0)])
def test_impossible_galleries(name, value):
    with pytest.raises(InputError, match=name): plan_gallery(**{name: value})


def test_the_command(tmp_path, emoart):
    done = emoart("gallery", "--out", tmp_path / "g", "--profile", "smoke", "-p", "n_labelled=40")
    assert done.returncode == 0 and (tmp_path / "g" / "art.xlsx").exists()
    assert_one_sentence(emoart("gallery", "--out", tmp_path / "h", "-p", "n_labelled=4"), "n_labelled")
    (tmp_path / "file").write_text("")
    for taken in (tmp_path / "file", tmp_path, tmp_path / "file" / "below"):
        named = taken if taken.exists() else taken.parent
        assert_one_sentence(emoart("gallery", "--out", taken, "--profile", "smoke"), str(named))


@pytest.mark.parametrize("global_cue, local_cue", [(1, 0), (0, 1), (0, 0)])
def test_planted_truth(global_cue, local_cue, painted, tmp_path):
    "CV+FC finds global cues, and is at chance when only local ones are planted, and when none are."
    gallery = painted(n_labelled=240, global_cue=global_cue, local_cue=local_cue) # test_transfer.py learns from it too
    settings = load_settings("smoke", genre="")
    seed_everything(settings.seed)
    scores = run("cvfc", load_data(settings, str(gallery)), settings, tmp_path)["test"]
    if global_cue: assert ceiling(1) == 1 and scores["balanced_accuracy"]["value"] > 0.75
    else:
        for score in (scores["accuracy"], scores["balanced_accuracy"]): assert score["low"] <= 0.25 <= score["high"]
