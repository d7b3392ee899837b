"Stimulus maps: measures by hand, constants that fit, a network that learns where, and the page that shows it."
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import assert_one_sentence
from emoart.core.files import InputError
from emoart.core.settings import load_settings
from emoart.data.clean import clean, read_paintings
from emoart.explain import stimuli
from emoart.explain.stimuli import constant_maps, fit_stimuli, load_stimuli, map_scores, save_stimuli, stimuli_network

FAST = dict(stimuli_image_size=64, stimuli_map_size=32, stimuli_start="scratch", stimuli_batch_size=10)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    "Forty-eight pictures of noise, three in four with a bright square somewhere, and maps that mark it."
    folder, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for name in ("images", "maps"): (folder / name).mkdir()
    rows = ["File,Title,Genre,Emotion"]
    for i in range(48):
        picture, seen = random.integers(0, 120, (64, 64, 3)).astype("uint8"), np.zeros((64, 64), "uint8")
        if i % 4:
            top, left = random.integers(4, 44, 2)
            picture[top:top + 16, left:left + 16], seen[top:top + 16, left:left + 16] = 250, 255
        Image.fromarray(picture).save(folder / "images" / f"{i}.png")
        Image.fromarray(seen).save(folder / "maps" / f"{i}.png")
        rows.append(f"images/{i}.png,Square {i},{'square' if i % 4 else 'none'},joy")
    (folder / "pictures.csv").write_text("\n".join(rows) + "\n")
    summary = clean(folder / "pictures.csv", folder / "clean")
    assert summary["maps"] == 48
    return folder


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    "A network that learned the squares, its folder, and the paintings that it was not shown."
    table, one = read_paintings(squares / "clean", labelled=False), load_settings("smoke", stimuli_epochs=25, **FAST)
    test = np.arange(len(table)) % 3 == 0
    network, history = fit_stimuli(table[~test].reset_index(drop=True), one)
    assert len(history) == 25 and history.loss.iloc[-1] < history.loss.iloc[0] / 2
    folder = tmp_path_factory.mktemp("stimuli")
    save_stimuli(folder, network, one)
    return network, folder, one, table[~test].reset_index(drop=True), table[test].reset_index(drop=True)


def test_measures_by_hand():
    truth = np.array([[[1., 0], [0, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 0]]])
    said = np.array([[[.5, .5], [0, 0]], [[1, 1], [0, 0]], [[.2, 0], [0, 0]]])
    scores = map_scores(truth, said)
    assert scores.mse.tolist() == pytest.approx([.5 / 4, 0, .04 / 4])
    # centred: (.75 -.25 -.25 -.25) and (.25 .25 -.25 -.25): .25 / sqrt(.75 * .25)
    assert scores.correlation[:2].tolist() == pytest.approx([.25 / np.sqrt(.75 * .25), 1])
    assert scores.sim[:2].tolist() == pytest.approx([.5, 1])
    assert scores.nss[:2].tolist() == pytest.approx([1, 1]) # half a unit above a mean of a quarter, deviation a quarter
    assert scores.loc[2, ["correlation", "sim", "nss"]].isna().all()


def test_constants_are_what_they_are_called():
    random = np.random.default_rng(0)
    maps, genres = random.random((6, 16, 16)), np.array(["a", "a", "b", "b", "b", "c"])
    found = constant_maps(maps, genres, np.array(["b", "z"]))
    assert list(found) == ["zero", "centred Gaussian", "mean map", "mean map of the genre"]
    assert found["mean map of the genre"][0] == pytest.approx(maps[2:5].mean(0))
    assert found["mean map of the genre"][1] == pytest.approx(maps.mean(0)) # a genre that was not seen
    offsets = (np.arange(16) - 7.5) / 16
    bell = .7 * np.exp(-(offsets[:, None]**2 + offsets**2) / (2 * .2**2))
    again = constant_maps(bell[None], np.array(["a"]), np.array(["a"]))["centred Gaussian"][0]
    assert again == pytest.approx(bell, abs=.01)


def test_a_network_learns_where(trained):
    network, _, one, train, test = trained
    judged = stimuli.judged_stimuli(network, train, test, 32, one)
    assert judged["FCN-8s"]["correlation"]["low"] > judged["mean map of the genre"]["correlation"]["high"] + .2
    assert judged["FCN-8s"]["mse"]["high"] < judged["mean map of the genre"]["mse"]["low"] / 2
    assert judged["zero"]["correlation"]["value"] == 0


def test_a_logistic_output_and_trunks(squares):
    one = load_settings("smoke", **{**FAST, "stimuli_loss": "cross-entropy", "stimuli_epochs": 1})
    table = read_paintings(squares / "clean", labelled=False).head(10)
    network, _ = fit_stimuli(table, one)
    said = network(np.zeros((1, 64, 64, 3), "float32")).numpy()
    assert said.shape == (1, 32, 32, 1) and 0 < said.min() <= said.max() < 1
    other = {"stimuli_image_size": 64, "weights": "random"}
    for backbone in ("vgg16", "efficientnet-lite0"):
        assert stimuli_network(load_settings("smoke", backbone=backbone, **other)).output_shape[-1] == 1
    with pytest.raises(InputError, match="no stimulus maps on resnet50; there are vgg16, efficientnet-lite0"):
        stimuli_network(load_settings("smoke", backbone="resnet50", **other))


def test_the_same_seed_gives_the_same_maps(squares):
    from emoart.core.backend import seed_everything
    one, table = load_settings("smoke", stimuli_epochs=1, **FAST), read_paintings(squares / "clean", labelled=False)
    said = []
    for _ in range(2):
        seed_everything(3)
        said.append(fit_stimuli(table, one)[0].get_weights())
    assert all((a == b).all() for a, b in zip(*said))


def test_what_is_no_network_of_maps_is_told(trained, tmp_path):
    folder = trained[1]
    for broken in ({}, {"kind": "classes"}, dict(json.loads((folder / "metrics.json").read_text()), sha256="0")):
        (tmp_path / "metrics.json").write_text(json.dumps(broken))
        (tmp_path / "model.keras").write_bytes((folder / "model.keras").read_bytes())
        with pytest.raises(InputError, match="holds no network of stimulus maps"): load_stimuli(tmp_path)


def test_paintings_without_maps_are_told(smoke_gallery):
    table = read_paintings(smoke_gallery).drop(columns="stimulus_map")
    with pytest.raises(InputError, match="have no stimulus map"): stimuli.stimulus_maps(table, 32)


def test_explain_shows_stimuli_beside(trained, squares, smoke_gallery, emoart, tmp_path):
    model, out = tmp_path / "model", tmp_path / "seen"
    small = ("--profile", "smoke", "-p", "image_size=64", "-p", "shallnet_epochs=1")
    assert emoart("train", "shallnet", "--data", smoke_gallery, "--out", model, *small).returncode == 0
    pictures = [squares / "images" / f"{i}.png" for i in (0, 1)]
    said = emoart("explain", *pictures, "--model", model, "--out", out, "--stimuli", trained[1])
    assert said.returncode == 0, said.stderr
    page, told = (out / "index.html").read_text(), json.loads((out / "explanation.json").read_text())
    assert page.count("Stimulus map of") == 2 and len(list(out.glob("*-stimulus.png"))) == 2
    assert all(each["agreement"] is None or -1 <= each["agreement"] <= 1 for each in told["pictures"])
    wrong = emoart("explain", *pictures, "--model", model, "--out", tmp_path / "no", "--stimuli", tmp_path)
    assert wrong.returncode == 2 and "holds no network of stimulus maps" in wrong.stderr
    assert not (tmp_path / "no").exists()


def test_one_command_trains_a_network_of_maps(squares, emoart, tmp_path):
    small = [f"{name.removeprefix('stimuli_')}={value}" for name, value in FAST.items()]
    said = emoart("train", "stimuli", "--data", squares / "clean", "--out", tmp_path / "maps", "--profile", "smoke",
                  *(word for each in small for word in ("-p", each)))
    assert said.returncode == 0, said.stderr
    for words in ("FCN-8s: mse", "mean map of the genre: mse", "maps of 64 x 64, 12 paintings"):
        assert words in said.stdout
    assert load_stimuli(tmp_path / "maps").image_size == 64 and not (tmp_path / "maps" / "card.json").exists()
    for arguments, words in ((("--data", squares / "none"), ("no",)), ((), ("--sheet FILE or as --data FOLDER",)),
                             (("--data", squares / "clean", "--judge", "x"), ("--judge are for generators",))):
        assert_one_sentence(emoart("train", "stimuli", "--out", tmp_path / "no", *arguments), *words)


def test_paintings_of_which_too_few_have_maps(squares, tmp_path):
    shutil.copytree(squares / "clean", tmp_path / "clean")
    table = pd.read_csv(tmp_path / "clean" / "paintings.csv", dtype=str, keep_default_na=False)
    table.loc[5:, "stimulus_map"] = ""
    table.to_csv(tmp_path / "clean" / "paintings.csv", index=False)
    with pytest.raises(InputError, match="have a stimulus map, and ten are needed"):
        stimuli.paintings_with_maps(tmp_path / "clean")
