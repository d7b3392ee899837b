"What the tests share: the command line as a process, the smoke gallery, the folder of the development data."
import fcntl
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from emoart.core.files import ROOT
from emoart.core.settings import load_settings

EMOART = Path(sys.executable).with_name("emoart")
SHARED = ROOT.parent / "shared"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


ALONE = {"test_notebooks", "test_repository"} # files whose tests share next to nothing


class ByFile(LoadScopeScheduling):
    "A file stays on one worker, for what its tests share; each test of `ALONE` goes to whoever is free, at the end."
    def _split_scope(self, nodeid):
        file = nodeid.split("::")[0]
        return nodeid if Path(file).stem in ALONE else file


def pytest_xdist_make_scheduler(config, log): return ByFile(config, log)


def run_emoart(*arguments, timeout=300, environment={}):
    "Run the command line, in an environment with these variables besides; the process with its output as text."
    command = [EMOART, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment)


@pytest.fixture
def emoart(capsys):
    "The command line in this process, which saves the start of another one: called as `run_emoart` is."
    from emoart.run.cli import main
    return lambda *arguments: subprocess.CompletedProcess(arguments, main([*map(str, arguments)]), *capsys.readouterr())


@pytest.fixture
def server(tmp_path):
    "A loopback server of a folder: the folder and its address."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    (folder := tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def assert_one_sentence(done, *words):
    "Bad input: exit code 2, one line on standard error that has all words, no traceback."
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words: assert word in done.stderr, f"{word!r} is not in {done.stderr!r}"


def browse(page, folder):
    "Open a file in Chromium, with its profile in a folder: the document it becomes, and what it says on the console."
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}",
               "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="session", autouse=True)
def environment():
    "Kernels of the tests come from this interpreter's environment."
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    "Overrides that keep cache and runs of the tests out of the repository's."
    folder = tmp_path_factory.mktemp("emoart")
    return [f"-pcache={folder / 'cache'}", f"-pruns={folder / 'runs'}"], folder / "runs"


@pytest.fixture(scope="session")
def painted(tmp_path_factory):
    "Cleaned galleries that all workers of a run share: called with a profile and settings, made for who asks first."
    from emoart.data.clean import cleaned_gallery
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ: base = base.parent

    def gallery(profile="smoke", **overrides):
        with open(base / "galleries.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return cleaned_gallery(load_settings(profile, cache=str(base / "galleries"), **overrides))

    return gallery


@pytest.fixture(scope="session")
def smoke_gallery(painted):
    "Cleaned smoke gallery."
    return painted()


@pytest.fixture(scope="session")
def shared():
    "Folder of the development data; tests that need it are skipped where it is missing."
    if not SHARED.is_dir(): pytest.skip("the development data (shared/) are not on this machine")
    return SHARED / "data"
