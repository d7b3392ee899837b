"The audit: every figure of its table recomputed and found in the thesis, the printed variants, the committed results."
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_notebooks import execute

from emoart.findings import audit
from emoart.findings.audit import DIALS, FIGURES, TEST_LABELS, VARIANTS, run_audit
from emoart.models.cvfc import cvfc, features, fit_cvfc
from emoart.evaluate.scores import one_hot
from emoart.core.files import ROOT, InputError, write_json
from emoart.core.settings import load_settings
from emoart.models.shallnet import N_PRINTED, printed_accuracy, printed_cost
from emoart.models.transfer import printed_loss

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")


@pytest.mark.parametrize("figure", FIGURES, ids=[f.printed for f in FIGURES])
def test_a_figure_is_recomputed(figure):
    assert figure.recompute() == figure.printed


def test_the_figures_stand_in_the_thesis(shared):
    text = (shared.parent / "seeds" / "002_0365ff074951d716.txt").read_text()
    assert [figure.printed for figure in FIGURES if figure.printed not in text] == []


def test_a_wrong_label_would_be_noticed():
    assert audit.constant_output(np.where(np.arange(64) == 0, 1, TEST_LABELS))[0] != float(FIGURES[2].printed)


@pytest.mark.parametrize("profile", ["smoke", "quick", "thesis"])
def test_the_printed_variants_are_off(profile):
    settings = load_settings(profile)
    assert (settings.shallnet_as_published, settings.transfer_as_published, settings.cvfc_as_published) == (0, 0, "no")


def test_a_softmax_over_one_unit_learns_nothing():
    random = np.random.default_rng(0)
    values, y = random.random((64, 13)), TEST_LABELS
    tf.keras.utils.set_random_seed(0)
    start = cvfc(values.min(0), values.max(0), 1).get_weights()
    tf.keras.utils.set_random_seed(0)
    printed, history = fit_cvfc(values, y[:, None], 0.01, 10, 3, loss=printed_loss)
    for before, after in zip(start, printed.get_weights()): np.testing.assert_array_equal(before, after)
    assert history["loss"] == pytest.approx([-6.227494] * 3, abs=1e-5) and history["accuracy"] == pytest.approx([0.5625] * 3)
    assert len(set(fit_cvfc(values, one_hot(y, 4), 0.01, 10, 3)[1]["loss"])) == 3


def test_the_printed_cost_is_that_of_tensorflow():
    random = np.random.default_rng(0)
    labels, logits = tf.constant(random.integers(0, 4, (20, 1)), tf.float32), tf.Variable(random.normal(size=(20, N_PRINTED)), dtype=tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        ours, theirs = printed_cost(labels, logits), tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=labels)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-5)
    assert (printed_accuracy(labels, logits).numpy() == (logits.numpy().argmax(1) == 0)).all()


def test_printed_colours_do_not_depend_on_the_paintings():
    paintings = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    for as_published in (True, False):
        one, other = (features(images, as_published=as_published) for images in paintings)
        colours = one.columns.str.startswith("palette")
        assert (one.loc[:, colours] == other.loc[:, colours]).all(axis=None) == as_published
        assert (one.loc[:, ~colours] != other.loc[:, ~colours]).all(axis=None)


@pytest.mark.parametrize("stem, parameters, count", [
    ("30_shallnet", dict(as_published=1, epochs=1, image_size=32), 392 + 528 + 51), ("33_transfer", dict(as_published=1, epochs=1, image_size=32), None),
    ("34_cvfc", dict(as_published="all", epochs=2, image_size=64), 61)])
def test_a_printed_variant_runs(stem, parameters, count, smoke_gallery, tmp_path):
    execute(stem, tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), **parameters)
    metrics, predictions = json.loads((tmp_path / "metrics.json").read_text()), pd.read_csv(tmp_path / "predictions.csv")
    test = predictions[predictions.part == "test"]
    history = pd.read_json(tmp_path / "history.jsonl", lines=True)
    assert count in (None, metrics["parameters"]) and metrics["as_published"] == parameters["as_published"]
    if stem == "30_shallnet":
        assert metrics["printed"]["test"] == pytest.approx((test.predicted == 0).mean()) == pytest.approx(history.val_accuracy.iloc[-1])
    else:
        assert (predictions.predicted == 1).all() and metrics["test"]["accuracy"]["value"] == pytest.approx((test.truth == 1).mean())
        assert history.loss.nunique() == 1 and metrics["test"]["auc"]["value"] == 0.5


def test_the_table_is_gathered_and_keeps_what_was_not_run(tmp_path, monkeypatch):
    def fake(notebook, folder, parameters):
        measured = {m: dict(value=0.5, low=0.4, high=0.6) for m in ("accuracy", "balanced_accuracy", "macro_f1", "auc")}
        write_json(folder / "metrics.json", dict(n_train=3, n_test=1, test=measured, majority=measured, published=None, printed=dict(test=0.9)))
        (folder / "history.jsonl").write_text('{"epoch": 1, "val_accuracy": 0.95}\n')
    monkeypatch.setattr(audit, "run_notebook", lambda notebook, folder, parameters: (folder.mkdir(parents=True, exist_ok=True), fake(notebook, folder, parameters)))
    file, mine = tmp_path / "audit.csv", tmp_path / "mine"
    mine.mkdir(); (mine / "paintings.csv").touch()
    with_mine = run_audit(str(mine), folder=tmp_path / "runs", file=file, dials=((1., 0.),), say=lambda line: None)
    without = run_audit(folder=tmp_path / "runs", file=file, dials=((1., 0.),), say=lambda line: None)
    n = sum(map(len, VARIANTS.values()))
    assert len(with_mine) == len(without) == 2 * n and set(without.data) == {"synthetic gallery", "mine"}
    assert (without.claimed == 0.9).all() and (without.best_epoch == 0.95).all()
    with pytest.raises(InputError, match="no folder of cleaned paintings"): run_audit(str(tmp_path), folder=tmp_path, file=file)


def test_the_committed_table():
    table = pd.read_csv(ROOT / "reports" / "audit.csv")
    gallery, wanted = table[table.data == "synthetic gallery"], [(model, variant) for model, variants in VARIANTS.items() for variant in variants]
    places = {dials: list(zip(rows.model, rows.variant)) for dials, rows in gallery.groupby(["global_cue", "local_cue"])}
    assert {(1, 0), (0, 0)} <= set(places) <= set(DIALS) and all(runs == wanted for runs in places.values())
    constant = table[(table.variant == "as printed") & (table.model != "shallnet")]
    assert (constant.auc == 0.5).all() and (constant.claimed == constant.accuracy).all() and np.allclose(constant.best_epoch, constant.accuracy, atol=1e-4)
    right = gallery[gallery.variant == "corrected"].set_index(["global_cue", "local_cue", "model"]).balanced_accuracy.sort_index()
    assert (right[1, 0] > 0.9).all() and (right[0, 0] < 0.4).all()
