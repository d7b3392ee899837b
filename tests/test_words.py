"Word vectors: files as people have them, texts as they are read, titles as evidence."
import numpy as np
import pandas as pd
import pytest

from emoart.core.files import InputError, NotRun
from emoart.core.settings import load_settings
from emoart.data.clean import read_paintings
from emoart.evaluate.run import Evidence, fit_model, load_data
from emoart.objects.words import mean_vector, read_word_vectors, title_evidence, words_of


@pytest.fixture
def glove(tmp_path):
    (tmp_path / "glove.txt").write_text("night 1 0 0\nsea 0 1 0\nl'été 0 0 2\n", encoding="utf-8")
    return tmp_path / "glove.txt"


def test_both_kinds_of_file_hold_the_same(glove, tmp_path):
    vectors = read_word_vectors(glove)
    np.savez(tmp_path / "glove.npz", words=list(vectors), vectors=np.array(list(vectors.values()), "float16"))
    (tmp_path / "word2vec.txt").write_text("3 3\n" + glove.read_text())
    for name in ("glove.npz", "word2vec.txt"):
        again = read_word_vectors(tmp_path / name)
        assert list(again) == list(vectors) and all((again[word] == vectors[word]).all() for word in vectors)


@pytest.mark.parametrize("name, content, words", [
    ("none.txt", None, "cannot read .*No such file"), ("a.txt", b"", "no word vectors"),
    ("b.txt", b"night one two", "line 1 is no word"),
    ("c.txt", b"night 1 2\nsea 1\n", "line 2 has 1 numbers"), ("d.txt", b"\xff\xfe 1\n", "no word vectors"),
    ("e.npz", b"PK", "no word vectors"), ("f.npz", dict(words=["a", "b"], vectors=np.ones((1, 3))), "differ in number"),
    ("g.npz", dict(words=["a"]), "no word vectors")])
def test_what_holds_no_vectors(name, content, words, tmp_path):
    if isinstance(content, dict): np.savez(tmp_path / name, **content)
    elif content is not None: (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words): read_word_vectors(tmp_path / name)


def test_words_of_titles(glove):
    vectors = read_word_vectors(glove)
    assert words_of("Night; the SEA (No. 3), l'Été") == ["night", "the", "sea", "no", "l'été"]
    np.testing.assert_allclose(mean_vector(words_of("Night, sea, and so on"), vectors), [0.5, 0.5, 0])
    assert not mean_vector([], vectors).any()


def test_titles_are_learned_where_they_tell_something(glove, smoke_gallery):
    settings = load_settings("smoke", target="poles", genre="", word_vectors=str(glove), transfer_epochs=30)
    data = load_data(settings, str(smoke_gallery))
    titled = data.paintings.assign(title=np.where(data.y.argmax(1) == 1, "The sea", "Night"))
    x, train = Evidence(titled, settings), np.arange(len(titled)) % 2 == 0
    fitted = fit_model("title", x.part(train), data.y[train], data.kind, settings)
    assert (fitted.predict(x.part(~train)).argmax(1) == data.y[~train].argmax(1)).all()


def test_without_a_file_titles_are_not_run(smoke_gallery):
    with pytest.raises(NotRun, match="give GloVe's file"):
        title_evidence(read_paintings(smoke_gallery), load_settings("smoke"))
    with pytest.raises(InputError, match="cannot read"):
        title_evidence(pd.DataFrame(dict(title=["a"])), load_settings("smoke", word_vectors="/none.txt"))
