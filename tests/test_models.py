"Every row of the table of models learns each kind of target that it says it learns, and what it cannot learn is told."
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emoart.core.files import InputError, NotRun, find_notebook
from emoart.core.settings import load_settings
from emoart.data.targets import TARGETS
from emoart.evaluate.models import EVIDENCE, GENERATORS, MODELS, PUBLISHED, TRAINED, imported
from emoart.evaluate.outputs import DRAWN
from emoart.evaluate.run import Data, Evidence, cross_validated, fit_model, read_predictions, run
from emoart.evaluate.scores import KINDS, constant_baseline
from emoart.findings.comparison import compare_models
from emoart.models import backbones
from emoart.models.backbones import TORCHVISION, Torchvision
from test_checkpoints import SMALL

N = 40
FAST = dict(image_size=32, shallnet_image_size=32, shallnet_epochs=1, transfer_epochs=2, cvfc_epochs=2,
            fusion_epochs=2, moods_epochs=1, moods_image_size=96, moods_learning_rate=1e-5, distributions_epochs=1,
            distributions_learning_rates="1e-5", weights="random", n_bootstrap=100)
SETTINGS = {kind: load_settings("smoke", target=target, **FAST)
            for kind, target in (("classes", "groups"), ("labels", "moods"), ("distribution", "emotions"),
                                 ("values", "values"))}


def targets(kind):
    "Forty targets of a kind, told by the first number of the evidence."
    signal = np.random.default_rng(0).normal(size=N)
    if kind == "values": return np.stack([5 + signal, 3 - signal], 1)
    if kind == "labels": return np.stack([signal > 0, signal < 0.5, signal > -0.5], 1).astype(float)
    likely = np.exp(np.stack([signal, -signal, 0 * signal], 1))
    likely /= likely.sum(1, keepdims=True)
    return np.eye(3)[likely.argmax(1)] if kind == "classes" else likely


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    "Made-up evidence of every kind, by its name."
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    signal = np.random.default_rng(0).normal(size=(N, 1))
    files = [str(folder / f"{i}.png") for i in range(N)]
    for file in files: Image.fromarray(random.integers(0, 256, (32, 32, 3), "uint8")).save(file)
    made = {"pixels": np.array(files)}
    sizes = dict(hand_made=13, features=8, last_layer=8, texture=9, stimuli=4, title=6, category=3)
    for kind, n in sizes.items():
        made[kind] = np.hstack([signal, random.normal(size=(N, n - 1))]).astype("float32")
    return made


def data_of(kind, evidence):
    "The forty paintings of a kind of target."
    paintings = pd.DataFrame(dict(id=range(N), title="", artist="", image=evidence["pixels"], picture=range(N)))
    settings, y = SETTINGS[kind], targets(kind)
    names = ("valence", "arousal") if kind == "values" else ("joy", "fear", "love")
    target = next(target for target in TARGETS.values() if target.kind == kind)
    return Data(None, paintings, target, names, y, np.arange(N) % 4 == 0, Evidence(paintings, settings, known=evidence))


def test_the_table_names_what_there_is():
    assert len(MODELS) >= 13 and {model.name for model in TRAINED} < set(MODELS)
    for model in MODELS.values():
        assert callable(imported(model.fit)) and set(model.evidence) <= set(EVIDENCE) and set(model.kinds) <= set(KINDS)
        assert set(model.mean_of) <= set(MODELS)
    for function in EVIDENCE.values(): assert callable(imported(function))
    for name in (*(model.notebook for model in TRAINED), *GENERATORS): assert find_notebook(name).exists()


@pytest.fixture
def small_published(monkeypatch):
    "The published networks with a few filters each and random weights."
    for name, (maps, hidden, _, _) in SMALL.items():
        monkeypatch.setitem(TORCHVISION, name, Torchvision("small-00000000.pth", "last", maps, hidden))


BIG = {model.name for model in PUBLISHED}
LEARNED = [(name, kind) for name in MODELS for kind in KINDS if name not in BIG or kind == "distribution"]


@pytest.mark.parametrize("name, kind", LEARNED)
def test_a_model_learns_what_it_says(name, kind, evidence, small_published):
    data, train = data_of(kind, evidence), np.arange(N) % 4 > 0
    arguments = name, data.evidence.part(train), data.y[train], KINDS[kind], SETTINGS[kind]
    if kind not in MODELS[name].kinds:
        with pytest.raises(InputError, match=f"{name} cannot learn the target"): fit_model(*arguments)
        return
    predicted = fit_model(*arguments).predict(data.evidence.part(~train))
    assert predicted.shape == (N // 4, data.y.shape[1]) and np.isfinite(predicted).all()
    if kind == "values": assert abs(predicted.mean(0) - data.y.mean(0)).max() < 1.5, "not in the units of the targets"
    else: assert predicted.min() >= 0 and predicted.max() <= 1 + 1e-6
    if kind in ("classes", "distribution"): assert predicted.sum(1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_its_baseline_and_its_folds(kind, evidence, tmp_path):
    data, settings = data_of(kind, evidence), load_settings("smoke", target=SETTINGS[kind].target, n_folds=4, **FAST)
    name = {"classes": "cv_logistic", "values": "ridge"}.get(kind, "cvfc")
    metrics = run(name, data, settings, tmp_path)
    crossed = metrics["cross_validated"]
    assert set(metrics["test"]) == set(metrics["baseline"]) == set(crossed["test"]) == set(crossed["baseline"])
    assert metrics["n_train"] + metrics["n_test"] == N
    if kind == "values":
        assert crossed["baseline"]["pearson"]["value"] == 0 and list(crossed["columns"]) == ["valence", "arousal"]
        assert crossed["test"]["r2"]["value"] > 0.5 > 0 >= crossed["baseline"]["r2"]["value"]
    if kind == "labels": assert list(crossed["columns"]) == list(data.names)
    if kind == "classes": assert crossed["test"]["accuracy"]["value"] > crossed["baseline"]["accuracy"]["value"]


@pytest.mark.parametrize("name", [model.name for model in PUBLISHED])
def test_published_weights_that_cannot_be_had_are_not_run(name, evidence, monkeypatch, tmp_path):
    monkeypatch.setattr(backbones, "TORCHVISION_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setattr(backbones, "WORK", tmp_path)
    settings = load_settings("smoke", target="emotions", comparison_n_folds=2)
    data = data_of("distribution", evidence)
    with pytest.raises(NotRun, match=f"cannot be had .*put that file into {tmp_path}"):
        fit_model(name, data.evidence, data.y, data.kind, settings)
    _, _, measured, _ = compare_models(data, ("cvfc", name), settings)
    assert "CV+FC" in set(measured.model) and MODELS[name].title not in set(measured.model)


def test_shares_are_drawn_to_the_mean_where_nothing_can_be_learned():
    random, n = np.random.default_rng(0), 240
    features = random.normal(size=(n, 60)).astype("float32")
    y = np.exp(2 * features[:, :3])
    y /= y.sum(1, keepdims=True)
    paintings = pd.DataFrame(dict(id=range(n), title="", artist="", image="none.png", picture=range(n)))
    settings = load_settings("smoke", target="emotions", transfer_epochs=60, transfer_dropout=0,
                             transfer_weight_decay=0, n_bootstrap=100)

    def ran(y, shrink):
        evidence = Evidence(paintings, settings, known={"features": features})
        data = Data(None, paintings, TARGETS["emotions"], ("joy", "fear", "love"), y, np.arange(n) % 4 == 0, evidence)
        train, test = ~data.held_out, data.held_out
        fitted = fit_model("transfer", evidence.part(train), y[train], data.kind, replace(settings, shrink=shrink))
        said, constant = fitted.predict(evidence.part(test)), constant_baseline(y[train], test.sum())
        kl, baseline = (data.kind.measure(y[test], each, None)["kl"] for each in (said, constant))
        return fitted.facts.get("trust"), kl - baseline

    trusted, gain = ran(y, 1)
    assert trusted > 0.4 and gain < -0.1
    blind = y[random.permutation(n)]
    (trusted, loss), (nothing, loose) = ran(blind, 1), ran(blind, 0)
    assert trusted <= 0.35 and nothing is None and abs(loss) < loose / 2


def test_a_saved_network_draws_as_well(evidence, tmp_path):
    data, settings = data_of("distribution", evidence), load_settings("smoke", target="emotions", **FAST)
    run("cvfc", data, settings, tmp_path)
    said = read_predictions(tmp_path)[["p_joy", "p_fear", "p_love"]]
    network = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(network(data.evidence["hand_made"]), said, atol=1e-5)
    assert network.layers[-1].name == DRAWN


def test_folds_start_from_the_seed(evidence):
    data, settings = data_of("classes", evidence), load_settings("smoke", n_folds=2, **FAST)
    assert cross_validated("cvfc", data, settings) == cross_validated("cvfc", data, settings)


def test_published_figures_belong_to_their_settings():
    transfer = MODELS["transfer"]
    assert transfer.figure(load_settings("thesis")) == 0.572
    assert transfer.figure(load_settings("thesis", genre="")) == 0.393
    assert transfer.figure(load_settings("thesis", weights="random")) is None
    assert transfer.titled(load_settings("thesis", weights="random")) == "VGG16+TL (random weights)"
    assert MODELS["shallnet"].figure(load_settings("quick", target="positive")) == 0.833
