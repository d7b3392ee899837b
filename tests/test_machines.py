"What a user's machine has besides emoart must not leak into results, and may not stop it without a sentence."
import errno
import fcntl
import json
import os
import stat
import subprocess
import sys

import pytest
from conftest import EMOART, run_emoart

from emoart.core import files
from emoart.models.predict import train

def left_behind(folder):
    "What a machine of many projects has in its home: Keras, Jupyter, IPython and matplotlib set up for other things."
    (folder / ".keras").mkdir(parents=True)
    (folder / ".keras" / "keras.json").write_text(json.dumps(
        dict(floatx="float16", epsilon=1e-3, backend="jax", image_data_format="channels_first")))
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(dict(argv=["false"], display_name="R", language="R")))
    startup = folder / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("raise SystemExit('start-up')")
    (folder / "matplotlibrc").write_text("backend: no such\nfigure.dpi: -1\n")
    (folder / ("t" * 120)).mkdir()
    return dict(
        HOME=str(folder), KERAS_HOME=str(folder / ".keras"), JUPYTER_PATH=str(folder / "jupyter"),
        MATPLOTLIBRC=str(folder), TMPDIR=str(folder / ("t" * 120)), PYTHONSTARTUP=str(startup / "00.py"),
        PYTHONWARNINGS="error", PYTHONOPTIMIZE="2", PYTHONIOENCODING="ascii:strict", LC_ALL="C", LANG="C", COLUMNS="20",
        PIP_USER="1", KERAS_BACKEND="torch", PYTHONUTF8="0", TERM="dumb")


def trained_here(model, out, paintings, workplace, **settings):
    places = dict(option[2:].split("=") for option in workplace[0])
    train(model, out, data=paintings, profile="smoke", epochs=2, **places, **settings)
    return out


def test_a_machine_set_up_for_other_things_gives_the_same_bytes(smoke_gallery, tmp_path, workplace):
    quiet = trained_here("cvfc", tmp_path / "quiet", smoke_gallery, workplace)
    machine = left_behind(tmp_path / "home")
    options = ["--profile", "smoke", "-p", "epochs=2", *workplace[0]]
    done = run_emoart("train", "cvfc", "--data", smoke_gallery, "--out", tmp_path / "m", *options, environment=machine)
    assert (done.returncode, done.stderr) == (0, "")
    for left in ("predictions.csv", "metrics.json", "features.csv"):
        assert (tmp_path / "m" / left).read_bytes() == (quiet / left).read_bytes()
    done = run_emoart("predict", smoke_gallery / "images", "--model", tmp_path / "m", environment=machine)
    assert done.returncode == 0 and done.stdout.isascii() and "Traceback" not in done.stderr


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_files_have_the_mode_that_the_user_wants(mask, tmp_path):
    before = os.umask(mask)
    try: files.write_json(tmp_path / "a.json", {})
    finally: os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o666 & ~mask


def test_a_file_system_without_locks_is_told_of_once(tmp_path, monkeypatch, capsys):
    def no_locks(*_): raise OSError(errno.ENOSYS, "Function not implemented")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    files._tell_no_locks.cache_clear()
    for _ in range(2):
        with open(tmp_path / "lock", "w") as lock: files.take_lock(lock)
    assert capsys.readouterr().err.count("no locks") == 1


@pytest.mark.parametrize("redirection, code, said", [
    (">&-", 0, ""), ("2>&-", 0, "palette"), ("<&- >&- 2>&-", 0, ""), ("| head -n 1", 0, "profile"),
    ("> /dev/full", 1, "cannot write the output: No space left on device")])
def test_standard_streams_that_are_closed_or_full(redirection, code, said):
    shell = ["bash", "-o", "pipefail", "-c", f'"{EMOART}" params cvfc {redirection}']
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
    assert done.returncode in (code, 1 if "head" in redirection else code)
    assert said in done.stdout + done.stderr and "Traceback" not in done.stderr


PEAK = """
import re, sys
from emoart.run.cli import main
code = main(sys.argv[1:])
print(code, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.fixture(scope="module")
def network(smoke_gallery, tmp_path_factory, workplace):
    "A small network that looks at pixels."
    return trained_here("shallnet", tmp_path_factory.mktemp("network"), smoke_gallery, workplace, image_size=64)


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_memory_does_not_grow_with_the_pictures(command, network, smoke_gallery, tmp_path):
    if not os.path.exists("/proc/self/status"): pytest.skip("peak memory is read from /proc")
    (tmp_path / "all").mkdir()
    portraits = sorted((smoke_gallery / "images").iterdir())[:50]
    for i in range(200): os.link(portraits[i % 50], tmp_path / "all" / f"{i:03}.png")
    (tmp_path / "all" / "broken.jpg").write_bytes(b"no picture")

    def peak(*pictures, code):
        out = ["--out", tmp_path / "out"] if command == "explain" else []
        call = [sys.executable, "-c", PEAK, command, *pictures, "--model", network, *out]
        done = subprocess.run([*map(str, call)], capture_output=True, text=True, timeout=300)
        *_, last = done.stdout.splitlines()
        assert last.split()[0] == str(code), done.stderr
        return int(last.split()[1]) / 1024, done

    few, _ = peak(*portraits[:8], code=0)
    many, done = peak(tmp_path / "all", code=1)
    assert many < few + 150, f"{few:.0f} MiB for 8 pictures, {many:.0f} MiB for 200"
    assert "broken.jpg" in done.stderr
    if command == "predict": assert len(done.stdout.splitlines()) == 202
