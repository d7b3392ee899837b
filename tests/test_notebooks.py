"Papermill runs every notebook; the experiments at smoke scale with several parameters, and what they record."
import json

import numpy as np
import pandas as pd
import pytest

from chapters import execute
from emoart.core.files import chapter_name, chapters
from emoart.core.settings import load_settings
from emoart.evaluate.models import CLASSIFIERS, GENERATORS

EXPERIMENTS = {*(model.notebook for model in CLASSIFIERS), *GENERATORS, "faithfulness", "comparison"}
OTHERS = [*(chapter_name(path) for path in chapters()), "index"] # test_bench.py runs the bench
OTHERS = [name for name in OTHERS if name not in EXPERIMENTS and name != "bench"]


def test_every_chapter_is_run():
    assert len(OTHERS) + len(EXPERIMENTS) + 1 == len(chapters()) + 1 >= 46


@pytest.mark.parametrize("name", OTHERS)
def test_a_chapter_runs(name, tmp_path):
    execute(name, tmp_path)


SMALL = dict(image_size=64)
CASES = [
    ("shallnet", dict(epochs=2, target="positive", depth=4, seed=1)),
    ("shallnet", dict(epochs=1, versions=4, resize="pad", test_share=0.5, image_size=96, genre="")),
    ("transfer", dict(epochs=1, hidden=7, standardise=0, dropout=0, backbone="vgg16", weights="random", image_size=32)),
    ("transfer", dict(epochs=1, unfreeze=1, unfreeze_epochs=1, target="emotions", **SMALL)),
    ("cvfc", dict(epochs=3)),
    ("cvfc", dict(epochs=2, palette="nearest", test_share=0.5, resize="crop", target="emotions")),
    ("fusion", dict(epochs=1, n_folds=2, target="poles", **SMALL)),
    ("distributions", dict(epochs=2, learning_rates="0.001", n_folds=2, target="emotions", loss="kl", test_share=0.25)),
    ("moods", dict(epochs=1, model="lenet5-relu", target="moods", image_size=96)),
]


@pytest.mark.parametrize("name, parameters", CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
def test_an_experiment_records_what_it_did(name, parameters, smoke_gallery, tmp_path):
    execute(name, tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), **parameters)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    history = pd.read_json(tmp_path / "history.jsonl", lines=True)
    test, names = predictions[predictions.part == "test"], metrics["names"]
    assert metrics["target"] == parameters.get("target", "groups") and metrics["parameters"] > 0
    n_epochs = parameters["epochs"] + parameters.get("unfreeze_epochs", 0)
    assert list(history.epoch) == list(range(1, n_epochs + 1))
    assert metrics["n_test"] == len(test) and metrics["n_train"] == len(predictions) - len(test)
    assert metrics["n_test"] / len(predictions) == pytest.approx(parameters.get("test_share", 0.25), abs=0.06)
    said = predictions[[f"p_{name}" for name in names]].to_numpy()
    assert (said >= 0).all() and (said <= 1 + 1e-6).all()
    if metrics["kind"] != "labels": assert said.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert set(metrics["test"]) == set(metrics["baseline"])
    for measured in metrics["test"].values(): assert measured["low"] <= measured["value"] <= measured["high"]
    if metrics["kind"] == "classes":
        assert metrics["test"]["accuracy"]["value"] == pytest.approx((test.truth == test.predicted).mean())
        assert sum(map(sum, metrics["confusion"])) == len(test)
    if metrics["kind"] == "labels": assert list(metrics["columns"]) == names == ["euphoric", "aggressive", "calm"]
    if metrics["kind"] == "distribution":
        assert predictions[[f"y_{name}" for name in names]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert ("cross_validated" in metrics) == ("n_folds" in parameters)
    if name == "cvfc":
        colours = pd.read_csv(tmp_path / "features.csv").filter(like="palette_")
        assert ((colours == 100).sum(axis=1) == 5).all() == (parameters.get("palette") == "nearest")


def test_published_figures_stand_beside_the_runs_that_they_belong_to():
    figures = {model.name: model.figure(load_settings("thesis")) for model in CLASSIFIERS}
    assert {name: figures[name] for name in ("shallnet", "transfer", "cvfc", "fusion")} == \
        dict(shallnet=0.276, transfer=0.572, cvfc=0.563, fusion=None) # thesis, Table 8


def test_two_groups_are_enough(smoke_gallery, tmp_path):
    (tmp_path / "images").symlink_to(smoke_gallery / "images")
    (tmp_path / "summary.json").symlink_to(smoke_gallery / "summary.json")
    paintings = pd.read_csv(smoke_gallery / "paintings.csv", dtype=str, keep_default_na=False)
    few = paintings[paintings.emotion.isin(["joy", "love", "optimism", "sadness", "fear", "anger", "disgust"])]
    few.to_csv(tmp_path / "paintings.csv", index=False)
    execute("cvfc", tmp_path, paintings=str(tmp_path), out=str(tmp_path / "run"), epochs=1)
    said = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert set(said.truth) == {0, 3}
    assert len(json.loads((tmp_path / "run" / "metrics.json").read_text())["names"]) == 4


def test_a_comparison_records_what_it_did(smoke_gallery, tmp_path):
    models = ["cvfc", "cv_logistic", "transfer", "average"]
    titles = ["majority baseline", "CV+FC", "CV+logistic", "efficientnet-lite0+TL", "average"]
    small = dict(image_size=64, n_folds=2, n_repeats=2, genre="", target="poles")
    execute("comparison", tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), models=", ".join(models), **small)
    about = json.loads((tmp_path / "metrics.json").read_text())
    scores, tests = pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(tmp_path / "differences.csv")
    run = np.load(tmp_path / "predictions.npz")
    assert list(about["groups"]) == ["negative", "positive"] and about["global_cue"] is None
    assert sum(about["groups"].values()) == about["paintings"] == len(run["truth"])
    assert list(dict.fromkeys(scores.model)) == titles
    assert all(run[title].shape == (2, about["paintings"], 2) for title in titles)
    accuracy = scores[(scores.model == "CV+FC") & (scores.metric == "accuracy")].value.item()
    assert accuracy == pytest.approx(np.mean([(p.argmax(1) == run["truth"]).mean() for p in run["CV+FC"]]))
    pairs = {("efficientnet-lite0+TL", "CV+FC"), ("average", "CV+FC"), ("average", "efficientnet-lite0+TL"),
             ("CV+FC", "CV+logistic")}
    assert set(zip(tests.a, tests.b)) == pairs
    assert run["average"] == pytest.approx((run["CV+FC"] + run["efficientnet-lite0+TL"]) / 2, abs=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_records_what_it_did(name, smoke_gallery, tmp_path):
    from emoart.generate.portraits import collect_results
    run, kept = tmp_path / "runs" / name, tmp_path / "kept"
    execute(name, tmp_path, paintings=str(smoke_gallery), out=str(run), gan_augmented=1, gan_spectral_norm=1)
    metrics, history = json.loads((run / "metrics.json").read_text()), pd.read_json(run / "history.jsonl", lines=True)
    assert list(history.epoch) == [0, 1, 2, 3, 4] and list(history.dropna(subset="kid").epoch) == [0, 2, 4]
    assert metrics["test"]["kid_low"] <= metrics["test"]["kid"] <= metrics["test"]["kid_high"]
    assert metrics["test"]["kid"] == history.kid.iloc[-1]
    assert 0 <= metrics["test"]["precision"] <= 1 and metrics["size"] == 32 and (run / "training.gif").exists()
    assert len(list((run / "samples").iterdir())) == 3 and (run / "generator.keras").exists()
    collect_results(tmp_path / "runs", kept)
    assert json.loads((kept / f"{name}.json").read_text()).items() >= metrics.items()
    assert len(pd.read_csv(kept / f"{name}.csv")) == 5
    assert {path.name for path in kept.glob("*.jpg")} >= {f"{name}.jpg", f"{name}_way.jpg"}
    assert (kept / "arithmetic.json").exists() == (name == "dcgan")


def test_a_wrong_parameter_stops_the_experiment(smoke_gallery, tmp_path):
    with pytest.raises(AssertionError, match="InputError: .*no labelled painting of the genre 'tapestry'"):
        execute("shallnet", tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), genre="tapestry")
    assert not (tmp_path / "metrics.json").exists()
