"Papermill runs every notebook; the experiments at smoke scale with several parameter sets, and what they recorded is checked."
import json

import numpy as np
import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from emoart.generate.portraits import gather
from emoart.core.files import NOTEBOOKS, chapters, find_notebook

GENERATORS = ["64_basicgan", "65_gandeconv", "66_dcgan"]
EXPERIMENTS = ["30_shallnet", "33_transfer", "41_faithfulness", "34_cvfc", "36_fusion", "80_comparison", *GENERATORS]
CHAPTERS = sorted({"index", *(path.stem for path in chapters())} - {*EXPERIMENTS, "91_bench"}) # test_bench.py runs that one


def execute(stem, folder, **parameters):
    notebook = NOTEBOOKS / "index.ipynb" if stem == "index" else find_notebook(stem)
    papermill.execute_notebook(str(notebook), str(folder / f"{stem}.ipynb"), parameters, kernel_name="python3", progress_bar=False, cwd=str(notebook.parent))


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_runs(stem, tmp_path):
    execute(stem, tmp_path)


LITE0 = 2_387_616 # EfficientNet-Lite0 up to the end of its sixth stage
FUSION = LITE0 + 609 * 512 + 14 * 4 + 517 * 4 # and the two branches and the softmax

CASES = [
    ("30_shallnet", dict(epochs=1), dict(n_classes=4, n_epochs=1, parameters=4060, published=0.276)),
    ("30_shallnet", dict(epochs=2, n_groups=2, depth=4, seed=1), dict(n_classes=2, n_epochs=2, parameters=4562, published=0.833)),
    ("30_shallnet", dict(epochs=1, versions=4, resize="pad", test_share=0.5), dict(n_classes=4, n_epochs=1, parameters=4060, published=0.276)),
    ("30_shallnet", dict(epochs=1, image_size=96, genre=""), dict(n_classes=4, n_epochs=1, parameters=392 + 528 + 3 * 3 * 16 * 4 + 4, published=0.276)),
    ("33_transfer", dict(epochs=2, image_size=64), dict(n_classes=4, n_epochs=2, parameters=LITE0 + 609 * 512 + 513 * 4, published=None)),
    ("33_transfer", dict(epochs=1, image_size=96, genre="", hidden=7, standardise=0, dropout=0), dict(n_classes=4, n_epochs=1, parameters=LITE0 + 609 * 7 + 8 * 4, published=None)),
    ("33_transfer", dict(epochs=1, image_size=32, backbone="vgg16", weights="random"), dict(n_classes=4, n_epochs=1, parameters=14_979_396, published=None)),
    ("34_cvfc", dict(epochs=3), dict(n_classes=4, n_epochs=3, parameters=76, published=0.563)),
    ("34_cvfc", dict(epochs=2, palette="nearest", test_share=0.5, resize="crop"), dict(n_classes=4, n_epochs=2, parameters=76, published=0.563)),
    ("36_fusion", dict(epochs=2, image_size=64), dict(n_classes=4, n_epochs=2, parameters=FUSION, published=None)),
]


@pytest.mark.parametrize("stem, parameters, expected", CASES, ids=[f"{stem}-{i}" for i, (stem, *_) in enumerate(CASES)])
def test_an_experiment_records_what_it_did(stem, parameters, expected, smoke_gallery, tmp_path):
    execute(stem, tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), **parameters)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    predictions, history = pd.read_csv(tmp_path / "predictions.csv"), pd.read_json(tmp_path / "history.jsonl", lines=True)
    test = predictions[predictions.part == "test"]
    assert len(metrics["classes"]) == expected["n_classes"] and metrics["parameters"] == expected["parameters"]
    assert metrics["published"] == expected["published"] and list(history.epoch) == list(range(1, expected["n_epochs"] + 1))
    assert metrics["n_test"] == len(test) and metrics["n_train"] == len(predictions) - len(test)
    assert metrics["test"]["accuracy"]["value"] == pytest.approx((test.truth == test.predicted).mean())
    assert metrics["test"]["accuracy"]["low"] <= metrics["test"]["accuracy"]["value"] <= metrics["test"]["accuracy"]["high"]
    assert sum(map(sum, metrics["confusion"])) == len(test)
    assert predictions[[f"p_{name}" for name in metrics["classes"]]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    if stem == "34_cvfc":
        colours = pd.read_csv(tmp_path / "features.csv").filter(like="palette_")
        assert ((colours == 100).sum(axis=1) == 5).all() == (parameters.get("palette") == "nearest")
        assert metrics["n_test"] / len(predictions) == pytest.approx(parameters.get("test_share", 0.25), abs=0.06)


@pytest.mark.parametrize("stem", ["34_cvfc", "36_fusion"])
def test_two_groups_are_enough(stem, smoke_gallery, tmp_path):
    (tmp_path / "images").symlink_to(smoke_gallery / "images")
    paintings = pd.read_csv(smoke_gallery / "paintings.csv", dtype=str, keep_default_na=False)
    paintings[paintings.group.isin(["0", "3"])].to_csv(tmp_path / "paintings.csv", index=False)
    execute(stem, tmp_path, paintings=str(tmp_path), out=str(tmp_path / "run"), epochs=1, **{"image_size": 64} if stem == "36_fusion" else {})
    said = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert set(said.truth) == {0, 3} and len(json.loads((tmp_path / "run" / "metrics.json").read_text())["classes"]) == 4


def test_a_comparison_records_what_it_did(smoke_gallery, tmp_path):
    models = ["majority baseline", "CV+FC", "CV+logistic", "transfer", "average"]
    execute("80_comparison", tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), genre="", image_size=64, groups="poles", n_folds=2, n_repeats=2,
            models=", ".join(models))
    about, scores, tests = json.loads((tmp_path / "metrics.json").read_text()), pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(tmp_path / "differences.csv")
    run = np.load(tmp_path / "predictions.npz")
    assert list(about["groups"]) == ["negative", "positive"] and sum(about["groups"].values()) == about["paintings"] == len(run["truth"])
    assert set(about["left_out"]) == {"neutral", "mixed"} and about["global_cue"] is None
    assert list(dict.fromkeys(scores.model)) == models and all(run[model].shape == (2, about["paintings"], 2) for model in models)
    accuracy = scores[(scores.model == "CV+FC") & (scores.metric == "accuracy")].value.item()
    assert accuracy == pytest.approx(np.mean([(p.argmax(1) == run["truth"]).mean() for p in run["CV+FC"]]))
    assert {(a, b) for a, b in zip(tests.a, tests.b)} == {("transfer", "CV+FC"), ("average", "CV+FC"), ("average", "transfer"), ("CV+FC", "CV+logistic")}


@pytest.mark.parametrize("stem", GENERATORS)
def test_a_generator_records_what_it_did(stem, smoke_gallery, tmp_path):
    run, kept = tmp_path / "runs" / stem[3:], tmp_path / "kept"
    execute(stem, tmp_path, paintings=str(smoke_gallery), out=str(run), gan_augmented=1, gan_spectral_norm=1)
    metrics, history = json.loads((run / "metrics.json").read_text()), pd.read_json(run / "history.jsonl", lines=True)
    assert list(history.epoch) == [0, 1, 2, 3, 4] and list(history.dropna(subset="kid").epoch) == [0, 2, 4]
    assert metrics["test"]["kid_low"] <= metrics["test"]["kid"] <= metrics["test"]["kid_high"] and metrics["test"]["kid"] == history.kid.iloc[-1]
    assert 0 <= metrics["test"]["precision"] <= 1 and metrics["size"] == 32 and (run / "training.gif").exists()
    assert len(list((run / "samples").iterdir())) == 3 and (run / "generator.keras").exists()
    gather(tmp_path / "runs", kept)
    assert json.loads((kept / f"{run.name}.json").read_text()).items() >= metrics.items() and len(pd.read_csv(kept / f"{run.name}.csv")) == 5
    assert {path.name for path in kept.glob("*.jpg")} >= {f"{run.name}.jpg", f"{run.name}_way.jpg"} and (kept / "arithmetic.json").exists() == (run.name == "dcgan")


@pytest.mark.parametrize("parameters, sentence", [
    (dict(seed="one"), "seed is 'one'; it must be a whole number"),
    (dict(learning_rate=5), "shallnet_learning_rate is 5; it must be from 1e-07 to 1"),
    (dict(genre="tapestry"), "no labelled painting of the genre 'tapestry'")])
def test_a_wrong_parameter_stops_the_experiment(parameters, sentence, smoke_gallery, tmp_path):
    with pytest.raises(PapermillExecutionError, match="InputError") as failure:
        execute("30_shallnet", tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), **parameters)
    assert sentence in failure.value.evalue
    assert not (tmp_path / "metrics.json").exists()
