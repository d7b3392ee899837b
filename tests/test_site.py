"The site: it builds without a warning, its links lead somewhere, its HTML is valid, and a browser finds nothing wrong."
import ast
import functools
import http.server
import json
import re
import shlex
import shutil
import threading
import warnings
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import typer.main
from bs4 import BeautifulSoup
from conftest import CHROMIUM
from justhtml import JustHTML
from sphinx.cmd.build import main as build

from emoart.core.files import NOTEBOOKS, ROOT, chapters, modules
from emoart.core.settings import SETTINGS
from emoart.run.cli import app
from emoart.workshop.docsite import write_site

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The site of a copy of the notebooks, with one chapter and one table more, both with a hostile title."
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(NOTEBOOKS, folder / "nbs", ignore=shutil.ignore_patterns(".*"))
    (folder / "reports").mkdir()
    tables = [*ROOT.glob("reports/*.csv"), *ROOT.glob("reports/*.json")]
    for path in [*tables, ROOT / "reports" / "README.md"]: shutil.copy(path, folder / "reports")
    rows = f"model,accuracy,low,high,majority\n{HOSTILE},0.5,0.4,0.6,0.3\nother,0.5,0.4,0.6,0.3\n"
    (folder / "reports" / "hostile.csv").write_text(rows)
    (folder / "reports" / "bench.json").write_text(json.dumps([dict(what=HOSTILE, seconds=1.5)]))
    result = dict(output_type="execute_result", execution_count=None, metadata={}, data={"text/plain": repr(HOSTILE)})
    outputs = [dict(output_type="stream", name="stdout", text=HOSTILE), result]
    code = dict(cell_type="code", id="b", metadata={}, execution_count=None, source="title", outputs=outputs)
    said = dict(cell_type="markdown", id="a", metadata={}, source="# Ninety-nine\n\n> Nobody knows it.\n\nA painting.")
    kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    added = dict(cells=[said, code], metadata=kernel, nbformat=4, nbformat_minor=5)
    (folder / "nbs" / "9_workshop" / "99_added.ipynb").write_text(json.dumps(added))
    write_site(folder / "proc", folder / "nbs", folder / "reports")
    with warnings.catch_warnings(action="ignore"): # of the theme, for Sphinx 11
        assert build(["-W", "--keep-going", "--quiet", str(folder / "proc"), str(folder / "html")]) == 0
    return folder / "html"


@pytest.fixture(scope="session")
def pages(site):
    "Path below the site -> its HTML, parsed."
    paths = [path for path in sorted(site.rglob("*.html")) if path.relative_to(site).parts[0] != "_static"]
    return {str(path.relative_to(site)): BeautifulSoup(path.read_text(), "html.parser") for path in paths}


def test_every_notebook_module_command_setting_and_table_has_its_page(pages):
    assert len(chapters()) >= 42 and len(modules()) >= 40
    for path in chapters():
        page, name = pages[f"{path.parent.name}/{path.stem}.html"], f"nbs/{path.parent.name}/{path.name}"
        rerun = page.select_one(".rerun")
        assert rerun.find(string=lambda text: name in text), f"{path.stem} does not say where it comes from"
        assert name in rerun.pre.text, f"{path.stem} does not say how to run it again"
    for module, path in modules().items():
        titles = {heading.get("id") for heading in pages[f"reference/{module.replace('.', '/')}.html"].select("dt[id]")}
        tree = ast.parse(path.read_text())
        defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        public = [node.name for node in defined if not node.name.startswith("_")
                  and not any("app." in ast.unparse(each) for each in node.decorator_list)]
        assert [name for name in public if f"{module}.{name}" not in titles] == [], module
    settings = {term.text for term in pages["reference/settings.html"].select("dt")}
    assert [name for name in SETTINGS if name not in settings] == []
    commands = {heading.find(string=True) for heading in pages["reference/commands.html"].select("article h2")}
    assert {f"emoart {name}" for name in typer.main.get_command(app).commands} == commands
    for path in ROOT.glob("reports/*.csv"):
        page = pages[f"results/{path.stem}.html"]
        assert len(page.select("tbody tr")) == len(path.read_text().splitlines()) - 1, f"{path.stem} is not in full"
        figure, full, last = (page.find(name, **where) for name, where in (
            ("figure", {}), ("section", dict(id="in-full")), ("section", dict(id="where-it-comes-from"))))
        assert figure.sourceline < full.sourceline < last.sourceline


def test_a_chapter_that_is_added_appears_by_itself(pages):
    assert "Nobody knows it." in pages["9_workshop/index.html"].article.text
    assert pages["9_workshop/90_docsite.html"].select_one('#pst-primary-sidebar a[href="99_added.html"]')


def test_directives_are_carried_out(pages):
    "A chapter shows prose, checks and pictures; exported sources are folded, exported imports and directives are gone."
    page = pages["3_models/34_cvfc.html"]
    assert page.select("details.above-input") or page.select("details.hide")
    assert "default_exp" not in page.text and "#| export" not in page.text
    assert page.h1.text.startswith("CV+FC") and page.select("math")
    assert page.select_one('a[href="../reference/emoart/models/cvfc.html#emoart.models.cvfc.brightness"]')
    assert pages["4_explain/40_attribution.html"].select_one('a[href="../references.html#selvaraju2017"]')
    described = pages["reference/emoart/models/cvfc.html"].find(id="emoart.models.cvfc.brightness")
    assert "brightness(image: np.ndarray) → float" in described.text
    assert "image – (height, width, 3) uint8 RGB" in described.find_next_sibling("dd").text


def test_links_lead_somewhere(pages, site):
    def anchors(page): return {e["id"] for e in page.select("[id]")} | {e["name"] for e in page.select("a[name]")}
    ids = {name: anchors(page) for name, page in pages.items()}
    broken, n = [], 0
    for name, page in pages.items():
        if name == "search.html": continue
        for element in page.select("[href], [src]"):
            address, fragment = urldefrag(element.get("href") or element.get("src"))
            if re.match(r"[a-z]+:", address):
                if not re.match(r"(https://|mailto:|data:)", address): broken.append((name, address))
                continue
            n += 1
            target = (site / name).parent / unquote(address.split("?")[0]) if address else site / name
            target = target / "index.html" if target.is_dir() else target
            if not target.exists(): broken.append((name, address))
            elif fragment and target.suffix == ".html":
                known = ids[str(target.resolve().relative_to(site.resolve()))]
                if unquote(fragment) not in known: broken.append((name, f"{address}#{fragment}"))
    assert n > 3000
    assert broken == []


def test_html_is_valid(pages, site):
    "No parse error of the HTML standard, no id twice, no picture without a description."
    for name, page in pages.items():
        errors = [str(error) for error in JustHTML((site / name).read_text(), collect_errors=True).errors]
        assert errors == [], f"{name}: {errors[:5]}"
        ids = [element["id"] for element in page.select("[id]")]
        assert len(ids) == len(set(ids)), f"{name}: {[i for i in set(ids) if ids.count(i) > 1]}"
        assert [image for image in page.select("img") if not image.get("alt", "").strip()] == [], name
        assert page.title.text and page.html["lang"] == "en", name
        assert len(page.select("article h1")) == (name != "search.html"), name


def test_a_hostile_title_is_shown_as_it_is(pages):
    for name in ("9_workshop/99_added.html", "results/hostile.html", "results/bench.html"):
        assert HOSTILE in pages[name].select_one("article").text, name
        assert not [script for script in pages[name].select("script") if "alert(1)" in script.text], name


def test_a_hostile_title_on_the_pages_of_runs():
    from emoart.explain.explain import PAGE as explanation
    from emoart.run.report import PAGE as report
    from emoart.run.sweeppage import PAGE as sweep
    painting = dict(title=HOSTILE, artist=HOSTILE, thumbnail="data:,", truth="mixed", colour="#000", guesses=[],
                    name=HOSTILE, picture="data:,", overlay="data:,", unit="mixed", kind="classes",
                    predicted={HOSTILE: 0.5})
    rejects = [dict(row=1, title=HOSTILE, reason="", detail=HOSTILE)]
    rows = [dict(run=HOSTILE, cells=[dict(value=HOSTILE, text=HOSTILE)])]
    empty = dict(settings={}, environment={}, summary={})
    drawn = [report.render(name=HOSTILE, source=HOSTILE, wall=[painting], rejects=rejects, **empty),
             explanation.render(name=HOSTILE, model=HOSTILE, pictures=[painting]),
             sweep.render(name=HOSTILE, notebook=HOSTILE, measure=HOSTILE, n=1, n_finished=1, columns=[HOSTILE],
                          rows=rows)]
    for page in drawn:
        parsed = BeautifulSoup(page, "html.parser")
        assert HOSTILE in parsed.body.text
        assert not [script for script in parsed.select("script") if "alert(1)" in script.text]


def test_commands_of_the_guides_are_commands():
    "Every `emoart` line of the guides is one that the command line understands."
    commands, n = typer.main.get_command(app).commands, 0
    for path in [*NOTEBOOKS.glob("guide/*.md"), ROOT / "README.md"]:
        for line in re.findall(r"^\.venv/bin/emoart (.*)", path.read_text(), re.M):
            name, *arguments = shlex.split(line, comments=True)
            commands[name].make_context(name, arguments)
            n += 1
    assert n > 15


# of each kind of text, told by the tags, classes and styles around it, one example is looked at, and stays on its page:
# all pages have one style sheet
NEW = """() => {
  const row = e => e.tagName === 'TR' ? e.rowIndex % 2 : ''
  const own = e => `${e.tagName}.${e.getAttribute('class')}.${e.getAttribute('style')}.${row(e)}`
  const kind = e => e === document.body ? innerWidth : `${kind(e.parentElement)} ${own(e)}`
  const seen = new Set(JSON.parse(sessionStorage.getItem('seen'))), before = seen.size
  for (const e of [...document.body.querySelectorAll('*')].reverse()) { // children before their parents
    if (e.children.length) continue
    const k = kind(e)
    e.textContent.trim() && !seen.has(k) ? seen.add(k) : e.remove()
  }
  sessionStorage.setItem('seen', JSON.stringify([...seen]))
  return seen.size - before
}"""
SILENT = """() => [...document.querySelectorAll('article *')].filter(e => e.scrollWidth > e.clientWidth + 1
  && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && getComputedStyle(e).backgroundImage === 'none'
  && !e.classList.contains('math')).length"""
CONTRAST = """() => axe.run(document, { runOnly: ['color-contrast'], resultTypes: ['violations'] })
  .then(result => result.violations.flatMap(rule => rule.nodes))"""


@pytest.fixture(scope="session")
def browser():
    "Chromium, driven by Playwright."
    if not CHROMIUM: pytest.skip("there is no Chromium on this machine, so no page was opened in a browser")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(site):
    "Where the site is served."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def test_every_page_in_a_browser(browser, address, pages):
    """On a phone: no console message, nothing asked of the network, no page scrolls sideways, what scrolls within it
    shows that it does, and axe-core finds the contrast of every kind of text enough in both themes."""
    from axe_playwright_python.base import AXE_SCRIPT
    found, said, n = [], [], 0
    page = browser.new_page(viewport=dict(width=390, height=500), color_scheme="light", reduced_motion="reduce")
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    own = (address, "data:")
    page.on("request", lambda request: None if request.url.startswith(own) else said.append(f"asks for {request.url}"))
    kinds = ("index", "3_models/34_", "0_core/index", "guide/", "reference/emoart/", "reference/commands",
             "reference/settings", "results/", "search")
    wide = {next(name for name in pages if name.startswith(kind)) for kind in kinds} # at a desk as well
    for name in pages:
        page.goto(address + name)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > 390: found.append((name, f"{width} pixels wide on a phone of 390"))
        if silent := page.evaluate(SILENT): found.append((name, f"{silent} scroll sideways and do not show it"))
        page.add_style_tag(content="* { transition: none !important; background-image: none !important }")
        if name in wide: page.set_viewport_size(dict(width=1280, height=900))
        found += [(name, "console", text) for text in said]
        new = page.evaluate(NEW)
        n += new
        if new: page.evaluate(AXE_SCRIPT)
        for theme in ("light", "dark") if new else ():
            page.evaluate("theme => Object.assign(document.documentElement.dataset, { theme, mode: theme })", theme)
            weak = page.evaluate(CONTRAST)[:5]
            found += [(name, theme, node["html"][:120], node["failureSummary"][:200]) for node in weak]
        page.goto("about:blank") # what the theme's scripts say of a page that was taken apart does not count
        if name in wide: page.set_viewport_size(dict(width=390, height=500))
        said.clear()
    page.close()
    print(f"{len(pages)} pages, {n} kinds of text in two themes")
    assert found == []
    assert n > 300


def test_search_finds_grad_cam(browser, address):
    page = browser.new_page()
    page.goto(f"{address}search.html?q=Grad-CAM")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert "What the model sees" in page.inner_text("#search-results")
    page.close()


def test_the_menus_open_on_a_phone_and_the_theme_can_be_chosen(browser, address):
    page = browser.new_page(viewport=dict(width=390, height=844), reduced_motion="reduce")
    page.goto(f"{address}3_models/34_cvfc.html")
    for menu, inside in (("primary", "What a model looks at"), ("secondary", "Texture")):
        page.click(f".{menu}-toggle:visible")
        page.wait_for_selector(f"#pst-{menu}-sidebar-modal[open] >> text={inside}", timeout=5000)
        page.keyboard.press("Escape")
    page.click(".theme-switch-button:visible")
    page.click("text=Dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()
