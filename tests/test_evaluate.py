"Every measure against a value computed by hand, folds that keep copies together, a test that keeps its promise."
import numpy as np
import pandas as pd
import pytest

from emoart.core.files import InputError
from emoart.data.emotions import GROUP_NAMES
from emoart.data.splits import merged_strata, repeated_folds
from emoart.evaluate.scores import (
    KINDS, beside_distributions, calibration, calibration_error, class_score, compare, constant_baseline,
    corrected_t_test, cross_validate, distribution_score, evaluate, fold_scores, is_soft, label_score,
    majority_baseline, one_hot, paired_bootstrap, score, soft_score, value_score, viewer_noise)

# six paintings, three classes: 0 0 0 1 1 2, predicted 0 0 1 1 2 2
Y = np.array([0, 0, 0, 1, 1, 2])
P = np.array([[.8, .1, .1], [.6, .3, .1], [.3, .5, .2], [.2, .7, .1], [.1, .3, .6], [.1, .2, .7]])
BY_HAND = {
    "accuracy": 4 / 6,
    "balanced_accuracy": (2 / 3 + 1 / 2 + 1) / 3,
    "macro_f1": (4 / 5 + 2 / 4 + 2 / 3) / 3, # 2 right / (true + said): 4/(3+2), 2/(2+2), 2/(1+2)
    # class 0: .8 .6 .3 against .2 .1 .1, 9 of 9; class 1: .7 .3 against .1 .3 .5 .2, 4 + 2.5 of 8; class 2: 5 of 5
    "auc": (1 + 6.5 / 8 + 1) / 3,
}


@pytest.mark.parametrize("metric", BY_HAND)
def test_scores_by_hand(metric):
    assert score(Y, P)[metric] == pytest.approx(BY_HAND[metric])


@pytest.mark.parametrize("y, p, expected", [
    ([0, 0], [[.9, .1], [.8, .2]], dict(accuracy=1, balanced_accuracy=1, macro_f1=1, auc=.5)), # one class
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
    assert table.n.tolist() == [2, 3] and table.low.tolist() == pytest.approx([.5, .8])
    assert table.accuracy.tolist() == pytest.approx([1, 1 / 3])
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
    def accuracy(y, p, folds): return dict(accuracy=float((y == p.argmax(1)).mean())) # a tenth of the time of all four
    for trial in range(200):
        y = random.integers(0, 2, 80)
        right = random.random(80) < .6
        a = evaluate(y, np.eye(2)[np.where(right, y, 1 - y)], 200, trial, measure=accuracy)["accuracy"]
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
    ([3] * 10, range(10), "all 10 paintings are of one class (positive)"),
    ([0] * 4 + [3] * 6, range(10), "negative has 4 different paintings, fewer than the 5 folds"),
    ([0] * 5 + [3] * 6, [0] * 5 + [*range(1, 7)], "negative has 1 different painting, fewer than the 5 folds"),
])
def test_what_cannot_be_divided_is_said_in_one_sentence(y, pictures, sentence):
    with pytest.raises(InputError) as error: folds_of(y, list(pictures), names=GROUP_NAMES)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:The least populated class") # so they are here
def test_strata_that_are_no_classes_are_only_a_help():
    "A rare word, and one word for all, divide as well."
    for y in ([0] * 9 + [1], [2] * 10):
        folds = folds_of(y, range(10), n_repeats=1, classes=False)
        assert np.bincount(folds[0]).tolist() == [2] * 5


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
    with pytest.raises(ValueError, match="no finite number for 12 paintings"):
        cross_validate(lambda train, test: np.full((test.sum(), 2), np.nan), folds)


def test_repeats_are_averaged_and_compared_fold_by_fold():
    random, y = np.random.default_rng(0), np.arange(60) % 2
    folds = folds_of(y, range(60), n_folds=3, n_repeats=2)
    def guesses(k):
        "Noise, and the truth k of it."
        def guess(train, test): return random.dirichlet([1, 1], test.sum()) * (1 - k) + one_hot(y[test], 2) * k
        return cross_validate(guess, folds)

    good, bad = guesses(.6), guesses(.1)
    mean = np.mean([score(y, p)["accuracy"] for p in good])
    assert evaluate(y, good, 100, folds=folds)["accuracy"]["value"] == pytest.approx(mean)
    assert len(fold_scores(y, good, folds)) == 6
    assert compare(y, good, bad, folds)["p"] < .05 and compare(y, good, good, folds)["p"] == 1
    assert compare(y, bad, good, folds)["mean"] == pytest.approx(-compare(y, good, bad, folds)["mean"])


def test_majority_baseline_is_at_chance_in_every_fold():
    y = np.repeat([0, 1], [7, 23])
    folds = folds_of(y, range(30), n_folds=5, n_repeats=2)
    constant = cross_validate(lambda train, test: majority_baseline(y[train], test.sum(), 2), folds)
    s = evaluate(y, constant, 100, folds=folds)
    assert s["auc"]["value"] == s["balanced_accuracy"]["value"] == .5
    assert s["accuracy"]["value"] == pytest.approx(23 / 30)


A, B, C = [[.5, .5, 0]], [[.6, .3, .1]], [[.3, .1, .6]]
SURE, OTHER = [[1., 0, 0]], [[0, 1., 0]]

@pytest.mark.parametrize("y, p, expected", [
    # kl: .5 ln(.5/.6) + .5 ln(.5/.3); the two words lead together, so either may be named
    (A, B, dict(
        kl=.5 * np.log(.5 / .6) + .5 * np.log(.5 / .3), chebyshev=.2, mse=(.01 + .04 + .01) / 3, top_word=1,
        cosine=.45 / np.sqrt(.5 * (.36 + .09 + .01)), max_emotion=.1, bhattacharyya=np.sqrt(.3) + np.sqrt(.15),
        intersection=.8, clark=np.sqrt((.1 / 1.1)**2 + .25**2 + 1), canberra=.1 / 1.1 + .25 + 1)),
    (A, C, dict(
        kl=.5 * np.log(.5 / .3) + .5 * np.log(.5 / .1), chebyshev=.6, mse=(.04 + .16 + .36) / 3, top_word=0,
        cosine=.2 / np.sqrt(.5 * (.09 + .01 + .36)), max_emotion=.2, bhattacharyya=np.sqrt(.15) + np.sqrt(.05),
        intersection=.4, clark=np.sqrt(.25**2 + (4 / 6)**2 + 1), canberra=.25 + 4 / 6 + 1)),
    (SURE, SURE, dict(kl=0, chebyshev=0, mse=0, cosine=1, top_word=1, max_emotion=0, bhattacharyya=1, intersection=1,
                      clark=0, canberra=0)),
    (SURE, OTHER, dict(kl=-np.log(1e-7), chebyshev=1, mse=2 / 3, cosine=0, top_word=0, max_emotion=1, bhattacharyya=0,
                       intersection=0, clark=np.sqrt(2), canberra=2)),
    ([[1., 0], [0, 1.]], [[1., 0], [1., 0]], dict(
        kl=-np.log(1e-7) / 2, chebyshev=.5, mse=.5, cosine=.5, top_word=.5, max_emotion=.5, bhattacharyya=.5,
        intersection=.5, clark=np.sqrt(2) / 2, canberra=1))])
def test_measures_of_distributions_by_hand(y, p, expected):
    assert distribution_score(np.array(y), np.array(p)) == pytest.approx(expected)


def test_seven_classes_bound_the_bhattacharyya_coefficient_by_the_chebyshev_distance():
    "The total variation of seven shares is three Chebyshev distances at most, and bounds the coefficient from below."
    y, p = np.random.default_rng(0).dirichlet(np.ones(7), (2, 5000))
    each = [distribution_score(y[[i]], p[[i]]) for i in range(500)]
    assert all(found["bhattacharyya"] >= 1 - 3 * found["chebyshev"] for found in each)


def test_the_noise_of_viewers_is_that_of_a_draw():
    "Variance of a multinomial share is p (1 - p) / n; whoever says what is so is that far from what n people say."
    y = np.tile([.6, .3, .1, 0], (20_000, 1))
    for n in (1, 5, 40):
        drawn = viewer_noise(y, np.full(len(y), n), seed=n)
        assert drawn.sum(1) == pytest.approx(1) and (drawn[:, 3] == 0).all()
        expected = (y[0] * (1 - y[0])).sum() / n / 4
        assert distribution_score(drawn, y)["mse"] == pytest.approx(expected, rel=.03)
    constants = beside_distributions(y[:10], np.full(10, 5))
    assert list(constants) == ["uniform", "viewer noise"] and (constants["uniform"][1] == .25).all()
    assert (constants["viewer noise"][1] == y[:10]).all()


def test_what_is_no_distribution_is_refused():
    with pytest.raises(ValueError, match="shares must be 0 or more"): distribution_score(np.ones((1, 2)), np.eye(2)[:1])
    with pytest.raises(ValueError, match="probabilities must be 0 or more"):
        distribution_score(np.eye(2)[:1], np.array([[1.5, -.5]]))


COLUMN = np.array([1., 2, 3, 6]) # mean 3, squares about it 4 + 1 + 0 + 9 = 14


@pytest.mark.parametrize("y, p, expected", [
    (COLUMN, COLUMN, dict(pearson=1, ccc=1, r2=1, rmse=0, mae=0)),
    (COLUMN, COLUMN + 2, dict(pearson=1, ccc=28 / 44, r2=1 - 16 / 14, rmse=2, mae=2)),
    (COLUMN, -COLUMN, dict(pearson=-1, ccc=-28 / 172, r2=1 - 200 / 14, rmse=np.sqrt(50), mae=6)),
    (COLUMN, [3] * 4, dict(pearson=0, ccc=0, r2=0, rmse=np.sqrt(14 / 4), mae=1.5)), # the mean
    (COLUMN, [1, 2, 3, 4], dict(pearson=8 / np.sqrt(14 * 5), ccc=16 / 20, r2=1 - 4 / 14, rmse=1, mae=.5)),
    ([5] * 4, [4, 5, 6, 5], dict(pearson=0, ccc=0, r2=1 - 2, rmse=np.sqrt(.5), mae=.5)), # a column that does not vary
    ([5] * 4, [5] * 4, dict(pearson=0, ccc=0, r2=1, rmse=0, mae=0)),
    ([5], [4], dict(pearson=0, ccc=0, r2=0, rmse=1, mae=1)), # one painting
])
def test_measures_of_values_by_hand(y, p, expected):
    y, p = (np.array(column, float)[:, None] for column in (y, p))
    assert value_score(y, p) == pytest.approx(expected)


def test_measures_of_values_are_means_over_the_columns():
    y, p = np.stack([COLUMN, [5] * 4], 1), np.stack([COLUMN, [7] * 4], 1)
    assert value_score(y, p)["pearson"] == .5 and value_score(y, p)["rmse"] == value_score(y, p)["mae"] == 1


def test_correlation_compares_within_a_fold_only():
    "Each fold is ranked perfectly, by a model with a mean of its own; pooled, the second would spoil the order."
    y, p = np.array([[1.], [3], [2], [4]]), np.array([[1.], [3], [-8], [-6]])
    folds = np.array([0, 0, 1, 1])
    assert value_score(y, p, folds)["pearson"] == pytest.approx(1) and value_score(y, p)["pearson"] < 0
    constants = np.array([[1.], [1], [9], [9]]) # which follow the folds, but nothing in them
    assert value_score(y, constants, folds)["pearson"] == 0 < value_score(y, constants)["pearson"]


def test_strata_of_classes_are_the_classes():
    assert KINDS["classes"].strata(np.array([[.6, .4], [.1, .9]])).tolist() == [0, 1]


def test_strata_of_distributions_are_the_leading_words_rare_ones_together():
    words = np.repeat([0, 1, 2, 3], [40, 30, 12, 9])
    strata = KINDS["distribution"].strata(one_hot(words, 5) * .8 + .04)
    assert pd.crosstab(words, strata).to_numpy().tolist() == [[40, 0, 0], [0, 30, 0], [0, 0, 12], [0, 0, 9]]
    assert np.bincount(merged_strata(np.repeat([4, 7], [30, 3]))).tolist() == [33], "too few even together"
    assert merged_strata(np.array([3])).tolist() == [0]


@pytest.mark.parametrize("y, expected", [
    ([[1, 1], [1, 9], [9, 1], [9, 9]], [0, 2, 1, 3]),
    ([[1, 1, 5], [1, 9, 0], [9, 1, 0], [9, 9, 5]], [0, 2, 1, 3]), # the third column does not divide
    ([[1], [2], [3], [4]], [0, 0, 1, 1]), ([[5], [5]], [0, 0]), ([[5, 5]], [0])])
def test_strata_of_values_are_quarters_of_their_plane(y, expected):
    assert KINDS["values"].strata(np.array(y, float)).tolist() == expected


def test_the_constant_baseline_of_every_kind():
    random = np.random.default_rng(0)
    shares, values = random.dirichlet(np.ones(3), 200), random.normal([4, 50], [1, 10], (200, 2))
    folds = folds_of(np.zeros(200, int), range(200), n_folds=4, n_repeats=2, classes=False)
    labels = (shares > 0.3).astype(float)
    for kind, y in (("classes", one_hot(shares.argmax(1), 3)), ("labels", labels), ("distribution", shares),
                    ("values", values)):
        assert constant_baseline(y, 3) == pytest.approx(np.tile(y.mean(0), (3, 1)))
        constant = cross_validate(lambda train, test: constant_baseline(y[train], test.sum()), folds)
        measured = evaluate(y, constant, 100, folds=folds, measure=KINDS[kind].measure)
        if kind in ("classes", "labels"): assert measured["auc"] == dict(value=.5, low=.5, high=.5)
        if kind == "values": assert measured["pearson"] == dict(value=0, low=0, high=0)
        if kind == "values": assert -.05 < measured["r2"]["value"] <= 0


def test_every_kind_has_a_first_measure_that_it_gives():
    shares = np.array([[.7, .3], [.2, .8], [.4, .6]])
    for name, kind in KINDS.items():
        y = np.eye(2)[[0, 1, 1]] if name == "labels" else shares
        perfect, constant = (kind.measure(y, p, None)[kind.metric] for p in (y, constant_baseline(y, 3)))
        assert perfect > constant if kind.higher else perfect < constant


def test_labels_are_scored_each_by_itself():
    y = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1]]) # everything has the third, which tells nothing
    p = np.array([[.9, .4, .9], [.6, .3, .9], [.7, .2, .9], [.1, .1, .2]])
    found = label_score(y, p)
    assert found["auc"] == pytest.approx((3 / 4 + 3 / 4) / 2) # pairs in the right order: 3 of 4, 3 of 4
    assert found["balanced_accuracy"] == pytest.approx(((2 / 2 + 1 / 2) / 2 + (0 / 2 + 2 / 2) / 2) / 2)
    assert found["macro_f1"] == pytest.approx((2 * 2 / (3 + 2) + 0) / 2)
    assert found["accuracy"] == pytest.approx((3 + 2 + 3) / 12) and found["exact"] == pytest.approx(1 / 4)


def test_classes_are_scored_by_the_largest_share():
    shares = np.array([[.6, .4], [.1, .9]])
    assert class_score(shares, np.eye(2)) == score(np.array([0, 1]), np.eye(2))
    assert is_soft(shares) and not is_soft(np.eye(2)) and not is_soft(np.eye(2)[:0])
