"The main job as a user runs it: from the shell, twice, interrupted, on bad input, and in a browser."
import json
import os
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest
from conftest import CHROMIUM, EMOART, assert_one_sentence, browse, run_emoart
from PIL import Image

from emoart.core.files import writable_folder, write_json
from emoart.core.settings import load_settings
from emoart.run.experiments import RunError, run_notebook
from emoart.run.report import TABLE1

EXPERIMENTS = [name.strip() for name in load_settings("smoke").report.models.split(",")]


@pytest.fixture(scope="session")
def smoke_run(workplace):
    "A finished smoke run: its folder and what the command printed."
    options, runs = workplace
    done = run_emoart("reproduce", "--profile", "smoke", "--name", "first", *options)
    assert done.returncode == 0, done.stderr
    return runs / "first", done


def test_one_line_a_step_and_a_full_folder(smoke_run):
    run, done = smoke_run
    lines = done.stdout.splitlines()
    assert [line.split("]")[0] for line in lines] == [f"[{i}/6" for i in range(1, 7)]
    assert str(run / "report.html") in lines[-1] and done.stderr == ""
    assert {p.name for p in run.iterdir()} == {"run.json", "table1.csv", "report.html", *EXPERIMENTS}
    for model in EXPERIMENTS:
        left = {"notebook.ipynb", "run.json", "metrics.json", "history.jsonl", "predictions.csv", "model.keras"}
        assert {p.name for p in (run / model).iterdir()} >= left
    assert any((run.parent.parent / "cache" / "features").iterdir()) # and not in the repository



def test_table1(smoke_run):
    table = pd.read_csv(smoke_run[0] / "table1.csv").set_index("model", drop=False)
    assert tuple(table.columns) == TABLE1
    assert list(table.model) == ["majority baseline", "ShallNet", "efficientnet-lite0+TL", "CV+FC", "Fusion"]
    assert (table.test_accuracy_low <= table.test_accuracy).all()
    assert (table.test_accuracy <= table.test_accuracy_high).all()
    assert table.test_accuracy["majority baseline"] == table.majority["CV+FC"] and table.auc["majority baseline"] == 0.5
    assert table.published.dropna().to_dict() == {"ShallNet": 0.276, "CV+FC": 0.563}


def test_the_same_command_gives_the_same_bytes_even_after_ctrl_c(smoke_run, workplace):
    options, runs = workplace
    models = ["shallnet", "cvfc"]
    some = f"-preport_models={','.join(models)}"
    command = [EMOART, "reproduce", "--profile", "smoke", "--name", "stopped", some, *options]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    for line in process.stdout:
        if line.startswith("[2/4]"): break
    while not (runs / "stopped" / "cvfc" / "run.json").exists(): time.sleep(0.1)
    time.sleep(2) # cvfc is running
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert (runs / "stopped" / "shallnet" / "metrics.json").exists()
    assert not (runs / "stopped" / "cvfc" / "metrics.json").exists()
    again = run_emoart(*command[1:])
    assert again.returncode == 0
    assert "[2/4] shallnet" in again.stdout and again.stdout.count("finished before") == 1
    for file in ("cvfc/features.csv", *(f"{model}/predictions.csv" for model in models)):
        assert (runs / "first" / file).read_bytes() == (runs / "stopped" / file).read_bytes()
    whole, part = (pd.read_csv(runs / name / "table1.csv").set_index("model") for name in ("first", "stopped"))
    pd.testing.assert_frame_equal(whole.loc[part.index], part)


def test_a_users_sheet_with_hostile_titles_and_a_model_that_cannot_be_had(tmp_path, workplace, smoke_gallery):
    options, runs = workplace
    paintings = pd.read_csv(smoke_gallery / "paintings.csv")
    sheet = pd.DataFrame({"Title": "<script>alert(1)</script>", "Artist": paintings.artist, "Genre": paintings.genre,
                          "Style": "", "Tags": "", "Emotion": paintings.emotion,
                          "Image URL": "images/" + paintings.file})
    shutil.copytree(smoke_gallery / "images", tmp_path / "images")
    sheet.loc[len(sheet)] = ["0099", "", "portrait", "", "", "Joy", ""]
    sheet.to_csv(tmp_path / "mine.csv", index=False)
    offline = dict(KERAS_HOME=str(tmp_path), https_proxy="http://127.0.0.1:9") # a port that nobody answers at
    done = run_emoart("reproduce", "--profile", "smoke", "--sheet", tmp_path / "mine.csv", "-p", "genre=",
                      "-p", "backbone=vgg16", "-p", "report_models=transfer,cvfc", *options, "--name", "mine",
                      environment=offline)
    assert done.returncode == 0, done.stderr
    assert "[2/4] transfer: not run, VGG16's ImageNet weights cannot be had" in done.stdout
    page = (runs / "mine" / "report.html").read_text()
    assert "<script>alert(1)</script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<td>0099</td>" in page and "not run: VGG16&#39;s ImageNet weights cannot be had" in page
    assert page.count(">not run") == 3 # transfer, and the two published versions
    table = pd.read_csv(runs / "mine" / "table1.csv").set_index("model")
    assert list(table.index) == ["majority baseline", "CV+FC"]
    assert "no image address" in page


def test_values_have_a_table_of_their_own(tmp_path, workplace, smoke_gallery):
    options, runs = workplace
    paintings = pd.read_csv(smoke_gallery / "paintings.csv", dtype=str, keep_default_na=False)
    pictures = [Image.open(smoke_gallery / "images" / file) for file in paintings.file]
    brightness = [picture.convert("L").resize((1, 1)).getpixel((0, 0)) for picture in pictures]
    table = pd.DataFrame(dict(file="images/" + paintings.file, Valence_mean=brightness, Arousal_mean=brightness[::-1]))
    shutil.copytree(smoke_gallery / "images", tmp_path / "images")
    table.to_csv(tmp_path / "photos.csv", index=False)
    done = run_emoart("reproduce", "--profile", "smoke", "--sheet", tmp_path / "photos.csv", "-p", "target=values",
                      "-p", "report_models=cvfc", *options, "--name", "photos")
    assert done.returncode == 0, done.stderr
    assert "[2/3] cvfc: test pearson" in done.stdout
    table = pd.read_csv(runs / "photos" / "table1.csv").set_index("model")
    assert list(table.index) == ["constant baseline", "CV+FC"]
    assert table.pearson["constant baseline"] == 0
    assert table.pearson["CV+FC"] > 0.2 # brightness is one of its thirteen numbers
    page = (runs / "photos" / "report.html").read_text()
    assert "valence" in page and "majority" not in page


def test_a_failed_experiment_costs_the_others_nothing(workplace, monkeypatch, emoart):
    options, runs = workplace
    def run(notebook, folder, parameters):
        if notebook.stem != "30_shallnet": return run_notebook(notebook, folder, parameters)
        write_json(writable_folder(folder) / "run.json", dict(status="failed", error="ValueError: no luck"))
        raise RunError("30_shallnet failed in cell [3] with ValueError: no luck")
    monkeypatch.setattr("emoart.run.report.run_notebook", run)
    models = ["-p", "report_models=shallnet,cvfc", "-p", "cvfc_epochs=1"]
    done = emoart("reproduce", "--profile", "smoke", *models, *options, "--name", "half")
    assert done.returncode == 1 and "shallnet failed" in done.stderr and "report.html" in done.stderr
    page = (runs / "half" / "report.html").read_text()
    assert "failed: ValueError: no luck" in page
    assert list(pd.read_csv(runs / "half" / "table1.csv").model) == ["majority baseline", "CV+FC"]


def test_the_report_opens_without_console_errors(smoke_run, tmp_path):
    if CHROMIUM is None: pytest.skip("no Chromium on this machine")

    broken = tmp_path / "broken.html"
    broken.write_text("<title>x</title><script>nonsense()</script><img src=missing.png>")
    assert browse(broken, tmp_path)[1], "this test would not see an error"
    page, errors = browse(smoke_run[0] / "report.html", tmp_path)
    assert not errors and "Table 1" in page and page.count("<figure") > 20


@pytest.mark.parametrize("options, words", [
    (["--profile", "fast"], ["no profile 'fast'", "smoke, quick, thesis"]),
    (["--profile", "DEFAULT"], ["no profile 'DEFAULT'"]),
    (["-p", "profile=smoke"], ["profile is no setting", "--profile"]),
    (["-p", "target=mood"], ["no target 'mood'"]),
    (["-p", "report_models=vcfc"], ["no model 'vcfc'", "did you mean cvfc?"]),
    (["--name", "x" * 300], ["--name"]),
    (["-p", "sed=1"], ["no setting 'sed'", "did you mean seed?"]),
    (["-p", "seed=one"], ["seed is 'one'", "whole number"]),
    (["-p", "global_cue=2"], ["global_cue is '2'", "from 0 to 1"]),
    (["-p", "seed"], ["name=value"]),
    (["--name", "a/b"], ["'a/b'", "--name"]),
    (["--sheet", "nowhere.xlsx"], ["there is no sheet nowhere.xlsx"]),
    (["--colour"], ["--colour"]),
    (["--sheet", "columns.csv"], ["lacks the columns Genre, Image URL"]),
    (["--sheet", "empty.csv"], ["no rows"]),
    (["--sheet", "binary.xlsx"], ["cannot read binary.xlsx"]),
    (["--sheet", "unlabelled.csv"], ["no labelled painting", "portrait"]),
    (["-p", "runs=columns.csv/runs"], ["cannot write to the folder"]),
], ids=lambda value: " ".join(value) if value[0].startswith("-") else "")
def test_bad_input_is_one_sentence(options, words, tmp_path, monkeypatch, emoart):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "columns.csv").write_text("Title,Emotion\nA,Joy\n")
    (tmp_path / "empty.csv").write_text("Title,Genre,Emotion,Image URL\n")
    (tmp_path / "binary.xlsx").write_bytes(os.urandom(1000))
    (tmp_path / "unlabelled.csv").write_text("Title,Genre,Emotion,Image URL\nA,portrait,,a.png\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    runs = [] if any("runs=" in option for option in options) else [f"-pruns={tmp_path / 'runs'}"]
    options = [f"runs={tmp_path}/columns.csv/runs" if option.startswith("runs=") else option for option in options]
    assert_one_sentence(emoart("reproduce", f"-pcache={tmp_path / 'cache'}", *runs, *options), *words)
    assert not list(tmp_path.glob("runs/*")), "something half-written is left"


def test_a_name_belongs_to_one_set_of_settings(smoke_run, workplace):
    before = (smoke_run[0] / "table1.csv").read_bytes()
    done = run_emoart("reproduce", "--profile", "smoke", "--name", "first", *workplace[0], "-p", "seed=9")
    assert_one_sentence(done, "other settings", "--name")
    assert (smoke_run[0] / "table1.csv").read_bytes() == before


def test_settings_reach_the_notebooks(smoke_run):
    run = json.loads((smoke_run[0] / "shallnet" / "run.json").read_text())
    settings = load_settings("smoke")
    assert run["parameters"]["learning_rate"] == settings.shallnet.learning_rate
    assert run["parameters"]["epochs"] == settings.shallnet.epochs and run["parameters"]["profile"] == "smoke"
    assert run["environment"]["keras"].startswith("3.")
