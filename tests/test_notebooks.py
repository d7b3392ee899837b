"Papermill runs every notebook; the experiments at smoke scale with several parameter sets, and what they recorded is checked."
import json

import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from emoart.settings import NOTEBOOKS

EXPERIMENTS = ["21_shallnet", "25_cvfc"]
CHAPTERS = sorted({p.stem for p in NOTEBOOKS.glob("*.ipynb")} - set(EXPERIMENTS))


def execute(stem, folder, **parameters):
    papermill.execute_notebook(str(NOTEBOOKS / f"{stem}.ipynb"), str(folder / f"{stem}.ipynb"), parameters,
                               kernel_name="python3", progress_bar=False, cwd=str(NOTEBOOKS))


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_runs(stem, tmp_path):
    execute(stem, tmp_path)


CASES = [
    ("21_shallnet", dict(epochs=1), dict(n_classes=4, n_epochs=1, parameters=4060, published=0.276)),
    ("21_shallnet", dict(epochs=2, n_groups=2, depth=4, seed=1), dict(n_classes=2, n_epochs=2, parameters=4562, published=0.833)),
    ("21_shallnet", dict(epochs=1, versions=4, resize="pad", test_share=0.5), dict(n_classes=4, n_epochs=1, parameters=4060, published=0.276)),
    ("21_shallnet", dict(epochs=1, image_size=96, genre=""), dict(n_classes=4, n_epochs=1, parameters=392 + 528 + 3 * 3 * 16 * 4 + 4, published=0.276)),
    ("25_cvfc", dict(epochs=3), dict(n_classes=4, n_epochs=3, parameters=76, published=0.563)),
    ("25_cvfc", dict(epochs=2, palette="nearest", test_share=0.5, resize="crop"), dict(n_classes=4, n_epochs=2, parameters=76, published=0.563)),
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
    if stem == "25_cvfc":
        colours = pd.read_csv(tmp_path / "features.csv").filter(like="palette_")
        assert ((colours == 100).sum(axis=1) == 5).all() == (parameters.get("palette") == "nearest")
        assert metrics["n_test"] / len(predictions) == pytest.approx(parameters.get("test_share", 0.25), abs=0.06)


@pytest.mark.parametrize("parameters, sentence", [
    (dict(seed="one"), "seed is 'one'; it must be a whole number"),
    (dict(learning_rate=5), "shallnet_learning_rate is 5; it must be from 1e-07 to 1"),
    (dict(genre="tapestry"), "no labelled painting of the genre 'tapestry'")])
def test_a_wrong_parameter_stops_the_experiment(parameters, sentence, smoke_gallery, tmp_path):
    with pytest.raises(PapermillExecutionError, match="InputError") as failure:
        execute("21_shallnet", tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), **parameters)
    assert sentence in failure.value.evalue
    assert not (tmp_path / "metrics.json").exists()
