"What must hold in every commit: clean notebooks, an exact export, a fresh README, code that can be read."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from emoart.core.files import NOTEBOOKS, ROOT, chapter_name, chapters, modules
from emoart.core.settings import SECTIONS, SETTINGS, setting_name
from emoart.evaluate.models import CLASSIFIERS, GENERATORS

BIN = Path(sys.executable).parent
PATHS = [NOTEBOOKS / "index.ipynb", *chapters()]
EXPERIMENTS = {*(model.notebook for model in CLASSIFIERS), *GENERATORS, "faithfulness", "comparison", "persons",
               "texture_svm", "stimuli", "from_emotion", "bench"}
NO_SETTINGS = {"profile", "paintings", "out", "model", "models", "images", "judge", "work", "sizes", "works", "layer",
               "output", "unit", "methods", "n_curves"} # parameters that say what, not how


def cells_of(path): return json.loads(path.read_text())["cells"]


def source_of(cell): return "".join(cell["source"])


def test_notebooks_are_where_they_are_looked_for():
    "A notebook in another place would be left out of everything without a failure."
    assert set(NOTEBOOKS.rglob("*.ipynb")) == set(PATHS) and len(PATHS) >= 47
    numbers = Counter(path.stem.split("_")[0] for path in chapters())
    assert max(numbers.values()) == 1, "one number, one notebook"
    assert all(path.stem[0] == path.parent.name[0] for path in chapters()), "the room's digit is the chapter's first"
    rooms = {path.parent for path in chapters()}
    assert len(rooms) == 10 and all((room / "index.md").exists() for room in rooms)


def test_every_chapter_exports_the_module_of_its_room():
    exported = {}
    for path in chapters():
        found = re.search(r"^#\| ?default_exp (\S+)", source_of(cells_of(path)[0]))
        if found: exported[f"emoart.{found[1]}"] = path
    assert set(exported) == set(modules())
    for name, path in exported.items():
        _, room, module = name.split(".")
        assert path.parent.name.endswith(f"_{room}") and chapter_name(path) == module


def tree(folder):
    "Relative path -> content of every file below a folder, compiled Python left out."
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def copy(tmp_path):
    "The notebooks and the project file in a folder of their own, the package emptied."
    shutil.copytree(NOTEBOOKS, tmp_path / "nbs", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def nbdev(command, folder):
    environment = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    subprocess.run([BIN / f"nbdev-{command}"], cwd=folder, env=environment, check=True, capture_output=True)


def parameter_cells(folder):
    "Chapter -> number of its cells that carry papermill's tag."
    found = {}
    for path in chapters(folder):
        n = sum("parameters" in cell["metadata"].get("tags", []) for cell in cells_of(path))
        if n: found[chapter_name(path)] = n
    return found


def test_notebooks_are_clean(copy):
    nbdev("clean", copy)
    cleaned = {path: copy / "nbs" / path.relative_to(NOTEBOOKS) for path in PATHS}
    stale = [path.stem for path in PATHS if cleaned[path].read_bytes() != path.read_bytes()]
    assert not stale, f"not clean: {stale}; run make export"


def test_cleaning_keeps_the_parameters_tag(copy):
    before = parameter_cells(NOTEBOOKS)
    assert set(before) == EXPERIMENTS and set(before.values()) == {1}
    nbdev("clean", copy)
    assert parameter_cells(copy / "nbs") == before
    project = copy / "pyproject.toml"
    project.write_text(project.read_text().replace('allowed_cell_metadata_keys = ["tags"]', ""))
    nbdev("clean", copy)
    assert parameter_cells(copy / "nbs") == {}, "the setting that keeps the tag is no longer what keeps it"


@pytest.mark.parametrize("path", [path for path in chapters() if chapter_name(path) in EXPERIMENTS], ids=chapter_name)
def test_what_papermill_may_change_is_what_the_chapter_owns(path):
    "Names and types of the parameters cell are those of the settings, and all of the chapter's own are there."
    cell, = [cell for cell in cells_of(path) if "parameters" in cell["metadata"].get("tags", [])]
    declared = {node.target.id: ast.unparse(node.annotation) for node in ast.parse(source_of(cell)).body}
    chapter = chapter_name(path)
    for name, kind in declared.items():
        known = setting_name(chapter, name)
        assert known or name in NO_SETTINGS, f"{chapter}: {name} is no setting"
        if known: assert kind == SETTINGS[known].type.__name__, f"{chapter}: {name}"
    if chapter in SECTIONS:
        own = {known.field for known in SETTINGS.values() if known.section == chapter}
        assert own <= set(declared), f"{chapter} lacks {own - set(declared)}"


def test_the_package_is_what_the_notebooks_export(copy):
    nbdev("export", copy)
    assert tree(ROOT / "emoart") == tree(copy / "emoart"), "run make export"


SPOILED = {
    "conflict markers": lambda text: text.replace("\n", "\n<<<<<<< HEAD\n", 1),
    "byte-order mark": lambda text: "\ufeff" + text,
    "is no notebook": lambda text: text[:-20],
    "line 2": lambda text: text.replace('"#| export\\n"', '"#| export\\n",\n    "def split((:\\n"', 1),
    "no Python": lambda text: text.replace('"#| export\\n"', '"#| export\\n",\n    "%load_ext autoreload\\n"', 1)}


@pytest.mark.parametrize("words", SPOILED)
def test_a_spoiled_notebook_is_named_and_exports_nothing(words, tmp_path):
    shutil.copytree(NOTEBOOKS, tmp_path / "nbs")
    spoiled = next((tmp_path / "nbs").rglob("18_splits.ipynb"))
    spoiled.write_text(SPOILED[words](spoiled.read_text(encoding="utf-8")), encoding="utf-8")
    (tmp_path / "emoart").mkdir()
    (tmp_path / "emoart" / "old.py").write_text("kept = True\n")
    done = subprocess.run([sys.executable, tmp_path / "nbs" / "export.py"], capture_output=True, text=True)
    assert done.returncode == 1 and "18_splits.ipynb" in done.stderr and words in done.stderr, done.stderr
    assert [path.name for path in (tmp_path / "emoart").iterdir()] == ["old.py"] and "Traceback" not in done.stderr


def test_readme_is_fresh(tmp_path):
    subprocess.run(["make", "--silent", "readme", f"README={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    assert (ROOT / "README.md").read_text() == (tmp_path / "README.md").read_text(), "run make export"
    assert tree(ROOT / "reports" / "readme") == tree(tmp_path / "reports" / "readme"), "run make export"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_small_readable_and_has_run(path):
    assert path.stat().st_size < 300 * 1024
    cells = cells_of(path)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs or path.stem == "02_backend", "it has no outputs: run it before committing"
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    for cell in cells:
        lines = source_of(cell).splitlines()
        if cell["cell_type"] != "code" or not lines: continue
        assert max(map(len, lines)) <= 120, max(lines, key=len)
        if lines[0].startswith("#| export"): assert len(lines) <= 60, f"a wall: {lines[1]}"


def test_lines_of_the_tests_can_be_read():
    for path in sorted(Path(__file__).parent.glob("*.py")):
        assert max(map(len, path.read_text().splitlines())) <= 120, path.name


def test_no_machine_paths_and_no_index_addresses():
    machine = re.compile(r"/(?:work|root|home|Users|tmp)/[A-Za-z.]")
    index = re.compile(r"index-url|extra-index|find-links|pypi\.org/simple")
    files = [*PATHS, ROOT / "README.md", ROOT / "requirements.lock", ROOT / "settings.ini",
             *ROOT.glob("reports/*.csv"), *NOTEBOOKS.rglob("*.md")]
    for path in files:
        assert not machine.search(path.read_text()), f"a path of one machine in {path.name}"
        assert not index.search(path.read_text()), f"an index address in {path.name}"


def test_every_locked_version_has_a_hash():
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text().strip())
    assert len(entries) > 100
    assert all("==" in entry.split("\n")[0] and "--hash=sha256:" in entry for entry in entries)


def test_the_package_carries_what_it_needs(smoke_gallery, tmp_path):
    "Installed without a checkout: notebooks and settings come along; what is written goes to the folder of the call."
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    shutil.unpack_archive(next(tmp_path.glob("*.whl")), tmp_path / "site", "zip")
    here, environment = tmp_path / "here", {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    here.mkdir()
    command = [BIN / "emoart", "train", "cvfc", "--data", smoke_gallery, "--profile", "smoke", "--out", "model"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and (here / "model" / "model.keras").exists(), done.stderr
    command = [sys.executable, "-c", "from emoart.core.settings import *; print(load_settings().runs_folder)"]
    assert subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True).stdout.strip() == \
        str(here / "reports" / "runs")


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
