"Papermill runs a chapter in a process of its own that is forked from one which has TensorFlow loaded already."
import contextlib
import functools
import multiprocessing
import os
import traceback
from concurrent.futures import ProcessPoolExecutor

from emoart.core.files import NOTEBOOKS, find_notebook

WARM = ["papermill", "IPython", "pandas", "matplotlib.pyplot", "sklearn.linear_model",
        "emoart.run.report", "emoart.models.predict", "emoart.findings.comparison", "emoart.explain.attribution"]


def _engine():
    "A papermill engine without a kernel: every cell runs in this process."
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib import pyplot as plt
    from papermill.engines import Engine

    class Here(Engine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            shell = InteractiveShell.instance()
            for cell in nb_man.nb.cells:
                if cell.cell_type != "code": continue
                done = shell.run_cell(cell.source)
                plt.close("all")
                error = done.error_before_exec or done.error_in_exec
                if error: raise RuntimeError(f"this cell failed:\n{cell.source}") from error

    return Here


def _run(notebook, out, parameters):
    "What went wrong, or an empty text."
    import papermill
    papermill.engines.papermill_engines.register("here", _engine())
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try: papermill.execute_notebook(str(notebook), str(out), parameters, engine_name="here", kernel_name="python3",
                                        progress_bar=False, cwd=str(notebook.parent))
        except Exception: return traceback.format_exc()
    return ""


@functools.cache
def _pool():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(WARM)
    return ProcessPoolExecutor(1, context, max_tasks_per_child=1)


def execute(name, folder, **parameters):
    "Run a chapter with parameters, into a folder."
    notebook = NOTEBOOKS / "index.ipynb" if name == "index" else find_notebook(name)
    failure = _pool().submit(_run, notebook, folder / f"{name}.ipynb", parameters).result()
    assert not failure, failure
