"A picture is never on both sides, groups keep their shares, and what cannot be split is said in one sentence."
import numpy as np
import pandas as pd
import pytest

from emoart.core.files import InputError
from emoart.data.splits import split, together


def test_equal_pictures_stay_on_one_side_of_the_split():
    groups, pictures = np.tile([0, 1, 2, 3], 60), np.repeat(np.arange(80), 3).astype(str)
    paintings = pd.DataFrame({"group": groups, "picture": pictures, "split": ""})
    for seed in range(5):
        held_out = split(paintings, paintings.group, 0.25, seed)
        assert abs(held_out.mean() - 0.25) < 0.04 and (paintings.group[held_out].value_counts() > 5).all()
        assert not set(paintings.picture[held_out]) & set(paintings.picture[~held_out])
        assert (held_out == split(paintings, paintings.group, 0.25, seed)).all()
    few = paintings.head(3)
    with pytest.raises(InputError, match="3 paintings are too few to split"): split(few, few.group, 0.25, 0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4])
def test_the_test_share_is_what_was_asked_for(share):
    groups = [*np.tile([0, 1, 3], 60), 2]
    paintings = pd.DataFrame({"group": groups, "picture": np.arange(181).astype(str), "split": ""})
    held_out = split(paintings, paintings.group, share, 0)
    assert held_out.sum() == round(180 * share) and not held_out[-1], "a group with one picture is for training"


def given(groups, parts):
    "Six paintings of which the last shows the picture of the first, with the split of their source."
    return pd.DataFrame({"group": groups, "picture": list("abcdea"), "split": parts})


def test_the_sources_own_split_is_used_but_never_across_a_picture():
    paintings = given([0, 1, 0, 1, 0, 1], ["train", "train", "test", "test", "validation", "test"])
    held_out = split(paintings, paintings.group, 0.5, 0)
    assert held_out.tolist() == [False, False, True, True, False, False], "the last shows a picture that is trained on"


def test_a_side_with_one_class_is_refused_where_strata_are_classes_only():
    paintings = given([0, 1, 0, 0, 1, 1], ["train", "train", "test", "test", "train", "train"])
    with pytest.raises(InputError, match="the test part of 6 paintings has only one class"):
        split(paintings, paintings.group, 0.5, 0)
    assert split(paintings, paintings.group, 0.5, 0, classes=False).sum() == 2
    alike = paintings.assign(group=0, split="")
    assert split(alike, alike.group, 0.4, 0, classes=False).sum() == 2


def test_what_shares_a_theme_stays_together_where_that_is_asked():
    random, n, names = np.random.default_rng(0), 200, [a + b for a in "abcde" for b in "abcdefghij"]
    table = pd.DataFrame(dict(picture=np.arange(n).astype(str), title="", split="",
                              theme=[f"{names[i // 4]} {i % 4 + 1}" for i in range(n)]))
    table.loc[1, "picture"] = "40" # a copy binds two themes
    groups = together(table, "theme")
    assert groups[0] == groups[1] == groups[40] == groups[43] != groups[4] and len(np.unique(groups)) == 49
    held_out = split(table.assign(picture=groups), random.integers(0, 2, n), 0.3, 0)
    assert all(len(set(held_out[groups == group])) == 1 for group in np.unique(groups))
    assert together(table, "picture").tolist() == table.picture.tolist()
    with pytest.raises(InputError, match="none of these paintings has a title; leave fold_by at picture"):
        together(table, "title")
