"""`make export`: the package, from the notebooks, exchanged only when all of it could be made.

This file stands by itself, for it has to work when the package does not."""
import ast
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def trouble(notebook):
    "What keeps a notebook from being exported; an empty text where nothing does."
    content = notebook.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"): return "begins with a byte-order mark; save it as UTF-8 without one"
    if b"\n<<<<<<< " in b"\n" + content: return "holds the conflict markers of a merge; resolve them"
    try: cells = json.loads(content)["cells"]
    except (ValueError, KeyError, TypeError) as error: return f"is no notebook: {error}"
    for number, cell in enumerate(cells):
        code = "".join(cell["source"])
        if cell["cell_type"] != "code" or not code.lstrip().startswith("#| export"): continue
        try: ast.parse(code)
        except SyntaxError as error: return f"has an exported cell (cell {number}) that is no Python: {error.msg}, line {error.lineno}"
    return ""


def export(folder):
    "Export a copy of the notebooks into a folder: the package that it makes."
    for name in ("nbs", "settings.ini", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / "emoart").mkdir()
    (folder / "emoart" / "__init__.py").touch()
    subprocess.run([Path(sys.executable).with_name("nbdev-export")], cwd=folder, check=True)
    return folder / "emoart"


def exchange(new, old):
    "Let the files of one package take the place of another's; those that stay the same are not touched."
    made = {path.relative_to(new) for path in new.rglob("*.py")}
    for path in made:
        if (old / path).exists() and (old / path).read_bytes() == (new / path).read_bytes(): continue
        (old / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(new / path, old / path.with_suffix(".new"))
        (old / path.with_suffix(".new")).replace(old / path)
    for path in old.rglob("*.py"):
        if path.relative_to(old) not in made: path.unlink()
    return len(made)


def main():
    notebooks = sorted((ROOT / "nbs").rglob("*.ipynb"))
    said = {path: why for path in notebooks if (why := trouble(path))}
    for path, why in said.items(): print(f"{path.relative_to(ROOT)} {why}", file=sys.stderr)
    if said: sys.exit("nothing was exported; the package is as it was")
    subprocess.run([Path(sys.executable).with_name("nbdev-clean")], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        try: package = export(Path(folder))
        except subprocess.CalledProcessError: sys.exit("nbdev-export failed as told above; the package is as it was")
        print(f"{exchange(package, ROOT / 'emoart')} modules exported; the notebooks' own checks were not run: make test runs them")


if __name__ == "__main__": main()
