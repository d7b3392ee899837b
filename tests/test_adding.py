"The worked examples of the page on adding, carried out as they are printed, in a copy of the repository."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from emoart.core.files import NOTEBOOKS, ROOT

PAGE = NOTEBOOKS / "guide" / "6_adding.md"
BIN = Path(sys.executable).parent


def examples():
    "What the page says: (file, where in it, code) of each block."
    blocks = re.findall(r"```python\n# (\S+?)(?:, (.*?))?\n(.*?)```", PAGE.read_text(), re.S)
    return [(Path(file), where, code) for file, where, code in blocks]


def as_cell(source, tags=()):
    return dict(cell_type="code", id=f"new{abs(hash(source)) % 10**6}", metadata=dict(tags=list(tags)), outputs=[],
                execution_count=None, source=source.splitlines(keepends=True))


def new_notebook(path, code):
    "A notebook whose cells begin with the lines that begin with `#|`."
    cells = [dict(cell_type="markdown", id="title", metadata={}, source=["# Linear\n", "\n", "> One dense layer."])]
    for source in re.split(r"^(?=#\| )", code, flags=re.M)[1:]:
        first, rest = source.split("\n", 1)
        if first == "#| parameters": cells.append(as_cell(rest, ["parameters"]))
        elif first == "#| run": cells.append(as_cell(rest))
        else: cells.append(as_cell(source))
    kernel = dict(kernelspec=dict(display_name="python3", language="python", name="python3"))
    path.write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))


def insert(path, where, code):
    "Put a cell above the table, or a row into it."
    notebook = json.loads(path.read_text())
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    if where.startswith("a row of "):
        table = where.removeprefix("a row of ")
        at, = [i for i, source in enumerate(sources) if re.search(rf"^{table} = ", source, re.M)]
        changed = re.sub(rf"^({table} = .*\n)", rf"\1{code}", sources[at], count=1, flags=re.M)
        notebook["cells"][at]["source"] = changed.splitlines(keepends=True)
    else:
        table = {"11_targets": "TARGETS", "15_tables": "READERS"}[path.stem]
        at, = [i for i, source in enumerate(sources) if re.search(rf"^{table} = ", source, re.M)]
        notebook["cells"].insert(at, as_cell(code))
    path.write_text(json.dumps(notebook))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the repository with all three additions, exported; and the files that each of them touched."
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(NOTEBOOKS, folder / "nbs", ignore=shutil.ignore_patterns(".*", "_*"))
    for name in ("pyproject.toml", "settings.ini"): shutil.copy(ROOT / name, folder)
    for file, where, code in examples():
        if (folder / file).exists(): insert(folder / file, where, code)
        else: new_notebook(folder / file, code)
    environment = {name: value for name, value in os.environ.items() if name != "IN_TEST"}
    subprocess.run([BIN / "nbdev-export"], cwd=folder, env=environment, check=True, capture_output=True)
    return folder


def run(copy, *arguments):
    "The command line of the copy."
    code = "import sys; from emoart.run.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_addition_costs_what_the_page_says():
    files = {}
    for part, text in zip(("label scheme", "classifier", "data set"), PAGE.read_text().split("\n## ")[1:]):
        said = {"One file": 1, "Two files": 2}[re.search(r"\*\*(.*?)\*\*", text)[1]]
        files[part] = set(re.findall(r"```python\n# (\S+?)[,\n]", text))
        assert len(files[part]) == said
    assert len(examples()) == 6


def test_a_label_scheme_and_a_classifier_are_known_everywhere(copy, smoke_gallery, tmp_path):
    said = run(copy, "train", "linear", "--data", smoke_gallery, "--profile", "smoke", "-p", "target=tones",
               "-p", "image_size=64", "--out", tmp_path / "model", "-p", f"cache={tmp_path}")
    assert "\nLinear: balanced accuracy " in said
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["names"] == ["dark", "bright"] and metrics["target"] == "tones" and metrics["baseline"]
    picture = next((smoke_gallery / "images").iterdir())
    answer, = json.loads(run(copy, "predict", picture, "--model", tmp_path / "model", "--json"))
    assert set(answer["probabilities"]) == {"dark", "bright"} and answer["group"] in ("dark", "bright")


def test_a_data_set_is_cleaned_and_has_its_targets(copy, smoke_gallery, tmp_path):
    names = [path.name for path in sorted((smoke_gallery / "images").iterdir())[:3]]
    (tmp_path / "votes").mkdir()
    for name in names: shutil.copy(smoke_gallery / "images" / name, tmp_path / "votes")
    votes = [(names[0], "joy"), (names[0], "fear"), (names[0], "joy"), (names[1], "fear"), (names[2], "love")]
    pd.DataFrame(votes, columns=["Picture", "Felt"]).to_csv(tmp_path / "votes" / "votes.csv", index=False)
    said = run(copy, "clean", tmp_path / "votes" / "votes.csv", "--out", tmp_path / "mine")
    assert "kept           3" in said and re.search(r"labelled +3 for the target emotions", said)
    kept = pd.read_csv(tmp_path / "mine" / "paintings.csv")
    assert kept.share_joy.round(2).tolist() == [0.67, 0, 0] and kept.share_love.tolist() == [0, 0, 1]
