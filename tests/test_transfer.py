"VGG16+TL: the thesis's parameter counts, features instead of images, what is trained and what is not, and the planted truth."
import json
import time

import keras
import numpy as np
import pytest
from test_notebooks import execute

from emoart.models import backbones
from emoart.models.backbones import extractor, features
from emoart.core.settings import load_settings
from emoart.models.transfer import head, join, train_head, trainable_count, unfreeze

LITE = backbones.LITE0


@pytest.fixture(scope="module")
def vgg16():
    return join(extractor("vgg16", weights="random"), head(512))


def test_parameters_of_the_thesis(vgg16):
    assert vgg16.count_params() == 14_979_396 and trainable_count(vgg16) == 264_708
    assert [layer.name for layer in vgg16.layers if layer.trainable and layer.weights] == ["FC", "SM"]
    assert vgg16.get_layer("FC").units == 512 and vgg16.output_shape == (None, 4)


@pytest.mark.parametrize("blocks, names", [(0, []), (1, ["block5_conv1", "block5_conv2", "block5_conv3"]), (5, 13)])
def test_unfreezing(blocks, names, vgg16):
    unfrozen = unfreeze(vgg16, blocks)
    assert unfrozen == names or len(unfrozen) == names
    assert trainable_count(vgg16) == 264_708 + sum(vgg16.get_layer(name).count_params() for name in unfrozen)


def test_batch_normalization_keeps_its_statistics():
    model = join(extractor(LITE, 64, "random"), head(608))
    unfreeze(model, 2)
    before = {w.path: w.numpy() for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) for w in layer.weights}
    kernel = model.get_layer("blocks_14_project_conv").get_weights()[0]
    model.compile("adam", "categorical_crossentropy")
    model.fit(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype("float32"), np.eye(4), epochs=1, verbose=0)
    assert not np.array_equal(kernel, model.get_layer("blocks_14_project_conv").get_weights()[0])
    after = {w.path: w.numpy() for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) for w in layer.weights}
    for path in before: np.testing.assert_array_equal(before[path], after[path])


def test_training_is_repeatable_and_learns():
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 200)
    x = (random.normal(size=(200, 30)) * 5 + np.eye(4, 30)[y] * 20 + 100).astype("float32")
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = head(30, 4, 32, 0.3, 1e-3, x[:150])
        history = train_head(model, x[:150], np.eye(4)[y[:150]], (x[150:], np.eye(4)[y[150:]]), keras.optimizers.Adam(0.01), 32, 30)
        runs.append((model.get_weights(), history))
    for a, b in zip(runs[0][0], runs[1][0]): np.testing.assert_array_equal(a, b)
    assert runs[0][1] == runs[1][1] and [len(v) for v in history.values()] == [30] * 4
    assert history["val_accuracy"][-1] > 0.85 > history["val_accuracy"][0]
    p = model.predict(x[150:], verbose=0)
    assert history["val_accuracy"][-1] == pytest.approx((p.argmax(1) == y[150:]).mean())
    assert history["val_loss"][-1] == pytest.approx(-np.log(p[np.arange(50), y[150:]]).mean(), rel=1e-4)


def test_soft_labels_are_learned_as_shares():
    share = np.tile([0.6, 0.4], (40, 1))
    model = head(3, 2, 8)
    train_head(model, np.ones((40, 3)), share, (np.ones((1, 3)), share[:1]), keras.optimizers.Adam(0.05), 40, 200)
    assert model.predict(np.ones((1, 3)), verbose=0)[0] == pytest.approx([0.6, 0.4], abs=0.01)


def test_fifty_epochs_on_features_cost_little(smoke_gallery, tmp_path):
    "A second look at the features and fifty epochs on them, against VGG16's forward pass: together at most 1.15 passes."
    from emoart.data.clean import read_paintings
    table = read_paintings(smoke_gallery, "portrait").iloc[:48]
    start = time.process_time()
    x = features(list(table.image), "vgg16", 224, tmp_path, "random")
    forward, start = time.process_time() - start, time.process_time()
    assert (features(list(table.image), "vgg16", 224, tmp_path, "random") == x).all()
    train_head(head(512), x, np.eye(4)[table.group], (x, np.eye(4)[table.group]), keras.optimizers.Adam(1e-3), 10, 50)
    assert time.process_time() - start < 0.15 * forward


def test_unfreezing_in_the_notebook(smoke_gallery, tmp_path):
    execute("33_transfer", tmp_path, paintings=str(smoke_gallery), out=str(tmp_path), image_size=64, epochs=2, unfreeze=1, unfreeze_epochs=1)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    block = 192 * 1152 * 2 + 5 * 5 * 1152 # two pointwise convolutions and a depthwise one
    assert metrics["trainable"] == 608 * 512 + 512 + 512 * 4 + 4 + block
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("cues, low, high", [((0, 1), 0.60, 1), ((0, 0), 0, 0.45)])
def test_planted_truth(cues, low, high, tmp_path):
    "Local cues are found, and nothing is found where nothing is (issue, Shows 1), on a smaller gallery than the quick profile's."
    from emoart.data.clean import cleaned_gallery
    settings = load_settings("quick", n_labelled=240, global_cue=cues[0], local_cue=cues[1], cache=str(tmp_path / "cache"))
    execute("33_transfer", tmp_path, profile="quick", paintings=str(cleaned_gallery(settings)), out=str(tmp_path), test_share=0.4, n_bootstrap=200)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert low <= metrics["test"]["balanced_accuracy"]["value"] <= high
    assert metrics["published"] is None and metrics["model"] == f"{LITE}+TL"
