"emoart train and emoart predict as a user runs them."
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, assert_one_sentence, run_emoart
from museum import museum, picture
from PIL import Image

from emoart.data.clean import paintings_digest, read_paintings
from emoart.data.emotions import GROUP_NAMES
from emoart.evaluate.scores import tempered
from emoart.models.predict import load_model, predict

FAST = {"shallnet": ["-pepochs=1"], "transfer": ["-ptransfer_epochs=3", "-presize=pad"], "cvfc": ["-pcvfc_epochs=2"],
        "fusion": ["-pepochs=2"], "lenet5": ["-pepochs=1"]}


@pytest.fixture(scope="module", params=FAST)
def trained(request, smoke_gallery, tmp_path_factory, workplace):
    "A model trained from the command line: its name, folder and what the command said."
    folder = tmp_path_factory.mktemp(request.param) / "model"
    options = ["--profile", "smoke", "--out", folder, *workplace[0], *FAST[request.param]]
    done = run_emoart("train", request.param, "--data", smoke_gallery, *options, timeout=600)
    assert done.returncode == 0, done.stderr
    return request.param, folder, done


def test_training_leaves_a_model_and_its_card(trained, smoke_gallery):
    model, folder, done = trained
    card, metrics = (json.loads((folder / name).read_text()) for name in ("card.json", "metrics.json"))
    assert card["model"] == model and card["names"] == list(GROUP_NAMES) and card["metrics"]["test"] == metrics["test"]
    assert (card["target"], card["kind"]) == ("groups", "classes")
    assert card["metrics"]["baseline"] == metrics["baseline"]
    assert card["data"]["digest"] == paintings_digest(smoke_gallery)
    assert card["settings"]["seed"] == 0 and card["versions"]["keras"].startswith("3.")
    value = f"{metrics['test']['balanced_accuracy']['value']:.3f}"
    assert value in done.stdout and value in (folder / "README.md").read_text() and "baseline" in done.stdout
    used = done.stdout.splitlines()[0] # portraits only, unless told otherwise: nobody should learn that from nothing
    assert " of 120 labelled paintings used: genre portrait" in used and card["data"]["used"] == used


def test_prediction_is_what_the_experiment_recorded(trained, smoke_gallery):
    model, folder, _ = trained
    files = list(read_paintings(smoke_gallery, "portrait").image[:3])
    done = run_emoart("predict", *files, "--model", folder, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    recorded = pd.read_csv(folder / "predictions.csv").iloc[:3] # as the network says it, not yet calibrated
    temperature = json.loads((folder / "card.json").read_text())["temperature"]
    assert [s["file"] for s in said] == files and [list(s) for s in said] == [["file", "group", "probabilities"]] * 3
    for s, (_, row) in zip(said, recorded.iterrows()):
        shares = s["probabilities"]
        assert list(shares) == list(GROUP_NAMES) and s["group"] == max(shares, key=shares.get)
        said_there = tempered(np.array([row[f"p_{name}"] for name in GROUP_NAMES]), temperature)
        assert list(shares.values()) == pytest.approx(list(said_there), abs=5e-3)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def folder(smoke_gallery, tmp_path_factory, workplace):
    "The fastest model to make."
    folder = tmp_path_factory.mktemp("predict") / "model"
    options = ["--profile", "smoke", "--out", folder, *workplace[0], *FAST["cvfc"]]
    done = run_emoart("train", "cvfc", "--data", smoke_gallery, *options)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_table(folder, smoke_gallery, emoart):
    files = list(read_paintings(smoke_gallery).image[:2])
    lines = emoart("predict", *files, "--model", folder).stdout.splitlines()
    assert len(lines) == 3 and lines[0].split() == ["picture", "group", *GROUP_NAMES]
    assert [line.split()[0] for line in lines[1:]] == [os.path.basename(file) for file in files]


def test_pictures_of_every_kind(folder, tmp_path):
    modes = {"a.png": "RGBA", "b.png": "L", "c.gif": "P", "d.jpg": "CMYK", "é ü.png": "RGB"}
    for name, mode in modes.items(): Image.new(mode, (70, 40)).save(tmp_path / name)
    said = predict(sorted(tmp_path.iterdir()), folder)
    assert len(said) == 5 and all(np.isfinite(list(s["probabilities"].values())).all() for s in said)


def test_training_from_a_sheet(smoke_gallery, tmp_path, workplace):
    paintings = pd.read_csv(smoke_gallery / "paintings.csv")
    sheet = pd.DataFrame({"Title": paintings.title, "Artist": paintings.artist, "Genre": paintings.genre,
                          "Emotion": paintings.emotion, "Image URL": "images/" + paintings.file})
    shutil.copytree(smoke_gallery / "images", tmp_path / "images")
    sheet.to_csv(tmp_path / "mine.csv", index=False)
    options = [*workplace[0], "-pimage_size=64", "-pgenre=", "-pepochs=1", "-ptarget=positive"]
    done = run_emoart("train", "shallnet", "--sheet", tmp_path / "mine.csv", "--profile", "smoke",
                      "--out", tmp_path / "model", *options)
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "model").card["names"] == ["rest", "positive"]
    said, = predict([tmp_path / "images" / paintings.file[0]], tmp_path / "model")
    assert set(said["probabilities"]) == {"rest", "positive"}


def test_values_and_distributions(smoke_gallery, tmp_path, workplace):
    "Numbers where numbers were learned, shares of words where those were; both are cross-validated beside a constant."
    paintings = pd.read_csv(smoke_gallery / "paintings.csv", dtype=str, keep_default_na=False)
    pictures = [np.asarray(Image.open(smoke_gallery / "images" / file).convert("L")).mean() for file in paintings.file]
    table = pd.DataFrame(dict(File="images/" + paintings.file, Emotion=paintings.emotion, Genre=paintings.genre,
                              Valence_mean=pictures, Arousal_mean=[255 - mean for mean in pictures]))
    shutil.copytree(smoke_gallery / "images", tmp_path / "images")
    table.to_csv(tmp_path / "mine.csv", index=False)
    options = ["--profile", "smoke", *workplace[0], "-pgenre=", "-pn_folds=2", "-pepochs=40"]
    sheet = tmp_path / "mine.csv"
    done = run_emoart("train", "cvfc", "--sheet", sheet, "--out", tmp_path / "m", *options, "-ptarget=values")
    assert done.returncode == 0, done.stderr
    assert "all paintings, 2 folds: pearson" in done.stdout and "  valence: pearson" in done.stdout
    card = load_model(tmp_path / "m").card
    crossed = card["metrics"]["cross_validated"]
    assert crossed["test"]["pearson"]["value"] > 0.5 > crossed["baseline"]["pearson"]["value"] == 0
    files = [tmp_path / "images" / file for file in paintings.file]
    said = predict(files, tmp_path / "m")
    assert list(said[0]) == ["file", "values"] and list(said[0]["values"]) == ["valence", "arousal"]
    assert np.corrcoef([s["values"]["valence"] for s in said], pictures)[0, 1] > 0.5
    shown = run_emoart("predict", files[0], "--model", tmp_path / "m").stdout.splitlines()
    assert shown[0].split() == ["picture", "valence", "arousal"]
    done = run_emoart("train", "cvfc", "--data", smoke_gallery, "--out", tmp_path / "w", *options, "-ptarget=emotions")
    assert done.returncode == 0 and "top word" in done.stdout, done.stderr
    answer, = predict(files[:1], tmp_path / "w")
    assert list(answer) == ["file", "probabilities"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert {"joy", "fear"} < set(answer["probabilities"])


@pytest.mark.parametrize("name, words", [
    ("nowhere.png", ["cannot read", "nowhere.png"]), ("text.jpg", ["text.jpg is no picture", "not an image"]),
    ("cut.png", ["cut.png is no picture", "damaged"]),
    ("empty.png", ["empty.png is no picture", "empty file"])])
def test_what_is_no_picture(name, words, folder, tmp_path, emoart):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    assert_one_sentence(emoart("predict", tmp_path / name, "--model", folder), *words)
    done = emoart("predict", tmp_path / name, tmp_path / "whole.png", "--model", folder)
    assert done.returncode == 1 and "whole.png" in done.stdout, "one bad picture costs the others nothing"
    for word in words: assert word in done.stderr.splitlines()[-1]


def test_folders_and_addresses_are_answered_together(folder, tmp_path, emoart):
    (tmp_path / "of").mkdir()
    for name in ("a.png", "b.jfif", ".hidden.png"): (tmp_path / "of" / name).write_bytes(picture(format="PNG"))
    (tmp_path / "of" / "c.jpg").write_bytes(b"no picture")
    with museum(lambda path, _: (200 if path == "/d.jpg" else 404, {}, picture())) as (address, _):
        given = [tmp_path / "of", f"{address}/d.jpg", f"{address}/e.jpg"]
        done = emoart("predict", *given, "--model", folder, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1 and [os.path.basename(s["file"]) for s in said if "error" not in s] == [
        "a.png", "b.jfif", "d.jpg"]
    assert [os.path.basename(s["file"]) for s in said[3:]] == ["c.jpg", "e.jpg"] and "HTTP status" in said[4]["error"]


def test_a_path_may_be_a_text_a_path_or_a_list(folder, tmp_path):
    (tmp_path / "a.png").write_bytes(picture(format="PNG"))
    asked = [tmp_path, tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"], (str(tmp_path / "a.png"),)]
    assert [len(predict(each, folder)) for each in asked] == [1] * 5


def test_bad_paths_are_told_before_tensorflow_is_loaded(tmp_path):
    lines = ("import sys; from emoart.run.cli import main; "
             f"code = main(['predict', 'nowhere.png', '--model', '{tmp_path}']); "
             "print(code, 'tensorflow' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True).stdout == "2 False\n"


def test_a_model_says_what_it_cannot_know(smoke_gallery, tmp_path, workplace):
    "No painting of two of the groups: they are named, and never answered; the doubt stands at every prediction."
    paintings = pd.read_csv(smoke_gallery / "paintings.csv", dtype=str, keep_default_na=False)
    kept = paintings[paintings.emotion.isin(["joy", "love", "fear", "sadness"])]
    table = pd.DataFrame(dict(File="images/" + kept.file, Emotion=kept.emotion, Genre="portrait"))
    shutil.copytree(smoke_gallery / "images", tmp_path / "images")
    table.to_csv(tmp_path / "few.csv", index=False)
    done = run_emoart("train", "cvfc", "--sheet", tmp_path / "few.csv", "--out", tmp_path / "m", "--profile", "smoke",
                      "-pepochs=1", *workplace[0])
    assert done.returncode == 0 and "no painting to learn neutral, mixed from" in done.stdout, done.stderr + done.stdout
    asked = run_emoart("predict", *(tmp_path / "images" / file for file in kept.file[:9]), "--model", tmp_path / "m")
    assert asked.stdout.splitlines()[0].split() == ["picture", "group", "negative", "positive"]
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert card["untrained"] == ["neutral", "mixed"] and "neutral" in asked.stderr
    found = card["metrics"]
    low, baseline = found["test"]["balanced_accuracy"]["low"], found["baseline"]["balanced_accuracy"]["value"]
    assert (low <= baseline) == ("baseline" in asked.stderr)


def change_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


@pytest.mark.parametrize("damage, words", [
    (lambda f: shutil.rmtree(f), ["holds no trained model", "emoart train"]),
    (lambda f: (f / "card.json").unlink(), ["holds no trained model"]),
    (lambda f: (f / "card.json").write_text("{"), ["card.json is damaged"]),
    (lambda f: change_card(f, card_version=99), ["another version of emoart", "99"]),
    (lambda f: (f / "model.keras").write_bytes(b"x" * 100), ["is not the file that its card describes"])])
def test_what_is_no_model(damage, words, folder, smoke_gallery, tmp_path, emoart):
    shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("notebook.ipynb"))
    damage(tmp_path / "model")
    picture = read_paintings(smoke_gallery).image[0]
    assert_one_sentence(emoart("predict", picture, "--model", tmp_path / "model"), *words)


def test_a_model_file_of_another_version(folder, smoke_gallery, tmp_path, emoart):
    import hashlib
    import zipfile
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / "model.keras"
    with zipfile.ZipFile(folder / "model.keras") as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"class_name": "Dense"', b'"class_name": "Denser"'))
    versions = json.loads((folder / "card.json").read_text())["versions"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    change_card(tmp_path / "model", sha256=digest, versions={**versions, "keras": "9.1.0"})
    done = emoart("predict", read_paintings(smoke_gallery).image[0], "--model", tmp_path / "model")
    assert_one_sentence(done, "saved with Keras 9.1.0", "train the model again")


@pytest.mark.parametrize("arguments, words", [
    (["vgg", "--data", "."], ["no model 'vgg'", "shallnet, transfer, cvfc, fusion, moodnet", "dcgan"]),
    (["cvfc"], ["--sheet FILE or as --data FOLDER"]),
    (["cvfc", "--data", ".", "--sheet", "a.csv"], ["--sheet FILE or as --data FOLDER"]),
    (["cvfc", "--data", "."], ["paintings.csv"]),
    (["cvfc", "--data", ".", "-ptarget=mood"], ["no target 'mood'"]),
    (["cvfc", "--sheet", "a.csv"], ["there is no sheet a.csv"]),
    (["cvfc", "--data", ".", "-pcvfc_step=1"], ["no setting 'cvfc_step'"]),
    (["cvfc", "--data", ".", "--images", "."], ["--images and --judge are for generators"])])
def test_bad_training_is_one_sentence(arguments, words, tmp_path, monkeypatch, emoart):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(emoart("train", *arguments, "--out", "out"), *words)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_vgg16_without_its_weights_is_not_run(smoke_gallery, tmp_path, workplace, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9") # reaches nothing
    for name in ("no_proxy", "NO_PROXY"): monkeypatch.delenv(name, raising=False)
    options = ["--profile", "smoke", "--out", tmp_path / "model", *workplace[0], "-pbackbone=vgg16", "-pimage_size=32"]
    done = run_emoart("train", "transfer", "--data", smoke_gallery, *options)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("emoart: not run: VGG16's ImageNet weights cannot be had")
    assert not (tmp_path / "model" / "card.json").exists()


def test_shared_paintings(folder):
    if not SHARED.is_dir(): pytest.skip("the development data (shared/) are not on this machine")
    files = sorted((SHARED / "data" / "wikiart_emotions" / "images").iterdir())[:3]
    assert len(json.loads(run_emoart("predict", *files, "--model", folder, "--json").stdout)) == 3
