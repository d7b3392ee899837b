"Values: ridge regression as a network, intervals that hold, themes that stay together, numbers with their widths."
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import Ridge

from emoart.core.files import NotRun
from emoart.core.settings import load_settings
from emoart.data.clean import clean
from emoart.evaluate.run import load_data
from emoart.models.predict import load_model, predict, prediction_table
from emoart.models.values import PENALTIES, category_evidence, half_widths, value_head


def test_the_network_is_ridge_regression():
    random = np.random.default_rng(0)
    x, y = random.normal(3, 2, (80, 12)).astype("float32"), random.normal(5, 1, (80, 2))
    said = value_head(x, y)(x).numpy()
    scaled = (x - x.mean(0)) / x.std(0)
    for column in range(2):
        each = [Ridge(penalty).fit(scaled, y[:, column]).predict(scaled) for penalty in PENALTIES]
        assert min(np.abs(said[:, column] - fitted).max() for fitted in each) < 1e-3


def test_nine_in_ten_lie_in_their_interval():
    random = np.random.default_rng(1)
    x = random.normal(size=(1200, 6)).astype("float32")
    y = x[:, :2] + random.normal(0, [0.5, 2], (1200, 2))
    widths = np.array(half_widths(x[:400], y[:400], np.arange(400), 0))
    inside = (np.abs(value_head(x[:400], y[:400])(x[400:]).numpy() - y[400:]) <= widths).mean(0)
    assert (abs(inside - 0.9) < 0.04).all() and widths[1] > 3 * widths[0]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    "Sixty plain pictures of twenty themes in OASIS's layout; brightness is valence, redness arousal."
    folder, random = tmp_path_factory.mktemp("oasis"), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = ["Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N,file"]
    for i in range(60):
        light, red = random.integers(20, 200), random.integers(0, 55)
        pixels = np.clip(np.array([light + red, light, light]) + random.integers(-9, 9, (64, 64, 3)), 0, 255)
        Image.fromarray(pixels.astype("uint8")).save(folder / "images" / f"{i}.png")
        name, kind = f"{'abcdefghijklmnopqrst'[i // 3]}ing {i % 3 + 1}", ("Object", "Animal")[i // 3 % 2]
        rows.append(f"{name},{kind},x,{1 + light / 40:.3f},1,100,{1 + red / 12:.3f},1,100,images/{i}.png")
    (folder / "oasis.csv").write_text("\n".join(rows) + "\n")
    clean(folder / "oasis.csv", folder / "clean")
    return folder


def test_one_command_trains_and_numbers_have_their_width(photographs, emoart, tmp_path):
    options = ("--profile", "smoke", "-p", "image_size=64", "-p", "fold_by=theme", "-p", "n_folds=3")
    said = emoart("train", "values", "--data", photographs / "clean", "--out", tmp_path / "m", *options)
    assert said.returncode == 0, said.stderr
    assert "efficientnet-lite0+ridge: pearson" in said.stdout and "  valence: pearson" in said.stdout
    card = load_model(tmp_path / "m").card
    assert card["target"] == "values" and len(card["half_widths"]) == 2
    assert card["metrics"]["cross_validated"]["columns"]["valence"]["pearson"]["value"] > 0.8
    picture = photographs / "images" / "7.png"
    answer, = predict([picture], tmp_path / "m")
    for name, width in zip(("valence", "arousal"), card["half_widths"]):
        low, high = answer["intervals"][name]
        assert low < answer["values"][name] < high and high - low == pytest.approx(2 * width)
    shown = emoart("predict", picture, "--model", tmp_path / "m").stdout.splitlines()
    assert shown[0].split() == ["picture", "valence", "arousal"] and shown[1].count("±") == 2
    plain = prediction_table([answer], ascii_only=True)
    assert plain.isascii() and plain.count("+-") == 2
    assert json.loads(emoart("predict", picture, "--model", tmp_path / "m", "--json").stdout)


def test_folds_by_theme(photographs):
    settings = load_settings("smoke", target="values", genre="", fold_by="theme")
    data = load_data(settings, str(photographs / "clean"))
    themes = data.paintings.theme.str.split().str[0]
    assert data.paintings.picture.nunique() == 20
    assert all(data.held_out[themes == theme].std() == 0 for theme in themes.unique())
    assert category_evidence(data.paintings, settings).sum(1).tolist() == [1] * 60


def test_pictures_without_a_category_are_not_run():
    with pytest.raises(NotRun, match="have no category"):
        category_evidence(pd.DataFrame(dict(category=["", ""])), load_settings("smoke"))
