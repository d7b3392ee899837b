"Texture and colour: the libraries' own values on any picture, measured once, and a machine that survives rare classes."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.feature import graycomatrix, graycoprops

from emoart.core.settings import load_settings
from emoart.evaluate.scores import KINDS
from emoart.models import texture_svm
from emoart.models.texture_svm import BINS, PROPERTIES, appearance, co_occurrence, colour_histograms, texture_evidence

ANGLES = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 30), st.sampled_from([1, 2, 7, 256]))
def test_properties_are_those_of_scikit_image(seed, height, width, levels):
    drawn = np.random.default_rng(seed).integers(0, levels, (height, width))
    grey = (drawn * (255 // max(1, levels - 1))).astype("uint8")
    matrix = graycomatrix(grey, [1], ANGLES, 256, symmetric=True, normed=True)
    assert co_occurrence(grey) == pytest.approx([graycoprops(matrix, name).mean() for name in PROPERTIES], abs=1e-9)


def test_histograms_are_those_of_the_library():
    colour = pytest.importorskip("colour")
    image = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3)).astype("uint8")
    seen = colour.XYZ_to_CIECAM02(colour.sRGB_to_XYZ(image[0].reshape(-1, 3) / 255) * 100, [95.05, 100, 108.88],
                                  64 / np.pi * .2, 20)
    hue = np.histogram(seen.h, BINS, (0, 360))[0] / 600
    assert colour_histograms(image)[0, 2 * BINS:3 * BINS] == pytest.approx(hue)
    assert appearance(image[0, 0])[:, 0] == pytest.approx(seen.J[:30])


def test_pictures_are_measured_once(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths): Image.new("RGB", (40, 30), (80 * i, 9, 200)).save(path)
    paintings = pd.DataFrame(dict(image=[*map(str, paths), str(paths[0])]))
    one = load_settings("smoke", cache=str(tmp_path / "cache"))
    first = texture_evidence(paintings, one)
    assert first.shape == (4, len(texture_svm.TEXTURE)) and (first[0] == first[3]).all()
    assert np.isfinite(first).all()
    monkeypatch.setattr(texture_svm, "texture_features", None)
    assert (texture_evidence(paintings, one) == first).all()


@pytest.mark.parametrize("counts", [(20, 3, 1), (6, 0, 0), (2, 1, 1), (30, 30, 30)])
def test_rare_classes_get_nothing(counts):
    y = np.eye(3)[np.repeat(range(3), counts)]
    values = np.random.default_rng(0).normal(size=(len(y), 4)) + y.argmax(1)[:, None]
    said = texture_svm.fit({"texture": values}, y, KINDS["classes"], None).predict({"texture": values})
    assert said.sum(1) == pytest.approx(1) and said.shape == y.shape
    learned = [n >= 5 for n in counts] if max(counts) >= 5 else [True, False, False]
    assert (said.max(0) > 0).tolist() == learned
