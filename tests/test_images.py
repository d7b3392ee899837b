"Hostile files and servers, pictures of every mode, and copies that are found."
import io
import time

import numpy as np
import pytest
from museum import museum, picture
from PIL import Image, ImageCms

from emoart.data import images
from emoart.data.clean import read_paintings
from emoart.data.images import (
    PER_HOST, RESIZES, Unanswered, Unusable, check_image, fetch_images, load_image, open_rgb, perceptual_hash,
    polite_session, same_pictures)

GOOD = picture(seed=0)


def encoded(image, format, **options):
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


NO_IMAGES = [ # a file, and what is wrong with it
    (b"", "empty file"),
    (b"<html>Please log in</html>", "not an image"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG: export it as PNG"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC: install pillow-heif, or save it as JPEG"),
    (GOOD[:len(GOOD) // 2], "damaged image"),
    (picture(format="PNG")[:-40], "damaged image"),
    (encoded(Image.new("1", (30_000, 30_000)), "PNG"), "more than 100 million pixels"),
    (encoded(Image.new("F", (4, 4)), "TIFF"), "floating point")]


@pytest.mark.parametrize("content, reason", NO_IMAGES)
def test_what_is_no_image(content, reason):
    with pytest.raises(ValueError, match=reason): check_image(content)


WIDE, WHITE = (6, 4), (255, 255, 255)
WALL = Image.new("RGB", WIDE, "white")
GLASS = Image.new("RGBA", WIDE, (255, 0, 0, 0))
DEEP = Image.fromarray(np.full((4, 6), 65535 // 2, np.uint16))
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = _SRGB.replace("sRGB".encode("utf-16-be"), "GRB!".encode("utf-16-be")) # a screen whose red is green
for old, new in ((b"rXYZ", b"----"), (b"gXYZ", b"rXYZ"), (b"----", b"gXYZ")): SWAPPED = SWAPPED.replace(old, new)
MODES = { # file, size and colour that a viewer shows
    "palette": (encoded(Image.new("RGB", WIDE, "teal").quantize(4), "GIF"), WIDE, (0, 128, 128)),
    "grey": (encoded(Image.new("L", WIDE, 99), "PNG"), WIDE, (99, 99, 99)),
    "two tones": (encoded(Image.new("1", WIDE, 1), "BMP"), WIDE, WHITE),
    "CMYK": (encoded(Image.new("CMYK", WIDE, (255, 0, 0, 0)), "TIFF"), WIDE, (0, 255, 255)),
    "transparent": (encoded(GLASS, "PNG"), WIDE, WHITE),
    "transparent palette": (encoded(GLASS, "GIF"), WIDE, WHITE),
    "16 bits": (encoded(DEEP, "PNG"), WIDE, (127, 127, 127)),
    "damaged EXIF": (encoded(WALL, "PNG", exif=b"Exif\0\0QQQQQQQQ"), WIDE, WHITE),
    "profile": (encoded(Image.new("RGB", WIDE, (255, 0, 0)), "PNG", icc_profile=SWAPPED), WIDE, (0, 255, 0)),
    "damaged profile": (encoded(WALL, "PNG", icc_profile=SWAPPED[:90]), WIDE, WHITE),
    "turned": (encoded(WALL, "JPEG", exif=SIDEWAYS), (4, 6), WHITE)}


@pytest.mark.parametrize("mode", MODES)
def test_any_mode_is_seen_as_a_viewer_shows_it(mode, tmp_path):
    content, size, colour = MODES[mode]
    (tmp_path / "file").write_bytes(content)
    assert perceptual_hash(check_image(content)) and open_rgb(tmp_path / "file").size == size
    square = load_image(tmp_path / "file", 224)
    assert square.shape == (224, 224, 3) and square.dtype == np.uint8
    assert np.abs(square.astype(int) - colour).max() <= 1


def test_what_a_resize_keeps(tmp_path):
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, :10], wide[:, 10:30], wide[:, 30:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    stretch, pad, crop = (load_image(tmp_path / "wide.png", 40, resize).astype(int) for resize in RESIZES)
    assert (np.abs(stretch[:, 2] - (255, 0, 0)) < 9).all() and (np.abs(stretch[:, -2] - (0, 0, 255)) < 9).all()
    assert (pad[:10] == 0).all() and (pad[-10:] == 0).all() and (pad[20, 2] == (255, 0, 0)).all()
    assert (np.abs(crop[:, 1:-1] - (0, 255, 0)) < 60).all()


def small_grey_copy(image):
    small = image.resize((image.width * 3 // 5, image.height * 3 // 5)).convert("L")
    return check_image(encoded(small, "JPEG", quality=60))


def test_copies_are_found_and_paintings_are_not_confused(smoke_gallery):
    paintings = read_paintings(smoke_gallery, labelled=False)
    assert (paintings.picture == paintings.id).all(), "the gallery paints nothing twice"
    copies = [small_grey_copy(open_rgb(path)) for path in paintings.image[:40]]
    found = same_pictures([*paintings.phash, *map(perceptual_hash, copies)])
    assert found.tolist() == [*range(len(paintings)), *range(40)]


def ok(path, times):
    "Every address brings the picture."
    return 200, {}, GOOD


def is_answered(found):
    return not [result for result in found.values() if isinstance(result, Exception)]


def test_at_most_a_few_requests_wait_at_one_server(tmp_path):
    now, most = set(), [0]

    def answer(path, times):
        now.add(path)
        most[0] = max(most[0], len(now))
        time.sleep(0.05)
        now.discard(path)
        return 200, {}, GOOD

    with museum(answer) as (one, asked), museum(ok) as (other, _):
        found = fetch_images({f"n{i}": f"{one}/{i}" for i in range(20)} | {"other": f"{other}/a"}, tmp_path, tmp_path)
    assert len(asked) == 20 and 1 < most[0] <= PER_HOST and is_answered(found)


@pytest.fixture
def hurried(monkeypatch):
    "Retries without the pause that servers are given."
    monkeypatch.setattr(images, "BACK_OFF", 0.01)


def busy_twice(**headers):
    return lambda path, times: (200, {}, GOOD) if times > 2 else (503, headers, b"")


def test_a_busy_server_is_asked_again(tmp_path, hurried):
    with museum(busy_twice(**{"Retry-After": "0"})) as (address, asked):
        assert fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path)["a"][0] == "a.jpg" and len(asked) == 3


ODD = ["0.01", "Fri, 01 Jan 2021 00:00:00 GMT", "soon", "-3", ""]


@pytest.mark.parametrize("pause", ODD)
def test_odd_answers_are_not_the_pictures_fault(pause, tmp_path, hurried):
    with museum(busy_twice(**{"Retry-After": pause})) as (address, asked):
        assert fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path)["a"][0] == "a.jpg" and len(asked) == 3


@pytest.mark.parametrize("status, headers", [
    (203, {}), (200, {"Content-Type": "text/plain"}), (200, {"Content-Type": ";;"}), (200, {"Content-Encoding": ""})])
def test_weak_types_do_not_hide_a_picture(status, headers, tmp_path):
    with museum({"/a": (status, headers, GOOD)}) as (address, _):
        assert fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path)["a"][0] == "a.jpg"


@pytest.mark.parametrize("status", [202, 206, 304, 402, 418, 429, 500, 520])
def test_a_status_that_may_change_is_asked_again_another_day(status, tmp_path, hurried):
    with museum({"/a": (status, {}, b"")}) as (address, _):
        assert isinstance(fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path)["a"], Unanswered)


def test_a_server_that_stays_busy_gets_a_pause(tmp_path):
    with museum(busy_twice()) as (address, asked):
        started = time.monotonic()
        assert fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path)["a"][0] == "a.jpg" and len(asked) == 3
        assert time.monotonic() - started > 0.9, "no pause before the third time"
    assert polite_session().headers["User-Agent"].startswith("emoart ")


REDIRECTS = ["ftp://127.0.0.1/x.jpg", "file:///etc/hostname", "http://[bad/x.jpg", "http://www..museum.org/",
             "/caf\xe9.jpg", "/0"]


def test_no_address_or_redirect_ends_the_fetching(tmp_path):
    def answer(path, times):
        return (302, {"Location": REDIRECTS[int(path[1:])]}, b"") if path[1:].isdigit() else ok(path, times)
    with museum(answer) as (address, _):
        urls = {f"to {to}": f"{address}/{i}" for i, to in enumerate(REDIRECTS)}
        urls |= {"label": "http://www..museum.org/x.jpg", "good": f"{address}/good"}
        found = fetch_images(urls, tmp_path, tmp_path)
    assert found.pop("good")[0] == "good.jpg" and all(isinstance(result, Unusable) for result in found.values()), found


def test_the_body_of_a_redirect_is_not_read(tmp_path):
    sent = []
    def endless():
        for _ in range(2000):
            sent.append(1)
            yield bytes(2**16)
    def answer(path, times): return (302, {"Location": "/good"}, endless()) if path == "/a" else ok(path, times)
    with museum(answer) as (address, _):
        assert fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path)["a"][0] == "a.jpg"
    assert len(sent) < 500


def test_a_redirect_costs_one_request_more(tmp_path):
    def answer(path, times):
        return (302, {"Location": f"/good{path[1:]}"}, b"moved") if path[1:].isdigit() else ok(path, times)
    with museum(answer, keep_alive=True) as (address, asked):
        found = fetch_images({f"n{i}": f"{address}/{i}" for i in range(20)}, tmp_path, tmp_path)
    assert len(asked) == 40 and is_answered(found)


def test_no_secure_connection_is_tried_again_another_day(tmp_path, hurried):
    with museum({}) as (address, _):
        secure = address.replace("http:", "https:")
        assert isinstance(fetch_images({"a": f"{secure}/a"}, tmp_path, tmp_path)["a"], Unanswered)


def test_what_was_damaged_since_is_fetched_again(tmp_path):
    with museum(ok) as (address, asked):
        first = fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path)
        for damaged in (b"", GOOD[:99]):
            (tmp_path / "a.jpg").write_bytes(damaged)
            assert fetch_images({"a": f"{address}/a"}, tmp_path, tmp_path) == first
            assert (tmp_path / "a.jpg").read_bytes() == GOOD
        assert len(asked) == 3


def test_links_beside_the_sheet(tmp_path):
    sheet, images = tmp_path / "sheet", tmp_path / "images"
    for folder in (sheet, images): folder.mkdir()
    (tmp_path / "outside.jpg").write_bytes(GOOD)
    for name, target in (("loop", "loop.jpg"), ("out", "../outside.jpg"), ("gone", "nowhere.jpg")):
        (sheet / f"{name}.jpg").symlink_to(target)
    urls = {name: f"{name}.jpg" for name in ("loop", "out", "gone")} | {"null": "a\0.jpg"}
    found = fetch_images(urls, sheet, images)
    assert {name: type(result) for name, result in found.items()} == dict.fromkeys(urls, Unusable)
    assert "outside the folder" in str(found["out"]) and not list(images.iterdir())


def test_a_server_that_hangs(tmp_path, monkeypatch, hurried):
    monkeypatch.setattr(images, "TIMEOUT", (0.2, 0.2))
    with museum({"/hangs": None}) as (address, asked):
        reason = fetch_images({"a": f"{address}/hangs"}, tmp_path, tmp_path)["a"]
    assert isinstance(reason, Unanswered) and str(reason) in ("no answer in time", "no connection")
    assert len(asked) == 4


def test_a_server_that_drips(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DEADLINE", 0.5)
    def drops():
        for i in range(50):
            time.sleep(0.1)
            yield GOOD[i:i + 1]
    with museum(lambda path, times: (200, {"Content-Length": str(len(GOOD))}, drops())) as (address, _):
        started = time.monotonic()
        assert "not complete" in str(fetch_images({"a": f"{address}/drips"}, tmp_path, tmp_path)["a"])
        assert time.monotonic() - started < 3


def test_a_dead_server_does_not_hold_up_the_others(tmp_path, monkeypatch, hurried):
    monkeypatch.setattr(images, "GIVE_UP_AFTER", 4)
    with museum({}) as (dead, _): pass
    with museum(ok) as (alive, _):
        started = time.monotonic()
        urls = {f"n{i}": f"{dead}/{i}" for i in range(500)} | {"alive": f"{alive}/a"}
        found = fetch_images(urls, tmp_path, tmp_path)
    assert time.monotonic() - started < 10 and found.pop("alive")[0] == "alive.jpg"
    assert all(isinstance(result, Unanswered) for result in found.values())
    assert "did not answer 4 times in a row" in str(found["n499"])


def test_a_file_that_grows_without_end():
    with museum({"/long": (200, {}, bytes(2**23))}) as (address, _):
        with pytest.raises(Unusable, match="more than 1 MiB"):
            images.download(f"{address}/long", polite_session(), max_bytes=2**20)
