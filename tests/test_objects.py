"Objects and emotions: scenes from files, each way between them on planted truth, no leaks, and proposals of scenes."
import json
import xml.etree.ElementTree as ElementTree

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from emoart.core.files import InputError
from emoart.core.settings import load_settings
from emoart.objects import from_emotion, scenes, to_emotion
from emoart.objects.from_emotion import (
    MODELS, distribution_of, final_scores, fit_network, halves, judge_models, picture_auc, some_of, top_objects,
    weighed)
from emoart.objects.layout import judge_scenes, known_scenes, overlap, propose, scene_json, scene_svg
from emoart.objects.scenes import EMOTIONS, Extract, Scenes, read_extract, read_visual_genome, scenes_of

SETTINGS = load_settings("smoke", n_bootstrap=100, from_emotion_epochs=20, from_emotion_decay=0,
                         from_emotion_learning_rate=0.05, from_emotion_batch_size=16)


@pytest.fixture
def small_network(monkeypatch):
    "One hidden layer instead of three, which costs a test too much."
    def network(e, k, dropout):
        return keras.Sequential([keras.Input((e,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(k, "sigmoid")])
    monkeypatch.setattr(from_emotion, "object_network", network)


THINGS = tuple(f"thing{chr(97 + i // 10)}{chr(97 + i % 10)}" for i in range(70))


def planted(n=400, told=True, seed=0):
    "Pictures of seven kinds, ten objects of their own each, whose words tell the kind; or objects by lot."
    random = np.random.default_rng(seed)
    kind = random.integers(7, size=n)
    own = kind[:, None] * 10 + random.integers(10, size=(n, 8))
    label = own if told else random.integers(70, size=(n, 8))
    corner = random.uniform(0, 0.5, (n * 8, 2))
    found = Scenes(THINGS, tuple(f"{i}.jpg" for i in range(n)),
                   np.repeat(np.arange(n), 8), label.ravel(), np.hstack([corner, corner + 0.4]))
    emotions = np.full((70, 7), 0.05)
    emotions[np.arange(70), np.arange(70) // 10] = 0.7
    return Extract(found, random.normal(size=(70, 50)) + np.repeat(np.eye(7, 50) * 4, 10, 0), emotions)


def test_the_extract_is_what_it_says():
    extract = read_extract()
    found = extract.scenes
    assert len(found.names) == 150 == len(set(found.names)) and len(found.files) == 4408 and len(found.label) == 50_155
    assert found.counts().sum() == 50_155 and found.counts().any(1).all()
    assert (found.box[:, :2] <= found.box[:, 2:]).all() and found.box.min() >= 0 and found.box.max() == 1
    assert extract.vectors.shape == (150, 50) and extract.emotions.sum(1) == pytest.approx(1)
    assert scenes.SCENES.stat().st_size < 2**20


def test_the_extract_can_be_made_again(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "SCENES", tmp_path / "s.npz")
    scenes.write_extract(shared / "visual_genome", shared / "wikiart_emotions" / "WikiArt-Emotions-All.tsv",
                         shared / "words" / "glove.100d.small.f16.npz")
    with np.load(tmp_path / "s.npz") as again, np.load(scenes.ROOT / "data" / "scenes.npz") as kept:
        for name in kept.files: assert np.array_equal(again[name], kept[name]) or name == "emotions"
        np.testing.assert_allclose(again["emotions"], kept["emotions"], atol=2e-3)


def genome(folder):
    "Two pictures in Visual Genome's own layout."
    thing = dict(x=10, y=20, w=30, h=40)
    (folder / "objects.json").write_text(json.dumps([
        dict(image_id=1, objects=[dict(thing, names=["Dog"]), dict(thing, names=["dog"], x=0)]),
        dict(image_id=2, objects=[dict(thing, names=["tree"])]), dict(image_id=3, objects=[])]))
    (folder / "relationships.json").write_text(json.dumps([dict(image_id=2, relationships=[
        dict(predicate="Near", subject=dict(name="tree"), object=dict(names=["Dog"]))])]))


def test_visual_genome_as_published(tmp_path):
    genome(tmp_path)
    found = read_visual_genome(tmp_path)
    assert found.files == ("1.jpg", "2.jpg") and found.names == ("dog", "tree")
    assert found.counts().tolist() == [[2, 0], [0, 1]] and found.phrases == ([], [("tree", "near", "dog")])
    assert found.box[0].tolist() == [0.25, 1 / 3, 1, 1]
    assert read_visual_genome(tmp_path, most=1).names == ("dog",)


@pytest.mark.parametrize("text, why", [
    ("[1]", "another version"), ("nothing", "is no JSON"), ('{"a": 1}', "another version")])
def test_another_version_is_refused(tmp_path, text, why):
    (tmp_path / "objects.json").write_text(text)
    with pytest.raises(InputError, match=why): read_visual_genome(tmp_path)
    with pytest.raises(InputError, match="cannot read"): read_visual_genome(tmp_path / "nowhere")


def test_data_set_b_asks_a_model_of_the_pictures(tmp_path, monkeypatch):
    genome(tmp_path)
    found = read_visual_genome(tmp_path)
    with pytest.raises(InputError, match="none of the pictures, such as 1.jpg"):
        scenes.emotions_of_pictures(found, tmp_path, tmp_path / "model")
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K" / "2.jpg").touch()
    monkeypatch.setattr("emoart.models.predict.predict", lambda files, model: [
        {"file": str(file), "probabilities": {"joy": 0.75, "fear": 0.25}} for file in files])
    assert scenes.emotions_of_pictures(found, tmp_path, "model").to_dict("index") == {1: {"joy": 0.75, "fear": 0.25}}


def test_a_picture_without_objects_is_no_scene():
    with pytest.raises(InputError, match="no object"): scenes_of([], ("a.jpg",))


def test_final_scores_as_printed():
    random = np.random.default_rng(0)
    counts, emotions = random.integers(0, 3, (20, 5)), random.dirichlet(np.ones(7), 20)
    scores = final_scores(counts, emotions)
    for e in range(7):
        for o in range(5):
            each = [sum(counts[i, o] * emotions[i, d] for i in range(20)) for d in range(7)]
            assert scores[e, o] == pytest.approx(each[e] - sum(each) / 7)
    assert top_objects(scores, np.eye(7)[2], "abcde", 2)[0] == "abcde"[scores[2].argmax()]


@pytest.mark.parametrize("text, why", [
    ("gloom", "no emotion 'gloom'; there are anger"), ("joy=0.5", "sum to 0.5"), ("joy=x", "is a number"),
    ("joy=1.5,fear=-0.5", "none of them below 0"), ("", "sum to 0"), ("joy=nan", "sum to nan")])
def test_what_is_no_distribution(text, why):
    with pytest.raises(InputError, match=why): distribution_of(text)


def test_halves_divide_each_picture():
    extract = planted()
    first = halves(extract.scenes, 0)
    assert (extract.scenes.counts(first).sum(1) == 4).all() and (extract.scenes.counts(~first).sum(1) == 4).all()
    assert (halves(extract.scenes, 1) != first).any()


def test_auc_picture_by_picture():
    random = np.random.default_rng(0)
    there, said = random.random((5, 9)) < 0.4, random.random((5, 9))
    there[0], there[1] = True, False
    found = picture_auc(there, said)
    assert np.isnan(found[:2]).all()
    assert found[2:] == pytest.approx([roc_auc_score(there[i], said[i]) for i in (2, 3, 4)])


def test_planted_objects_are_found_and_lots_are_not(small_network):
    rows, tests = judge_models(planted(250), SETTINGS, n_folds=2, say=lambda line: None)
    auc = rows.set_index("what").score
    assert set(auc.index) == set(MODELS) and auc["popularity"] < 0.6
    assert min(auc["score baseline"], auc["mixture"], auc["network"]) > 0.85 and auc["network, shuffled"] < 0.65
    assert (tests.set_index("a").loc["mixture", ["low", "high"]] > 0).all()
    lots, _ = judge_models(planted(250, told=False), SETTINGS, n_folds=2, say=lambda line: None)
    assert (lots.score - 0.5).abs().max() < 0.06
    circular, _ = judge_models(planted(250, told=False), SETTINGS, circular=True, n_folds=2, say=lambda line: None)
    assert circular.set_index("what").score["mixture"] > lots.set_index("what").score["mixture"] + 0.02


@pytest.mark.parametrize("how", ["none", "count", "root", "log", "mean", "area"])
def test_normalisations(how):
    extract = planted(40)
    rows = halves(extract.scenes, 0)
    counts = extract.scenes.counts(rows)
    y = weighed(extract.scenes, counts, rows, how)
    assert y.shape == counts.shape and 0 <= y.min() and y.max() <= 1 and ((y > 0) == (counts > 0)).all()
    if how == "count": assert y[:, counts.any(0)].sum(0) == pytest.approx(1)
    if how == "area": assert y[counts == 1] == pytest.approx(0.4)


def test_the_network_is_seeded(small_network):
    e, y = np.random.default_rng(0).dirichlet(np.ones(7), 60), np.random.default_rng(1).integers(0, 2, (60, 5))
    one, two = (fit_network(e, y.astype(float), SETTINGS)(e) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_words_are_read_in_order_and_padding_says_nothing():
    vectors = {"a": np.array([1., 0, 2]), "b": np.array([0., 1, 1])}
    x = to_emotion.sequences(["a b zzz a", "", "b " * 40], vectors, 5)
    assert x[0].tolist() == [[1, 0, 2], [0, 1, 1], [1, 0, 2], [0, 0, 0], [0, 0, 0]]
    assert not x[1].any() and x[2].all(0)[1]
    y = np.random.default_rng(0).dirichlet(np.ones(4), 30)
    for name in ("RNN", "LSTM", "LSTM, dropout"):
        network = to_emotion.word_network(name, y, 3)
        np.testing.assert_allclose(network(x[:1, :3]), network(x[:1]), atol=1e-6)
    assert to_emotion.word_network("mean", y, 3).count_params() == 4 * 4


def test_words_tell_what_is_planted():
    extract = planted(150)
    counts = extract.scenes.counts()
    x = to_emotion.sequences([" ".join(np.repeat(THINGS, row.astype(int))) for row in counts],
                             dict(zip(THINGS, extract.vectors)))
    y = counts @ extract.emotions / counts.sum(1, keepdims=True)
    networks = ("mean, cross-entropy",)
    rows, tests = to_emotion.judge_words("d", x, y, np.arange(150), SETTINGS, networks, 40, lambda line: None)
    kl = pd.DataFrame(rows).query("metric == 'kl'").set_index("what").score
    assert kl["mean, cross-entropy"] < 0.5 * kl["constant baseline"]
    assert [test["b"] for test in tests] == ["constant baseline"]


def test_titles_of_another_table(tmp_path):
    (tmp_path / "t.tsv").write_text("Title\tA\nx\t1\n")
    with pytest.raises(InputError, match="lacks TitleOnly: agreeableness"): to_emotion.read_titles(tmp_path / "t.tsv")


def test_a_scene_follows_emotion_and_company():
    known = known_scenes(planted(1000))
    for i, emotion in enumerate(EMOTIONS):
        table = propose(known, distribution_of(emotion), n=5)
        assert {THINGS.index(name) // 10 for name in table.object} == {i} and table.object.is_unique
        assert (table.left < table.right).all() and (table.top < table.bottom).all()
    with_other = propose(known, distribution_of("joy"), ("thingaf",), 4)
    assert with_other.object[0] == "thingaf"
    for bad in (dict(include=("thignaf",)), dict(n=0), dict(n=21), dict(include=("thingab", "thingac"), n=1)):
        with pytest.raises(InputError): propose(known, distribution_of("joy"), **bad)


def test_a_scene_as_json_and_as_a_sketch():
    table = propose(known_scenes(planted()), distribution_of("joy"), n=4)
    table.loc[0, "object"] = "<b> & co"
    wish = distribution_of("sadness=0.7,fear=0.3")
    read = json.loads(scene_json(table, wish))
    assert read["emotion"] == {"fear": 0.3, "sadness": 0.7} and len(read["objects"]) == 4
    assert read["objects"][1] == dict(name=table.object[1], box=table.iloc[1, 1:5].tolist())
    drawn = ElementTree.fromstring(scene_svg(table, wish))
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "<b> & co" in texts and len(texts) == 4


def test_overlap():
    table = pd.DataFrame(dict(object=["a", "b"], left=[0., 0], top=[0., 0], right=[1., 1], bottom=[0.5, 1]))
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1.]])
    assert overlap(table, ("a", "b", "c"), np.array([True, False, True]), boxes) == (1 / 3, 0.5)
    assert overlap(table, ("a", "b", "c"), np.array([False, False, True]), boxes) == (0, 0)


def test_scenes_are_judged_against_lots():
    told = judge_scenes(planted(1500), pictures=40, n_bootstrap=100).set_index(["what", "metric"])
    lots = judge_scenes(planted(1500, told=False), pictures=40, n_bootstrap=100).set_index(["what", "metric"])
    assert told.loc[("difference", "objects"), "low"] > 0.05
    assert lots.loc[("difference", "objects"), "low"] < 0.02


def test_scene_from_the_command_line(tmp_path, emoart):
    done = emoart("scene", "--emotion", "sadness=0.7,fear=0.3", "--with", "window", "--out", tmp_path / "s.svg")
    assert done.returncode == 0 and "window" in done.stdout
    ElementTree.parse(tmp_path / "s.svg")
    for wrong, why in ((("gloom",), "no emotion"), (("joy", "--with", "windw"), "did you mean window"),
                       (("joy", "--out", tmp_path / "s.png"), "should end in")):
        done = emoart("scene", "--emotion", *wrong)
        assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1


def test_word_clouds_are_drawn():
    ax = from_emotion.word_cloud({"cat": 3, "dog": 1})
    assert ax.images and some_of(read_extract(), 100).scenes.counts().shape == (45, 150)
