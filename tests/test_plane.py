"Words on the plane: norms, values and densities from words, how far densities are apart, a model of them."
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance, wasserstein_distance_nd

from emoart.core.files import InputError
from emoart.core.settings import load_settings
from emoart.data.clean import clean, read_paintings
from emoart.data.emotions import AFFECT, ARTEMIS_WORDS, WIKIART_WORDS, canonical
from emoart.data.gallery import expected_answers
from emoart.data.plane import (
    AFFECT_PLACES, BANDWIDTH, TWO_HILLS, earth_movers, hills, places_of, read_norms, told_density)
from emoart.data.targets import CELLS, DENSITY, GRID
from emoart.evaluate.run import load_data

WARRINER = """\
,Word,V.Mean.Sum,V.SD.Sum,A.Mean.Sum,A.SD.Sum,D.Mean.Sum
1,joy,8.2,1,5.4,2,7
2,fear,3,1,6.2,2,3.4
3,sadness,2.2,1,2.6,2,3.8
"""


@pytest.fixture(scope="module")
def sheet(tmp_path_factory, painted):
    "A table with shares of words, and one word that is in no norms."
    folder = tmp_path_factory.mktemp("words")
    images = sorted((painted() / "images").iterdir())[:6]
    (folder / "images").mkdir()
    rows = ["File,share_joy,share_fear,share_sadness,share_weltschmerz"]
    said = ("1,0,0,0", "0.5,0.5,0,0", "0,0.2,0.8,0", "0.1,0,0,0.9", "0,0,0,0", "0,1,0,0.5")
    for i, (image, shares) in enumerate(zip(images, said)):
        (folder / "images" / f"{i}{image.suffix}").write_bytes(image.read_bytes())
        rows.append(f"images/{i}{image.suffix},{shares}")
    (folder / "art.csv").write_text("\n".join(rows) + "\n")
    (folder / "norms.csv").write_text(WARRINER)
    return folder


def test_words_become_values_and_densities(sheet, tmp_path, emoart):
    assert emoart("clean", sheet / "art.csv", "--norms", sheet / "norms.csv", "--out", tmp_path).returncode == 0
    table = read_paintings(tmp_path, target="values")
    assert table.values_from.tolist() == ["words"] * 4
    expected = [[0.8, 0.1, 0.5], [0.15, 0.2, 0.05], [-0.66, -0.42, -0.32], [-0.5, 0.3, -0.4]]
    np.testing.assert_allclose(table[["valence", "arousal", "dominance"]].astype(float), expected, atol=1e-4)
    density = read_paintings(tmp_path, target="density")[list(DENSITY)].to_numpy()
    np.testing.assert_allclose(density.sum(1), 1)
    np.testing.assert_allclose(density[1], hills([[0.8, 0.1], [-0.5, 0.3]]).mean(0))
    np.testing.assert_allclose(told_density(density)[["valence"]].to_numpy()[:, 0], np.array(expected)[:, 0], atol=0.06)
    assert told_density(density).bimodality.idxmax() == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["labelled"]["density"] == summary["labelled"]["values"] == 4
    assert pd.read_csv(tmp_path / "places.csv").word.tolist() == ["joy", "fear", "sadness"]
    before = (tmp_path / "paintings.csv").read_bytes()
    clean(sheet / "art.csv", tmp_path) # the places of an earlier run still count
    assert (tmp_path / "paintings.csv").read_bytes() == before


def test_without_norms_the_target_says_what_it_needs(sheet, tmp_path):
    clean(sheet / "art.csv", tmp_path)
    with pytest.raises(InputError, match="clean the sheet again with --norms FILE"):
        read_paintings(tmp_path, target="density")


@pytest.mark.parametrize("text, why", [
    ("word,valence\njoy,1\n", "lacks arousal"), ("word,valence,arousal\njoy,1,5\n", "line 2: a place on the plane"),
    ("", "is no table of norms"), ("word,valence,arousal\njoy,NA,0\n", "line 2")])
def test_what_is_no_norms(tmp_path, text, why):
    (tmp_path / "n.csv").write_text(text)
    with pytest.raises(InputError, match=why): read_norms(tmp_path / "n.csv")


def test_the_shared_norms_place_every_word_of_wikiart_emotions(shared):
    words = {canonical(word) for word in (*WIKIART_WORDS, *ARTEMIS_WORDS)}
    norms = read_norms(shared / "words" / "BRM-emot-submit.csv")
    places = places_of(sorted(words), norms)
    assert len(norms) > 13_900 and set(places.index) == words
    assert places.loc["pessimism"].place_of == "pessimistic" and places.valence.idxmin() == "sadness"


def test_densities_are_kernel_density_estimates():
    random = np.random.default_rng(0)
    places, weights = random.uniform(-0.4, 0.4, (5, 2)), random.dirichlet(np.ones(5))
    one = [np.exp(-((CELLS - place) ** 2).sum(1) / 2 / BANDWIDTH**2) for place in places]
    np.testing.assert_allclose(weights @ hills(places), sum(w * each / each.sum() for w, each in zip(weights, one)))


def test_the_earth_movers_distance_is_exact():
    random = np.random.default_rng(1)
    p, q = random.dirichlet(np.full(GRID**2, 0.1), (2, 3))
    steps = np.linspace(-1, 1, GRID)
    along = [wasserstein_distance(steps, steps, a.reshape(GRID, GRID).sum(1), b.reshape(GRID, GRID).sum(1))
             for a, b in zip(p, q)]
    euclidean = [wasserstein_distance_nd(CELLS, CELLS, a, b) for a, b in zip(p, q)]
    found = earth_movers(p, q)
    assert (found >= along).all() and (found >= euclidean).all()
    assert (found <= np.sqrt(2) * np.array(euclidean) + 1e-6).all()
    assert earth_movers(p, p) == pytest.approx(0, abs=1e-9)
    row = np.zeros((2, GRID, GRID))
    row[0, :, 3], row[1, :, 3] = random.dirichlet(np.ones(GRID), 2) # along valence alone it is that of one dimension
    assert earth_movers(*row.reshape(2, 1, -1))[0] == pytest.approx(wasserstein_distance(steps, steps, *row[:, :, 3]))


def test_two_camps_are_seen():
    sad_or_amused, glad = hills([[-0.7, -0.4], [0.7, 0.2]]).mean(0), hills([[0.7, 0.2]])[0]
    assert (told_density([sad_or_amused, glad]).bimodality > TWO_HILLS).tolist() == [True, False]


def test_the_gallery_s_density_is_where_its_viewers_words_lie(painted):
    settings = load_settings("smoke", target="density", n_viewers=10, genre="")
    folder = painted("smoke", n_viewers=10)
    data = load_data(settings, str(folder))
    assert data.y.shape == (len(data.paintings), GRID**2) and data.names[0] == "v1a1"
    said = told_density(data.y)[["valence", "arousal"]].to_numpy()
    shares = data.paintings.filter(like="share_").astype(float)
    shares = shares.div(shares.sum(axis=1), axis=0)
    placed = shares.rename(columns=lambda column: column.removeprefix("share_")) @ AFFECT_PLACES.loc[
        [column.removeprefix("share_") for column in shares]]
    assert np.abs(said - placed.to_numpy()).max() < 0.12 # hills at the rim lean inwards
    assert set(AFFECT) == set(AFFECT_PLACES.index) and expected_answers(["1.00 joy"]).valence[0] > 0.9


def test_a_density_is_learned_and_told(painted, emoart, tmp_path):
    options = ("--profile", "smoke", "-pimage_size=64", "-ptarget=density", "-pgenre=", "-ptransfer_epochs=2")
    done = emoart("train", "transfer", "--data", painted("smoke", n_viewers=10), "--out", tmp_path / "m", *options)
    assert done.returncode == 0, done.stderr
    picture = next((painted("smoke", n_viewers=10) / "images").iterdir())
    shown = emoart("predict", picture, "--model", tmp_path / "m")
    assert shown.stdout.splitlines()[0].split() == ["picture", "valence", "arousal", "spread", "bimodality"]
    answer, = json.loads(emoart("predict", picture, "--model", tmp_path / "m", "--json").stdout)
    shares = answer["probabilities"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4) and len(shares) == GRID**2
