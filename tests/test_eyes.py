"The study behind the default backbone: columns of cuts, judges that find what is planted, the committed tables."
import numpy as np
import pandas as pd
import pytest

from emoart.core.files import ROOT, InputError
from emoart.core.settings import load_settings
from emoart.evaluate.scores import one_hot
from emoart.findings import eyes
from emoart.models.backbones import LITES, features

SETTINGS = load_settings("smoke", n_bootstrap=100)


@pytest.mark.parametrize("backbone", LITES)
def test_columns_of_a_cut_are_its_features(backbone, smoke_gallery, tmp_path):
    images = sorted((smoke_gallery / "images").iterdir())[:2]
    whole = features(images, backbone, 64, tmp_path, cut="both")
    for cut in eyes.CUT_NAMES:
        found = whole[:, eyes.cut_columns(backbone, cut)]
        np.testing.assert_allclose(found, features(images, backbone, 64, tmp_path, cut=cut), rtol=1e-4, atol=1e-4)


def test_judges_find_what_is_there_and_nothing_else():
    random, n = np.random.default_rng(0), 120
    themes, x = np.repeat(np.arange(40), 3).astype(str), random.normal(size=(n, 5))
    seen = x[:, :2] + random.normal(0, 0.2, (n, 2))
    for y, low, high in ((seen, 0.9, 1), (random.normal(size=(n, 2)), -0.5, 0.3)):
        rows = eyes.photograph_rows(x, y, themes, SETTINGS, cut="both")
        assert [row["data"] for row in rows] == ["photographs, valence", "photographs, arousal"]
        assert all(low <= row["score"] <= high and row["low"] <= row["score"] <= row["high"] for row in rows)
    x = random.normal(size=(1200, 5))
    row = eyes.gallery_row(x, one_hot(2 * (x[:, 0] > 0) + (x[:, 1] > 0), 4), "gallery", SETTINGS, size=1)
    assert row["score"] > 0.75 and row["size"] == 1


def test_themes_stay_together():
    x = np.repeat(np.eye(30), 4, axis=0) # the picture tells its theme and nothing else
    y = np.repeat(np.random.default_rng(1).normal(size=(30, 2)), 4, axis=0)
    apart = eyes.photograph_rows(x, y, np.repeat(np.arange(30), 4).astype(str), SETTINGS)
    divided = eyes.photograph_rows(x, y, np.arange(120).astype(str), SETTINGS)
    assert all(row["score"] < 0.3 for row in apart) and all(row["score"] > 0.9 for row in divided)


def test_photographs_without_themes_are_told(smoke_gallery, tmp_path):
    with pytest.raises(InputError): eyes._photographs(smoke_gallery)


def test_differences_are_paired(tmp_path):
    random = np.random.default_rng(0)
    truth = np.arange(60) % 2
    folds = np.stack([random.permutation(60) % 5 for _ in range(2)])
    told = one_hot(truth, 2) * 0.2 + 0.4
    good, bad = (np.clip(told + random.normal(0, noise, (2, 60, 2)), 0.01, 1) for noise in (0.05, 1))
    for name, said, divided in (("new", good, folds), ("old", bad, folds), ("other", bad, folds[::-1])):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "predictions.npz", truth=truth, folds=divided, TL=said)
    rows = eyes.paired_rows(tmp_path / "new", tmp_path / "old", {"transfer": ("TL", "TL")})
    assert rows[0]["metric"] == "auc" and rows[0]["mean"] > 0.2 and rows[0]["low"] > 0
    with pytest.raises(InputError, match="other folds"):
        eyes.paired_rows(tmp_path / "new", tmp_path / "other", {"transfer": ("TL", "TL")})


def test_the_defaults_are_what_the_study_found():
    table, quick = pd.read_csv(ROOT / "reports" / "eyes.csv"), load_settings("quick")
    table = table[table.resize == "stretch"]
    means = table.pivot_table(index=["network", "size", "cut"], columns="data", values="score")
    chosen = means.loc["several", quick.image_size, "both"]
    assert quick.backbone == "several" and quick.cut == "own" and len(means) == 32
    assert (means.rank(pct=True).mean(axis=1).idxmax()) == ("several", quick.image_size, "both")
    assert chosen["photographs, valence"] >= 0.45 and chosen["photographs, arousal"] >= 0.66
    heads = pd.read_csv(ROOT / "reports" / "eyes_head.csv")
    assert ((heads.weight_decay == quick.transfer.weight_decay) & (heads.dropout == quick.transfer.dropout)).any()
