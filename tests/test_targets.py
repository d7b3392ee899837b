"What is predicted of a painting: every target on a small table by hand, with ties, empty cells and missing values."
import numpy as np
import pandas as pd
import pytest

from emoart.core.files import InputError
from emoart.data.emotions import GROUP_NAMES, GROUPS
from emoart.data.targets import TARGETS, colours_of, find_target, group_mentions, word_shares

NOTHING = None # a row of which the target says nothing


def table(**columns):
    "Paintings as a cleaned table has them: texts."
    return pd.DataFrame({name: list(map(str, values)) for name, values in columns.items()})


def rows(target, paintings):
    "What a target reads, a list a row; `NOTHING` for a row without numbers."
    frame = TARGETS[target].read(paintings)
    assert frame.index.equals(paintings.index) and frame.isna().any(axis=1).equals(frame.isna().all(axis=1))
    return [NOTHING if np.isnan(row).any() else pytest.approx(row.tolist()) for row in frame.to_numpy(float)]


WORDS = table(emotion=["joy", "Sadness ", "surprise", "neutral", "NA", "", "bewilderment"])
VOTES = table( # people who chose several words; words of no group; groups' own names; gaps
    emotion=["joy", "", "", "love", "", "fear"],
    share_joy=["0.6", "0.5", "", "", "0.2", "0"], share_fear=["0.2", "0.5", "", "", "0.2", "0"],
    share_surprise=["0.2", "", "", "", "0.2", "0"], share_negative=["", "", "0.3", "", "0.1", "0"],
    share_bewilderment=["0.9", "0", "0.9", "", "0.4", "0"])

E = [1, 0, 0, 0, 0, 0, 0] # euphoric, of seven
CASES = [
    ("groups", WORDS, [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], NOTHING, NOTHING]),
    ("groups", VOTES, [[.2, 0, .2, .6], NOTHING, [1, 0, 0, 0], [0, 0, 0, 1], [3 / 7, 0, 2 / 7, 2 / 7],
                        [1, 0, 0, 0]]),
    ("positive", WORDS, [[0, 1], [1, 0], [1, 0], [1, 0], [1, 0], NOTHING, NOTHING]),
    ("positive", VOTES, [[.4, .6], NOTHING, [1, 0], [0, 1], [5 / 7, 2 / 7], [1, 0]]),
    ("poles", WORDS, [[0, 1], [1, 0], NOTHING, NOTHING, NOTHING, NOTHING, NOTHING]),
    ("poles", VOTES, [[.25, .75], NOTHING, [1, 0], [0, 1], [.6, .4], [1, 0]]),
    ("emotions", WORDS, [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], NOTHING,
                         NOTHING]),
    ("emotions", VOTES, [[6 / 19, 2 / 19, 2 / 19, 0, 9 / 19], [.5, .5, 0, 0, 0], [0, 0, 0, .25, .75], NOTHING,
                         [.2 / 1.1, .2 / 1.1, .2 / 1.1, .1 / 1.1, .4 / 1.1], NOTHING]),
    ("moods", WORDS, [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1], NOTHING, NOTHING, NOTHING]),
    ("moods", VOTES, [[1, 0, 0], [1, 1, 0], NOTHING, [1, 0, 0], NOTHING, [0, 1, 0]]),
    ("moods7", VOTES, [E, [0, 0, 0, 0, 0, 1, 0], NOTHING, E, NOTHING, [0, 1, 0, 0, 0, 0, 0]]),
    ("values", table(valence=["6.1", "", "4", "x"], arousal=["5", "2", "", "3"], dominance=["", "", "", ""]),
     [[6.1, 5], NOTHING, NOTHING, NOTHING]),
    ("values", table(dominance=["3"], valence=["1"], arousal=["-2.5"]), [[1, -2.5, 3]])]


@pytest.mark.parametrize("target, paintings, expected", CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])
def test_targets_by_hand(target, paintings, expected):
    assert rows(target, paintings) == expected


@pytest.mark.parametrize("name, columns", [
    ("groups", list(GROUP_NAMES)), ("positive", ["rest", "positive"]), ("poles", ["negative", "positive"]),
    ("emotions", ["joy", "fear", "surprise", "negative", "bewilderment"]),
    ("moods", ["euphoric", "aggressive", "calm"]),
    ("moods7", ["euphoric", "aggressive", "calm", "E+C", "A+C", "A+E", "A+C+E"]), ("values", [])])
def test_columns_have_names_and_hold_shares(name, columns):
    frame = TARGETS[name].read(VOTES)
    assert list(frame) == columns
    known = frame.dropna().to_numpy()
    if TARGETS[name].kind != "values": assert known.min() >= 0 and known.max() <= 1
    if TARGETS[name].kind in ("classes", "distribution"): assert known.sum(1) == pytest.approx(1)


def test_rows_keep_their_place_whatever_the_index():
    shuffled = VOTES.iloc[[3, 0, 5, 1]]
    for name in ("groups", "positive", "poles", "emotions"):
        pd.testing.assert_frame_equal(TARGETS[name].read(shuffled), TARGETS[name].read(VOTES).loc[shuffled.index])


@pytest.mark.parametrize("name", TARGETS)
def test_a_table_without_rows_has_no_targets(name):
    assert len(TARGETS[name].read(VOTES.iloc[:0].assign(valence="", arousal=""))) == 0


def test_a_tie_within_rounding_is_a_tie():
    "0.1 + 0.2 is not 0.3 for a computer."
    even = table(emotion=[""], share_joy=["0.3"], share_fear=["0.1"], share_anger=["0.2"])
    for target in ("groups", "positive", "poles"): assert rows(target, even) == [NOTHING]


def test_shares_count_before_the_word_and_the_word_where_there_are_none():
    both = table(emotion=["joy", "joy", "nonsense"], share_fear=["1", "0", "0"])
    assert rows("groups", both) == [[1, 0, 0, 0], [0, 0, 0, 1], NOTHING]
    assert group_mentions(both).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_cells_that_are_no_numbers_are_empty():
    odd = table(emotion=["", ""], share_joy=["much", "0.5"], share_fear=["", "nan"])
    assert word_shares(odd).isna().to_numpy().tolist() == [[True, True], [False, True]]
    assert rows("groups", odd) == [NOTHING, [0, 0, 0, 1]] and rows("emotions", odd) == [NOTHING, [1, 0]]


@pytest.mark.parametrize("name, sentence", [
    ("group", "there is no target 'group'; did you mean groups?"),
    ("value", "there is no target 'value'; did you mean values?"),
    ("humour", "there is no target 'humour'; there are groups, positive, poles, emotions, moods, moods7, values, "
               "density")])
def test_an_unknown_target_is_said_in_one_sentence(name, sentence):
    with pytest.raises(InputError) as error: find_target(name)
    assert str(error.value) == sentence


def test_a_target_is_found_by_its_name():
    for name in TARGETS: assert find_target(name).name == name


def test_colours_are_those_of_the_groups():
    group = {each.name: each.colour for each in GROUPS}
    assert colours_of(GROUP_NAMES) == tuple(group.values())
    assert colours_of(("rest", "positive")) == (group["neutral"], group["positive"])
    assert colours_of(("fear", "joy", "love")) == (group["negative"], group["positive"], group["positive"])
    others = colours_of(("valence", "arousal", "dominance"))
    assert len(set(others)) == 3 and all(len(colour) == 7 and colour[0] == "#" for colour in others)
    assert len(colours_of(tuple(f"word {i}" for i in range(20)))) == 20
