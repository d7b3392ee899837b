"Tables with dirt in them, cleaned undisturbed, killed, twice at once, on a full disk; the three sources."
import base64
import csv
import io
import json
import random
import signal
import subprocess
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xlsxwriter
from conftest import EMOART, assert_one_sentence, run_emoart
from hypothesis import given, settings
from hypothesis import strategies as st
from museum import museum, picture

from emoart.data.clean import HEADINGS, SCHEMA, clean, distribution, fetch_wikiart_emotions, read_paintings, read_sheet, soft_labels, tidy
from emoart.data.images import load_image
from emoart.core.files import InputError


GOOD = picture()
ANSWERS = { # path -> status, headers, body
    "/good.jpg": (200, {}, GOOD), "/wrong-suffix.jpg": (200, {}, picture(format="PNG")), "/cmyk.jpg": (200, {}, picture("CMYK")),
    "/missing.jpg": (404, {}, b"no"), "/truncated.jpg": (200, {}, GOOD[:len(GOOD) // 2]), "/empty.jpg": (200, {}, b""),
    "/page.jpg": (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
    "/to-file.jpg": (302, {"Location": "file:///etc/hostname"}, b""), "/moved.jpg": (302, {"Location": "/good.jpg"}, b""),
    "/half.jpg": (200, {"Content-Length": str(len(GOOD))}, GOOD[:100]),
}
REASONS = {"missing": "HTTP status 404", "truncated": "damaged image", "empty": "empty file", "page": "not an image", "to-file": "redirected to such an address",
           "half": "the connection broke off", "etc": "address is not http or https", "ftp": "address is not http or https", "outside": "outside the folder",
           "nowhere": "no such file", "bracket": "address cannot be read"}


@pytest.fixture
def server():
    "Address of the server, and the list of paths that it was asked for."
    with museum(ANSWERS) as address_and_asked: yield address_and_asked


@pytest.fixture
def sheet(server, tmp_path):
    "An xlsx with one row for every kind of address, and one repeated row."
    urls = [server[0] + path for path in ANSWERS]
    urls += ["file:///etc/hostname", "ftp://127.0.0.1/x.jpg", "../outside.jpg", "nowhere.jpg", "http://[bracket", "local.png"]
    rows = [(f"Title {i}", "Realism", "Ann", "portrait", "", "Joy", url) for i, url in enumerate(urls)]
    path = tmp_path / "sheet" / "art.xlsx"
    path.parent.mkdir()
    (tmp_path / "outside.jpg").write_bytes(GOOD)
    (path.parent / "local.png").write_bytes(picture("L", format="PNG"))
    pd.DataFrame([*rows, rows[0]], columns=["Title", "Style", "Artist", "Genre", "Tags", "Emotion", "Image URL"]).to_excel(path, index=False, engine="openpyxl")
    return path


def test_every_row_is_accounted_for(sheet, tmp_path, server):
    summary = clean(sheet, tmp_path / "out")
    assert summary["rows"] == len(ANSWERS) + 7 and summary["repeated"] == 1
    assert summary["kept"] + summary["rejected"] + summary["repeated"] == summary["rows"]
    kept = read_paintings(tmp_path / "out")
    assert sorted(Path(url).name for url in kept.url) == ["cmyk.jpg", "good.jpg", "local.png", "moved.jpg", "wrong-suffix.jpg"]
    assert kept.file[kept.url.str.endswith("wrong-suffix.jpg")].item().endswith(".png")
    rejects = pd.read_csv(tmp_path / "out" / "rejects.csv", keep_default_na=False)
    said = " | ".join(rejects.reason + " " + rejects.detail)
    for part, reason in REASONS.items():
        assert any(part in d and reason in r + d for r, d in zip(rejects.reason, rejects.detail)), f"{part}: {reason} not in {said}"
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
    done = run_emoart("clean", sheet, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert done.returncode == 0 and done.stdout.splitlines()[1].split() == ["kept", str(summary["kept"])]
    assert_one_sentence(emoart("clean", tmp_path / "none.xlsx", "--out", tmp_path / "o"), "there is no sheet")


TITLES = ["Untitled", "a/b", "../../etc/passwd", "..", "x" * 500, "Ürgüp, 日本", "=HYPERLINK(\"http://127.0.0.1/\",\"click\")", "NUL", " spaced   out "]


def test_titles_never_become_paths(tmp_path):
    rows = pd.DataFrame({"Title": TITLES, "Genre": "portrait", "Emotion": "NA", "Image URL": [f"{i}.jpg" for i in range(len(TITLES))]})
    for i in range(len(TITLES)): (tmp_path / f"{i}.jpg").write_bytes(GOOD)
    rows.to_csv(tmp_path / "art.csv", index=False)
    clean(tmp_path / "art.csv", tmp_path / "out")
    kept = read_paintings(tmp_path / "out")
    assert len(kept) == len(TITLES) and kept.file.is_unique
    assert all(Path(file).name == file and len(file) < 30 for file in kept.file)
    assert [base64.urlsafe_b64decode(b).decode() for b in kept.base64_title] == [" ".join(t.split()) for t in TITLES]
    assert (kept.group == 1).all(), "the word NA is a label"


def test_an_excel_formula_is_read_as_it_is_written(tmp_path):
    pd.DataFrame({"Title": ["=1+1"], "Genre": ["portrait"], "Emotion": [""], "Image URL": ["a.jpg"]}).to_excel(tmp_path / "art.xlsx", index=False, engine="openpyxl")
    assert read_sheet(tmp_path / "art.xlsx").title.tolist() == ["=1+1"]


def test_a_computed_formula_gives_its_value(tmp_path):
    with xlsxwriter.Workbook(tmp_path / "art.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["Title", "Genre", "Emotion", "Image URL"])
        sheet.write_row(1, 0, ["=never(computed", "portrait", "", "a.jpg"])
        sheet.write_formula(1, 2, '="Jo"&"y"', value="Joy")
    assert read_sheet(tmp_path / "art.xlsx").emotion.tolist() == ["Joy"]


def test_rows_longer_than_the_heading_are_refused(tmp_path):
    (tmp_path / "art.csv").write_text("Title,Genre,Emotion,Image URL\nA,portrait,Joy,a.jpg,more\nB,portrait,Joy,b.jpg,more\n")
    with pytest.raises(InputError, match="cannot read art.csv|cannot read .*art.csv"): read_sheet(tmp_path / "art.csv")


def test_a_picture_replaced_beside_the_sheet_is_read_again(tmp_path):
    (tmp_path / "art.csv").write_text("Title,Genre,Emotion,Image URL\n1984,portrait,Joy,a.jpg\n")
    digests = set()
    for content in (GOOD, picture("L")):
        (tmp_path / "a.jpg").write_bytes(content)
        digests.add(clean(tmp_path / "art.csv", tmp_path / "out")["data_digest"])
    kept = read_paintings(tmp_path / "out")
    assert len(digests) == 2 and Path(kept.image[0]).read_bytes() == content and kept.title[0] == "1984"


def test_a_contradicting_repeat_is_told():
    rows = pd.DataFrame(dict.fromkeys(HEADINGS.values(), "") | dict(row=[2, 3], title="A", artist="B", emotion=["Joy", "Fear "], url="a.jpg"))
    kept, rejects = tidy(rows)
    assert kept.emotion.tolist() == ["Joy"] and kept.group.tolist() == [3]
    assert rejects[["reason", "detail"]].values.tolist() == [["repeated row", "as row 2, which says Joy; this one says Fear"]]


def test_a_zip_bomb_is_not_unpacked(tmp_path, emoart):
    with zipfile.ZipFile(tmp_path / "art.xlsx", "w", zipfile.ZIP_DEFLATED) as book, book.open("xl/worksheets/sheet1.xml", "w") as part:
        for _ in range(600): part.write(bytes(2**20))
    assert (tmp_path / "art.xlsx").stat().st_size < 2**20
    assert_one_sentence(emoart("clean", tmp_path / "art.xlsx", "--out", tmp_path / "out"), "unpacks to more than 512 MiB")
    assert not (tmp_path / "out").exists()


def cleaned(folder, table, name="art.csv", **options):
    "What a text as a sheet in a folder is cleaned to, with three pictures 0.jpg to 2.jpg beside it: summary, paintings and rejects."
    for i in range(3):
        if not (folder / f"{i}.jpg").exists(): (folder / f"{i}.jpg").write_bytes(picture(seed=i))
    (folder / name).write_text(table, encoding="utf-8")
    summary = clean(folder / name, folder / "out", **options)
    return summary, pd.read_csv(folder / "out" / "paintings.csv", dtype=str, keep_default_na=False), pd.read_csv(folder / "out" / "rejects.csv", dtype=str, keep_default_na=False)


def test_the_folder_of_the_sheet_is_not_cleaned_into(tmp_path, emoart):
    (tmp_path / "paintings.csv").write_text(content := "File,Notes\n0.jpg,mine\n")
    for sheet in (tmp_path / "paintings.csv", tmp_path): assert_one_sentence(emoart("clean", sheet, "--out", tmp_path), "the folder of the sheet", "--out")
    assert (tmp_path / "paintings.csv").read_text() == content


@pytest.mark.parametrize("heading", ["File,URL,Title,Source_ID,ID", "Title,Genre,Emotion,Image URL,URL", "File,image_id,image_width", "Title;Genre;Emotion;Image URL;\"Notes, mine, and yours, all\"", "Title\tGenre\tEmotion\tImage URL"])
def test_headings_of_ones_own_disturb_nothing(heading, tmp_path):
    separator = max(",;\t", key=heading.count)
    fields = {"file": "0.jpg", "image url": "0.jpg", "title": "A", "image_id": "7", "image_width": "640"}
    row = separator.join(fields.get(name, "x") for name in heading.lower().split(separator))
    summary, kept, _ = cleaned(tmp_path, f"{heading}\n{row}\n")
    assert (summary["kept"], summary["rejected"]) == (1, 0) and kept.url.item() == "0.jpg"


@pytest.mark.parametrize("content, words", [
    ("Title,TITLE,Genre,Emotion,Image URL\n", ["two columns Title"]), ("File,File\n", ["two columns File"]), ("File,share_joy,share_happiness\n0.jpg,1,1\n", ["two columns of joy"]),
    ("File,share_joy,share_joy\n0.jpg,1,1\n", ["two columns Share_Joy"]),
    ("ID,Category,Is painting\n1,2,3\n", ["lacks the columns Title, Genre", "has Id, Category, Is Painting"]), ("My paintings,,\n,,\nTitle,Genre,Emotion\n", ["the first row of this one has My Paintings"]),
    ("File,Title\n0.jpg,Caf\xe9\n".encode("latin-1"), ["not in UTF-8"]), ("File\n0.jpg\n".encode("utf-16"), ["not in UTF-8"])])
def test_tables_that_cannot_be_read(content, words, tmp_path, emoart):
    (tmp_path / "art.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_one_sentence(emoart("clean", tmp_path / "art.csv", "--out", tmp_path / "out"), *words)


def test_workbooks_that_cannot_be_read(tmp_path, emoart):
    (tmp_path / "protected.xlsx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(4096))
    assert_one_sentence(emoart("clean", tmp_path / "protected.xlsx", "--out", tmp_path / "out"), "no .xlsx workbook", "without a password")
    with xlsxwriter.Workbook(tmp_path / "far.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["File", "Title"])
        sheet.write(1_048_575, 16_383, "x")
    assert_one_sentence(emoart("clean", tmp_path / "far.xlsx", "--out", tmp_path / "out"), "delete the stray ones")
    for path in ("~nobody-of-that-name/art.csv", f"{'x' * 300}.csv"): assert_one_sentence(emoart("clean", path, "--out", tmp_path / "out"), "cannot read")


def test_rows_that_say_the_same_in_another_case_or_nothing(tmp_path):
    summary, kept, rejects = cleaned(tmp_path, "Title,Artist,Genre,Emotion,Image URL,Notes\nMona Lisa,Leonardo,,,0.jpg,\nMONA LISA,leonardo,,,0.jpg,\n,,,,,\n,,,,,important\n")
    assert (summary["rows"], summary["kept"], summary["repeated"], summary["rejected"]) == (3, 1, 1, 1)
    assert rejects[["row", "reason"]].values.tolist() == [["3", "repeated row"], ["5", "no title"]]


def test_names_beside_the_sheet_are_looked_up_as_they_are_written(tmp_path):
    names = ["U\u0308ber  dem Meer.jpg", "A\u030a.jpg"] # decomposed, as a Mac writes them; two spaces
    for name in names: (tmp_path / name).write_bytes(GOOD)
    assert cleaned(tmp_path, "File\n" + "\n".join(names) + "\n")[1].url.tolist() == names


def test_a_word_beside_shares_stands_where_nobody_chose(tmp_path):
    summary, kept, _ = cleaned(tmp_path, "File,Emotion,share_joy,share_fear\n0.jpg,Joy,,\n1.jpg,Joy,0,1\n2.jpg,Saudade,0,0\n")
    assert kept[["emotion", "group"]].values.tolist() == [["Joy", "3"], ["fear", "0"], ["Saudade", "-1"]] and summary["unknown_emotions"] == {"saudade": 1} and summary["undecided"] == 0


@pytest.mark.parametrize("name, damage", [
    ("paintings.csv", lambda content: b""), ("paintings.csv", lambda content: b"\0\x80"), *(("paintings.csv", lambda content, value=value, column=column: content.replace(
        content.splitlines()[1].split(b",")[list(SCHEMA).index(column)], value)) for column in ("phash", "file") for value in (b"1.23E+15", b"")),
    ("rejects.csv", lambda content: b""), ("rejects.csv", lambda content: content[:-20]), ("summary.json", lambda content: b"")])
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
    cleaned(tmp_path, table := "File,Title,Genre\n0.jpg,A,portrait\n0.jpg,B,landscape\n1.jpg,C,landscape\n2.jpg,D,\n")
    persons.mark_persons(tmp_path / "out")
    marked = contents(tmp_path / "out")
    cleaned(tmp_path, table)
    assert contents(tmp_path / "out") == marked and list(read_paintings(tmp_path / "out", "person", labelled=False).title) == ["A", "C", "D"]
    cleaned(tmp_path, table.replace("landscape", "still life", 1))
    with pytest.raises(InputError, match="--persons"): read_paintings(tmp_path / "out", "person", labelled=False)


def test_headings_in_any_order_and_case(tmp_path):
    (tmp_path / "art.csv").write_text(" image url ,EMOTION,genre,title\na.jpg,Joy,portrait,A\n\n", encoding="utf-8-sig")
    assert read_sheet(tmp_path / "art.csv")[["row", "title", "url"]].values.tolist() == [[2, "A", "a.jpg"]]


# --- a cleaning that is disturbed


def contents(folder):
    "Path -> content of every file of a folder, hidden ones too."
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def slow_museum(tmp_path):
    "A sheet of 60 paintings at a server that takes 0.1 s for each, some of them broken; and the folder of an undisturbed run."
    pictures = {f"/{i}": picture(size=(120, 90), seed=i) if i % 9 else b"<html>" for i in range(60)}
    with museum(lambda path, times: (200, {}, pictures[path]), delay=0.1) as (address, asked):
        sheet = tmp_path / "art.csv"
        pd.DataFrame({"Title": [f"T{i}" for i in range(60)], "Genre": "portrait", "Emotion": "Joy", "Image URL": [f"{address}/{i}" for i in range(60)]}).to_csv(sheet, index=False)
        clean(sheet, tmp_path / "undisturbed")
        asked.clear()
        yield sheet, tmp_path, asked


def test_killed_at_any_moment_and_run_again_the_folder_is_the_same(slow_museum):
    sheet, folder, asked = slow_museum
    rng = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen([EMOART, "clean", sheet, "--out", folder / "out"], stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.glob("out/images/*")): time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder / "out/images/.partial-x.jpg").write_bytes(b"half") # what a kill between two bytes leaves
    assert run_emoart("clean", sheet, "--out", folder / "out").returncode == 0
    assert contents(folder / "out") == contents(folder / "undisturbed")
    asked.clear()
    clean(sheet, folder / "out")
    assert not asked and contents(folder / "out") == contents(folder / "undisturbed")


def test_ctrl_c_does_not_wait_for_a_server(tmp_path):
    with museum(lambda path, times: (200, {}, GOOD), delay=40) as (address, asked):
        (tmp_path / "art.csv").write_text(f"File\n{address}/a\n")
        running = subprocess.Popen([EMOART, "clean", tmp_path / "art.csv", "--out", tmp_path / "out"], stderr=subprocess.PIPE, text=True)
        while not asked and running.poll() is None: time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=15)
    assert running.returncode == 130 and "the same command goes on from there" in said and len(said.splitlines()) == 1


def test_two_processes_clean_into_one_folder(slow_museum):
    sheet, folder, asked = slow_museum
    both = [subprocess.Popen([EMOART, "clean", sheet, "--out", folder / "out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0] and "waiting for it" in "".join(said)
    assert contents(folder / "out") == contents(folder / "undisturbed") and len(asked) == 60, "the second has nothing left to fetch"


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(slow_museum):
    sheet, folder, _ = slow_museum
    limited = subprocess.run(["bash", "-c", f"ulimit -f 4; trap '' XFSZ; exec {EMOART} clean {sheet} --out {folder / 'out'}"], capture_output=True, text=True)
    assert_one_sentence(limited, "cannot write to", "the same command goes on from there")
    kept = contents(folder / "out")
    assert not [name for name in kept if ".partial-" in name] and kept.items() <= contents(folder / "undisturbed").items()
    assert run_emoart("clean", sheet, "--out", folder / "out").returncode == 0
    assert contents(folder / "out") == contents(folder / "undisturbed")


@settings(deadline=None, max_examples=40)
@given(titles=st.lists(st.text(st.characters(codec="utf-8"), max_size=90) | st.sampled_from(TITLES), min_size=1, max_size=8),
       artists=st.lists(st.sampled_from(["Ann", "Ben", ""]), min_size=8, max_size=8))
def test_property_of_titles(tmp_path_factory, titles, artists):
    "Different paintings never share a file, no name leaves the folder, and the base64 column decodes to the title."
    folder = tmp_path_factory.mktemp("titles")
    for i in range(3): (folder / f"{i}.png").write_bytes(picture(format="PNG", seed=i))
    rows = pd.DataFrame(dict.fromkeys(HEADINGS.values(), "") | dict(row=range(2, len(titles) + 2), title=titles, artist=artists[:len(titles)], url=[f"{i % 3}.png" for i in range(len(titles))]))
    rows.rename(columns=dict(title="Title", artist="Artist", genre="Genre", emotion="Emotion", url="Image URL")).to_csv(folder / "art.csv", index=False, quoting=csv.QUOTE_ALL)
    summary = clean(folder / "art.csv", folder / "out")
    assert summary["rows"] == len(titles) == summary["kept"] + summary["rejected"] + summary["repeated"]
    files = [path.resolve() for path in (folder / "out" / "images").iterdir()]
    assert len(files) == summary["kept"] and all(file.parent == (folder / "out" / "images").resolve() for file in files)
    assert {path.name for path in folder.iterdir()} == {"0.png", "1.png", "2.png", "art.csv", "out"}
    if summary["kept"]:
        kept = read_paintings(folder / "out", labelled=False)
        assert kept.file.is_unique and not kept.duplicated(["title", "artist", "url"]).any()
        assert [base64.urlsafe_b64decode(b).decode() for b in kept.base64_title] == list(kept.title)


def test_forty_thousand_rows():
    "The cost of a row does not grow with their number."
    def seconds(n):
        rng = np.random.default_rng(0)
        rows = pd.DataFrame(dict.fromkeys(HEADINGS.values(), "") | dict(
            row=np.arange(2, n + 2), title=[f"Portrait of {i}" for i in rng.integers(0, n, n)], artist=rng.choice([f"A {i}" for i in range(900)], n),
            emotion=rng.choice(["Joy", "sadness ", "FEAR", "", "Saudade"], n), url=[f"{i}.jpg" for i in rng.integers(0, n, n)]))
        started = time.process_time()
        kept, rejects = tidy(rows)
        assert len(kept) + len(rejects) == n
        return time.process_time() - started
    few, many = min(seconds(5_000) for _ in range(3)), seconds(40_000)
    assert many < 20 and many < 2 * 8 * few


# --- the other two sources


def test_an_image_folder_with_its_table(tmp_path):
    for name in ("one.jpg", "sub/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(format="PNG" if name.endswith("png") else "JPEG"))
    (tmp_path / "mine.csv").write_text("file,artist,year,split,share_joy,share_fear\none.jpg,Ann,1911,test,0.8,0.2\nsub/two.png,Ben,,train,0.1,0.9\nnone.jpg,,,,1.5,0\n")
    summary = clean(tmp_path, tmp_path / "out")
    kept = read_paintings(tmp_path / "out")
    assert summary["kept"] == 2 and summary["reasons"] == {"a share is not a number from 0 to 1": 1}
    assert kept[["title", "artist", "year", "split", "emotion", "group"]].values.tolist() == [["one", "Ann", "1911", "test", "joy", 3], ["two", "Ben", "", "train", "fear", 0]]
    assert soft_labels(kept).round(6).tolist() == [[0.2, 0, 0, 0.8], [0.9, 0, 0, 0.1]]


def test_soft_labels_of_words_and_of_groups():
    table = pd.DataFrame(dict(group=[0, 3, -1], share_negative=["0.5", "", ""], share_joy=["0.1", "0", ""], share_love=["0.4", "0", ""]))
    assert np.nan_to_num(soft_labels(table), nan=9).tolist() == [[0.5, 0, 0, 0.5], [0, 0, 0, 1], [9, 9, 9, 9]]
    assert soft_labels(table[["group"]]) is None


WIKIART = """ID\tStyle\tCategory\tArtist\tTitle\tYear\tIs painting\tFace/body\tImageOnly: happiness\tImageOnly: fear\tImageOnly: surprise\tTitleOnly: fear
5a\tModern Art\tCubism\tAnn\tA "Hat\t1911\tyes\tface\t0.6\t0.1\t0\t1
5b\tModern Art\tCubism\tAnn\t\'s Hat\t1911\tno\tnone\t0.1\t0.3\t0.6\t0
5c\tModern Art\tCubism\tBen\tNA\t1911\tyes\tbody\t0.5\t0.5\t0\t0
5d\tModern Art\tCubism\tBen\tLost\t1911\tyes\tbody\t0\t0\t0\t1
"""


def wikiart_zip(address):
    "The published zip in small: shares without addresses, and 0/1 with them."
    shares = [line.split("\t") for line in WIKIART.splitlines()]
    ag4 = [[*shares[0], "Image URL"]] + [[*row[:8], *(str(int(float(share) >= 0.4)) for share in row[8:]), f"{address}/{row[0]}.jpg"] for row in shares[1:]]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as parts:
        parts.writestr("WikiArt-Emotions/WikiArt-Emotions-All.tsv", WIKIART)
        parts.writestr("WikiArt-Emotions/WikiArt-Emotions-Ag4.tsv", "\n".join("\t".join(row) for row in ag4))
    return content.getvalue()


def test_fetch_wikiart_emotions(tmp_path):
    answers = {f"/5{i}.jpg": (200, {}, picture(seed=ord(i))) for i in "abc"} | {"/5d.jpg": (404, {}, b"")}
    with museum(lambda path, times: answers[path]) as (address, asked):
        answers["/set.zip"] = 200, {}, wikiart_zip(address)
        done = run_emoart("fetch", "wikiart-emotions", "--out", tmp_path / "w", "--source", f"{address}/set.zip", "--limit", 2)
        assert done.returncode == 0 and "kept           2" in done.stdout and sorted(asked) == ["/5a.jpg", "/5b.jpg", "/set.zip"]
        summary = fetch_wikiart_emotions(tmp_path / "w", source=f"{address}/set.zip")
        assert sorted(asked) == ["/5a.jpg", "/5b.jpg", "/5c.jpg", "/5d.jpg", "/set.zip"], "nothing is fetched twice"
        assert (summary["kept"], summary["labelled"], summary["undecided"], summary["unknown_emotions"]) == (3, 2, 1, {})
        kept = read_paintings(tmp_path / "w", labelled=False)
        assert kept[["source_id", "title", "tags", "emotion", "group"]].values.tolist() == [
            ["5a", 'A "Hat', "Modern Art, face", "joy", 3], ["5b", "'s Hat", "Modern Art, not a painting", "surprise", 2], ["5c", "NA", "Modern Art, body", "joy, fear", -1]]
        ones = read_sheet(tmp_path / "w" / "tables" / "WikiArt-Emotions-Ag4.tsv")
        assert tidy(ones)[0].group.tolist() == [3, 2, -1, -1] and ones.share_joy.tolist() == ["1", "0", "1", "0"]
        assert tidy(read_sheet(tmp_path / "w" / "tables" / "WikiArt-Emotions-All.tsv", "title"))[0].group.tolist() == [0, -1, -1, 0]


@pytest.mark.parametrize("options, words", [
    (["wikiart"], ["no data set 'wikiart'"]), (["wikiart-emotions", "--source", "{}/gone.zip"], ["HTTP status 404", "--source"]),
    (["wikiart-emotions", "--source", "{}/page.zip"], ["not a zip file"]), (["wikiart-emotions", "--source", "{}/other.zip"], ["holds no WikiArt-Emotions-All.tsv"]),
    (["wikiart-emotions", "--source", "ftp://127.0.0.1/set.zip"], ["not http or https"]), (["wikiart-emotions", "--limit", "-1"], ["--limit"])])
def test_a_fetch_that_cannot_be(options, words, tmp_path, emoart):
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as parts: parts.writestr("../WikiArt.tsv", "x")
    answers = {"/gone.zip": (404, {}, b""), "/page.zip": (200, {}, b"<html>"), "/other.zip": (200, {}, other.getvalue())}
    with museum(answers) as (address, _):
        assert_one_sentence(emoart("fetch", *(option.format(address) for option in options), "--out", tmp_path / "w"), *words)


def test_distributions():
    paintings = pd.DataFrame({"style": ["A", "B", "A", ""], "tags": ["hat, Dog", "dog", "", ""], "emotion": ["Joy", "happiness ", "", "NA"], "group": [3, 3, -1, 1]})
    assert distribution(paintings, "style").to_dict() == {"A": 2, "B": 1}
    assert distribution(paintings, "tags").to_dict() == {"dog": 2, "hat": 1}
    assert distribution(paintings, "emotion").to_dict() == {"joy": 2, "na": 1}
    assert distribution(paintings, "group").to_dict() == {"positive": 2, "neutral": 1}


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
    assert summary["rows"] == summary["kept"] == 40 and summary["labelled"] + summary["undecided"] == 40
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
