"VGG16+TL: the thesis's parameter counts, what is trained and what is not, features for images, the planted truth."
import time
from dataclasses import replace

import keras
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from emoart.core.backend import seed_everything
from emoart.core.files import InputError, find_notebook
from emoart.core.settings import load_settings
from emoart.data.clean import cleaned_gallery, read_paintings
from emoart.data.images import load_images
from emoart.evaluate.outputs import output_layers
from emoart.evaluate.run import load_data, run
from emoart.evaluate.scores import KINDS, one_hot
from emoart.models.backbones import LITE0, backbone_evidence, extractor, features
from emoart.models.transfer import fit, head, train_head, trainable_count, unfreeze, with_trunk
from emoart.run.experiments import read_cells

CLASSES = KINDS["classes"]


@pytest.fixture(scope="module")
def vgg16():
    return with_trunk(extractor("vgg16", 32, "random"), head(512))


def counted(model, *names): return sum(model.get_layer(name).count_params() for name in names)


def test_parameters_of_the_thesis(vgg16):
    said = f"{vgg16.count_params():,} parameters, of which {trainable_count(vgg16):,} are trained."
    assert any(said in text for text, _ in read_cells(find_notebook("transfer")))
    assert trainable_count(vgg16) == counted(vgg16, "FC", "SM") == 513 * 512 + 513 * 4
    assert [layer.name for layer in vgg16.layers if layer.trainable and layer.weights] == ["FC", "SM"]
    assert vgg16.get_layer("FC").units == 512 and vgg16.output_shape == (None, 4)


@pytest.mark.parametrize("blocks, names", [(0, []), (1, ["block5_conv1", "block5_conv2", "block5_conv3"]), (5, 13)])
def test_unfreezing(blocks, names, vgg16):
    unfrozen = unfreeze(vgg16, blocks)
    assert unfrozen == names or len(unfrozen) == names
    assert trainable_count(vgg16) == counted(vgg16, "FC", "SM", *unfrozen)
    with pytest.raises(InputError, match="the trunk has 5 blocks that can be unfrozen; 6 were asked for"):
        unfreeze(vgg16, 6)


def outputs(y, kind=CLASSES):
    "What `head` is given for these targets."
    return lambda **options: output_layers(y, kind, **options)


def test_training_is_repeatable_and_learns():
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 200)
    x = (random.normal(size=(200, 30)) * 5 + np.eye(4, 30)[y] * 20 + 100).astype("float32")
    t, runs = one_hot(y, 4), []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = head(30, outputs(t), 32, 0.3, 1e-3, x[:150])
        adam = keras.optimizers.Adam(0.01)
        history = train_head(model, x[:150], t[:150], (x[150:], t[150:]), adam, 32, 30, CLASSES)
        runs.append((model.get_weights(), history))
    for a, b in zip(runs[0][0], runs[1][0]): np.testing.assert_array_equal(a, b)
    assert runs[0][1] == runs[1][1] and [len(v) for v in history.values()] == [30] * 4
    assert history["val_accuracy"][-1] > 0.85 > history["val_accuracy"][0]
    p = model.predict(x[150:], verbose=0)
    assert history["val_accuracy"][-1] == pytest.approx((p.argmax(1) == y[150:]).mean())
    assert history["val_loss"][-1] == pytest.approx(-np.log(p[np.arange(50), y[150:]]).mean(), rel=1e-4)


def test_values_are_learned_in_their_units():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype("float32")
    y = np.stack([4 + x[:, 0], 300 + 50 * x[:, 1]], 1)
    model = head(6, outputs(y, KINDS["values"]), 16, train=x)
    adam = keras.optimizers.Adam(0.03)
    history = train_head(model, x[:150], y[:150], (x[150:], y[150:]), adam, 50, 100, KINDS["values"])
    p = model.predict(x[150:], verbose=0)
    assert [np.corrcoef(p[:, i], y[150:, i])[0, 1] > 0.9 for i in range(2)] == [True, True]
    assert history["val_mae"][-1] == pytest.approx(np.abs(p - y[150:]).mean(), rel=1e-4)
    assert history["val_loss"][-1] == pytest.approx(((p - y[150:]) ** 2).mean(), rel=1e-4)


def test_shares_are_learned_as_shares():
    share = np.tile([0.6, 0.4], (40, 1))
    model = head(3, outputs(share), 8)
    adam = keras.optimizers.Adam(0.05)
    train_head(model, np.ones((40, 3)), share, (np.ones((1, 3)), share[:1]), adam, 40, 200, CLASSES)
    assert model.predict(np.ones((1, 3)), verbose=0)[0] == pytest.approx([0.6, 0.4], abs=0.01)


def test_training_without_a_validation_part():
    model = head(3, outputs(np.eye(2)), 4)
    t = one_hot(np.arange(6) % 2, 2)
    history = train_head(model, np.ones((6, 3)), t, None, keras.optimizers.Adam(), 4, 2, CLASSES)
    assert {name: len(values) for name, values in history.items()} == dict(loss=2, accuracy=2)


def test_fifty_epochs_on_features_cost_little(smoke_gallery, tmp_path):
    "A second look at the features and fifty epochs on them, against VGG16's forward pass: together 1.15 passes."
    table = read_paintings(smoke_gallery, "portrait").iloc[:48]
    start = time.process_time()
    x = features(list(table.image), "vgg16", 224, tmp_path, "random")
    forward, start = time.process_time() - start, time.process_time()
    assert (features(list(table.image), "vgg16", 224, tmp_path, "random") == x).all()
    y = one_hot(table.group.to_numpy(), 4)
    train_head(head(512), x, y, (x, y), keras.optimizers.Adam(1e-3), 10, 50, CLASSES)
    assert time.process_time() - start < 0.15 * forward


@pytest.fixture(scope="module")
def dozen(smoke_gallery, tmp_path_factory):
    "Twelve portraits as evidence, and settings of theirs."
    settings = load_settings("smoke", image_size=64, cut="early", transfer_epochs=2, transfer_unfreeze_epochs=1,
                             transfer_unfreeze_learning_rate=0.01, cache=str(tmp_path_factory.mktemp("dozen")))
    table = read_paintings(smoke_gallery, "portrait").iloc[:12]
    return {"features": backbone_evidence(table, settings), "pixels": table.image.to_numpy()}, settings


def test_the_network_says_of_pictures_what_the_head_said_of_features(dozen):
    x, settings = dozen
    fitted = fit(x, np.arange(24.).reshape(12, 2), KINDS["values"], settings)
    pictures = load_images(x["pixels"][:3], 64).astype("float32")
    np.testing.assert_allclose(fitted.network()(pictures), fitted.predict(x)[:3], rtol=1e-3, atol=1e-3)
    assert fitted.facts == dict(trainable=609 * 512 + 513 * 2)


def test_unfrozen_blocks_are_trained_after_the_head_and_statistics_are_kept(dozen):
    x, settings = dozen
    settings = replace(settings, sections={"transfer": replace(settings.transfer, unfreeze=1)})
    y = one_hot(np.arange(12) % 4, 4)
    fitted = fit(x, y, CLASSES, settings, (x, y))
    assert {name: len(values) for name, values in fitted.history.items()} == dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy"), 2 + 1)
    tuned, frozen, kernel = fitted.network(), extractor(LITE0, 64, cut="early"), "blocks_14_project_conv"
    block = 192 * 1152 * 2 + 5 * 5 * 1152 # two pointwise convolutions and a depthwise one
    assert fitted.facts == dict(trainable=609 * 512 + 513 * 4 + block)
    assert not np.array_equal(tuned.get_layer(kernel).get_weights()[0], frozen.get_layer(kernel).get_weights()[0])
    for layer in frozen.layers:
        if not isinstance(layer, keras.layers.BatchNormalization): continue
        kept = tuned.get_layer(layer.name).get_weights()
        for a, b in zip(layer.get_weights(), kept): np.testing.assert_array_equal(a, b)
    pictures = load_images(x["pixels"], 64).astype("float32")
    np.testing.assert_allclose(tuned(pictures, training=False), fitted.predict(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cues, low, high", [((0, 1), 0.60, 1), ((0, 0), 0, 0.45)])
def test_planted_truth(cues, low, high, tmp_path):
    "Local cues are found, and nothing where nothing is, on a smaller gallery than the quick profile's."
    settings = load_settings("quick", backbone=LITE0, image_size=224, n_labelled=200, global_cue=cues[0],
                             local_cue=cues[1], test_share=0.4, n_bootstrap=200, cache=str(tmp_path / "cache"))
    seed_everything(settings.seed)
    with threadpool_limits(1): metrics = run("transfer", load_data(settings), settings, tmp_path)
    assert low <= metrics["test"]["balanced_accuracy"]["value"] <= high
    assert metrics["published"] is None and metrics["model"] == f"{LITE0}+TL"
