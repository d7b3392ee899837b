"Tables with dirt in them, cleaned undisturbed, killed, twice at once, on a full disk; the three sources."
import base64
import csv
import io
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xlsxwriter
from conftest import EMOART, assert_one_sentence, run_emoart
from hypothesis import given, settings
from hypothesis import strategies as st
from museum import museum, picture
from PIL import Image

from emoart.core.files import InputError
from emoart.data.clean import (
    clean, count_values, fetch_wikiart_emotions, genre_line, is_labelled, paintings_digest, read_paintings, tidy)
from emoart.data.images import load_image
from emoart.data.splits import split
from emoart.data.tables import HEADINGS, READERS, Reader, find_reader, read_sheet
from emoart.data.targets import find_target, group_mentions, mentions_of, read_groups

GOOD = picture()
ANSWERS = { # path -> status, headers, body
    "/good.jpg": (200, {}, GOOD), "/wrong-suffix.jpg": (200, {}, picture(format="PNG")),
    "/cmyk.jpg": (200, {}, picture("CMYK")), "/missing.jpg": (404, {}, b"no"), "/empty.jpg": (200, {}, b""),
    "/truncated.jpg": (200, {}, GOOD[:len(GOOD) // 2]),
    "/page.jpg": (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
    "/to-file.jpg": (302, {"Location": "file:///etc/hostname"}, b""),
    "/moved.jpg": (302, {"Location": "/good.jpg"}, b""),
    "/half.jpg": (200, {"Content-Length": str(len(GOOD))}, GOOD[:100]),
}
REASONS = { # part of an address -> what the ledger says of it
    "missing": "HTTP status 404", "truncated": "damaged image", "empty": "empty file", "page": "not an image",
    "to-file": "redirected to such an address", "half": "the connection broke off", "outside": "outside the folder",
    "etc": "address is not http or https", "ftp": "address is not http or https", "bracket": "address cannot be read",
    "nowhere": "no such file"}
SHEET = ["Title", "Style", "Artist", "Genre", "Tags", "Emotion", "Image URL"]


@pytest.fixture
def server():
    "Address of the server, and the list of paths that it was asked for."
    with museum(ANSWERS) as address_and_asked: yield address_and_asked


@pytest.fixture
def sheet(server, tmp_path):
    "An xlsx with one row for every kind of address, and one repeated row."
    urls = [server[0] + path for path in ANSWERS]
    urls += ["file:///etc/hostname", "ftp://127.0.0.1/x.jpg", "../outside.jpg", "nowhere.jpg", "http://[bracket"]
    urls += ["local.png"]
    rows = [(f"Title {i}", "Realism", "Ann", "portrait", "", "Joy", url) for i, url in enumerate(urls)]
    path = tmp_path / "sheet" / "art.xlsx"
    path.parent.mkdir()
    (tmp_path / "outside.jpg").write_bytes(GOOD)
    (path.parent / "local.png").write_bytes(picture("L", format="PNG"))
    pd.DataFrame([*rows, rows[0]], columns=SHEET).to_excel(path, index=False, engine="openpyxl")
    return path


def test_every_row_is_accounted_for(sheet, tmp_path, server):
    summary = clean(sheet, tmp_path / "out")
    assert summary["rows"] == len(ANSWERS) + 7 and summary["repeated"] == 1
    assert summary["kept"] + summary["rejected"] + summary["repeated"] == summary["rows"]
    kept = read_paintings(tmp_path / "out")
    usable = ["cmyk.jpg", "good.jpg", "local.png", "moved.jpg", "wrong-suffix.jpg"]
    assert sorted(Path(url).name for url in kept.url) == usable
    assert kept.file[kept.url.str.endswith("wrong-suffix.jpg")].item().endswith(".png")
    rejects = pd.read_csv(tmp_path / "out" / "rejects.csv", keep_default_na=False)
    said = list(zip(rejects.reason, rejects.detail))
    for part, words in REASONS.items():
        assert any(part in detail and words in reason + detail for reason, detail in said), (part, words, said)
    assert {p.name for p in (tmp_path / "out" / "images").iterdir()} == set(kept.file)
    for path in kept.image: assert load_image(path, 32).shape == (32, 32, 3)


def test_a_second_run_downloads_nothing_that_is_there(sheet, tmp_path, server):
    first = clean(sheet, tmp_path / "out")
    server[1].clear()
    assert clean(sheet, tmp_path / "out") == first
    assert set(server[1]) == {"/half.jpg"}, "only a server that broke off is asked again"
    server[1].clear()
    clean(sheet, tmp_path / "out", retry=True)
    assert {"/missing.jpg", "/page.jpg", "/half.jpg"} <= set(server[1]) and "/good.jpg" not in server[1]


def test_the_command_says_what_it_did(sheet, tmp_path, server, emoart):
    done = emoart("clean", sheet, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert done.returncode == 0 and done.stdout.splitlines()[1].split() == ["kept", str(summary["kept"])]
    assert_one_sentence(emoart("clean", tmp_path / "none.xlsx", "--out", tmp_path / "o"), "there is no sheet")


TITLES = ["Untitled", "a/b", "../../etc/passwd", "..", "x" * 500, "Ürgüp, 日本", "NUL", " spaced   out ",
          "=HYPERLINK(\"http://127.0.0.1/\",\"click\")"]


def test_titles_never_become_paths(tmp_path):
    urls = [f"{i}.jpg" for i in range(len(TITLES))]
    rows = pd.DataFrame({"Title": TITLES, "Genre": "portrait", "Emotion": "NA", "Image URL": urls})
    for url in urls: (tmp_path / url).write_bytes(GOOD)
    rows.to_csv(tmp_path / "art.csv", index=False)
    clean(tmp_path / "art.csv", tmp_path / "out")
    kept = read_paintings(tmp_path / "out")
    assert len(kept) == len(TITLES) and kept.file.is_unique
    assert all(Path(file).name == file and len(file) < 30 for file in kept.file)
    assert [base64.urlsafe_b64decode(b).decode() for b in kept.base64_title] == [" ".join(t.split()) for t in TITLES]
    assert (kept.group == 1).all(), "the word NA is a label"


def test_a_formula_that_was_never_computed_costs_its_row(tmp_path):
    sheet = pd.DataFrame({"Title": ["=1+1", "B"], "Genre": "portrait", "Emotion": "Joy", "Image URL": "a.jpg"})
    sheet.to_excel(tmp_path / "art.xlsx", index=False, engine="openpyxl")
    kept, rejects = tidy(read_sheet(tmp_path / "art.xlsx"))
    assert kept.title.tolist() == ["B"] and rejects.reason.tolist() == ["a cell without a value"]
    assert rejects.detail.item().startswith("title of row 2 is a formula that was never computed; open the sheet")


def test_a_computed_formula_gives_its_value(tmp_path):
    with xlsxwriter.Workbook(tmp_path / "art.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["Title", "Genre", "Emotion", "Image URL"])
        sheet.write_row(1, 0, ["=never(computed", "portrait", "", "a.jpg"])
        sheet.write_formula(1, 2, '="Jo"&"y"', value="Joy")
    assert read_sheet(tmp_path / "art.xlsx").emotion.tolist() == ["Joy"]


def soffice(table, folder):
    "A table as LibreOffice makes a workbook of it."
    command = ["soffice", "--headless", f"-env:UserInstallation=file://{folder}/profile", "--convert-to", "xlsx",
               "--infilter=CSV:44,34,76,1", "--outdir", folder, table]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder / f"{table.stem}.xlsx"


@pytest.mark.parametrize("program", ["openpyxl", "xlsxwriter", "tsv", "semicolons", "LibreOffice"])
def test_a_sheet_says_the_same_whatever_program_wrote_it(program, tmp_path):
    if program == "LibreOffice" and not shutil.which("soffice"): pytest.skip("no LibreOffice on this machine")
    (tmp_path / "a.jpg").write_bytes(GOOD)
    (tmp_path / "b.png").write_bytes(picture("L", format="PNG"))
    (tmp_path / "c.gif").write_bytes(picture("P", format="GIF"))
    rows = pd.DataFrame({
        "Title": ["1984", "Ürgüp, „日本“", "not = a formula"], "Artist": ["", "O'Keeffe; G.", "a \"b\" c"],
        "Genre": ["portrait", "landscape", "Portrait "], "Emotion": ["Joy", "Fear", ""],
        "share_joy": [0.75, 0.125, 0.5], "share_fear": [0.25, 0.875, 0.5], "valence": [-0.5, 1, 3.25],
        "Image URL": ["a.jpg", "b.png", "c.gif"]})
    sheets = {program: tmp_path / f"{program}.xlsx" for program in ("openpyxl", "xlsxwriter")}
    sheets |= {"plain": tmp_path / "plain.csv", "tsv": tmp_path / "t.tsv", "semicolons": tmp_path / "s.csv"}
    rows.to_csv(sheets["plain"], index=False)
    rows.to_csv(sheets["tsv"], index=False, sep="\t")
    rows.to_csv(sheets["semicolons"], index=False, sep=";", decimal=",", encoding="utf-8-sig")
    if program == "LibreOffice": sheets[program] = soffice(sheets["plain"], tmp_path)
    for engine in ("openpyxl", "xlsxwriter"): rows.to_excel(sheets[engine], index=False, engine=engine)
    for name in ("plain", program): clean(sheets[name], tmp_path / "out" / name)
    one, other = ((tmp_path / "out" / name / "paintings.csv").read_text() for name in ("plain", program))
    assert one == other and one.count("\n") == 4


def test_rows_longer_than_the_heading_are_refused(tmp_path):
    rows = "A,portrait,Joy,a.jpg,more\nB,portrait,Joy,b.jpg,more\n"
    (tmp_path / "art.csv").write_text(f"Title,Genre,Emotion,Image URL\n{rows}")
    with pytest.raises(InputError, match="cannot read .*art.csv"): read_sheet(tmp_path / "art.csv")


def test_a_picture_replaced_beside_the_sheet_is_read_again(tmp_path):
    (tmp_path / "art.csv").write_text("Title,Genre,Emotion,Image URL\n1984,portrait,Joy,a.jpg\n")
    digests = set()
    for content in (GOOD, picture("L")):
        (tmp_path / "a.jpg").write_bytes(content)
        clean(tmp_path / "art.csv", tmp_path / "out")
        digests.add(paintings_digest(tmp_path / "out"))
    kept = read_paintings(tmp_path / "out")
    assert len(digests) == 2 and Path(kept.image[0]).read_bytes() == content and kept.title[0] == "1984"


def test_a_contradicting_repeat_is_told():
    said = dict(row=[2, 3], title="A", artist="B", emotion=["Joy", "Fear "], url="a.jpg")
    kept, rejects = tidy(pd.DataFrame(dict.fromkeys(HEADINGS.values(), "") | said))
    assert kept.emotion.tolist() == ["Joy"]
    why = ["repeated row", "as row 2, which says Joy; this one says Fear"]
    assert rejects[["reason", "detail"]].values.tolist() == [why]


def test_a_zip_bomb_is_not_unpacked(tmp_path, emoart):
    with zipfile.ZipFile(tmp_path / "art.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        with book.open("xl/worksheets/sheet1.xml", "w") as part:
            for _ in range(600): part.write(bytes(2**20))
    assert (tmp_path / "art.xlsx").stat().st_size < 2**22
    done = emoart("clean", tmp_path / "art.xlsx", "--out", tmp_path / "out")
    assert_one_sentence(done, "unpacks to more than 512 MiB")
    assert not (tmp_path / "out").exists()


def cleaned(folder, table):
    "What a text as a sheet, with pictures 0.jpg to 2.jpg beside it, is cleaned to: summary, paintings and rejects."
    for i in range(3):
        if not (folder / f"{i}.jpg").exists(): (folder / f"{i}.jpg").write_bytes(picture(seed=i))
    (folder / "art.csv").write_text(table, encoding="utf-8")
    summary = clean(folder / "art.csv", folder / "out")
    tables = [folder / "out" / name for name in ("paintings.csv", "rejects.csv")]
    return summary, *(pd.read_csv(path, dtype=str, keep_default_na=False) for path in tables)


def test_the_folder_of_the_sheet_is_not_cleaned_into(tmp_path, emoart):
    (tmp_path / "paintings.csv").write_text(content := "File,Notes\n0.jpg,mine\n")
    for sheet in (tmp_path / "paintings.csv", tmp_path):
        assert_one_sentence(emoart("clean", sheet, "--out", tmp_path), "the folder of the sheet", "--out")
    assert (tmp_path / "paintings.csv").read_text() == content


@pytest.mark.parametrize("heading", [
    "File,URL,Title,Source_ID,ID", "Title,Genre,Emotion,Image URL,URL", "File,image_id,image_width",
    "Title;Genre;Emotion;Image URL;\"Notes, mine, and yours, all\"", "Title\tGenre\tEmotion\tImage URL"])
def test_headings_of_ones_own_disturb_nothing(heading, tmp_path):
    separator = max(",;\t", key=heading.count)
    fields = {"file": "0.jpg", "image url": "0.jpg", "title": "A", "image_id": "7", "image_width": "640"}
    row = separator.join(fields.get(name, "x") for name in heading.lower().split(separator))
    summary, kept, _ = cleaned(tmp_path, f"{heading}\n{row}\n")
    assert (summary["kept"], summary["rejected"]) == (1, 0) and kept.url.item() == "0.jpg"


@pytest.mark.parametrize("content, words", [
    ("Title,TITLE,Genre,Emotion,Image URL\n", ["two columns Title"]), ("File,File\n", ["two columns File"]),
    ("File,share_joy,share_happiness\n0.jpg,1,1\n", ["two columns of joy"]),
    ("File,share_joy,share_joy\n0.jpg,1,1\n", ["two columns Share_Joy"]),
    ("File,Valence,Valence_mean\n0.jpg,1,1\n", ["two columns of valence"]),
    ("ID,Category,Is painting\n1,2,3\n", ["lacks the columns Title, Genre", "has Id, Category, Is Painting"]),
    ("Title,Genre,Emotion\n", ["lacks the column Image URL;"]),
    ("My paintings,,\n,,\nTitle,Genre,Emotion\n", ["the first row of this one has My Paintings"]),
    ("File,Title\n0.jpg,Caf\xe9\n".encode("latin-1"), ["not in UTF-8"]),
    ("File\n0.jpg\n".encode("utf-16")[2:-1], ["lacks the column"])])
def test_tables_that_cannot_be_read(content, words, tmp_path, emoart):
    (tmp_path / "art.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_one_sentence(emoart("clean", tmp_path / "art.csv", "--out", tmp_path / "out"), *words)


def test_workbooks_that_cannot_be_read(tmp_path, emoart):
    (tmp_path / "protected.xlsx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(4096))
    out = tmp_path / "out"
    protected = emoart("clean", tmp_path / "protected.xlsx", "--out", out)
    assert_one_sentence(protected, "no .xlsx workbook", "without a password")
    with xlsxwriter.Workbook(tmp_path / "far.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["File", "Title"])
        sheet.write(1_048_575, 16_383, "x")
    assert_one_sentence(emoart("clean", tmp_path / "far.xlsx", "--out", out), "delete the stray ones")
    for path in ("~nobody-of-that-name/art.csv", f"{'x' * 300}.csv"):
        assert_one_sentence(emoart("clean", path, "--out", out), "cannot read")


def test_rows_that_say_the_same_in_another_case_or_nothing(tmp_path):
    rows = ["Mona Lisa,Leonardo,,,0.jpg,", "MONA LISA,leonardo,,,0.jpg,", ",,,,,", ",,,,,important"]
    summary, kept, rejects = cleaned(tmp_path, "\n".join(["Title,Artist,Genre,Emotion,Image URL,Notes", *rows]))
    assert (summary["rows"], summary["kept"], summary["repeated"], summary["rejected"]) == (3, 1, 1, 1)
    assert rejects[["row", "reason"]].values.tolist() == [["3", "repeated row"], ["5", "no title"]]


def test_names_beside_the_sheet_are_looked_up_as_they_are_written(tmp_path):
    names = ["U\u0308ber  dem Meer.jpg", "A\u030a.jpg"] # decomposed, as a Mac writes them; two spaces
    for name in names: (tmp_path / name).write_bytes(GOOD)
    assert cleaned(tmp_path, "File\n" + "\n".join(names) + "\n")[1].url.tolist() == names


def test_a_word_beside_shares_stands_where_nobody_chose(tmp_path):
    table = "File,Emotion,share_joy,share_fear\n0.jpg,Joy,,\n1.jpg,Joy,0,1\n2.jpg,Saudade,0,0\n"
    summary, kept, _ = cleaned(tmp_path, table)
    assert kept.emotion.tolist() == ["Joy", "fear", "Saudade"] and "group" not in kept
    assert read_paintings(tmp_path / "out", labelled=False).group.tolist() == [3, 0, -1]
    assert summary["unknown_emotions"] == {"saudade": 1} and summary["undecided"] == 0
    assert summary["labelled"] == {"groups": 2, "positive": 2, "poles": 2, "emotions": 1, "moods": 2, "moods7": 2}


def cell(column, value):
    "A table's bytes with another value in the first row of a column."
    def damage(content):
        heading, first, *rest = content.splitlines(keepends=True)
        cells = first.split(b",")
        cells[heading.split(b",").index(column)] = value
        return b"".join([heading, b",".join(cells), *rest])
    return damage


@pytest.mark.parametrize("name, damage", [
    ("paintings.csv", lambda content: b""), ("paintings.csv", lambda content: b"\0\x80"),
    *(("paintings.csv", cell(column, value)) for column in (b"phash", b"file") for value in (b"1.23E+15", b"")),
    ("rejects.csv", lambda content: b""), ("rejects.csv", lambda content: content[:-20]),
    ("summary.json", lambda content: b"")])
def test_damage_to_what_an_earlier_run_left_is_mended(name, damage, tmp_path, server):
    table = f"File\n0.jpg\n1.jpg\n2.jpg\n{server[0]}/missing.jpg\n"
    before = cleaned(tmp_path, table)[0]
    first, file = contents(tmp_path / "out"), tmp_path / "out" / name
    file.write_bytes(damage(file.read_bytes()))
    assert file.read_bytes() != first[name]
    assert cleaned(tmp_path, table)[0] == before and contents(tmp_path / "out") == first


def test_who_was_looked_for_is_remembered(tmp_path, monkeypatch):
    from emoart.objects import persons
    monkeypatch.setattr(persons, "person_confidence", lambda images: np.array([0, 0.1, 0.5, 0.75]))
    table = "File,Title,Genre\n0.jpg,A,portrait\n0.jpg,B,landscape\n1.jpg,C,landscape\n2.jpg,D,\n"
    cleaned(tmp_path, table)
    persons.mark_persons(tmp_path / "out")
    marked = contents(tmp_path / "out")
    cleaned(tmp_path, table)
    assert contents(tmp_path / "out") == marked
    assert list(read_paintings(tmp_path / "out", "person", labelled=False).title) == ["A", "C", "D"]
    cleaned(tmp_path, table.replace("landscape", "still life", 1))
    with pytest.raises(InputError, match="--persons"): read_paintings(tmp_path / "out", "person", labelled=False)


def test_headings_in_any_order_and_case(tmp_path):
    (tmp_path / "art.csv").write_text(" image url ,EMOTION,genre,title\na.jpg,Joy,portrait,A\n\n", encoding="utf-8-sig")
    assert read_sheet(tmp_path / "art.csv")[["row", "title", "url"]].values.tolist() == [[2, "A", "a.jpg"]]


# --- a cleaning that is disturbed


def contents(folder):
    "Path -> content of every file of a folder, hidden ones too."
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def slow_museum(tmp_path_factory):
    "60 paintings at a slow server, some broken: seconds each, paths asked for, sheet, what an undisturbed run makes."
    folder, museum_is = tmp_path_factory.mktemp("slow"), SimpleNamespace(seconds=0)
    pictures = {f"/{i}": picture(size=(120, 90), seed=i) if i % 9 else b"<html>" for i in range(60)}

    def answer(path, times):
        time.sleep(museum_is.seconds)
        return 200, {}, pictures[path]

    with museum(answer) as (address, asked):
        titles, urls = [f"T{i}" for i in range(60)], [f"{address}/{i}" for i in range(60)]
        sheet = pd.DataFrame({"Title": titles, "Genre": "portrait", "Emotion": "Joy", "Image URL": urls})
        sheet.to_csv(folder / "art.csv", index=False)
        clean(folder / "art.csv", folder / "undisturbed")
        museum_is.sheet, museum_is.asked = folder / "art.csv", asked
        museum_is.undisturbed = contents(folder / "undisturbed")
        yield museum_is


def test_killed_at_any_moment_and_run_again_the_folder_is_the_same(slow_museum, tmp_path):
    rng, out, slow_museum.seconds = random.Random(0), tmp_path / "out", 0.2
    processes = multiprocessing.get_context("forkserver") # forks from a process that has loaded emoart
    processes.set_forkserver_preload(["emoart.data.clean"])
    for _ in range(4):
        process = processes.Process(target=clean, args=(slow_museum.sheet, out))
        process.start()
        while process.is_alive() and not list(out.glob("images/*")): time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was done before"
    (out / "images/.partial-x.jpg").write_bytes(b"half") # what a kill between two bytes leaves
    slow_museum.seconds = 0
    clean(slow_museum.sheet, out)
    assert contents(out) == slow_museum.undisturbed
    slow_museum.asked.clear()
    clean(slow_museum.sheet, out)
    assert not slow_museum.asked and contents(out) == slow_museum.undisturbed


def test_ctrl_c_does_not_wait_for_a_server(tmp_path):
    with museum(lambda path, times: (200, {}, GOOD), delay=40) as (address, asked):
        (tmp_path / "art.csv").write_text(f"File\n{address}/a\n")
        command = [EMOART, "clean", tmp_path / "art.csv", "--out", tmp_path / "out"]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not asked and running.poll() is None: time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=15)
    assert running.returncode == 130 and "the same command goes on from there" in said and len(said.splitlines()) == 1


def test_two_processes_clean_into_one_folder(slow_museum, tmp_path):
    slow_museum.seconds = 0.1
    slow_museum.asked.clear()
    command = [EMOART, "clean", slow_museum.sheet, "--out", tmp_path / "out"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0] and "waiting for it" in "".join(said)
    assert contents(tmp_path / "out") == slow_museum.undisturbed
    assert len(slow_museum.asked) == 60, "the second has nothing left to fetch"


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(slow_museum, tmp_path):
    out, slow_museum.seconds = tmp_path / "out", 0
    command = f"ulimit -f 4; trap '' XFSZ; exec {EMOART} clean {slow_museum.sheet} --out {out}"
    limited = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert_one_sentence(limited, "cannot write to", "the same command goes on from there")
    kept = contents(out)
    assert not [name for name in kept if ".partial-" in name] and kept.items() <= slow_museum.undisturbed.items()
    clean(slow_museum.sheet, out)
    assert contents(out) == slow_museum.undisturbed


@settings(deadline=None, max_examples=40)
@given(titles=st.lists(st.text(st.characters(codec="utf-8"), max_size=90) | st.sampled_from(TITLES), min_size=1,
                       max_size=8),
       artists=st.lists(st.sampled_from(["Ann", "Ben", ""]), min_size=8, max_size=8))
def test_property_of_titles(tmp_path_factory, titles, artists):
    "Different paintings never share a file, no name leaves the folder, and the base64 column decodes to the title."
    folder, n = tmp_path_factory.mktemp("titles"), len(titles)
    for i in range(3): (folder / f"{i}.png").write_bytes(picture(format="PNG", seed=i))
    urls = [f"{i % 3}.png" for i in range(n)]
    rows = pd.DataFrame({"Title": titles, "Artist": artists[:n], "Genre": "", "Emotion": "", "Image URL": urls})
    rows.to_csv(folder / "art.csv", index=False, quoting=csv.QUOTE_ALL)
    summary = clean(folder / "art.csv", folder / "out")
    assert summary["rows"] == n == summary["kept"] + summary["rejected"] + summary["repeated"]
    files = [path.resolve() for path in (folder / "out" / "images").iterdir()]
    assert len(files) == summary["kept"]
    assert all(file.parent == (folder / "out" / "images").resolve() for file in files)
    assert {path.name for path in folder.iterdir()} == {"0.png", "1.png", "2.png", "art.csv", "out"}
    if summary["kept"]:
        kept = read_paintings(folder / "out", labelled=False)
        assert kept.file.is_unique and not kept.duplicated(["title", "artist", "url"]).any()
        assert [base64.urlsafe_b64decode(b).decode() for b in kept.base64_title] == list(kept.title)


def test_forty_thousand_rows():
    "The cost of a row does not grow with their number."
    def seconds(n):
        rng = np.random.default_rng(0)
        titles, urls = ([text.format(i) for i in rng.integers(0, n, n)] for text in ("Portrait of {}", "{}.jpg"))
        artists = rng.choice([f"A {i}" for i in range(900)], n)
        emotions = rng.choice(["Joy", "sadness ", "FEAR", "", "Saudade"], n)
        rows = pd.DataFrame(dict.fromkeys(HEADINGS.values(), "") | dict(
            row=np.arange(2, n + 2), title=titles, artist=artists, emotion=emotions, url=urls))
        started = time.process_time()
        kept, rejects = tidy(rows)
        assert len(kept) + len(rejects) == n
        return time.process_time() - started
    few, many = min(seconds(5_000) for _ in range(3)), seconds(40_000)
    assert many < 20 and many < 2 * 8 * few


# --- other sources


def test_an_image_folder_with_its_table(tmp_path):
    for name in ("one.jpg", "sub/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(format="PNG" if name.endswith("png") else "JPEG"))
    (tmp_path / "mine.csv").write_text("""\
file,artist,year,split,share_joy,share_fear
one.jpg,Ann,1911,test,0.8,0.2
sub/two.png,Ben,,train,0.1,0.9
none.jpg,,,,1.5,0
""")
    summary = clean(tmp_path, tmp_path / "out")
    kept = read_paintings(tmp_path / "out")
    assert summary["kept"] == 2 and summary["reasons"] == {"a share is not a number from 0 to 1": 1}
    assert kept[["title", "artist", "year", "split", "emotion", "group"]].values.tolist() == [
        ["one", "Ann", "1911", "test", "joy", 3], ["two", "Ben", "", "train", "fear", 0]]
    assert read_groups(kept).round(6).values.tolist() == [[0.2, 0, 0, 0.8], [0.9, 0, 0, 0.1]]


def test_words_and_groups_may_both_have_shares():
    table = pd.DataFrame(dict(emotion=["", "Joy", ""], share_negative=["0.5", "", ""],
                              share_joy=["0.1", "0", ""], share_love=["0.5", "0", ""]))
    assert group_mentions(table).round(6).tolist() == [[0.5, 0, 0, 0.6], [0, 0, 0, 1], [0, 0, 0, 0]]


OASIS = """\
Theme,Category,Source,VALENCE_mean,Valence_SD,Arousal_Mean,file
Acorns 1,Object,Pixabay,4.69,0.95,2.35,0.jpg
Acorns 2,Object,Pixabay,,0.84,2.23,1.jpg
Dog 1,Animal,Pixabay,6.1,0.84,n/a,2.jpg
Dog 2,Animal,Pixabay,inf,0.84,2.23,2.jpg
"""


def test_photographs_with_values(tmp_path):
    summary, kept, rejects = cleaned(tmp_path, OASIS)
    assert summary["labelled"] == {"values": 1} and summary["kept"] == 2
    assert kept[["title", "theme", "category", "style", "valence", "arousal"]].values.tolist() == [
        ["Acorns 1", "Acorns 1", "Object", "", "4.69", "2.35"], ["Acorns 2", "Acorns 2", "Object", "", "", "2.23"]]
    assert rejects[["title", "reason", "detail"]].values.tolist() == [
        ["Dog 1", "arousal is not a number", "n/a"], ["Dog 2", "valence is not a number", "inf"]]
    read = read_paintings(tmp_path / "out", "portrait", "values")
    assert find_target("values").read(read).values.tolist() == [[4.69, 2.35]] and read.group.tolist() == [-1]
    with pytest.raises(InputError) as error: read_paintings(tmp_path / "out", "portrait")
    assert str(error.value).endswith("no labelled painting; the target groups needs emotion or share_WORD; "
                                     "the table has valence, arousal; -p target=values takes those")


@pytest.mark.parametrize("heading, name", [
    ("Title,Genre,Emotion,Image URL,File,Theme", "sponsor's workbook"), ("FILE,Genre", "image folder"),
    ("File,Theme,Valence_mean", "OASIS"), ("Theme,Valence_mean", None), ("Title,Genre,Emotion", None),
    ("ID,Style,Category,Artist,Title,Year,Is painting,Face/body,Image URL,Genre,Emotion", "WikiArt Emotions")])
def test_a_table_is_told_by_its_headings(heading, name):
    reader = find_reader(heading.lower().split(","))
    assert (reader.name if reader else None) == name


def test_another_data_set_costs_one_reader(tmp_path, monkeypatch):
    def from_moods(table, folder):
        return table.rename(columns={"photo": "file", "mood": "emotion"})

    table = "Photo,Mood,Notes\n0.jpg,Joy,x\n1.jpg,fear,\n,,\n2.jpg,,y\n"
    with pytest.raises(InputError, match="lacks the columns"): cleaned(tmp_path, table)
    monkeypatch.setitem(READERS, "moods", Reader("moods", ("Photo", "Mood"), from_moods))
    assert cleaned(tmp_path, table)[0]["labelled"]["groups"] == 2
    kept = read_paintings(tmp_path / "out", labelled=False)
    assert kept[["row", "title", "group"]].values.tolist() == [[2, "0", 3], [3, "1", 0], [5, "2", -1]]


# --- what is read again


GENRES = "File,Genre,Emotion,Valence\n0.jpg,portrait,Joy,1\n1.jpg,landscape,fear,2\n2.jpg,landscape,,\n"


def test_a_folder_of_an_earlier_version_is_read_alike(tmp_path):
    kept = cleaned(tmp_path, GENRES)[1]
    now = read_paintings(tmp_path / "out", labelled=False)
    kept.assign(group=["3", "0", "-1"]).to_csv(tmp_path / "out" / "paintings.csv", index=False)
    pd.testing.assert_frame_equal(read_paintings(tmp_path / "out", labelled=False), now)
    assert now.group.tolist() == [3, 0, -1]
    kept.assign(group=["0", "0", "2"]).to_csv(tmp_path / "out" / "paintings.csv", index=False) # by hand
    assert read_paintings(tmp_path / "out", labelled=False).group.tolist() == [0, 0, 2]


def test_a_genre_that_costs_paintings_is_told(tmp_path):
    cleaned(tmp_path, GENRES)
    said = "1 of 2 labelled paintings used: genre portrait; -p genre= takes all"
    assert genre_line(tmp_path / "out", "portrait") == said
    assert genre_line(tmp_path / "out", "") == ""
    assert genre_line(tmp_path / "out", "landscape", "values").startswith("1 of 2 ")
    assert genre_line(tmp_path / "out", "landscape", labelled=False).startswith("2 of 3 paintings used")
    cleaned(tmp_path, GENRES.replace("portrait", "").replace("landscape", ""))
    assert genre_line(tmp_path / "out", "portrait") == "" and len(read_paintings(tmp_path / "out", "portrait")) == 2


@pytest.mark.parametrize("table, genre, target, said", [
    (GENRES, "tapestry", "groups",
     "of the genre 'tapestry'; it has landscape (2), portrait (1); -p genre=NAME takes another, -p genre= all of them"),
    ("File,Genre,Emotion\n0.jpg,portrait,\n", "portrait", "groups",
     "of the genre 'portrait'; the target groups needs emotion or share_WORD; the table has none"),
    ("File,Genre,Emotion\n0.jpg,portrait,Saudade\n", "portrait", "groups",
     "of the genre 'portrait'; it has portrait (1)"),
    ("File,share_joy\n0.jpg,1\n", "", "values",
     "values needs valence, arousal or dominance; the table has emotion, share_WORD; -p target=groups takes those"),
    (GENRES, "", "grups", "there is no target 'grups'; did you mean groups?")])
def test_advice_only_where_it_helps(table, genre, target, said, tmp_path):
    cleaned(tmp_path, table)
    with pytest.raises(InputError) as error: read_paintings(tmp_path / "out", genre, target)
    assert said in str(error.value)
    assert ("-p genre=" in str(error.value)) == ("-p genre=" in said)


@pytest.mark.parametrize("old, new", [
    ("Joy", "love"), ("portrait", "landscape"), ("0.jpg", "2.jpg"), (",1,", ",1.5,"), ("test", "train"),
    ("Acorn", "Dog"), ("0.5", "0.6"), ("hat", "dog"), ("Ann", "Ben")])
def test_whatever_a_result_depends_on_is_in_the_digest(old, new, tmp_path):
    heading = "File,Genre,Emotion,Valence,Split,Theme,share_joy,Tags,Artist"
    table = f"{heading}\n0.jpg,portrait,Joy,1,test,Acorn,,hat,Ann\n1.jpg,,,,,,0.5,,\n"
    digests = []
    for content in (table, table.replace(old, new), table):
        cleaned(tmp_path, content)
        digests.append(paintings_digest(tmp_path / "out"))
    assert digests[0] != digests[1] and digests[0] == digests[2]


# --- WikiArt Emotions


WIKIART = """\
ID	Style	Category	Artist	Title	Year	Is painting	Face/body	\
ImageOnly: happiness	ImageOnly: fear	ImageOnly: surprise	TitleOnly: fear
5a	Modern Art	Cubism	Ann	A "Hat	1911	yes	face	0.6	0.1	0	1
5b	Modern Art	Cubism	Ann	's Hat	1911	no	none	0.1	0.3	0.6	0
5c	Modern Art	Cubism	Ben	NA	1911	yes	body	0.5	0.5	0	0
5d	Modern Art	Cubism	Ben	Lost	1911	yes	body	0	0	0	1
"""


def wikiart_zip(address):
    "The published zip in small: shares without addresses, and 0/1 with them."
    shares = [line.split("\t") for line in WIKIART.splitlines()]
    ag4 = [[*shares[0], "Image URL"]]
    for row in shares[1:]:
        ones = [str(int(float(share) >= 0.4)) for share in row[8:]]
        ag4.append([*row[:8], *ones, f"{address}/{row[0]}.jpg"])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as parts:
        parts.writestr("WikiArt-Emotions/WikiArt-Emotions-All.tsv", WIKIART)
        parts.writestr("WikiArt-Emotions/WikiArt-Emotions-Ag4.tsv", "\n".join("\t".join(row) for row in ag4))
    return content.getvalue()


def test_fetch_wikiart_emotions(tmp_path, emoart):
    answers = {f"/5{i}.jpg": (200, {}, picture(seed=ord(i))) for i in "abc"} | {"/5d.jpg": (404, {}, b"")}
    with museum(lambda path, times: answers[path]) as (address, asked):
        source = f"{address}/set.zip"
        answers["/set.zip"] = 200, {}, wikiart_zip(address)
        done = emoart("fetch", "wikiart-emotions", "--out", tmp_path / "w", "--source", source, "--limit", 2)
        assert done.returncode == 0 and "kept           2" in done.stdout
        assert sorted(asked) == ["/5a.jpg", "/5b.jpg", "/set.zip"]
        summary = fetch_wikiart_emotions(tmp_path / "w", source=source)
        assert sorted(asked) == ["/5a.jpg", "/5b.jpg", "/5c.jpg", "/5d.jpg", "/set.zip"], "nothing is fetched twice"
    assert (summary["kept"], summary["undecided"], summary["unknown_emotions"]) == (3, 1, {})
    assert summary["labelled"] == {"groups": 2, "positive": 2, "poles": 1, "emotions": 3, "moods": 3, "moods7": 3}
    kept = read_paintings(tmp_path / "w", labelled=False)
    assert kept[["source_id", "title", "tags", "emotion", "group"]].values.tolist() == [
        ["5a", 'A "Hat', "Modern Art, face", "joy", 3], ["5b", "'s Hat", "Modern Art, not a painting", "surprise", 2],
        ["5c", "NA", "Modern Art, body", "joy, fear", -1]]
    tables = tmp_path / "w" / "tables"
    ones = read_sheet(tables / "WikiArt-Emotions-Ag4.tsv")
    assert ones.share_joy.tolist() == ["1", "0", "1", "0"]
    assert is_labelled(tidy(ones)[0]).tolist() == [True, True, False, False]
    titles = read_sheet(tables / "WikiArt-Emotions-All.tsv", "title")
    assert is_labelled(tidy(titles)[0]).tolist() == [True, False, False, True]


@pytest.mark.parametrize("options, words", [
    (["wikiart"], ["no data set 'wikiart'"]),
    (["wikiart-emotions", "--source", "{}/gone.zip"], ["HTTP status 404", "--source"]),
    (["wikiart-emotions", "--source", "{}/page.zip"], ["not a zip file"]),
    (["wikiart-emotions", "--source", "{}/other.zip"], ["holds no WikiArt-Emotions-All.tsv"]),
    (["wikiart-emotions", "--source", "ftp://127.0.0.1/set.zip"], ["not http or https"]),
    (["wikiart-emotions", "--limit", "-1"], ["--limit"])])
def test_a_fetch_that_cannot_be(options, words, tmp_path, emoart):
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as parts: parts.writestr("../WikiArt.tsv", "x")
    answers = {"/gone.zip": (404, {}, b""), "/page.zip": (200, {}, b"<html>"),
               "/other.zip": (200, {}, other.getvalue())}
    with museum(answers) as (address, _):
        options = [option.format(address) for option in options]
        assert_one_sentence(emoart("fetch", *options, "--out", tmp_path / "w"), *words)


def test_values_are_counted():
    paintings = pd.DataFrame({"style": ["A", "B", "A", ""], "tags": ["hat, Dog", "dog", "", ""],
                              "emotion": ["Joy", "happiness ", "", "NA"], "group": [3, 3, -1, 1]})
    assert count_values(paintings, "style").to_dict() == {"A": 2, "B": 1}
    assert count_values(paintings, "tags").to_dict() == {"dog": 2, "hat": 1}
    assert count_values(paintings, "emotion").to_dict() == {"joy": 2, "na": 1}
    assert count_values(paintings, "group").to_dict() == {"positive": 2, "neutral": 1}


# --- the development data


def test_the_shared_wikiart_tables(shared, tmp_path):
    "The published tables over the real paintings, fetched from a server on loopback."
    folder = shared / "wikiart_emotions"
    mine = set(path.stem for path in (folder / "images").iterdir())
    content = io.BytesIO()

    def answers(path, times):
        if path == "/set.zip": return 200, {}, content.getvalue()
        return 200, {}, (folder / "images" / path[1:]).read_bytes()

    with museum(answers) as (address, asked):
        with zipfile.ZipFile(content, "w") as parts:
            for name in ("WikiArt-Emotions-All.tsv", "WikiArt-Emotions-Ag4.tsv"):
                table = pd.read_csv(folder / name, sep="\t", quoting=3, dtype=str, keep_default_na=False)
                table = table[table.ID.isin(mine)].head(40)
                if "Image URL" in table: table["Image URL"] = address + "/" + table.ID + ".jpg"
                parts.writestr(name, table.to_csv(sep="\t", index=False, quoting=3))
        summary = fetch_wikiart_emotions(tmp_path / "w", source=f"{address}/set.zip")
    assert summary["rows"] == summary["kept"] == 40 == summary["labelled"]["groups"] + summary["undecided"]
    labels = pd.read_csv(folder / "labels.csv").set_index("id")
    kept = read_paintings(tmp_path / "w", labelled=False).set_index("source_id")
    assert (kept.share_joy.astype(float) - labels.image_happiness[kept.index]).abs().max() < 0.051, "labels.csv rounds"
    everything = tidy(read_sheet(folder / "WikiArt-Emotions-Ag4.tsv"))
    assert len(everything[0]) + len(everything[1]) == 4105


def test_the_shared_sheet(shared, tmp_path):
    "The development workbook: 2,489 rows over real paintings, served on its own port."
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_): pass

    try: http = ThreadingHTTPServer(("127.0.0.1", 8765), partial(Quiet, directory=shared))
    except OSError: http = None # somebody serves them already
    if http: threading.Thread(target=http.serve_forever, daemon=True).start()
    try: summary = clean(shared / "sponsor" / "art.xlsx", tmp_path / "out")
    finally:
        if http: http.shutdown(); http.server_close()
    assert summary["rows"] == 2489 == summary["kept"] + summary["rejected"] + summary["repeated"]
    assert summary["kept"] > 2400 and summary["unknown_emotions"] == {"saudade": 2}


# The data sets that people of this field have on their disks, as they are published

EMOTION6_HEADS = {
    "as published": "[image_filename]\t[valence]\t[arousal]\t[prob. anger]\t[prob. disgust]\t[prob. fear]\t"
                    "[prob. joy]\t[prob. sadness]\t[prob. surprise]\t[prob. neutral]",
    "plain": "file name\tvalence\tarousal\tanger\tdisgust\tfear\tjoy\tsadness\tsurprise\tneutral"}


def emotion6(folder, head="plain"):
    "A miniature of Emotion6, four pictures."
    rows = {"anger/1.jpg": (2.5, 6, .6, .2, .1, 0, .1, 0, 0), "joy/7.jpg": (7.5, 5, 0, 0, 0, .8, 0, .1, .1),
            "fear/2.jpg": (3, 6, 0, 0, .7, 0, .3, 0, 0), "sadness/4.jpg": (3, 4, 0, 0, .2, 0, .8, 0, 0)}
    for i, name in enumerate(rows):
        (folder / "images" / name).parent.mkdir(parents=True)
        noise = np.random.default_rng(i).integers(0, 256, (4, 5, 3), "uint8")
        Image.fromarray(noise).resize((50, 40)).save(folder / "images" / name)
    lines = [EMOTION6_HEADS[head], *("\t".join(map(str, (name, *row))) for name, row in rows.items())]
    (folder / "ground_truth.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("head", EMOTION6_HEADS)
def test_emotion6(head, tmp_path):
    summary = clean(emotion6(tmp_path / "Emotion6", head), tmp_path / "clean")
    assert summary["kept"] == 4 and summary["labelled"]["emotions"] == 4 == summary["labelled"]["values"]
    table = read_paintings(tmp_path / "clean", target="emotions")
    assert table.title.tolist() == ["anger/1", "joy/7", "fear/2", "sadness/4"] and (table.viewers == "15").all()
    assert find_target("emotions").read(table).loc[0, "anger"] == pytest.approx(.6)
    assert find_target("values").read(table).loc[1].tolist() == [7.5, 5]
    assert table.group.tolist() == [0, 3, 0, 0] and "stimulus_map" not in table


def test_emotionroi_has_maps_and_a_split_of_its_own(tmp_path):
    roi = emotion6(tmp_path / "EmotionROI", "as published")
    split = roi / "training_testing_split"
    split.mkdir()
    (split / "training.txt").write_text("anger/1.jpg\njoy/7.jpg\n")
    (split / "testing.txt").write_text("fear/2.jpg\nsadness/4.jpg\n")
    (roi / "notes.txt").write_text("not a table")
    for name, level in (("anger/1", 255), ("joy/7", 0), ("fear/2", 128)):
        (roi / "ground_truth" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (50, 40), level).save(roi / "ground_truth" / f"{name}.jpg")
    (roi / "ground_truth" / "fear" / "2.jpg").write_bytes(b"no picture")
    summary = clean(roi, tmp_path / "clean")
    assert (summary["kept"], summary["rejected"], summary["maps"], summary["unreadable_maps"]) == (4, 0, 2, 1)
    rejects = pd.read_csv(tmp_path / "clean" / "rejects.csv")
    assert rejects.title.tolist() == ["fear/2"] and "no picture" in rejects.detail[0]
    table = read_paintings(tmp_path / "clean", target="emotions")
    assert table.split.tolist() == ["train", "train", "test", "test"]
    assert split_of(table).tolist() == [False, False, True, True]
    levels = [np.asarray(Image.open(path)).mean() if path else None for path in table.stimulus_map]
    assert levels == [255, 0, None, None]


def test_what_an_emotion6_may_have_besides(tmp_path):
    "Tabs at the ends of its lines; a split whose names are written otherwise, or are no pictures of it."
    roi = emotion6(tmp_path / "EmotionROI")
    table = roi / "ground_truth.txt"
    table.write_text("".join(f"{line}\t\r\n" for line in table.read_text().splitlines()))
    (roi / "training_testing_split").mkdir()
    lists = [roi / "training_testing_split" / f"{name}ing.txt" for name in ("train", "test")]
    lists[0].write_text("images\\anger\\1.jpg\r\n\r\n")
    lists[1].write_text("joy/7.jpg\t7.5\nfear/2.jpg")
    assert read_sheet(roi).split.tolist() == ["train", "test", "test", ""]
    for path in lists: path.write_text("elsewhere/1.jpg\n")
    with pytest.raises(InputError, match="none of the pictures in .*, such as elsewhere/1.jpg, is in the table"):
        read_sheet(roi)


def split_of(table): return split(table, np.zeros(len(table)), 0.5, 0, classes=False)


def test_artemis_is_a_row_a_viewer(tmp_path):
    rows = ["art_style,painting,emotion,utterance,repetition"]
    said = {"Baroque/rembrandt_the-night-watch-1642": ["awe", "awe", "something else", "fear"],
            "Cubism/juan-gris_guitar": ["amusement", "excitement", "amusement", "amusement"]}
    for number, (name, words) in enumerate(said.items()):
        style, painting = name.split("/")
        rows += [f'{style},{painting},{word},"It moves, somehow.",{i}' for i, word in enumerate(words)]
        (tmp_path / "wikiart" / style).mkdir(parents=True)
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), "uint8")
        Image.fromarray(noise).resize((40, 40)).save(tmp_path / "wikiart" / f"{name}.jpg")
    (tmp_path / "artemis_dataset_release_v0.csv").write_text("\n".join(rows) + "\n")
    summary = clean(tmp_path / "artemis_dataset_release_v0.csv", tmp_path / "clean")
    assert (summary["rows"], summary["kept"], summary["labelled"]["emotions"]) == (2, 2, 2)
    table = read_paintings(tmp_path / "clean", target="emotions")
    assert table[["title", "artist", "style", "viewers"]].values.tolist() == [
        ["The Night Watch 1642", "Rembrandt", "Baroque", "4"], ["Guitar", "Juan Gris", "Cubism", "4"]]
    shares = find_target("emotions").read(table)
    assert shares.loc[0, ["awe", "something else", "fear"]].tolist() == [.5, .25, .25]
    assert shares.loc[1, "amusement"] == .75 and table.group.tolist() == [3, 3]
    assert mentions_of(table).tolist() == [4, 4]
