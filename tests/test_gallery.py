"The gallery's promises: the same bytes, independent dials, and the planted truth that the models must find or miss."
import hashlib

import pandas as pd
import pytest
from conftest import assert_one_sentence

from emoart.core.backend import seed_everything
from emoart.core.files import InputError
from emoart.core.settings import load_settings
from emoart.data.artist import parts_of
from emoart.data.gallery import ceiling, expected_answers, make_gallery, plan_gallery
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


def test_a_gallery_mixes_emotions_when_it_is_asked_to():
    plan, plain = plan_gallery(400, 6, seed=1, n_viewers=10), plan_gallery(400, 6, seed=1)
    seen = plan.filter(like="share_").head(400).astype(float)
    assert not plain.filter(like="share_").shape[1] and "mixture" not in plain
    assert (seen.sum(axis=1) >= 1 - 1e-9).all() and ((seen * 10 - (seen * 10).round()).abs() < 1e-9).all().all()
    parts = plan.mixture.map(parts_of)
    assert set(parts.map(len)) == {1, 2, 3} and all(abs(sum(each.values()) - 1) < 1e-9 for each in parts)
    expected = expected_answers(plan.mixture).head(400)
    heard = plan[expected.columns].head(400).astype(float)
    assert (heard.mean() - expected.mean()).abs().max() < 0.03
    assert heard.corrwith(expected).min() > 0.85 # the floor: ten viewers are not everybody
    assert (plan.emotion.tail(6) == "").all() and (plan.share_joy.tail(6) == "").all()
    blind, open_eyed = (plan_gallery(200, global_cue=cue, local_cue=cue, n_viewers=5) for cue in (0, 1))
    assert (open_eyed.look == open_eyed.mixture).all() and (blind.look == blind.mixture).mean() < 0.1
    assert (open_eyed.face[open_eyed.genre == "portrait"] == open_eyed.mixture[open_eyed.genre == "portrait"]).all()


@pytest.mark.parametrize("global_cue", [1, 0])
def test_moods_are_found_where_they_are_planted(global_cue, painted, tmp_path):
    gallery = painted(n_labelled=240, global_cue=global_cue, local_cue=0, n_viewers=10)
    settings = load_settings("smoke", genre="", target="moods")
    seed_everything(settings.seed)
    found = run("cvfc", load_data(settings, str(gallery)), settings, tmp_path)
    assert list(found["columns"]) == found["names"] == ["euphoric", "aggressive", "calm"]
    for mood, scores in {"all": found["test"], **found["columns"]}.items():
        if global_cue: assert scores["auc"]["low"] > 0.5, mood
        else: assert scores["auc"]["low"] <= 0.5 <= scores["auc"]["high"] + 0.05, mood
    assert found["baseline"]["auc"]["value"] == 0.5
