"Ways of writing emotion down: each read as the others, out of fold; models of photographs asked of paintings."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from emoart.core.settings import load_settings
from emoart.data.plane import hills, told_density
from emoart.data.splits import repeated_folds
from emoart.findings import photographs, representations
from emoart.findings.representations import (
    CONSTANT, Said, alone_rows, fit_way, judged, predicted_ways, quadrants, read_as, said_of_gallery,
    said_of_photographs, way_rows, ways)

PLACES = np.array([[0.8, 0.3], [-0.6, 0.7], [-0.7, -0.6], [0.5, -0.7]])
SETTINGS = load_settings("smoke", transfer_epochs=20, n_bootstrap=100)


def made_up(n=120, told=True, seed=0):
    "Pictures whose features tell the shares of four words, or tell nothing."
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(4, 0.5), n)
    x = np.log(shares + 0.05) @ random.normal(size=(4, 12)) if told else random.normal(size=(n, 12))
    return Said(x.astype("float32"), shares @ PLACES, shares, shares @ hills(PLACES), np.arange(n), {})


def test_what_was_said_is_read_as_it_was_said():
    said = made_up()
    centre = np.median(said.values, axis=0)
    for way, (y, _) in ways(said, centre).items():
        read = read_as(way, y, said, centre)
        found = {measure: each.mean() for measure, each in judged(said, read, centre).items()}
        if way in ("distribution", "density"):
            assert found["quadrant"] > 0.97 and found["distance"] < 0.02 and found["density KL"] < 0.05
        if way == "two values": assert found["quadrant"] == 1 and found["distance"] == 0
        if way == "quadrant": assert found["quadrant"] == 1 and found["distance"] > 0.1
        assert found["earth mover's"] >= 0 and read["shares"].sum(1) == pytest.approx(1)


@pytest.fixture(scope="module")
def learned():
    said, patch = made_up(), pytest.MonkeyPatch()
    patch.setattr(representations, "PENALTIES", (1e-3,))
    folds = repeated_folds(np.zeros(120, int), said.groups, 2, 1, 0, classes=False)
    yield said, folds, predicted_ways(said, folds, SETTINGS, say=lambda line: None)
    patch.undo()


def test_every_way_beats_the_constant_where_features_tell(learned):
    said, folds, (measured, raw) = learned
    rows, tests = way_rows(replace(said, parts={"odd": np.arange(120) % 2 == 1}), measured, folds, SETTINGS, data="d")
    table = pd.DataFrame(rows)
    assert set(table.part) == {"all", "odd"} and (table.low <= table.score).all() and (table.score <= table.high).all()
    found = table[table.part == "all"].pivot(index="what", columns="metric", values="score")
    for way in found.index.drop(CONSTANT):
        assert found.loc[way, "quadrant"] > found.loc[CONSTANT, "quadrant"] + 0.2
        assert found.loc[way, "distance"] < found.loc[CONSTANT, "distance"]
    assert {test["b"] for test in tests} == {"two values", CONSTANT} and len(tests) == 2 * 6 * (4 + 5)
    spread, _ = alone_rows(said, raw, folds, SETTINGS)
    assert spread["score"] > 0.3 and told_density(said.density).spread.std() > 0


def test_what_is_judged_is_not_learned(learned):
    said, folds, (_, raw) = learned
    first = folds[0] == 0
    values, shares = said.values.copy(), said.shares.copy()
    values[first], shares[first] = -values[first], shares[first][:, ::-1]
    _, other = predicted_ways(replace(said, values=values, shares=shares), folds, SETTINGS, say=lambda line: None)
    for way in ("leading word", "two values"):
        np.testing.assert_array_equal(raw[way][0, first], other[way][0, first])
        assert (raw[way][0, ~first] != other[way][0, ~first]).any()


def test_where_features_tell_nothing_the_penalty_holds_it_at_the_constant():
    said, known = made_up(told=False), np.arange(120) < 90
    p = fit_way(said.x[known], said.shares[known], "distribution", said.groups[known], SETTINGS)(said.x[~known])
    def kl(p): return (said.shares[~known] * np.log(said.shares[~known] / p)).sum(1).mean()
    assert kl(p) > 0.97 * kl(said.shares[known].mean(0))


def test_the_gallery_knows_which_paintings_mix(painted):
    folder = painted("smoke", n_viewers=10)
    settings = load_settings("smoke", cache=str(folder.parent), n_viewers=10, genre="", image_size=64, weights="random")
    said = said_of_gallery(settings)
    one, mixed = said.parts["one emotion"], said.parts["mixtures"]
    assert (one ^ mixed).all() and 0.1 < one.mean() < 0.6
    assert said.shares[one].max(1).mean() == pytest.approx(1) and said.shares[mixed].max(1).mean() < 0.9
    assert said.values.shape[1] == 2 and quadrants(said.values, np.zeros(2)).max() == 3


def test_photographs_keep_their_deviations(tmp_path, painted):
    from emoart.data.clean import clean
    (tmp_path / "images").mkdir()
    rows = ["Theme,Category,Valence_mean,Valence_SD,Arousal_mean,Arousal_SD,File"]
    for i, image in enumerate(sorted((painted() / "images").iterdir())[:4]):
        (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
        rows.append(f"Acorns {i},Object,{1 + 2 * i},{0.5 + i / 3},4,1,images/{image.name}")
    (tmp_path / "oasis.csv").write_text("\n".join(rows) + "\n")
    clean(tmp_path / "oasis.csv", tmp_path / "clean")
    said = said_of_photographs(tmp_path / "clean", load_settings("smoke", image_size=64, weights="random"))
    assert said.values[:, 0].tolist() == [-1, pytest.approx(-1 / 3), pytest.approx(1 / 3), 1]
    assert said.shares is None and set(said.groups) == {"acorns"}
    spread = told_density(said.density).spread
    assert spread[2] > spread[1]


def test_a_model_of_photographs_is_asked_of_paintings_that_nobody_learned():
    known, asked = made_up(seed=1), made_up(80, seed=1)
    folds = repeated_folds(np.zeros(80, int), asked.groups, 4, 1, 0, classes=False)
    said = photographs.asked_of_paintings(known, asked, folds)
    turned = photographs.asked_of_paintings(known, replace(asked, values=-asked.values), folds)
    for name, p in said.items():
        r = np.corrcoef(p[0, :, 0], asked.values[:, 0])[0, 1]
        assert r > 0.5, name
        if name in (photographs.ALONE, photographs.BROUGHT): np.testing.assert_array_equal(p, turned[name])
    np.testing.assert_allclose(said[photographs.PAINTINGS], -turned[photographs.PAINTINGS], atol=1e-6)
