"Sheets with dirt in them, and a server on loopback that behaves as servers do."
import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xlsxwriter
from conftest import assert_one_sentence, run_emoart
from PIL import Image

from emoart.data import clean, load_image, read_paintings, read_sheet, split, tidy
from emoart.settings import InputError


def picture(mode="RGB", size=(40, 30), format="JPEG"):
    content = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(content, format=format)
    return content.getvalue()


GOOD = picture()
ANSWERS = { # path -> status, headers, body
    "/good.jpg": (200, {}, GOOD), "/wrong-suffix.jpg": (200, {}, picture(format="PNG")), "/cmyk.jpg": (200, {}, picture("CMYK")),
    "/missing.jpg": (404, {}, b"no"), "/truncated.jpg": (200, {}, GOOD[:len(GOOD) // 2]), "/empty.jpg": (200, {}, b""),
    "/page.jpg": (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
    "/to-file.jpg": (302, {"Location": "file:///etc/hostname"}, b""), "/moved.jpg": (302, {"Location": "/good.jpg"}, b""),
    "/half.jpg": (200, {"Content-Length": str(len(GOOD))}, GOOD[:100]),
}
REASONS = {"missing": "HTTP status 404", "truncated": "damaged image", "empty": "empty file", "page": "not an image", "to-file": "redirected to an address",
           "half": "the connection broke off", "etc": "address is not http or https", "ftp": "address is not http or https", "outside": "outside the folder",
           "nowhere": "no such file", "bracket": "address cannot be read"}


@pytest.fixture
def server():
    "Address of the server, and the list of paths that it was asked for."
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, headers, body = ANSWERS[self.path]
            self.send_response(status)
            for name, value in headers.items(): self.send_header(name, value)
            if "Content-Length" not in headers: self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_): pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()


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
    assert not {"/good.jpg", "/cmyk.jpg", "/wrong-suffix.jpg"} & set(server[1])


def test_the_command_says_what_it_did(sheet, tmp_path, server):
    done = run_emoart("clean", sheet, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert done.returncode == 0 and f"kept {summary['kept']}" in done.stdout
    assert_one_sentence(run_emoart("clean", tmp_path / "none.xlsx", "--out", tmp_path / "o"), "there is no sheet")


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
    rows = pd.DataFrame({"row": [2, 3], "title": "A", "style": "", "artist": "B", "genre": "Portrait", "tags": "", "emotion": ["Joy", "Fear "], "url": "a.jpg"})
    kept, rejects = tidy(rows)
    assert kept.emotion.tolist() == ["joy"]
    assert rejects[["reason", "detail"]].values.tolist() == [["repeated row", "as row 2, which says joy; this one says fear"]]


def test_a_decompression_bomb_is_rejected(tmp_path):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    pd.DataFrame({"Title": ["Bomb"], "Genre": ["portrait"], "Emotion": ["Joy"], "Image URL": ["bomb.png"]}).to_csv(tmp_path / "art.csv", index=False)
    assert clean(tmp_path / "art.csv", tmp_path / "out")["rejected"] == 1
    assert "too many pixels" in (tmp_path / "out" / "rejects.csv").read_text()


def test_headings_in_any_order_and_case(tmp_path):
    (tmp_path / "art.csv").write_text(" image url ,EMOTION,genre,title\na.jpg,Joy,portrait,A\n\n", encoding="utf-8-sig")
    assert read_sheet(tmp_path / "art.csv")[["row", "title", "url"]].values.tolist() == [[2, "A", "a.jpg"]]


def test_equal_pictures_stay_on_one_side_of_the_split():
    paintings = pd.DataFrame({"group": np.tile([0, 1, 2, 3], 60), "sha256": np.repeat(np.arange(80), 3).astype(str)})
    for seed in range(5):
        held_out = split(paintings, 0.25, seed)
        assert abs(held_out.mean() - 0.25) < 0.04 and (paintings.group[held_out].value_counts() > 5).all()
        assert not set(paintings.sha256[held_out]) & set(paintings.sha256[~held_out])
        assert (held_out == split(paintings, 0.25, seed)).all()
    with pytest.raises(InputError, match="too few to split"): split(paintings.head(3), 0.25, 0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4])
def test_the_test_share_is_what_was_asked_for(share):
    paintings = pd.DataFrame({"group": [*np.tile([0, 1, 3], 60), 2], "sha256": np.arange(181).astype(str)})
    held_out = split(paintings, share, 0)
    assert held_out.sum() == round(180 * share) and not held_out[-1], "a group with one picture is for training"


def test_the_shared_sheet(shared, tmp_path):
    "The development workbook: 2,489 rows over real paintings, served on its own port."
    from functools import partial
    from http.server import SimpleHTTPRequestHandler

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
