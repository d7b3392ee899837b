"Fusion on evidence that neither branch holds alone, the comparison of all models, and what the committed tables must show."
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from emoart.core.backend import keras, seed_everything
from emoart.findings.comparison import MODELS, RECIPES, Refit, comparable, compare_models, contestants
from emoart.models.cvfc import FEATURES, check_features, cvfc, features, fit_cvfc, fit_plain, PLAIN_CLASSIFIERS
from emoart.data.clean import read_paintings
from emoart.data.images import load_images
from emoart.evaluate.scores import one_hot, score
from emoart.models.fusion import fit_fusion, fusion_head, join
from emoart.data.gallery import ceiling
from emoart.core.files import ROOT, InputError
from emoart.core.settings import load_settings
from emoart.models.transfer import head


@pytest.fixture(scope="module")
def two_bits():
    "Four classes made of two bits: the local features show one, the hand-made features the other."
    random = np.random.default_rng(0)
    local, hand_made = random.normal(size=(600, 20)), random.normal(size=(600, 13))
    y = 2 * (local[:, 0] > 0) + (hand_made[:, 0] > 0)
    return {"local": local * 5 + 100, "hand_made": hand_made * 30 - 7}, y


@pytest.mark.parametrize("kinds, at_least, at_most", [(("local",), 0.4, 0.6), (("hand_made",), 0.4, 0.6), (("local", "hand_made"), 0.8, 1)])
def test_fusion_reads_both_branches(kinds, at_least, at_most, two_bits):
    evidence, y = two_bits
    part = [{kind: evidence[kind][rows] for kind in kinds} for rows in (slice(400), slice(400, None))]
    seed_everything(0)
    trained, history = fit_fusion(part[0], one_hot(y[:400], 4), 0.01, 20, 30, 0.2, 0.001)
    assert at_least <= score(y[400:], trained(part[1]).numpy())["balanced_accuracy"] <= at_most
    assert len(history["loss"]) == 30 and history["loss"][-1] < history["loss"][0]


def test_fusion_of_one_branch_is_the_transfer_models_head():
    alone = fusion_head({"local": np.random.default_rng(0).normal(size=(9, 608))})
    assert alone.count_params() == head(608).count_params() == 609 * 512 + 513 * 4


def test_the_same_seed_gives_the_same_fusion(two_bits):
    evidence, y = two_bits
    def weights():
        seed_everything(3)
        return np.concatenate([w.ravel() for w in fit_fusion(evidence, one_hot(y, 4), 0.01, 50, 2, 0.5, 0.01)[0].get_weights()])
    np.testing.assert_array_equal(weights(), weights())


def test_the_joined_model_takes_pictures_and_survives_saving(tmp_path, smoke_gallery):
    images = load_images(read_paintings(smoke_gallery).image[:3], 64)
    model = join(fusion_head({"local": np.random.default_rng(0).normal(size=(5, 512)), "hand_made": np.ones((5, 13))}), "vgg16", 64, "random")
    inputs = {"image": images.astype("float32"), "hand_made": features(images).to_numpy("float32")}
    model.save(tmp_path / "model.keras")
    before, after = (np.asarray(m(inputs, training=False)) for m in (model, keras.saving.load_model(tmp_path / "model.keras")))
    np.testing.assert_allclose(before, after, atol=1e-6)
    assert before.sum(1) == pytest.approx(1, abs=1e-5) and set(model.input) == {"image", "hand_made"}


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_of_one_colour_has_thirteen_numbers(value):
    one_colour = features(np.full((1, 64, 64, 3), value, np.uint8))
    assert check_features(one_colour, ["it"]).shape == (1, 13) and one_colour.brightness[0] == pytest.approx(value, abs=0.1)
    seed_everything(0)
    network, _ = fit_cvfc(check_features(pd.concat([one_colour] * 4), range(4)), one_hot(np.array([0, 1, 2, 3]), 4), 0.01, 2, 1)
    assert np.isfinite(np.asarray(network(one_colour.to_numpy()))).all() # no feature varies: no division by zero


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_numbers_are_named(value):
    table = pd.DataFrame(np.ones((3, 13)), columns=FEATURES)
    table.loc[1, "palette_love"] = value
    with pytest.raises(InputError, match=rf"palette_love of painting b is {value}, no finite number; 1 of 3 paintings"): check_features(table, ["a", "b", "c"])


def test_a_class_that_was_not_learned_has_no_probability():
    random = np.random.default_rng(0)
    for classifier in PLAIN_CLASSIFIERS.values():
        p = fit_plain(classifier, random.normal(size=(40, 13)), np.tile([0, 3], 20), 4)(random.normal(size=(5, 13)))
        assert (p[:, [1, 2]] == 0).all() and p.sum(1) == pytest.approx(1)


def test_refitting_is_building_again():
    random = np.random.default_rng(0)
    x, t = random.random((50, 13)).astype("float32"), one_hot(random.integers(0, 4, 50), 4)
    def anew():
        keras.utils.set_random_seed(5)
        return Refit(cvfc(np.zeros(13), np.ones(13)), 0.01, 10, 3, 5)
    used = anew()
    used(x[::-1], t, x)
    np.testing.assert_array_equal(used(x, t, x), anew()(x, t, x))


def test_groups_too_small_for_the_folds_are_left_out_and_named():
    paintings = pd.DataFrame(dict(id=range(12), group=[0] * 5 + [2] + [3] * 6, sha256=range(12), picture=[0, 0, *range(2, 12)]))
    with pytest.raises(InputError, match=r"negative 4, neutral 0, mixed 1, positive 6"): comparable(paintings, "all", 5)
    table, y, shares, names, left_out = comparable(paintings, "all", 4)
    assert names == ("negative", "positive") and left_out == {"neutral": 0, "mixed": 1} and shares is None and len(table) == len(y) == 11


def test_a_model_that_is_none():
    with pytest.raises(InputError, match="there is no model 'resnet'; there are majority baseline"):
        contestants(("resnet",), pd.DataFrame(), np.zeros(2, int), np.eye(2), load_settings("smoke"))


def test_every_model_predicts_every_painting_and_the_average_is_one(smoke_gallery, tmp_path):
    settings = load_settings("smoke", image_size=64, comparison_n_folds=2, cvfc_epochs=2, shallnet_epochs=1, fusion_epochs=1, transfer_epochs=1,
                             n_bootstrap=100, cache=str(tmp_path))
    table, y, shares, names, _ = comparable(read_paintings(smoke_gallery, "portrait"), "poles", 2)
    shares = one_hot(y, 2) * 0.8 + 0.1
    with threadpool_limits(1): p, folds, scores, tests = compare_models(table, y, shares, names, MODELS + RECIPES, settings)
    assert tuple(p) == MODELS + RECIPES and all(a.shape == (1, len(y), 2) for a in p.values())
    assert all(a.sum(2) == pytest.approx(1, abs=1e-5) for a in p.values())
    np.testing.assert_allclose(p["average"], (p["CV+FC"] + p["transfer"]) / 2)
    assert set(scores.metric) == {"accuracy", "balanced_accuracy", "macro_f1", "auc", "cross_entropy", "kl", "chebyshev"}
    assert (scores.low <= scores.high).all() and len(tests) == 24
    by_hand = score(y, p["transfer"][0], folds[0])["auc"]
    assert scores[(scores.model == "transfer") & (scores.metric == "auc")].value.item() == pytest.approx(by_hand)


def test_one_model_has_nothing_to_be_tested_against():
    paintings = pd.DataFrame(dict(id=range(40), group=[0, 3] * 20, picture=range(40)))
    table, y, shares, names, _ = comparable(paintings, "poles", 2)
    _, _, scores, tests = compare_models(table, y, shares, names, ("majority baseline",), load_settings("smoke", comparison_n_folds=2, n_bootstrap=100))
    assert set(scores.model) == {"majority baseline"} and not len(tests) and {"a", "b", "metric", "p"} <= set(tests.columns)


# The committed tables. `make results` and `make real` write them; these tests say what was found.

@pytest.fixture(scope="module")
def planted():
    return pd.read_csv(ROOT / "reports" / "planted.csv", index_col=["global_cue", "local_cue", "model"])


def test_planted_evidence_is_found_by_who_can_see_it(planted):
    found = planted.balanced_accuracy
    assert found[1, 0, "CV+FC"] >= 0.75 and found[0, 1, "transfer"] >= 0.60
    assert planted.balanced_accuracy_low[0, 1, "CV+FC"] <= 0.25 <= planted.balanced_accuracy_high[0, 1, "CV+FC"]
    assert found[0, 1, "fusion"] >= 0.60


def test_nothing_is_found_where_nothing_was_planted(planted):
    none = planted.loc[0, 0]
    assert (none.balanced_accuracy_low <= 0.25).all() and (none.auc_low <= 0.5).all()


def test_no_model_beats_what_can_be_known(planted):
    for (global_cue, local_cue, _), row in planted.iterrows():
        if 0 in (global_cue, local_cue): assert row.balanced_accuracy_low <= ceiling(max(global_cue, local_cue))


@pytest.mark.parametrize("name, models", [("planted", set(MODELS) - {"ShallNet"}), ("real", {*MODELS, *RECIPES})])
def test_committed_tables_are_whole(name, models):
    table, tests = (pd.read_csv(ROOT / "reports" / f"{name}{ending}.csv") for ending in ("", "_tests"))
    for _, rows in table.groupby(["data", "global_cue", "local_cue", "groups"], dropna=False): assert set(rows.model) == models
    assert (table.balanced_accuracy_low <= table.balanced_accuracy).all() and (table.balanced_accuracy <= table.balanced_accuracy_high).all()
    assert table.data_digest.str.len().eq(64).all() and tests.p.between(0, 1).all()
