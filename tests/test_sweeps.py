"Sweeps as users have them: from the shell, with runs that raise, die and hang, stopped at any moment, on a cluster."
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from conftest import CHROMIUM, EMOART, assert_one_sentence, browse, run_emoart
from joblib import cpu_count

from emoart.core.files import InputError, chapters, find_notebook, modules
from emoart.data.clean import paintings_digest
from emoart.run import experiments
from emoart.run.experiments import identity, imported_modules, parameters_of, read_cells, read_run
from emoart.run.sweeps import KEPT, checked_points, grid_points, read_results, read_sweep, run_name, sweep

TRIAL = ["""
x: int = 0           # what is squared [0 to 99]
does: str = "well"   # [one of well, raise, die, orphan, hang]
pause: float = 0.    # seconds [0 or more]
out: str = ""        # folder for metrics.json
""", "import json, os, signal, subprocess, time", """
subprocess.Popen(["sleep", "600"], start_new_session=True) # must not outlive the run
time.sleep(pause)
if does == "raise": raise ValueError(f"<b>no</b> {x}")
if does == "die": os.kill(os.getpid(), signal.SIGKILL)
if does == "orphan": os.kill(os.getppid(), signal.SIGKILL)
if does in ("orphan", "hang"): time.sleep(600)
""", """
with open(f"{out}/completed", "a") as file: file.write("once\\n")
threads = [os.environ[name] for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")]
with open(f"{out}/metrics.json", "w") as file: json.dump({"square": x**2, "half": x / 2, "threads": threads}, file)
"""]


def write_notebook(path, *cells):
    "A notebook of anybody's, without even a kernel's name; the first cell is that of its parameters."
    cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    cells[0].metadata.tags = ["parameters"]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def trial(tmp_path):
    "The notebook above, in a folder of its own."
    return write_notebook(tmp_path / "desk" / "trial.ipynb", *TRIAL)


def begin(*arguments):
    "Start `emoart sweep` and leave it running; what it prints can be read line by line."
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([EMOART, "sweep", *map(str, arguments)], start_new_session=True, **pipes)


def ended(stdout):
    "The runs that a sweep says have ended."
    return re.findall(r"^\[\d+/\d+\] (\S+) (\w+)", stdout, re.M)


def completions(folder):
    "Run -> how often its last cell was reached."
    return {file.parent.name: len(file.read_text().splitlines()) for file in folder.glob("runs/*/completed")}


def nothing_is_left(folder, seconds=20):
    "True as soon as no process works in a folder any more."
    def there(process):
        try: return process.cwd() == str(folder)
        except psutil.Error: return False
    deadline = time.time() + seconds
    while left := [p for p in psutil.process_iter() if there(p)]:
        if time.time() > deadline: return not left
        time.sleep(0.2)
    return True


@pytest.mark.parametrize("options, words", [
    (["-p", "y=1"], ["trial has no parameter 'y'", "x, does, pause, out"]),
    (["-p", "puase=1"], ["did you mean pause?"]),
    (["-p", "x=1,two"], ["x is 'two'; it must be a whole number from 0 to 99"]),
    (["-p", "x=98:101"], ["x is 100; it must be a whole number from 0 to 99"]),
    (["-p", "pause=-1"], ["pause is '-1'; it must be a number, 0 or more"]),
    (["-p", "does=sleep"], ["does is 'sleep'; it must be one of well, raise, die, orphan, hang"]),
    (["-p", "x"], ["name=value"]),
    (["-p", "x=5:5"], ["no points"]),
    (["-p", "x=0:5:0"], ["steps of 0", "LOW:HIGH:STEP"]),
    (["-p", "x=0:99999999999"], ["more than 100,000 values"]),
    (["-p", "x="], ["x is ''", "a whole number from 0 to 99"]),
    (["-p", "pause=nan"], ["pause is 'nan'"]),
    (["-p", "pause=1e999"], ["pause is '1e999'"]),
    (["-p", "out=here"], ["out is set by the sweep"]),
    (["--profile", "quick"], ["trial has no parameter 'profile'"]),
    (["--name", "a/b"], ["'a/b'", "--name"]),
    (["--jobs", "-1"], ["--jobs", "greater than or equal to 0"]),
    (["--resume", "trial"], ["give a notebook", "--resume"]),
    (["--scheduler", "tcp://127.0.0.1:9"], ["no scheduler answers at tcp://127.0.0.1:9"]),
], ids=lambda value: " ".join(value) if value[0].startswith("-") else "")
def test_bad_input_is_one_sentence_and_nothing_runs(options, words, trial, tmp_path, emoart):
    assert_one_sentence(emoart("sweep", trial, "--sweeps", tmp_path / "sweeps", *options), *words)
    assert not list(tmp_path.glob("sweeps/*/runs/*"))


@pytest.mark.parametrize("command, words", [
    (["sweep", "nowhere"], ["there is no notebook nowhere", "shallnet"]),
    (["sweep", "00_settings"], ["00_settings.ipynb has no parameters"]),
    (["sweep", "shallnet", "-p", "learning_rate=0.1,5"], ["learning_rate is '5'", "from 1e-07 to 1"]),
    (["sweep", "shallnet", "--profile", "fast"], ["no profile 'fast'", "smoke, quick, thesis"]),
    (["sweep"], ["give a notebook"]),
    (["sweep", "--resume", "never"], ["there is no sweep 'never'"]),
    (["runs", "never"], ["there is no sweep 'never'"]),
    (["params", "nowhere"], ["there is no notebook nowhere"]),
], ids=lambda value: " ".join(value) if value[0] in ("sweep", "runs", "params") else "")
def test_bad_commands(command, words, tmp_path, emoart):
    assert_one_sentence(emoart(*command, *(["--sweeps", tmp_path] if command[0] != "params" else [])), *words)


def test_params_is_the_manual(trial, emoart):
    said = emoart("params", trial).stdout
    for words in ("a whole number from 0 to 99, 0 by default", "one of well, raise, die", "a number, 0 or more"):
        assert words in said


FORMS = """
size = 2**5 # pixels [32 to 512]
rate: float | None = None # below 5 it learns nothing, 0 to 1 is usual
steps: typing.Optional[int] = 3; label: str = "a=b" # two on a line
way: Literal["fast", "slow"] = "fast"
places = [
    1, 2] # over two lines
home = Path.home() # nobody knows without running it
%matplotlib inline
untold: float
"""


def test_no_form_of_a_parameter_is_lost(tmp_path):
    manual = parameters_of(write_notebook(tmp_path / "forms.ipynb", FORMS))
    assert list(manual) == ["size", "rate", "steps", "label", "way", "places", "home", "untold"]
    assert {name: p.possible for name, p in manual.items()} == dict(
        size="a whole number from 32 to 512", rate="a number", steps="a whole number", label="a text",
        way="one of fast, slow", places="anything", home="anything", untold="a number")
    assert (manual["size"].default, manual["label"].default, manual["home"].default) == (32, "a=b", None)
    said = dict(rate="20", steps="None", places="[3]", home="/x")
    assert [manual[name].typed(text) for name, text in said.items()] == [20.0, None, [3], "/x"]
    for name, wrong in dict(size="600", steps="two", way="medium", rate="many").items():
        with pytest.raises(ValueError): manual[name].typed(wrong)


def test_a_script_sweeps_and_a_default_that_is_an_expression_stays_one(tmp_path):
    write_notebook(tmp_path / "power.ipynb", 'base = 2**5 # any\nout: str = ""',
                   "import json\njson.dump(base + 1, open(f'{out}/metrics.json', 'w'))")
    (tmp_path / "script.py").write_text("from emoart.run.sweeps import sweep\n" # without a guard for __main__
                                        "print(sweep('power.ipynb', [{}], 'power', '.').table.metric.tolist())\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[33]" and done.stderr == "", done.stdout + done.stderr


@pytest.fixture
def package(tmp_path):
    "Modules that import each other in every way there is: dotted name -> path."
    texts = {"core/x.py": "X = 1", "core/z.py": "Z = 1", "core/unused.py": "from . import x", "data/v.py": "V = 1",
             "data/w.py": "def late():\n    import mine.core.z", "data/y.py": "from ..core.x import X\nfrom . import w",
             "models/m.py": "FIT = 'mine.data.v:fit'\nfrom mine.data import y"}
    for place, text in texts.items():
        path = tmp_path / "mine" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, tmp_path / "mine"): (folder / "__init__.py").touch()
        path.write_text(text + "\n")
    return modules(tmp_path / "mine")


@pytest.mark.parametrize("name", ["models.m", "data.y", "core.x", "data.w", "core.z", "data.v", "core.unused"])
def test_a_run_is_another_when_a_module_has_changed_that_it_reaches(name, package, tmp_path, monkeypatch):
    notebook = write_notebook(tmp_path / "reach.ipynb", "seed: int = 0", "%time\nfrom mine.models.m import FIT")
    monkeypatch.setattr(experiments, "modules", lambda: package)
    before = identity(notebook, {})
    package[f"mine.{name}"].write_text("CHANGED = 1\n" + package[f"mine.{name}"].read_text())
    assert (identity(notebook, {}) != before) == (name != "core.unused")


def test_every_experiment_depends_on_settings_and_images():
    n = 0
    for notebook in chapters():
        try: manual = parameters_of(notebook)
        except InputError: continue
        if "profile" in manual:
            n += 1
            imported = imported_modules([text for text, _ in read_cells(notebook)])
            assert imported.keys() >= {"emoart.core.settings", "emoart.data.images"}, notebook.stem
    assert n >= 9


def test_a_dry_run_shows_and_does_nothing(trial, tmp_path, emoart):
    said = emoart("sweep", trial, "-px=0:3", "-ppause=0,0.5", "--dry-run", "--sweeps", tmp_path / "sweeps").stdout
    assert said.splitlines()[-1] == "6 runs of trial; nothing was run" and not (tmp_path / "sweeps").exists()


def changed(folder):
    "Run -> when its story was written last."
    return {run.name: (run / "run.json").stat().st_mtime_ns for run in (folder / "runs").iterdir()}


def test_one_raises_one_dies_one_is_killed(trial, tmp_path):
    sweeps, file = tmp_path / "sweeps", trial.with_name("bad.toml")
    deeds = enumerate(["well", "raise", "die", "orphan", "well"])
    file.write_text('notebook = "trial"\n' + "".join(f'[[list]]\nx = {x}\ndoes = "{does}"\n' for x, does in deeds))
    done = run_emoart("sweep", file, "--sweeps", sweeps, "--max-retries", 1, "--jobs", 2)
    assert done.returncode == 1 and "3 of 5 runs failed" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert len(ended(done.stdout)) == 5
    table = pd.read_csv(sweeps / "bad" / "table.csv")
    assert table.status.tolist() == ["finished", "failed", "died", "died", "finished"]
    assert table.square.dropna().tolist() == [0, 16] and table.cell.dropna().tolist() == [4, 4, 4]
    errors = ["ValueError: <b>no</b> 1", "DeadKernelError: Kernel died", "its process ended with -9"]
    assert table.error.dropna().tolist() == errors
    stories = {run.name: read_run(run) for run in (sweeps / "bad" / "runs").iterdir()}
    attempts = [("died", 2), ("died", 2), ("failed", 1), ("finished", 1), ("finished", 1)]
    assert sorted((story["status"], story["attempt"]) for story in stories.values()) == attempts
    assert nothing_is_left(trial.parent)

    before = changed(sweeps / "bad")
    again = run_emoart("sweep", "--resume", "bad", "--sweeps", sweeps, "--max-retries", 0, "--jobs", 2)
    assert again.returncode == 1 and sorted(status for _, status in ended(again.stdout)) == ["died", "died", "failed"]
    after = changed(sweeps / "bad")
    again = {run for run, story in stories.items() if story["status"] != "finished"}
    assert {run for run in stories if before[run] != after[run]} == again
    assert set(completions(sweeps / "bad").values()) == {1} and pd.read_csv(sweeps / "bad" / "table.csv").equals(table)

    shown = run_emoart("runs", "bad", "--sort", "square", "--sweeps", sweeps)
    lines = shown.stdout.splitlines()
    assert shown.returncode == 0 and "finished: 2" in shown.stdout
    assert [line.split()[0] for line in lines[1:3]] == ["4", "0"]
    page = (sweeps / "bad" / "sweep.html").read_text()
    assert "<b>no" not in page and "&lt;b&gt;no" in page
    links = re.findall('href="(runs/[^"]+)"', page)
    assert len(links) == 5 and all((sweeps / "bad" / urllib.request.unquote(link)).exists() for link in links)
    if CHROMIUM:
        dom, errors = browse(sweeps / "bad" / "sweep.html", tmp_path)
        assert not errors and "<svg" in dom


def test_what_hangs_is_ended_and_tried_again_only_when_asked(trial, tmp_path):
    said = []
    for n in (1, 2):
        results = sweep(trial, [dict(does="hang")], "long", tmp_path / "sweeps", time_limit=4, say=said.append)
        assert results.table.status.tolist() == ["overdue"]
        assert results.table.error.tolist() == ["it ran past its limit of 4 s"]
        assert len(ended("\n".join(said))) == n and nothing_is_left(trial.parent)


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_table(trial, tmp_path):
    def watch(line): # the dashboard is there while the sweep runs
        if not line.startswith("dashboard"): return
        with urllib.request.urlopen(line.split()[-1], timeout=10) as page: pages.append(page.read().decode())
    pages = []
    sweep(trial, grid_points(x=range(5), pause=0.3), "calm", tmp_path / "a", jobs=2, say=watch)
    assert "<title>" in pages[0] and "pip install" not in pages[0], "the dashboard does not work"
    moments = random.Random(1)
    for blow in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = begin(trial, "-px=0:5", "-ppause=0.3", "--jobs", 2, "--name", "calm", "--sweeps", tmp_path / "b")
        if (seen := process.stdout.readline()) and moments.random() < 0.7: seen += process.stdout.readline()
        time.sleep(moments.uniform(0, 1))
        process.send_signal(blow)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == (130 if blow == signal.SIGINT else -9), said
        if blow == signal.SIGINT: assert "interrupted" in said and "Traceback" not in said
        assert nothing_is_left(trial.parent), "a run outlived its sweep"
        for run in (tmp_path / "b" / "calm" / "runs").iterdir():
            assert read_run(run).get("status", "running") in ("running", "died", "finished")
    resumed = run_emoart("sweep", "--resume", "calm", "--sweeps", tmp_path / "b", "--jobs", 2)
    assert resumed.returncode == 0, resumed.stderr
    calm, stormy = tmp_path / "a" / "calm", tmp_path / "b" / "calm"
    for file in ("table.csv", "table.parquet"): assert (calm / file).read_bytes() == (stormy / file).read_bytes()
    assert completions(stormy) == completions(calm), "a finished run was repeated"
    for file in calm.glob("runs/*/metrics.json"):
        assert json.loads(file.read_text())["threads"] == [str(max(1, cpu_count() // 2))] * 2, "threads are not pinned"


def test_finished_runs_stay_and_a_changed_notebook_runs_again(trial, tmp_path):
    def go(n): # how many ran
        said = []
        results = sweep(trial, grid_points(x=range(1, n + 1)), "grow", tmp_path / "sweeps", jobs=2, say=said.append)
        return len(ended("\n".join(said))), results.table.square.tolist()
    assert go(1) == (1, [1]) and go(1) == (0, [1]) and go(2) == (1, [1, 4])
    trial.write_text(trial.read_text().replace("x**2", "x**3"))
    assert read_results("grow", tmp_path / "sweeps").finished.square.tolist() == [1, 4]
    assert go(2) == (2, [1, 8])
    run = read_run(tmp_path / "sweeps" / "grow" / "runs" / run_name(dict(x=2)))
    assert run["environment"]["keras"].startswith("3.") and run["settings"] == {}
    assert run["environment"].keys() >= {"python", "papermill", "commit"}


@pytest.fixture
def cluster(tmp_path):
    "A scheduler and two workers on loopback, each a process group; started as a user would."
    dask = Path(EMOART).with_name("dask")
    file, processes = tmp_path / "scheduler.json", []

    def start(*arguments):
        command, nowhere = [dask, *map(str, arguments)], dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        processes.append(subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **nowhere))
        return processes[-1]

    here = ["--scheduler-file", file, "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    start("scheduler", "--port", 0, *here)
    workers = [start("worker", "--nthreads", 1, "--local-directory", tmp_path, *here) for _ in range(2)]
    while not (file.exists() and file.read_text().endswith("}")): time.sleep(0.1)
    yield json.loads(file.read_text())["address"], workers
    for process in processes:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_cluster_loses_a_worker_and_nothing_is_lost_or_repeated(cluster, trial, tmp_path):
    address, workers = cluster
    options = ["--name", "far", "--sweeps", tmp_path / "sweeps", "--scheduler", address]
    process = begin(trial, "-px=0:7", "-ppause=1", *options)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("[2/7]"): break
    os.killpg(workers[0].pid, signal.SIGKILL) # midway: its run is interrupted
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert len(ended("".join(lines) + stdout)) == 7
    table = pd.read_csv(tmp_path / "sweeps" / "far" / "table.csv")
    assert table.square.tolist() == [x**2 for x in range(7)] and set(table.status) == {"finished"}
    assert completions(tmp_path / "sweeps" / "far") == dict.fromkeys(table.run, 1), "a run was completed twice or never"
    assert nothing_is_left(trial.parent)


def test_a_real_experiment_at_two_points(smoke_gallery, tmp_path):
    done = run_emoart("sweep", "cvfc", "--profile", "smoke", "-pepochs=1,2", "-pseed=3", f"-ppaintings={smoke_gallery}",
                      "--name", "real", "--sweeps", tmp_path)
    assert done.returncode == 0, done.stderr
    results = read_results("real", tmp_path)
    assert results.varied == ["epochs"] and results.main() == "test_balanced_accuracy"
    assert results.baseline("test_accuracy") == "baseline_accuracy"
    for row in results.table.itertuples():
        run = tmp_path / "real" / "runs" / row.run
        metrics, story = json.loads((run / "metrics.json").read_text()), read_run(run)
        accuracy = metrics["test"]["accuracy"]
        assert (row.test_accuracy, row.test_accuracy_low) == (accuracy["value"], accuracy["low"])
        assert story["data_digest"] == paintings_digest(smoke_gallery)
        assert story["settings"]["cvfc_epochs"] == row.epochs and story["settings"]["seed"] == 3
        files = {"notebook.ipynb", "run.json", "metrics.json", "log.txt", "kernel.log", "history.jsonl"}
        assert {path.name for path in run.iterdir()} >= files


@pytest.mark.parametrize("file", sorted(KEPT.glob("*.toml")), ids=lambda file: file.stem)
def test_the_sweeps_of_the_repository_are_in_order(file):
    stem = tomllib.loads(file.read_text())["notebook"]
    notebook, points = read_sweep(file)
    assert len(checked_points(notebook, points)) == len(points) > 1 and notebook == find_notebook(notebook.stem)


def test_the_sweeps_of_the_repository_go_by_their_names(emoart):
    assert len(list(KEPT.glob("*.toml"))) == 4
    assert emoart("sweep", "cvfc_rates", "--dry-run").stdout.splitlines()[-1] == "20 runs of 34_cvfc; nothing was run"
