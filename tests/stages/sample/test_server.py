"""The sample board's picture host over loopback HTTP: a board's addresses, signals and faults."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import yaml
from PIL import Image as Pillow

from stages.config.download import Download, Faults
from stages.crawl.crawler import crawl
from stages.crawl.loopback import serving
from stages.crawl.store import PictureStore, WantedPicture
from stages.philomena import addresses
from stages.sample import server
from stages.sample.openclipart import Contents, Library
from stages.sample.rows import ROOT as BOARD
from stages.sample.server import PictureHost, serve
from stages.sample.uploads import Upload
from stages.workspace.errors import CrawlError

ROOT = Path(__file__).parents[3]
VERSIONS = (*addresses.VERSIONS, "full")
Address = tuple[str, int]


@pytest.fixture(scope="module")
def address(library: Library) -> Iterator[Address]:
    """The tiny board on a good day."""
    with serve(library=library) as address:
        yield address


@pytest.fixture(scope="module")
def visible(uploaded: list[Upload]) -> list[Upload]:
    return [image for image in uploaded if not image.hidden]


def get(address: Address, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what the board answers at a path below its root."""
    connection = HTTPConnection(*address)
    try:
        connection.request(method, f"/img/{path}")
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def path(image: Upload, version: str) -> str:
    """Where the crawler looks for an image, below the board's root."""
    size = image.picture.statistics
    return addresses.picture_path(image.created_at, image.id, image.format, size.width, size.height, version)


def folder(image: Upload) -> str:
    day = image.created_at
    return f"{day.year}/{day.month}/{day.day}/{image.id}"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_shown_image_is_where_the_crawler_looks(
    address: Address, library: Library, visible: list[Upload], version: str
) -> None:
    for image in visible:
        status, headers, body = get(address, path(image, version))
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert headers["Cache-Control"] == "public, max-age=31536000"
        with Pillow.open(io.BytesIO(body)) as picture:
            width, height = image.picture.statistics.width, image.picture.statistics.height
            if addresses.served_version(width, height, version) == "full":
                assert body == library.file(image.picture.name).read_bytes()
            else:
                box = addresses.VERSIONS[version]
                scale = min(box[0] / width, box[1] / height)
                assert picture.width <= box[0]
                assert picture.height <= box[1]
                assert picture.size == pytest.approx((max(1, width * scale), max(1, height * scale)), abs=1)
                picture.load()


def test_a_version_shows_the_picture_with_its_transparency(
    address: Address, library: Library, visible: list[Upload]
) -> None:
    for image in visible:
        with (
            Pillow.open(io.BytesIO(get(address, path(image, "thumb_tiny"))[2])) as small,
            Pillow.open(library.source(image.picture.name)) as large,
        ):
            assert small.has_transparency_data == large.has_transparency_data
            plain = large.convert("RGBA").resize(small.size, Pillow.Resampling.BOX).convert("RGBa")
            shift = np.asarray(small.convert("RGBA").convert("RGBa"), dtype=float) - np.asarray(plain)
            assert np.abs(shift).mean() < 12


def test_a_version_that_the_image_is_too_small_for_does_not_exist(address: Address, visible: list[Upload]) -> None:
    absent = [
        f"{folder(image)}/{version}.png"
        for image in visible
        for version in addresses.VERSIONS
        if addresses.served_version(image.picture.statistics.width, image.picture.statistics.height, version) == "full"
    ]
    assert len(absent) > 30
    assert {get(address, url_path)[0] for url_path in absent} == {404}


def test_a_picture_of_exactly_the_boxs_size_has_no_version_of_it(address: Address, visible: list[Upload]) -> None:
    (wine,) = (image for image in visible if image.name == "wine.png")
    assert (wine.picture.statistics.width, wine.picture.statistics.height) == addresses.VERSIONS["medium"]
    assert get(address, f"{folder(wine)}/medium.png")[0] == 404
    assert get(address, f"{folder(wine)}/small.png")[0] == 200


def test_an_original_has_two_addresses(address: Address, library: Library, visible: list[Upload]) -> None:
    for image in visible:
        original = library.file(image.picture.name).read_bytes()
        for url_path in (f"view/{folder(image)}.png", f"{folder(image)}/full.png"):
            assert get(address, url_path)[::2] == (200, original)


def test_dates_are_not_padded(address: Address, visible: list[Upload]) -> None:
    for image in visible:
        padded = f"{image.created_at:%Y/%m/%d}/{image.id}"
        assert {get(address, url_path)[0] for url_path in (f"{padded}/full.png", f"view/{padded}.png")} == {404}


def test_removed_and_merged_images_are_gone_at_every_address(address: Address, uploaded: list[Upload]) -> None:
    hidden = [image for image in uploaded if image.hidden]
    gone = [path(image, version) for image in hidden for version in VERSIONS]
    gone += [f"view/{folder(image)}.png" for image in hidden]
    assert len(gone) == 6 * 9
    assert {get(address, url_path)[0] for url_path in gone} == {404}


def test_extensions_are_lower_case(address: Address, visible: list[Upload]) -> None:
    (flag,) = (image for image in visible if image.name == "flag.png")
    assert flag.format == "PNG"
    assert get(address, f"{folder(flag)}/full.png")[0] == 200
    assert get(address, f"{folder(flag)}/full.PNG")[0] == 404


@pytest.mark.parametrize(
    ("url_path", "method", "status"),
    [
        ("", "GET", 404),
        ("../library.json", "GET", 404),
        ("..%2Flibrary.json", "GET", 404),
        ("2005/1/1", "GET", 404),
        ("2005/1/1/1/full.png", "POST", 405),
    ],
)
def test_there_is_nothing_else(address: Address, url_path: str, method: str, status: int) -> None:
    assert get(address, url_path, method)[0] == status


async def responses_to(library: Library, faults: Faults, *paths: str) -> list[tuple[int, dict[str, str], bytes | None]]:
    """What a client meets that asks for these one after another; the body is None where it is cut off."""
    responses: list[tuple[int, dict[str, str], bytes | None]] = []
    async with serving(PictureHost(library, faults).application()) as port, aiohttp.ClientSession() as session:
        for url_path in paths:
            async with session.get(f"http://127.0.0.1:{port}/img/{url_path}") as response:
                try:
                    body = await response.read()
                except aiohttp.ClientPayloadError:
                    body = None
                responses.append((response.status, dict(response.headers), body))
    return responses


async def test_throttled_is_429_with_retry_after_and_then_the_picture(library: Library, visible: list[Upload]) -> None:
    first, second = await responses_to(library, Faults(throttled=1.0), *[path(visible[0], "full")] * 2)
    assert (first[0], first[1]["Retry-After"]) == (429, "1")
    assert second[::2] == (200, library.file(visible[0].picture.name).read_bytes())


@pytest.mark.parametrize(("fault", "status", "kind"), [("overloaded", 501, "html"), ("unavailable", 503, "plain")])
async def test_an_outage_has_its_status_and_then_the_picture(
    library: Library, visible: list[Upload], fault: str, status: int, kind: str
) -> None:
    first, second = await responses_to(library, Faults(**{fault: 1.0}), *[path(visible[0], "full")] * 2)
    assert (first[0], first[1]["Content-Type"].partition(";")[0]) == (status, f"text/{kind}")
    assert second[0] == 200


async def test_every_address_has_a_first_response_of_its_own(library: Library, visible: list[Upload]) -> None:
    paths = [path(image, "full") for image in visible[:3]]
    responses = await responses_to(library, Faults(unavailable=1.0), *paths, *paths, paths[0])
    assert [status for status, _, _ in responses] == [503] * 3 + [200] * 4


def test_cut_off_is_half_of_what_was_announced_and_then_the_picture(library: Library, visible: list[Upload]) -> None:
    with serve(Faults(cut_off=1.0), library) as address:
        for image in visible[:4]:
            original = library.file(image.picture.name).read_bytes()
            with pytest.raises(IncompleteRead) as caught:
                get(address, path(image, "full"))
            assert caught.value.partial == original[: len(original) // 2]
            assert caught.value.expected == len(original) - len(original) // 2
            assert get(address, path(image, "full"))[::2] == (200, original)


async def test_slow_takes_longer_and_is_complete(library: Library, visible: list[Upload]) -> None:
    start = time.monotonic()
    (response,) = await responses_to(library, Faults(slow=1.0), path(visible[0], "full"))
    assert time.monotonic() - start >= server.SLOW
    assert response[::2] == (200, library.file(visible[0].picture.name).read_bytes())


def test_faults_come_in_the_shares_asked_for_and_at_the_same_addresses(library: Library) -> None:
    shares = {"throttled": 0.3, "overloaded": 0.05, "unavailable": 0.1, "cut_off": 0.2, "slow": 0.15}
    paths = [f"2005/1/{number}/full.png" for number in range(4000)]
    one, two = (PictureHost(library, Faults(**shares)) for _ in range(2))
    faults = [one.fault(path) for path in paths]
    assert faults == [two.fault(path) for path in reversed(paths)][::-1]
    counts = Counter(faults)
    assert {name: counts[name] / 4000 for name in shares} == pytest.approx(shares, abs=0.03)
    assert [one.fault(path) for path in paths] == [None] * 4000


def test_a_good_day_has_no_faults(library: Library) -> None:
    good = PictureHost(library, Faults())
    assert {good.fault(f"{number}") for number in range(1000)} == {None}


def test_the_crawler_gets_every_picture_on_a_bad_day(library: Library, visible: list[Upload], tmp_path: Path) -> None:
    section = """
      {host: stages/sample, hosts: [sample.localhost], rate: 500.0, concurrency: 4, tries: 6, timeout: 600.0,
       backoff: 0.01, max_wait: 1.5, pause_overloaded: 0.05, pause_blocked: 0.1, max_bytes: 1000000,
       max_pixels: 2000000, max_failed: 0.0, shard_size: 10}
    """
    params = Download(**yaml.safe_load(section))
    wanted = [WantedPicture(image.id, f"{BOARD}/{path(image, 'medium')}", "") for image in visible]
    faults = Faults(throttled=0.1, overloaded=0.2, unavailable=0.3, cut_off=0.2, slow=0.2)
    with serve(faults, library) as address, PictureStore(tmp_path) as store:
        crawler = crawl(params, store, wanted, len(wanted), {"sample.localhost": address})
        assert [result and result.status for result in store.results(wanted)] == ["ok"] * len(wanted)
    assert crawler.tally.retries > 3


def wait_until_refused(address: Address) -> None:
    """Return once connections are refused; pytest's timeout ends an endless wait."""
    with contextlib.suppress(ConnectionError):
        while get(address, ""):
            time.sleep(0.05)


SERVE = """
import sys
from pathlib import Path
from stages.sample import openclipart, server
with server.serve(library=openclipart.read(Path(sys.argv[1]))) as address:
    print(address[1], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_the_server_ends_with_the_process_that_started_it(library: Library, sent: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, library.folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        assert get(address, "")[0] == 404
        process.send_signal(sent)
        process.wait()
    wait_until_refused(address)


def test_a_server_that_cannot_start_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(
            CrawlError, match=r"the sample board's server did not start \(exit code 1\); see its error message above"
        ),
        serve(library=Library(tmp_path, Contents((), ()))),
    ):
        pass
    assert "library.json" in capfd.readouterr().err
