"A picture is never on both sides, groups keep their shares, and what cannot be split is said in one sentence."
import numpy as np
import pandas as pd
import pytest

from emoart.core.files import InputError
from emoart.data.splits import split


def test_equal_pictures_stay_on_one_side_of_the_split():
    paintings = pd.DataFrame({"group": np.tile([0, 1, 2, 3], 60), "picture": np.repeat(np.arange(80), 3).astype(str), "split": ""})
    for seed in range(5):
        held_out = split(paintings, paintings.group, 0.25, seed)
        assert abs(held_out.mean() - 0.25) < 0.04 and (paintings.group[held_out].value_counts() > 5).all()
        assert not set(paintings.picture[held_out]) & set(paintings.picture[~held_out])
        assert (held_out == split(paintings, paintings.group, 0.25, seed)).all()
    with pytest.raises(InputError, match="too few to split"): split(paintings.head(3), paintings.group.head(3), 0.25, 0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4])
def test_the_test_share_is_what_was_asked_for(share):
    paintings = pd.DataFrame({"group": [*np.tile([0, 1, 3], 60), 2], "picture": np.arange(181).astype(str), "split": ""})
    held_out = split(paintings, paintings.group, share, 0)
    assert held_out.sum() == round(180 * share) and not held_out[-1], "a group with one picture is for training"


def test_the_sources_own_split_is_used_but_never_across_a_picture():
    paintings = pd.DataFrame({"group": [0, 1, 0, 1, 0, 1], "picture": list("abcdea"), "split": ["train", "train", "test", "test", "validation", "test"]})
    assert split(paintings, paintings.group, 0.5, 0).tolist() == [False, False, True, True, False, False], "the last shows a picture that is trained on"
