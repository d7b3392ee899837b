"The generators: costs against their formulas, runs that are killed, pictures that cannot be used, and the price of a step."
import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import assert_one_sentence
from PIL import Image

from emoart.models.backbones import computing_in, has_bfloat16
from emoart.core.backend import keras, tf
from emoart.workshop.bench import published_step
from emoart.generate.dcgan import dcgan_discriminator, dcgan_generator
from emoart.generate.gan import GAN, LOSSES, PENALTY
from emoart.generate.quality import fid, kid, warnings_of
from emoart.generate.training import Diverged, read_game, train_gan

SMALL = ["--profile", "smoke", "-p", "dcgan_size=16", "-p", "dcgan_batch_size=8", "-p", "dcgan_epochs=2", "-p", "dcgan_g_steps=1"]


def log_d(logits): return -np.logaddexp(0, -logits)
def log_not_d(logits): return -np.logaddexp(0, logits)


FORMULAS = { # the thesis's Table 1: cost of the discriminator, cost of the generator, k = 0.4
    "mm": (lambda r, f: -log_d(r).mean() - log_not_d(f).mean(), lambda f: log_not_d(f).mean()),
    "ns": (lambda r, f: -log_d(r).mean() - log_not_d(f).mean(), lambda f: -log_d(f).mean()),
    "wgan": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "lsgan": (lambda r, f: ((r - 1)**2).mean() + (f**2).mean(), lambda f: ((f - 1)**2).mean()),
    "dragan": (lambda r, f: -log_d(r).mean() - log_not_d(f).mean(), lambda f: log_not_d(f).mean()),
    "began": (lambda r, f: r.mean() - 0.4 * f.mean(), lambda f: f.mean())}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name):
    real, fake = np.random.default_rng(0).normal(0, 4, (2, 9))
    discriminator, generator = FORMULAS[name]
    assert float(LOSSES[name].discriminator(real, fake, 1., 0.4)) == pytest.approx(discriminator(real, fake))
    assert float(LOSSES[name].generator(fake)) == pytest.approx(generator(fake))


def pair(loss, **options):
    "A game whose discriminator is linear, so that its slope is known."
    keras.utils.set_random_seed(1)
    generator = keras.Sequential([keras.Input((3,)), keras.layers.Dense(48, "tanh"), keras.layers.Reshape((4, 4, 3))])
    outputs = 48 if loss == "began" else 1
    discriminator = [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(outputs), *[keras.layers.Reshape((4, 4, 3))] * (loss == "began")]
    return GAN(generator, keras.Sequential(discriminator), loss, **options)


@pytest.mark.parametrize("name", ["wgan-gp", "dragan"])
def test_a_penalty_holds_the_slope_at_one(name):
    gan, real = pair(name), tf.random.stateless_uniform([6, 4, 4, 3], [0, 1])
    gan.draws = 0
    slope = np.linalg.norm(gan.discriminator.get_weights()[0])
    assert float(gan._penalty(real, -real)) == pytest.approx(PENALTY * (slope - 1)**2, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_an_iteration_changes_both_players_and_keeps_its_rules(name):
    gan, pictures = pair(name, d_steps=2, g_steps=3, augmented=True), np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), "uint8")
    before = [model.get_weights()[0].copy() for model in (gan.generator, gan.discriminator)]
    costs = gan.train_step(pictures)
    assert all(np.isfinite(float(cost)) for cost in costs.values()) and int(gan.iteration) == 1
    assert all(not np.array_equal(a, model.get_weights()[0]) for a, model in zip(before, (gan.generator, gan.discriminator)))
    assert (int(gan.d_optimizer.iterations), int(gan.g_optimizer.iterations)) == (2, 3)
    if name == "wgan": assert max(np.abs(weight).max() for weight in gan.discriminator.get_weights()) <= np.float32(0.01)
    if name == "began": assert 0 <= float(gan.balance) <= 1
    if LOSSES[name].probability: assert 0 <= float(costs["d_real"]) <= 1


def test_smoothing_moves_the_target_of_real_pictures_only():
    real, fake = np.array([3., -1]), np.array([0.5, 2])
    smoothed = -(0.9 * log_d(real) + 0.1 * log_not_d(real)).mean() - log_not_d(fake).mean()
    assert float(LOSSES["ns"].discriminator(real, fake, 0.9, 0)) == pytest.approx(smoothed)


def test_spectral_norm_bounds_the_discriminator():
    keras.utils.set_random_seed(0)
    discriminator = dcgan_discriminator(16, normalization="spectral")
    for _ in range(30): discriminator(np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32"), training=True)
    kernels = [layer.layer.kernel for layer in discriminator.layers if isinstance(layer, keras.layers.SpectralNormalization)]
    assert len(kernels) == 5
    for kernel in kernels: assert np.linalg.norm(np.reshape(kernel, (-1, kernel.shape[-1])), 2) == pytest.approx(1, abs=0.05)


def test_measures_know_the_same_from_another():
    draw = np.random.default_rng(0)
    same = [kid(draw.normal(size=(80, 8)), draw.normal(size=(80, 8))) for _ in range(60)]
    assert np.mean([k["low"] <= 0 <= k["high"] for k in same]) > 0.85
    a, b = draw.normal(size=(500, 8)), draw.normal(size=(500, 8)) + 1
    assert kid(a, b)["low"] > 0 and fid(a, b) == pytest.approx(8, rel=0.25)
    assert warnings_of(dict(diversity=0.9, novelty=1)) == [] and "mode collapse" in warnings_of(dict(diversity=0.1, novelty=1))[0]


GAME = """
import sys, numpy as np
from pathlib import Path
from emoart.generate.experiment import make_gan
from emoart.generate.dcgan import dcgan_discriminator, dcgan_generator
from emoart.generate.training import train_gan
from emoart.core.settings import load_settings
settings = load_settings("smoke", dcgan_size=16, gan_augmented=1)
pictures = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), "uint8")
def memory(generator): return {"memory": int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))} if len(sys.argv) > 2 else {}
train_gan(make_gan("dcgan", dcgan_generator, dcgan_discriminator, settings), pictures, Path(sys.argv[1]), epochs=18, batch_size=20, every=3, measure=memory)
"""


def test_a_killed_run_ends_in_the_same_pictures(tmp_path):
    (tmp_path / "game.py").write_text(GAME)
    def start(*arguments): return subprocess.Popen([sys.executable, tmp_path / "game.py", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    undisturbed = start(tmp_path / "undisturbed", "memory")
    said, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, said
    random.seed(5)
    history = tmp_path / "killed" / "history.jsonl"
    for part in (1, 2, 3): # three moments: a random epoch of each third, and a random time in it
        running, wanted = start(tmp_path / "killed"), 6 * (part - 1) + random.randrange(1, 6)
        while running.poll() is None and (not history.exists() or len(history.read_text().splitlines()) <= wanted): time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed").wait(timeout=300) == 0
    grids = sorted(path.name for path in (tmp_path / "undisturbed" / "samples").iterdir())
    assert grids == [f"epoch-{epoch:05}.png" for epoch in range(0, 19, 3)]
    for name in grids: assert (tmp_path / "killed" / "samples" / name).read_bytes() == (tmp_path / "undisturbed" / "samples" / name).read_bytes()
    memory = read_game(tmp_path / "undisturbed").memory.dropna()
    assert read_game(tmp_path / "killed").equals(read_game(tmp_path / "undisturbed").drop(columns="memory"))
    assert memory.iloc[-1] < memory.iloc[2] * 1.02 # flat, in kB


def reckless(gan):
    "The game with an absurd learning rate, whatever its checkpoint says."
    load = gan.load_weights
    def loaded(path):
        load(path)
        gan.d_optimizer.learning_rate = 1e38
    gan.load_weights = loaded
    return gan


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), "uint8")
    train_gan(pair("ns"), pictures, tmp_path, epochs=2, batch_size=5, every=1)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".h5", ".keras")}
    with pytest.raises(Diverged, match=r"no longer numbers since iteration \d of epoch 3; what .* holds is of epoch 2"):
        train_gan(reckless(pair("ns")), pictures, tmp_path, epochs=9, batch_size=5, every=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name in kept} == kept
    train_gan(pair("ns"), pictures, tmp_path, epochs=3, batch_size=5, every=1) # and can be gone on from
    assert list(read_game(tmp_path).epoch) == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    "A folder of pictures of several sizes and modes, with two files that are none."
    folder, draw = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for i in range(24):
        mode = ("RGB", "L", "RGBA", "P", "CMYK")[i % 5]
        picture = Image.fromarray(draw.integers(0, 256, (20 + 3 * i, 50 - i, 3), "uint8")).convert(mode)
        picture.save(folder / (f"{i:02}.jpg" if mode in ("RGB", "L", "CMYK") else f"{i:02}.png"))
    (folder / "empty.jpg").touch()
    (folder / "login.png").write_text("<html>Please log in</html>")
    return folder


@pytest.fixture(scope="module")
def run(mixed, workplace, tmp_path_factory):
    "A small DCGAN, trained through the command line on the mixed folder."
    from emoart.run.cli import main
    out = tmp_path_factory.mktemp("run")
    assert main(["train", "dcgan", "--images", str(mixed), "--out", str(out), *SMALL, *workplace[0]]) == 0
    return out


def test_a_run_leaves_what_one_can_follow(run):
    metrics, history = json.loads((run / "metrics.json").read_text()), read_game(run)
    assert (metrics["pictures"], metrics["left_out"], metrics["epochs"], metrics["iterations"]) == (24, 2, 2, 6)
    assert [line.split(",")[0] for line in (run / "rejects.csv").read_text().splitlines()] == ["file", "empty.jpg", "login.png"]
    assert list(history.epoch) == [0, 1, 2] and {"d_loss", "g_loss", "d_real", "d_fake", "kid"} <= set(history)
    assert metrics["test"]["kid"] == history.kid.iloc[-1] and metrics["untrained"]["kid"] == history.kid.iloc[0]
    frames = Image.open(run / "training.gif")
    assert (frames.n_frames, Image.open(run / "samples" / "epoch-00002.png").size) == (2, (8 * 16, 4 * 16))


def test_a_generator_paints_when_asked(run, emoart, tmp_path):
    for seed, name in ((0, "a.png"), (0, "b.png"), (1, "c.png")): assert emoart("sample", run, "-n", 9, "--seed", seed, "--out", tmp_path / name).returncode == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c and Image.open(tmp_path / "a.png").size == (48, 48)


@pytest.mark.parametrize("arguments, words", [
    (["-p", "dcgan_size=100"], ["DCGAN cannot make pictures of 100 pixels", "96 or 112"]),
    (["-p", "dcgan_batch_size=64"], ["there are 24 pictures", "takes 64", "lower batch_size"]),
    (["-p", "dcgan_loss=hinge"], ["dcgan_loss is 'hinge'", "wgan-gp"]),
    (["--sheet", "art.xlsx"], ["--sheet is for classifiers"]),
    (["--data", "cleaned"], ["either as --images FOLDER or as --data FOLDER"])])
def test_bad_input_to_training_is_one_sentence(mixed, workplace, emoart, tmp_path, arguments, words):
    assert_one_sentence(emoart("train", "dcgan", "--images", mixed, "--out", tmp_path, *SMALL, *workplace[0], *arguments), *words)


@pytest.mark.parametrize("command, words", [
    (["train", "dcgan", "--images", "nowhere", "--out", "OUT"], ["nowhere is no folder"]),
    (["train", "dcgan", "--images", "EMPTY", "--out", "OUT"], ["holds no pictures"]),
    (["train", "shallnet", "--images", "EMPTY", "--out", "OUT"], ["--images and --judge are for generators"]),
    (["train", "dcgen", "--images", "EMPTY", "--out", "OUT"], ["there is no model 'dcgen'", "basicgan, gandeconv, dcgan"]),
    (["sample", "EMPTY", "--out", "OUT/a.png"], ["holds no generator", "emoart train"]),
    (["sample", "EMPTY", "-n", "0", "--out", "OUT/a.png"], ["-n", "greater than or equal to 1"])])
def test_bad_input_is_one_sentence(emoart, tmp_path, command, words):
    (tmp_path / "empty").mkdir()
    places = {"OUT": str(tmp_path / "out"), "EMPTY": str(tmp_path / "empty"), "OUT/a.png": str(tmp_path / "out" / "a.png")}
    assert_one_sentence(emoart(*(places.get(word, word) for word in command)), *words)


def test_a_step_is_cheaper_than_the_published_one():
    pictures = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), "uint8")
    with computing_in("auto"): gan = GAN(dcgan_generator(), dcgan_discriminator())
    step, published = tf.function(gan.train_step), published_step(dcgan_generator(), dcgan_discriminator())
    real = tf.cast(pictures, tf.float32) / 127.5 - 1
    rounds = []
    for _ in range(4):
        start = time.process_time(); published(real)
        middle = time.process_time(); step(pictures)
        rounds.append((middle - start) / (time.process_time() - middle))
    assert np.median(rounds[1:]) > (1.4 if has_bfloat16() else 1), rounds
