"What must hold in every commit: clean notebooks, an exact export, a fresh README."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emoart.core.files import NOTEBOOKS, ROOT, chapters, modules

BIN = Path(sys.executable).parent
PATHS = [NOTEBOOKS / "index.ipynb", *chapters()]


def tree(folder):
    "Relative path -> content of every file below a folder, compiled Python left out."
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts}


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
    "Notebook -> number of its cells that carry papermill's tag."
    cells = {p.stem: json.loads(p.read_text())["cells"] for p in chapters(folder)}
    return {name: n for name in cells if (n := sum("parameters" in c["metadata"].get("tags", []) for c in cells[name]))}


def test_notebooks_are_clean(copy):
    nbdev("clean", copy)
    stale = [path.stem for path in PATHS if (copy / "nbs" / path.relative_to(NOTEBOOKS)).read_bytes() != path.read_bytes()]
    assert not stale, f"not clean: {stale}; run make export"


def test_cleaning_keeps_the_parameters_tag(copy):
    before = parameter_cells(NOTEBOOKS)
    assert set(before) == {*("50_persons", "30_shallnet", "33_transfer", "41_faithfulness", "34_cvfc", "36_fusion", "80_comparison", "64_basicgan", "65_gandeconv", "66_dcgan", "91_bench")} and set(before.values()) == {1}
    nbdev("clean", copy)
    assert parameter_cells(copy / "nbs") == before
    project = copy / "pyproject.toml"
    project.write_text(project.read_text().replace('allowed_cell_metadata_keys = ["tags"]', ""))
    nbdev("clean", copy)
    assert parameter_cells(copy / "nbs") == {}, "the setting that keeps the tag is no longer what keeps it"


def test_the_package_is_what_the_notebooks_export(copy):
    nbdev("export", copy)
    assert tree(ROOT / "emoart") == tree(copy / "emoart"), "run make export"


def test_readme_is_fresh(tmp_path):
    subprocess.run(["make", "--silent", "readme", f"README={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    assert (ROOT / "README.md").read_text() == (tmp_path / "README.md").read_text(), "run make export"
    assert tree(ROOT / "reports" / "readme") == tree(tmp_path / "reports" / "readme"), "run make export"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_run(path):
    assert path.stat().st_size < 300 * 1024
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]
    assert outputs or path.stem == "02_backend", "it has no outputs: run it before committing"
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_no_machine_paths_and_no_index_addresses():
    machine = re.compile(r"/(?:work|root|home|Users|tmp)/[A-Za-z.]")
    index = re.compile(r"index-url|extra-index|find-links|pypi\.org/simple")
    files = [*PATHS, ROOT / "README.md", ROOT / "requirements.lock", ROOT / "settings.ini", *ROOT.glob("reports/*.csv")]
    for path in files:
        assert not machine.search(path.read_text()), f"a path of one machine in {path.name}"
        assert not index.search(path.read_text()), f"an index address in {path.name}"


def test_every_locked_version_has_a_hash():
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text().strip())
    assert len(entries) > 100
    assert all("==" in entry.split("\n")[0] and "--hash=sha256:" in entry for entry in entries)
