"Every measure against a value computed by hand, folds that keep copies together, and a test of difference that keeps its promise."
import numpy as np
import pandas as pd
import pytest

from emoart.data.clean import soft_labels
from emoart.evaluate.scores import (calibration, calibration_error, compare, corrected_t_test, cross_validate, evaluate, fold_scores, majority_baseline,
                             one_hot, paired_bootstrap, score, soft_score)
from emoart.core.files import InputError
from emoart.data.splits import repeated_folds

# six paintings, three classes: 0 0 0 1 1 2, predicted 0 0 1 1 2 2
Y = np.array([0, 0, 0, 1, 1, 2])
P = np.array([[.8, .1, .1], [.6, .3, .1], [.3, .5, .2], [.2, .7, .1], [.1, .3, .6], [.1, .2, .7]])
BY_HAND = {
    "accuracy": 4 / 6,
    "balanced_accuracy": (2 / 3 + 1 / 2 + 1) / 3,
    "macro_f1": (4 / 5 + 2 / 4 + 2 / 3) / 3, # 2 right / (true + said): 4/(3+2), 2/(2+2), 2/(1+2)
    # class 0: .8 .6 .3 against .2 .1 .1, 9 of 9; class 1: .7 .3 against .1 .3 .5 .2, 4 + 2.5 of 8; class 2: .7 against the rest, 5 of 5
    "auc": (1 + 6.5 / 8 + 1) / 3,
}


@pytest.mark.parametrize("metric", BY_HAND)
def test_scores_by_hand(metric):
    assert score(Y, P)[metric] == pytest.approx(BY_HAND[metric])


@pytest.mark.parametrize("y, p, expected", [
    ([0, 0], [[.9, .1], [.8, .2]], dict(accuracy=1, balanced_accuracy=1, macro_f1=1, auc=.5)), # one class: nothing to rank
    ([0, 1], [[.5, .5], [.5, .5]], dict(accuracy=.5, balanced_accuracy=.5, macro_f1=1 / 3, auc=.5)), # ties count half
    ([1, 0], [[.9, .1], [.1, .9]], dict(accuracy=0, balanced_accuracy=0, macro_f1=0, auc=0)),
])
def test_scores_at_the_edges(y, p, expected):
    assert score(np.array(y), np.array(p)) == pytest.approx(expected)


def test_auc_compares_within_a_fold_only():
    "Two models that rank perfectly, each on a scale of its own: pooled, 0.2 < 0.6 would count as an error."
    y, p = np.array([0, 1, 0, 1]), np.array([.1, .2, .6, .9])
    p = np.stack([1 - p, p], 1)
    assert score(y, p, folds=np.array([0, 0, 1, 1]))["auc"] == 1
    assert score(y, p)["auc"] == 3 / 4


@pytest.mark.parametrize("shares, p, expected", [
    ([.5, .5], [.5, .5], (np.log(2), 0, 0)),
    ([1., 0.], [.8, .2], (-np.log(.8), -np.log(.8), .2)),
    ([.25, .75], [.5, .5], (np.log(2), .25 * np.log(.5) + .75 * np.log(1.5), .25)),
    ([0., 1.], [1., 0.], (-np.log(1e-7), -np.log(1e-7), 1)), # sure and wrong: large, not infinite
])
def test_soft_measures_by_hand(shares, p, expected):
    assert tuple(soft_score(np.array([shares]), np.array([p])).values()) == pytest.approx(expected)


def test_cross_entropy_is_divergence_and_entropy():
    random = np.random.default_rng(0)
    d, p = random.dirichlet(np.ones(4), (2, 50))
    s = soft_score(d, p)
    assert s["cross_entropy"] == pytest.approx(s["kl"] - (d * np.log(d)).sum(1).mean()) and s["kl"] > 0


def test_calibration_by_hand():
    "Bins (.5, .6] with two, both right, and (.8, .9] with three, one right: (2 |1 - .6| + 3 |1/3 - .9|) / 5."
    sure = np.array([.6, .6, .9, .9, .9])
    table = calibration(np.array([0, 0, 0, 1, 1]), np.stack([sure, 1 - sure], 1))
    assert table.n.tolist() == [2, 3] and table.accuracy.tolist() == pytest.approx([1, 1 / 3]) and table.low.tolist() == pytest.approx([.5, .8])
    assert calibration_error(table) == pytest.approx((2 * .4 + 3 * (.9 - 1 / 3)) / 5)
    repeats = np.stack([np.stack([sure, 1 - sure], 1)] * 3)
    assert calibration_error(calibration(np.array([0, 0, 0, 1, 1]), repeats)) == pytest.approx(calibration_error(table))


@pytest.mark.parametrize("differences, ratio, t, p", [
    ([.1, .2, 0, .3, .1], 1 / 4, .14 / np.sqrt(.013 * (1 / 5 + 1 / 4)), .1412),
    ([.1, .2, 0, .3, .1], 0, .14 / np.sqrt(.013 / 5), .0516), # the ordinary t-test
    ([0, 0, 0], 1 / 4, 0, 1),
    ([-.1, -.1], 1 / 4, -np.inf, 0),
])
def test_corrected_t_test_by_hand(differences, ratio, t, p):
    result = corrected_t_test(np.array(differences), ratio)
    assert result["t"] == pytest.approx(t) and result["p"] == pytest.approx(p, abs=1e-4)
    assert result["low"] <= result["mean"] <= result["high"]


def test_intervals_cover():
    "The 95 % interval of a model that is right 60 times in 100 holds 0.6 in about 95 of 100 draws of 80 paintings."
    random, covered = np.random.default_rng(0), []
    for trial in range(200):
        y = random.integers(0, 2, 80)
        right = random.random(80) < .6
        a = evaluate(y, np.eye(2)[np.where(right, y, 1 - y)], 200, trial)["accuracy"]
        covered.append(a["low"] <= .6 <= a["high"])
    assert .88 <= np.mean(covered) <= .99


def test_a_paired_difference_is_narrower_than_two_intervals():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 150)
    a = random.dirichlet([1, 1], 150) * .8 + np.eye(2)[y] * .2
    b = a.copy()
    b[:10] = b[:10, ::-1] # the same model with ten answers turned round
    d = paired_bootstrap(y, a, b, 300)["accuracy"]
    single = evaluate(y, a, 300)["accuracy"]
    assert d["value"] == pytest.approx(score(y, a)["accuracy"] - score(y, b)["accuracy"])
    assert d["high"] - d["low"] < single["high"] - single["low"]


def folds_of(y, pictures, **options): return repeated_folds(np.array(y), np.array(pictures), **options)


def test_folds_are_stratified_grouped_and_seeded():
    y, pictures = np.repeat([0, 1, 2, 3], [10, 20, 30, 40]), np.r_[0:100]
    pictures[[1, 31]] = pictures[[0, 30]] # two copies
    folds = folds_of(y, pictures, n_folds=5, n_repeats=3, seed=1)
    assert folds.shape == (3, 100) and (folds[0] != folds[1]).any() and (folds[1] != folds[2]).any()
    for fold_of in folds:
        counts = pd.crosstab(fold_of, y).to_numpy()
        assert np.abs(counts - [2, 4, 6, 8]).max() <= 2
        assert fold_of[0] == fold_of[1] and fold_of[30] == fold_of[31]
    assert (folds == folds_of(y, pictures, n_folds=5, n_repeats=3, seed=1)).all()
    assert (folds != folds_of(y, pictures, n_folds=5, n_repeats=3, seed=2)).any()


@pytest.mark.parametrize("y, pictures, sentence", [
    ([3] * 10, range(10), "all 10 paintings are of one emotion group (positive)"),
    ([0] * 4 + [3] * 6, range(10), "the group negative has 4 different paintings, fewer than the 5 folds"),
    ([0] * 5 + [3] * 6, [0] * 5 + [*range(1, 7)], "the group negative has 1 different painting, fewer than the 5 folds"),
])
def test_what_cannot_be_divided_is_said_in_one_sentence(y, pictures, sentence):
    with pytest.raises(InputError) as error: folds_of(y, list(pictures))
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_no_painting_is_predicted_by_a_model_that_saw_it():
    y = np.arange(30) % 3
    folds = folds_of(y, range(30), n_folds=3, n_repeats=2)
    seen = []

    def remembers(train, test):
        seen.append((train & test).any() or not (train | test).all())
        return np.where(train[:, None], np.eye(3)[y], 1 / 3)[test]

    oof = cross_validate(remembers, folds)
    assert not any(seen) and oof.shape == (2, 30, 3) and (oof == 1 / 3).all()


def test_a_model_without_an_answer_is_an_error():
    folds = folds_of(np.arange(12) % 2, range(12), n_folds=2, n_repeats=1)
    with pytest.raises(ValueError, match="no finite probability for 12 paintings"):
        cross_validate(lambda train, test: np.full((test.sum(), 2), np.nan), folds)


def test_repeats_are_averaged_and_compared_fold_by_fold():
    random, y = np.random.default_rng(0), np.arange(60) % 2
    folds = folds_of(y, range(60), n_folds=3, n_repeats=2)
    good, bad = (cross_validate(lambda train, test: random.dirichlet([1, 1], test.sum()) * (1 - k) + one_hot(y[test], 2) * k, folds) for k in (.6, .1))
    assert evaluate(y, good, 100, folds=folds)["accuracy"]["value"] == pytest.approx(np.mean([score(y, p)["accuracy"] for p in good]))
    assert len(fold_scores(y, good, folds)) == 6
    assert compare(y, good, bad, folds)["p"] < .05 and compare(y, good, good, folds)["p"] == 1
    assert compare(y, bad, good, folds)["mean"] == pytest.approx(-compare(y, good, bad, folds)["mean"])


def test_majority_baseline_is_at_chance_in_every_fold():
    y = np.repeat([0, 1], [7, 23])
    folds = folds_of(y, range(30), n_folds=5, n_repeats=2)
    s = evaluate(y, cross_validate(lambda train, test: majority_baseline(y[train], test.sum(), 2), folds), 100, folds=folds)
    assert s["auc"]["value"] == s["balanced_accuracy"]["value"] == .5 and s["accuracy"]["value"] == pytest.approx(23 / 30)


def test_soft_labels_of_words_and_of_groups():
    table = pd.DataFrame(dict(group=[0, 3, -1], share_negative=["0.5", "", ""], share_joy=["0.1", "0", ""], share_love=["0.4", "0", ""]))
    assert np.nan_to_num(soft_labels(table), nan=9).tolist() == [[0.5, 0, 0, 0.5], [0, 0, 0, 1], [9, 9, 9, 9]]
    assert soft_labels(table[["group"]]) is None
