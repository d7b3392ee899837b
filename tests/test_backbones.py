"Frozen trunks: weights from everywhere they may come from, what they are fed, and that nothing is computed twice."
import hashlib
import importlib
import os
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import vgg16 as keras_vgg16
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils
from PIL import Image

from emoart.core.checkpoints import load_pth, read_pth
from emoart.core.files import InputError, NotRun
from emoart.models import backbones
from emoart.models.backbones import LITES, efficientnet_lite, extractor, features, lite_file, trunk


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(11)]
    for path in paths: Image.fromarray(random.integers(0, 256, (64, 48, 3), np.uint8)).save(path)
    return paths


def test_a_trunk_is_not_made_of_what_is_no_weights_file(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="w.pth is not a table"): trunk(size=32, weights=tmp_path / "w.pth")
    with pytest.raises(InputError, match="cannot read .*none.pth: No such file"): read_pth(tmp_path / "none.pth")


@pytest.fixture(scope="module", params=LITES)
def lite(request):
    "An EfficientNet-Lite with its top, and the file of its weights."
    model, file = efficientnet_lite(request.param, top=True), lite_file(request.param)
    load_pth(model, file)
    return model, file


def test_every_stored_tensor_is_used_and_changed_ones_are_seen(lite):
    def total(arrays): return sum(float(np.abs(array).sum(dtype=float)) for array in arrays)
    model, file = lite
    stored = [array for name, array in read_pth(file).items() if not name.endswith("num_batches_tracked")]
    assert model.count_params() == sum(array.size for array in stored)
    assert total(model.get_weights()) == pytest.approx(total(stored), rel=1e-6)
    seven = keras.layers.Dense(7, name="fc")(model.get_layer("avg_pool").output)
    with pytest.raises(InputError, match="no weights for fc"): load_pth(keras.Model(model.input, seven), file)


def test_they_name_known_pictures(lite):
    data = Path(pytest.importorskip("skimage").__file__).parent / "data"
    files = [data / name for name in ("chelsea.png", "coffee.png", "motorcycle_left.png")]
    best = lite[0].predict(backbones.load_images(files, 224), verbose=0).argmax(1)
    assert best[0] in (281, 282, 285) and best[1] in (967, 968) and best[2] in (665, 670)


@pytest.mark.parametrize("backbone, size, d", [
    ("vgg16", 64, 512), ("MobileNetV2", 96, 1280), ("EfficientNetB0", 64, 1280), ("mobilenet_v3-small", 64, 576)])
def test_preprocessing_is_inside(backbone, size, d, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype("float32")
    inside, function = trunk(backbone, size, "random"), backbones._APPLICATIONS[backbones._plain(backbone)]
    prepared = importlib.import_module(function.__module__).preprocess_input(image.copy())
    plain = function(include_top=False, weights=None, input_shape=(size, size, 3))
    plain.set_weights(inside.get_weights())
    ours, theirs = inside(image, training=False), plain(prepared, training=False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(backbones, "trunk", lambda *_: inside) # making it a second time takes seconds
    assert extractor(backbone, size, "random").output_shape == (None, d)


@pytest.mark.parametrize("backbone, cut, d", [
    ("efficientnet-lite0", "own", None), ("efficientnet-lite0", "early", 608), ("efficientnet-lite1", "late", 1792),
    ("efficientnet-lite2", "late", 208 + 352 + 1280), ("vgg16", "last", 512), ("MobileNetV2", "own", 1280),
    ("several", "last", 3 * 1280), ("MobileNetV2+vgg16", "own", 1280 + 512)])
def test_cuts_by_name(backbone, cut, d):
    model = extractor(backbone, 32, "random", cut)
    assert model.output_shape == (None, d or model.output_shape[1]) and not model.trainable
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names))


def test_a_cut_that_there_is_not():
    with pytest.raises(InputError, match="vgg16 has no cut 'late'; it has last, own"):
        extractor("vgg16", 32, "random", "late")
    with pytest.raises(InputError, match="weights of several backbones"): extractor("several", 32, "mine.pth")


def test_several_see_what_each_sees():
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    names = ("efficientnet-lite1", "efficientnet-lite2")
    each = [extractor(name, 64, cut="late")(image) for name in names]
    np.testing.assert_allclose(extractor("+".join(names), 64, cut="late")(image), np.hstack(each), rtol=1e-4, atol=1e-4)


def test_features_are_computed_once(pictures, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = features(pictures, "MobileNetV2", 64, cache, "random")
    assert first.shape == (11, 1280) and first.dtype == np.float32
    monkeypatch.setattr(backbones, "load_images", lambda *_: pytest.fail("a picture was read again"))
    shutil.copy(pictures[0], tmp_path / "copy.png") # the content counts, not the name
    again = features([*pictures[::-1], tmp_path / "copy.png"], "MobileNetV2", 64, cache, "random")
    np.testing.assert_array_equal(again, [*first[::-1], first[0]])
    assert not [p for p in cache.rglob("*") if p.name.startswith(".")]


def test_features_do_not_depend_on_what_is_in_the_cache(pictures, tmp_path):
    together = features(pictures, size=64, cache=tmp_path / "a")
    features(pictures[3:5], size=64, cache=tmp_path / "b")
    np.testing.assert_array_equal(features(pictures, size=64, cache=tmp_path / "b"), together)
    arrays = backbones.load_images(pictures, 64)
    np.testing.assert_array_equal(features(arrays, size=64, cache=tmp_path / "c"), together)


def test_another_size_or_other_weights_are_other_features(pictures, tmp_path):
    a = features(pictures[:2], size=64, cache=tmp_path)
    for changed in (dict(size=64, resize="pad"), dict(size=96), dict(size=64, weights="random")):
        other = features(pictures[:2], cache=tmp_path, **changed)
        assert other.shape == a.shape and not np.allclose(other, a)
    assert features(pictures[:2], size=64, cache=tmp_path, cut="last").shape == (2, 1280)


def save_as_published(model, path):
    "Weights in the layout of the files that Keras publishes."
    with h5py.File(path, "w") as file: legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_local_vgg16_weights(tmp_path):
    source = trunk("vgg16", 32, "random")
    source.save_weights(tmp_path / "vgg.weights.h5")
    save_as_published(source, tmp_path / "published.h5")
    for name in ("vgg.weights.h5", "published.h5"):
        loaded = trunk("VGG16", 48, tmp_path / name)
        for a, b in zip(source.get_weights(), loaded.get_weights()): np.testing.assert_array_equal(a, b)
    for backbone, sentence in (("vgg19", "does not hold weights of VGG19"),
                               ("EfficientNetB0", "takes its weights from Keras only")):
        with pytest.raises(InputError, match=sentence): trunk(backbone, 32, tmp_path / "vgg.weights.h5")


def test_imagenet_weights_are_downloaded_and_checked(server, tmp_path, monkeypatch):
    folder, address = server
    monkeypatch.setattr(keras_vgg16, "WEIGHTS_PATH_NO_TOP", f"{address}/vgg.h5")
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    with pytest.raises(NotRun, match="VGG16's ImageNet weights cannot be had.*404"): trunk("vgg16", 32)
    save_as_published(source := trunk("vgg16", 32, "random"), folder / "vgg.h5")
    with pytest.raises(NotRun, match="hash does not match"): trunk("vgg16", 32) # not the file that Keras knows
    digest = hashlib.md5((folder / "vgg.h5").read_bytes()).hexdigest()
    get_file = file_utils.get_file
    def as_published(fname, origin, cache_subdir, file_hash):
        return get_file("vgg.h5", origin, cache_subdir=cache_subdir, file_hash=digest)
    monkeypatch.setattr(keras_vgg16.file_utils, "get_file", as_published)
    for a, b in zip(source.get_weights(), trunk("vgg16", 32).get_weights()): np.testing.assert_array_equal(a, b)


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_vgg16, "WEIGHTS_PATH_NO_TOP", "http://127.0.0.1:9/vgg.h5")
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    sentence = "VGG16's ImageNet weights cannot be had"
    with pytest.raises(NotRun, match=sentence): features([], "vgg16", 32, tmp_path)


def test_bfloat16_only_where_the_processor_has_it(pictures, tmp_path, monkeypatch):
    few = pictures[:2]
    if backbones.has_bfloat16():
        exact, rough = (features(few, size=64, cache=tmp_path, dtype=dtype) for dtype in ("float32", "bfloat16"))
        assert 0 < np.abs(exact - rough).max() and np.corrcoef(exact[0], rough[0])[0, 1] > 0.99
        assert keras.config.dtype_policy().name == "float32"
    monkeypatch.setattr(backbones, "has_bfloat16", lambda: False)
    for dtype, sentence in (("bfloat16", "no bfloat16"), ("float16", "float32, bfloat16 or auto")):
        with pytest.raises(InputError, match=sentence): features(few, size=80, cache=tmp_path, dtype=dtype)


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    "Presets of keras-hub with two small layers, as folders: DINOv2's kind, CLIP's, and a convolutional one."
    hub = pytest.importorskip("keras_hub")
    folder, small = tmp_path_factory.mktemp("presets"), dict(num_layers=1, num_heads=2, hidden_dim=16)
    sees = hub.models.CLIPVisionEncoder(8, intermediate_dim=32, image_shape=(32, 32, 3), **small)
    reads = hub.models.CLIPTextEncoder(50, 16, 16, 1, 2, 32, max_sequence_length=8)
    made = {
        "dinov2": hub.models.DINOV2Backbone(14, intermediate_dim=32, image_shape=(56, 56, 3), **small),
        "clip": hub.models.CLIPBackbone(sees, reads, 16),
        "resnet": hub.models.ResNetBackbone([64], [3], [64], [1], [1], "basic_block", image_shape=(None, None, 3))}
    for name, backbone in made.items():
        backbone.save_to_preset(folder / name)
        hub.layers.ImageConverter(scale=1 / 127.5, offset=-1.0).save_to_preset(folder / name)
    return folder, made


@pytest.mark.parametrize("name, maps", [("dinov2", (4, 4, 16)), ("clip", (4, 4, 16)), ("resnet", None)])
def test_a_preset_of_keras_hub_is_a_backbone(presets, name, maps):
    folder, made = presets
    size = 32 if name == "clip" else 56
    image = np.random.default_rng(2).integers(0, 256, (2, size, size, 3)).astype("float32")
    model = trunk(f"keras-hub-{name}", size, folder / name)
    own = made[name].vision_encoder if name == "clip" else made[name]
    theirs = np.asarray(own(image / 127.5 - 1))
    ours = np.asarray(model(image))
    if maps:
        assert ours.shape[1:] == maps
        theirs = theirs[:, -16:].reshape(ours.shape)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert extractor(f"keras-hub-{name}", 64, folder / name).output_shape == (None, ours.shape[-1])
    model.save(folder / f"{name}.keras")
    np.testing.assert_allclose(keras.saving.load_model(folder / f"{name}.keras")(image), ours, atol=1e-5)


def test_a_preset_that_cannot_be_had(presets, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is no preset of keras-hub"): trunk("keras-hub-dinov2_base", 56, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be had"): trunk("keras-hub-dinov2_base", 56, tmp_path)
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(NotRun, match="needs keras-hub; pip install"): trunk("keras-hub-dinov2_base")
