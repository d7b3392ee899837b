"The audit: every figure of its table recomputed and found in the thesis, the printed variants, the committed results."
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from emoart.core.files import ROOT, InputError, chapters, write_json
from emoart.core.settings import SETTINGS, load_settings
from emoart.data.tables import read_sheet
from emoart.data.targets import TARGETS
from emoart.evaluate.run import read_history, read_predictions
from emoart.evaluate.scores import KINDS, distribution_score, one_hot
from emoart.findings import audit
from emoart.findings.audit import (
    DIALS, FIGURES, TEST_LABELS, VARIANTS, audit_row, printed_accuracy, printed_cost, printed_features, printed_head,
    printed_landmarks, printed_loss, printed_output, printed_scaling, run_audit, run_printed)
from emoart.findings.audit_distributions import ACCURACY, DISTANCES, least_bhattacharyya, least_kl, mse_range
from emoart.findings.audit_moods import COUNTS, RMSE, constant_rmse, whole_multiples
from emoart.models.cvfc import cvfc, fit, hand_made_features

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")


@pytest.mark.parametrize("figure", FIGURES, ids=[f.printed for f in FIGURES])
def test_a_figure_is_recomputed(figure):
    assert figure.recompute() == figure.printed


def test_the_figures_stand_in_the_thesis(shared):
    text = (shared.parent / "seeds" / "002_0365ff074951d716.txt").read_text()
    assert [figure.printed for figure in FIGURES if figure.printed not in text] == []


def test_a_wrong_label_would_be_noticed():
    assert audit.constant_output(np.where(np.arange(64) == 0, 1, TEST_LABELS))[0] != float(FIGURES[2].printed)


def test_the_printed_code_stands_in_the_audit_only():
    def code(path):
        cells = json.loads(path.read_text())["cells"]
        return "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")

    words = "as_published", "as_printed", "printed_"
    assert [path.stem for path in chapters() if any(word in code(path) for word in words)] == ["82_audit"]
    assert [name for name in SETTINGS if "published" in name or "printed" in name] == []


@pytest.mark.parametrize("model", ["transfer", "cvfc"])
def test_a_softmax_over_one_unit_learns_nothing(model):
    values = np.random.default_rng(0).random((64, 13))
    network = cvfc(values.min(0), values.max(0), printed_output) if model == "cvfc" else printed_head(13)
    start = network.get_weights()
    network.compile(tf.keras.optimizers.Adam(0.01), printed_loss, metrics=["accuracy"])
    history = network.fit(values, TEST_LABELS[:, None], 10, 3, verbose=0).history
    for before, after in zip(start, network.get_weights()):
        np.testing.assert_array_equal(before, after)
    assert history["loss"] == pytest.approx([-6.227494] * 3, abs=1e-5)
    assert history["accuracy"] == pytest.approx([0.5625] * 3)


def test_the_same_network_with_an_output_a_class_learns():
    values = np.random.default_rng(0).random((64, 13))
    settings = load_settings("smoke", cvfc_epochs=3)
    fitted = fit({"hand_made": values}, one_hot(TEST_LABELS, 4), KINDS["classes"], settings)
    assert len(set(fitted.history["loss"])) == 3


def test_the_printed_cost_is_that_of_tensorflow():
    random = np.random.default_rng(0)
    labels = tf.constant(random.integers(0, 4, (20, 1)), tf.float32)
    logits = tf.Variable(random.normal(size=(20, 3)), dtype=tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        ours = printed_cost(labels, logits)
        theirs = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=labels)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-5)
    assert (printed_accuracy(labels, logits).numpy() == (logits.numpy().argmax(1) == 0)).all()


def test_printed_colours_do_not_depend_on_the_paintings():
    one, other = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    same = printed_features(one) == printed_features(other)
    assert same[:, 7:].all() and not same[:, :7].any()
    assert (hand_made_features(one) != hand_made_features(other)).all(axis=None)


def test_printed_textures_are_stretched_by_column_and_parts_by_themselves():
    for landmark in printed_landmarks(32):
        np.testing.assert_allclose([landmark.min(0), landmark.max(0)], [np.zeros((32, 3)), np.ones((32, 3))], atol=1e-6)
    values, held_out = np.random.default_rng(0).normal(size=(20, 13)), np.arange(20) % 4 == 0
    scaled = printed_scaling(values, held_out)
    for part in (held_out, ~held_out):
        np.testing.assert_allclose([scaled[part].min(0), scaled[part].max(0)], [np.zeros(13), np.ones(13)], atol=1e-12)


PRINTED = [(model, variant) for model, variants in VARIANTS.items() for variant, train in variants.items() if train]
FACTS = {"shallnet": dict(parameters=392 + 528 + 51, as_published=1), "transfer": dict(as_published=1),
         "as printed": dict(parameters=61, as_published="all"),
         "printed features only": dict(parameters=76, as_published="features")}


@pytest.mark.parametrize("model, variant", PRINTED)
def test_a_printed_variant_runs(model, variant, smoke_gallery, tmp_path):
    def run(**overrides):
        return run_printed(model, VARIANTS[model][variant], tmp_path, "smoke", str(smoke_gallery),
                           **{f"{model}_epochs": 2, "image_size": 32, "shallnet_image_size": 32, **overrides})

    assert run()
    metrics, history = json.loads((tmp_path / "metrics.json").read_text()), read_history(tmp_path)
    facts = FACTS.get(model, FACTS.get(variant))
    assert metrics | facts == metrics and len(history) == 2
    predictions = read_predictions(tmp_path)
    test, row = predictions[predictions.part == "test"], audit_row(tmp_path)
    if model == "shallnet":
        assert row["claimed"] == pytest.approx((test.predicted == 0).mean())
        assert row["claimed"] == pytest.approx(history.val_accuracy.iloc[-1])
    elif variant == "as printed":
        assert (predictions.predicted == 1).all() and history.loss.nunique() == 1
        assert row["accuracy"] == pytest.approx((test.truth == 1).mean()) and row["auc"] == 0.5
    else:
        assert predictions.predicted.nunique() > 1 and history.loss.nunique() == 2

    written = (tmp_path / "metrics.json").stat().st_mtime_ns
    assert not run() and (tmp_path / "metrics.json").stat().st_mtime_ns == written # finished ones are not repeated
    if model == "cvfc": assert run(seed=1) # and others are


def test_the_table_is_gathered_and_keeps_what_was_not_run(tmp_path, monkeypatch):
    runs = []

    def fake(folder, printed):
        measured = {m: dict(value=0.5, low=0.4, high=0.6) for m in ("accuracy", "balanced_accuracy", "macro_f1", "auc")}
        metrics = dict(n_train=3, n_test=1, test=measured, baseline=measured, published=None, printed=dict(test=0.9))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", metrics)
        (folder / "history.jsonl").write_text('{"epoch": 1, "val_accuracy": 0.95}\n')
        runs.append(printed)

    monkeypatch.setattr(audit, "run_notebook", lambda notebook, folder, parameters: fake(folder, False))
    monkeypatch.setattr(audit, "run_printed", lambda model, train, folder, **parameters: fake(folder, True))
    mine, options = tmp_path / "mine", dict(folder=tmp_path / "runs", file=tmp_path / "audit.csv")
    mine.mkdir()
    (mine / "paintings.csv").touch()
    with_mine = run_audit(str(mine), dials=((1., 0.),), say=lambda line: None, **options)
    without = run_audit(dials=((1., 0.),), say=lambda line: None, **options)
    n = sum(map(len, VARIANTS.values()))
    assert len(with_mine) == len(without) == 2 * n and set(without.data) == {"synthetic gallery", "mine"}
    assert (without.claimed == 0.9).all() and (without.best_epoch == 0.95).all()
    assert (runs.count(True), runs.count(False)) == (3 * len(PRINTED), 3 * (n - len(PRINTED)))
    with pytest.raises(InputError, match="no folder of cleaned paintings"): run_audit(str(tmp_path), **options)


def test_the_committed_table():
    table = pd.read_csv(ROOT / "reports" / "audit.csv")
    gallery = table[table.data == "synthetic gallery"]
    wanted = [(model, variant) for model, variants in VARIANTS.items() for variant in variants]
    by_dials = gallery.groupby(["global_cue", "local_cue"])
    places = {dials: list(zip(rows.model, rows.variant)) for dials, rows in by_dials}
    assert {(1, 0), (0, 0)} <= set(places) <= set(DIALS) and all(runs == wanted for runs in places.values())
    constant = table[(table.variant == "as printed") & (table.model != "shallnet")]
    assert (constant.auc == 0.5).all() and (constant.claimed == constant.accuracy).all()
    assert np.allclose(constant.best_epoch, constant.accuracy, atol=1e-4)
    right = gallery[gallery.variant == "corrected"].set_index(["global_cue", "local_cue", "model"])
    right = right.balanced_accuracy.sort_index()
    assert (right[1, 0] > 0.9).all() and (right[0, 0] < 0.4).all()


def test_errors_of_moods_are_differences_of_class_numbers():
    assert whole_multiples(RMSE.values()) == [655]
    assert [round(error**2 * 655) for error in RMSE.values()] == [2577, 2418, 2007, 2138, 2143]
    assert sum(COUNTS.values()) == 3282 and COUNTS["euphoric"] / 3282 == pytest.approx(0.5195, abs=1e-4)
    assert constant_rmse(("a", "b", "c"), "a", dict(a=1, b=1, c=2)) == pytest.approx((9 / 4) ** 0.5) # by hand
    of_orders = [constant_rmse(order) for order in itertools.permutations(COUNTS)]
    assert (min(of_orders), max(of_orders)) == pytest.approx((0.99, 3.49), abs=0.01)
    in_full = ("aggressive", "A+C", "A+C+E", "A+E", "calm", "euphoric", "E+C")
    assert constant_rmse(in_full) == pytest.approx(1.69, abs=0.01) and constant_rmse(in_full) < min(RMSE.values())


def test_counts_of_moods_are_those_of_the_published_table(shared):
    table = read_sheet(shared / "wikiart_emotions" / "WikiArt-Emotions-All.tsv", judged="art")
    assert TARGETS["moods7"].read(table).sum().astype(int).to_dict() == COUNTS


def test_distances_of_distributions_bind_each_other():
    "Whatever two sets of distributions are, no mean leaves its bounds; and the bounds are reached."
    random = np.random.default_rng(1)
    for concentration in (.05, .3, 1, 5):
        y, p = random.dirichlet(np.full(7, concentration), (2, 300)) * .999 + .001 / 7
        found = distribution_score(y, p)
        low, high = mse_range(found["chebyshev"])
        assert low <= found["mse"] <= high and found["bhattacharyya"] >= least_bhattacharyya(found["chebyshev"])
        assert found["kl"] >= least_kl(found["bhattacharyya"])
    even, one = np.full((1, 7), 1 / 7), np.full((1, 7), 1 / 7)
    one[0] += np.array([.3, *[-.05] * 6])
    assert distribution_score(one, even)["mse"] == pytest.approx(mse_range(.3)[0])
    assert distribution_score(np.eye(7)[:1], np.eye(7)[1:2])["mse"] == pytest.approx(mse_range(1)[1])


def test_figures_of_distributions_that_cannot_be():
    "The recurrent networks' by their coefficient, that on objects by its square, as the audit says; the others can."
    rows = DISTANCES
    coefficient = rows.bhattacharyya < [least_bhattacharyya(c) for c in rows.chebyshev]
    square, divergence = rows.mse > [mse_range(c)[1] for c in rows.chebyshev], rows.kl < least_kl(rows.bhattacharyya)
    assert rows.index[coefficient].tolist() == ["LSTM", "LSTM, dropout"]
    assert rows.index[square].tolist() == ["FC on objects"]
    assert rows.index[divergence].tolist() == ["RNN", "LSTM", "LSTM, dropout"]


def test_printed_figures_of_distributions_are_in_the_report(shared):
    report = next((shared.parent / "seeds").glob("004_*.txt")).read_text()
    for column in DISTANCES:
        for value in DISTANCES[column].dropna(): assert f"{value:.4f}".rstrip("0") in report, (column, value)
    for share in ACCURACY.values(): assert f"{share:.2%}" in report
