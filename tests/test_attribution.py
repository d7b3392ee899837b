"Maps of what a model sees: against two other libraries, against what is known exactly, and as a user asks for them."
import json
import re
import time
import warnings
from hashlib import sha256
from importlib.util import find_spec
from urllib.parse import unquote

import keras
import numpy as np
import pandas as pd
import papermill
import pytest
from conftest import assert_one_sentence
from keras import layers
from matplotlib import colormaps
from PIL import Image

from emoart.core.files import NOTEBOOKS, InputError, find_notebook
from emoart.core.settings import load_settings
from emoart.data.emotions import GROUP_NAMES
from emoart.explain import attribution as a
from emoart.explain.explain import explain
from emoart.explain.faithfulness import energy_shares, feature_maps, most_exciting, perturbation_curves, pointing_hits
from emoart.explain.faithfulness import shuffled_weights
from emoart.explain.keras_vis import keras_vis_jobs
from emoart.models.backbones import extractor
from emoart.models.cvfc import FEATURES, cvfc
from emoart.models.predict import CARD_VERSION
from emoart.models.shallnet import shallnet

EXTRA = pytest.mark.skipif(not all(map(find_spec, ("vis", "tf_keras", "tf_keras_vis"))),
                           reason="the extra is not installed: pip install emoart[keras-vis]")
PICTURES = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="session")
def gap():
    "Convolutions, average pooling, one dense layer: the network for which CAM is exact."
    keras.utils.set_random_seed(3)
    return keras.Sequential([
        keras.Input((32, 32, 3)), layers.Rescaling(1 / 255, name="scaled"),
        layers.Conv2D(6, 3, activation="relu", name="first"), layers.MaxPooling2D(2, name="pool"),
        layers.Conv2D(8, 3, activation="relu", name="second"), layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(4, bias_initializer="normal", activation="linear", name="SM")], name="gap")


@pytest.fixture(scope="session")
def fused(gap):
    "The same up to the dense layer, as a model inside another that takes three numbers as well."
    image, numbers = keras.Input((32, 32, 3), name="image"), keras.Input((3,), name="hand_made")
    inside = keras.Model(gap.inputs[0], gap.get_layer("mean").output, name="inside")
    joined = layers.Concatenate()([inside(image), numbers])
    last = layers.Dense(4, activation="softmax", name="last")(joined)
    return keras.Model({"image": image, "hand_made": numbers}, last, name="fused")


@pytest.fixture(scope="session")
def small_shallnet(): return shallnet(32)


@pytest.fixture(scope="session")
def no_picture():
    "CV+FC, which takes thirteen numbers."
    return cvfc(np.zeros(13), np.ones(13))


def agreement(x, y): return np.corrcoef(x.ravel(), y.ravel())[0, 1]


def code(colours): return colours.astype(int) @ (1, 256, 65536)


def levels(coloured):
    "The numbers behind the colours."
    jet, seen = code(np.uint8(colormaps["jet"](np.arange(256))[:, :3] * 255)), code(coloured)
    order = jet.argsort(kind="stable")
    assert np.isin(seen, jet).all()
    return order[np.searchsorted(jet, seen, sorter=order)]


def counted_without_input(arguments):
    "The arguments with layers counted as ours are: Keras 2 counts the input."
    def counted(key, value): return value - 1 if key.endswith("_idx") and value > 0 else value
    return {key: counted(key, value) for key, value in arguments.items()}


@EXTRA
def test_keras_vis_makes_the_same_maps(gap):
    unit = int(gap(PICTURES[:1]).numpy().argmax()) # with modifiers keras-vis has no map where the score is negative
    seen = int(feature_maps(gap, PICTURES[:1], "second").mean((0, 1, 2)).argmax())
    asked = dict(layer_idx=-1, filter_indices=unit)
    questions = [
        ("visualize_saliency", asked),
        ("visualize_saliency", asked | dict(backprop_modifier="guided")),
        ("visualize_saliency", asked | dict(backprop_modifier="rectified")),
        ("visualize_saliency", dict(layer_idx=-1, filter_indices=[0, 2], grad_modifier="relu")),
        ("visualize_cam", asked),
        ("visualize_cam", asked | dict(backprop_modifier="guided")),
        ("visualize_cam", asked | dict(penultimate_layer_idx=2)),
        ("visualize_cam", dict(layer_idx=5, filter_indices=seen)),
        ("visualize_activation", asked | dict(max_iter=15))]
    (answers, _), (again, _) = keras_vis_jobs([(gap, PICTURES[:1], questions), (gap, PICTURES[:1], questions[:1])])
    np.testing.assert_array_equal(again[0], answers[0]) # whatever was asked before
    for (function, arguments), theirs in zip(questions, answers):
        found = getattr(a, function)(gap, seed_input=PICTURES[0], **counted_without_input(arguments))
        assert found.dtype == theirs.dtype == np.uint8 and found.shape == theirs[0].shape
        assert found.std() > 0
        if function != "visualize_activation": found, theirs = levels(found), levels(theirs)
        assert agreement(found, theirs[0]) >= 0.999, (function, arguments)


@EXTRA
def test_tf_keras_vis_makes_the_same_maps(gap):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
        from tf_keras_vis.saliency import Saliency
    model, score = keras.Model(gap.inputs[0], gap.outputs[0]), lambda output: output[:, 2]
    for method, oracle in (("gradcam", Gradcam), ("gradcam++", GradcamPlusPlus)):
        theirs = oracle(model)(score, PICTURES, penultimate_layer="first", expand_cam=False, normalize_cam=False)
        ours = a.evidence(gap, PICTURES, 2, method, "first")
        assert all(agreement(x, y) >= 0.999 for x, y in zip(ours, np.asarray(theirs))), method
    np.random.seed(0)
    theirs = Saliency(model)(score, PICTURES[:1], smooth_samples=10, smooth_noise=0.2, gradient_modifier=None,
                             keepdims=True, normalize_map=False)
    assert agreement(a.maps(gap, PICTURES[:1], 2, "smoothgrad", samples=10), np.abs(theirs).max(-1)) >= 0.999


def test_cam_divides_the_logit_among_places(gap):
    bias, logits = gap.layers[-1].get_weights()[1], gap(PICTURES).numpy()
    cams = [a.evidence(gap, PICTURES, c, "cam") for c in range(4)]
    np.testing.assert_allclose(np.stack([cam.mean((1, 2)) for cam in cams], 1) + bias, logits, atol=1e-4)
    positive = np.maximum(cams[1], 0) / cams[1][0].size
    for method in ("gradcam", "hirescam"):
        np.testing.assert_allclose(a.evidence(gap, PICTURES, 1, method), positive, atol=1e-6)


def test_gradients_are_what_differences_say():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(),
                              layers.Dense(3, activation="softmax")])
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    for logits in (False, True):
        def score(z):
            p = model(z).numpy()
            return np.log(p[0, 1]) - np.log(p[0, 0]) if logits else p[0, 1]
        g = a.gradients(model, x, 1, logits=logits) - (a.gradients(model, x, 0) if logits else 0)
        for place in ((0, 3, 4, 1), (0, 6, 1, 2)):
            up, down = x.copy(), x.copy()
            up[place] += 5e-3
            down[place] -= 5e-3
            assert g[place] == pytest.approx((score(up) - score(down)) / 1e-2, rel=0.02, abs=1e-4)


def test_guided_backpropagation_by_hand():
    model = keras.Sequential([
        keras.Input((4, 4, 1)), layers.Conv2D(2, 1, use_bias=False, activation="relu"), layers.ReLU(6),
        layers.GlobalAveragePooling2D(), layers.Dense(2, use_bias=False)])
    model.layers[0].set_weights([np.array([1., -2.], "float32").reshape(1, 1, 1, 2)])
    model.layers[-1].set_weights([np.array([[1., -1.], [1., 1.]], "float32")])
    x = np.linspace(-2, 9, 16, dtype="float32").reshape(1, 4, 4, 1)
    open_1, open_2 = (x > 0) & (x < 6), (x < 0) & (-2 * x < 6)
    plain, guided = a.gradients(model, x, 1), a.gradients(model, x, 1, backprop_modifier="guided")
    np.testing.assert_allclose(plain, (-1. * open_1 - 2. * open_2) / 16, atol=1e-6)
    np.testing.assert_allclose(guided, -2. * open_2 / 16, atol=1e-6) # what speaks against is stopped at the first ReLU
    np.testing.assert_allclose(a.gradients(model, x, 1), plain) # and the model is as before


def test_one_trace_for_any_number_of_pictures():
    model = shallnet(32) # of its own: its weights and activation change
    many = np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3)).astype("float32")
    a.maps(model, many[:1], method="gradcam")
    assert a.tracing_count(model) == 1
    spent = []
    for part in (many[:500], many[500:]):
        start = time.process_time()
        found = a.maps(model, part, np.arange(500) % 4, "gradcam")
        spent.append(time.process_time() - start)
    assert a.tracing_count(model) == 1 and found.shape == (500, 32, 32) and spent[1] < 1.5 * spent[0] + 0.2
    alone = a.maps(model, many[503:504], 3, "gradcam")
    np.testing.assert_allclose(found[3:4], alone, atol=1e-5) # whatever else is in the batch
    before = a.maps(model, many[:9], 0, "gradcam")
    model.layers[-1].set_weights([-w for w in model.layers[-1].get_weights()])
    assert not np.allclose(before, a.maps(model, many[:9], 0, "gradcam")) # new weights are seen
    assert a.tracing_count(model) == 1
    a.visualize_cam(model, -1, 0, many[0])
    soft = a.tracing_count(model)
    model.layers[-1].activation = keras.activations.linear
    a.visualize_cam(model, -1, 0, many[0])
    assert a.tracing_count(model) == soft + 1 # an exchanged activation too


def test_every_method_on_several_kinds_of_model(gap, fused):
    inputs = {"image": PICTURES, "hand_made": np.ones((5, 3))}
    for model, given in ((gap, PICTURES), (shallnet(32, depth=4), PICTURES), (fused, inputs)):
        for method in a.METHODS:
            if method == "cam" and model is not gap: continue
            found = a.maps(model, given, [0, 1, 2, 3, 0], method, samples=3)
            assert found.shape == (5, 32, 32) and found.min() >= 0 and np.isfinite(found).all()
            assert set(found.max((1, 2)).round(5)) <= {0, 1}
    assert a.maps_layers(fused)[0].name == a.maps_layers(gap)[0].name == "second"
    assert a.class_pictures(fused, [0, 3], max_iter=2, fixed={"hand_made": np.ones(3)}).shape == (2, 32, 32, 3)
    assert (a.largest_units(gap, PICTURES) == gap(PICTURES).numpy().argmax(1)).all()
    np.testing.assert_allclose(a.unit_scores(fused, inputs, 3, logits=False), fused(inputs).numpy()[:, 3], atol=1e-6)


def test_maps_are_those_that_all_evidence_goes_through():
    "EfficientNet-Lite0 is read in two places; what is read last leaves evidence out."
    cuts = {cut: a.maps_layers(extractor(size=64, weights="random", cut=cut)) for cut in ("early", "late", "last")}
    assert {cut: layers[0].name for cut, layers in cuts.items()} == {
        "early": "blocks_10_add", "late": "blocks_14_add", "last": "bn1_relu6"}


def test_maps_of_several_backbones_are_those_of_each_added_up():
    frozen = extractor("efficientnet-lite0+MobileNetV2", 64, "random", "last")
    said = keras.layers.Dense(3, "softmax", name="SM")(frozen.outputs[0])
    model, pictures = keras.Model(frozen.inputs[0], said), np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3))
    layers = a.maps_layers(model)
    assert [layer.name for layer in layers] == ["bn1_relu6", "out_relu"]
    for method in ("hirescam", "gradcam"):
        each = [a.evidence(model, pictures, [0, 2], method, layer) for layer in layers]
        np.testing.assert_allclose(a.evidence(model, pictures, [0, 2], method), sum(each), rtol=1e-4, atol=1e-6)
    assert a.maps(model, pictures, 0).shape == (2, 64, 64)


@pytest.mark.parametrize("call, words", [
    (lambda m: a.maps(m, PICTURES, layer="secund"), ["no layer 'secund'", "did you mean second", "pool", "SM"]),
    (lambda m: a.maps(m, PICTURES, layer=17), ["no layer 17", "first"]),
    (lambda m: a.maps(m, PICTURES, layer="mean"), ["no feature maps", "first, pool, second"]),
    (lambda m: a.maps(m, PICTURES, 4), ["SM has no unit 4", "0 to 3"]),
    (lambda m: a.maps(m, PICTURES, [0, 1, -1, 0, 0]), ["no unit -1"]),
    (lambda m: a.maps(m, PICTURES[:, :20]), ["n x 32 x 32 x 3", "5 x 20 x 32 x 3", "load_images(files, 32)"]),
    (lambda m: a.maps(m, PICTURES[0]), ["n x 32 x 32 x 3", "not 32 x 32 x 3"]),
    (lambda m: a.maps(m, PICTURES, method="lime"), ["'lime'", "gradcam"]),
    (lambda m: a.evidence(m, PICTURES, layer="second", output="first"), ["second does not lead to first"]),
    (lambda m: a.visualize_saliency(m, "SM", 0, PICTURES, "guide"), ["'guide'", "guided, rectified"]),
    (lambda m: a.visualize_cam(m, "SM", 9, PICTURES), ["no unit 9"]),
    (lambda m: a.overlay(PICTURES[0], PICTURES), ["different shapes"]),
    (lambda m: a.overlay(PICTURES, PICTURES, 2), ["alpha is 2"]),
    (lambda m: most_exciting(m, PICTURES, "mean", 0), ["mean of gap has no feature maps"]),
    (lambda m: most_exciting(m, PICTURES, "second", 8), ["no map 8"])])
def test_bad_input_ends_in_a_sentence(call, words, gap):
    assert_refused(lambda: call(gap), words)


def assert_refused(call, words):
    "The call ends in an `InputError` of one line that has the words."
    with pytest.raises(InputError) as error: call()
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_what_a_model_has_no_maps_for_ends_in_a_sentence(no_picture, small_shallnet):
    thirteen = np.zeros((2, 13))
    assert_refused(lambda: a.maps(no_picture, thirteen), ["no convolution", "permutation_importance", "contributions"])
    assert_refused(lambda: a.contributions(no_picture, thirteen[:, :7], np.zeros(7)), ["13 features", "not 7"])
    assert_refused(lambda: a.maps(small_shallnet, PICTURES, method="cam"), ["alone CAM is exact", "gradcam"])


def test_contributions_add_up(no_picture):
    values, reference = np.random.default_rng(0).random((4, 13)).astype("float32"), np.full(13, 0.5, "float32")
    p, r = no_picture(values).numpy(), no_picture(reference[None]).numpy()
    third, first = (a.contributions(no_picture, values, reference, unit) for unit in (3, 1))
    between = third - first # the softmax's constant cancels
    np.testing.assert_allclose(between.sum(1), np.log(p[:, 3] / p[:, 1]) - np.log(r[0, 3] / r[0, 1]), atol=0.02)


def test_what_faithfulness_measures():
    masks = np.zeros((2, 32, 32), bool)
    masks[:, 20:24, 8:12] = True
    there, elsewhere = masks.astype(float), (~masks).astype(float)
    assert pointing_hits(there, masks).all() and not pointing_hits(elsewhere, masks).any()
    assert energy_shares(there, masks).tolist() == [1, 1]
    assert energy_shares(np.ones_like(there), masks)[0] == pytest.approx(16 / 1024)
    model = keras.Sequential([ # goes by the brightness of the masked place alone
        keras.Input((32, 32, 3)), layers.Cropping2D(((20, 8), (8, 20))), layers.GlobalAveragePooling2D(),
        layers.Rescaling(1 / 255)])
    pictures = np.zeros((2, 32, 32, 3), "float32")
    pictures[masks] = 255
    def areas(order): return [curve.mean() for curve in perturbation_curves(model, pictures, order, np.zeros(2, int))]
    (deletion, insertion), (other_deletion, other_insertion) = areas(there), areas(elsewhere)
    assert deletion < 0.5 * other_deletion and insertion > 1.5 * other_insertion


def test_shuffled_weights_come_back(gap):
    before = gap.get_weights()
    with pytest.raises(ZeroDivisionError), shuffled_weights(gap, 1):
        changed = [not np.array_equal(x, y) for x, y in zip(before, gap.get_weights())]
        assert changed[:4] == [False] * 4 and changed[4]
        assert sorted(before[4].ravel()) == sorted(gap.get_weights()[4].ravel())
        1 / 0
    for x, y in zip(before, gap.get_weights()): np.testing.assert_array_equal(x, y)


def saved(network, folder, model):
    "A trained model's folder, made by hand."
    folder.mkdir()
    network.save(folder / "model.keras")
    digest = sha256((folder / "model.keras").read_bytes()).hexdigest()
    card = dict(card_version=CARD_VERSION, model=model, title=model, kind="classes", names=list(GROUP_NAMES),
                image_size=64, resize="stretch", settings=load_settings("smoke").flat(),
                temperature=1, untrained=[], doubt="",
                versions=dict(keras=keras.__version__), sha256=digest)
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def explained(tmp_path_factory):
    "ShallNet's folder, and two pictures, one with a hostile name."
    folder = tmp_path_factory.mktemp("explain")
    pictures = [folder / "a.png", folder / "<b>&.png"]
    for path, width in zip(pictures, (90, 64)): Image.effect_noise((width, 64), 60).convert("RGB").save(path)
    return saved(shallnet(64), folder / "shallnet", "shallnet"), pictures


def test_explain_writes_overlays_and_a_page(explained, emoart, tmp_path):
    (model, pictures), seen = explained, tmp_path / "seen"
    done = emoart("explain", *pictures, "--model", model, "--out", seen, "--method", "gradcam", "--group", "mixed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(seen / "index.html")
    page, told = (seen / "index.html").read_text(), json.loads((seen / "explanation.json").read_text())
    assert "<b>" not in page and "&lt;b&gt;" in page
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert len(shown) == 4 and all((seen / unquote(name)).exists() for name in shown) and "http" not in page
    assert [each["unit"] for each in told["pictures"]] == ["mixed", "mixed"] and told["method"] == "gradcam"
    assert sum(told["pictures"][0]["predicted"].values()) == pytest.approx(1, abs=1e-5)
    overlays = sorted(seen.glob("*-mixed.png"))
    assert len(overlays) == 2 and Image.open(overlays[0]).size == (90, 64), "in the proportions of the picture"


@pytest.mark.parametrize("options, words", [
    (["--group", "joy"], ["no 'joy'", "positive"]),
    (["--method", "lime"], ["no method 'lime'"]),
    (["--layer", "block5_conv3"], ["no layer 'block5_conv3'", "conv2d"])])
def test_explain_refuses_in_a_sentence(options, words, explained, emoart, tmp_path):
    model, (picture, _) = explained
    assert_one_sentence(emoart("explain", picture, "--model", model, "--out", tmp_path / "seen", *options), *words)
    assert not (tmp_path / "seen").exists()


def test_explain_tells_features_where_there_are_no_places(explained, tmp_path):
    _, pictures = explained
    random, seen = np.random.default_rng(0), tmp_path / "seen"
    folder = saved(cvfc(np.zeros(13), np.full(13, 200.)), tmp_path / "cvfc", "cvfc")
    with pytest.raises(InputError, match="lacks features.csv"): explain(pictures, folder, seen)
    ids = [f"p{i}" for i in range(24)]
    features = pd.DataFrame(random.uniform(0, 200, (24, 13)), columns=FEATURES)
    features.assign(id=ids).to_csv(folder / "features.csv", index=False)
    predictions = pd.DataFrame(dict(id=ids, title="", artist="", image="", part=["train", "test"] * 12,
                                    truth=[0, 0, 1, 1, 2, 2, 3, 3] * 3))
    predictions.to_csv(folder / "predictions.csv", index=False)
    explain(pictures, folder, seen)
    told = json.loads((seen / "explanation.json").read_text())
    for rows in (told["pictures"][0]["features"], told["importance"]):
        assert {row["feature"] for row in rows} == set(FEATURES)
    assert not list(seen.glob("*-*-*.png")) and "no places" in (seen / "index.html").read_text()


def test_the_notebook_measures_what_it_says(smoke_gallery, tmp_path):
    parameters = dict(profile="smoke", paintings=str(smoke_gallery), out=str(tmp_path), methods="hirescam,gradcam",
                      n_curves=4)
    papermill.execute_notebook(str(find_notebook("41_faithfulness")), str(tmp_path / "run.ipynb"), parameters,
                               progress_bar=False, kernel_name="python3", cwd=str(NOTEBOOKS))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    pointing = pd.read_csv(tmp_path / "pointing.csv").set_index("map")
    methods = [f"{method}{weights}" for method in ("hirescam", "gradcam") for weights in ("", ", shuffled weights")]
    assert set(pointing.index) == {"a random place", "the middle", "where training portraits have it", *methods}
    assert metrics["layer"] == "blocks_10_add" and metrics["pointing"]["a random place"]["hit rate"] < 0.1
    assert ((pointing["hit_low"] <= pointing["hit rate"]) & (pointing["hit rate"] <= pointing["hit_high"])).all()
