"""A folder's dump: written by a real PostgreSQL, restored and extracted by the stages, served by the folder's host."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from folders import params, picture, write

import stages.extract
import stages.restore
from stages.crawl.crawler import crawl
from stages.crawl.store import PictureStore, WantedPicture
from stages.folder import __main__ as folder_stage
from stages.folder import server
from stages.workspace import paths
from stages.workspace.errors import FolderError, MLpyError

ROOT = Path(__file__).parents[3]
FILES = {
    "metadata.csv": "file_name,artist,source\ncats/one.png,Zoe,https://example.org/1\ncats/gone.png,Zoe,\n",
    "cats/one.png": picture("one", size=(100, 50)),
    "cats/old/two.jpg": picture("two", "JPEG"),
    "cats/new\nline.webp": picture("three", "WEBP"),
    "Dogs, big/four.gif": picture("four", "GIF"),
    "Dogs, big/tiny.png": picture("tiny", size=(8, 8)),
    "safe/one again.png": picture("one", size=(100, 50)),
    "safe/broken.png": "no picture",
}
DOWNLOAD = {
    key: value
    for key, value in dataclasses.asdict(params(Path("pictures"))).items()
    if key not in ("contact", "faults")
}
EXTRACT = {
    "root": "http://folder.localhost/img",
    "version": "full",
    "formats": ["png", "jpeg", "gif", "webp"],
    "min_side": 16,
    "policy": {
        "name": "pets",
        "kind": "binary",
        "labels": {"cats": {"any": ["cats"]}, "others": {"rest": True}},
    },
}


def build(folder: Path, write_params: Callable[..., None]) -> bytes:
    """The dump of a folder of the workplace."""
    write_params(download={**DOWNLOAD, "folder": {"pictures": str(folder)}})
    folder_stage.main()
    return paths.FOLDER_DUMP.read_bytes()


@pytest.fixture
def catalogue(workplace: Path, own_server: str, params: Callable[..., None]) -> pd.DataFrame:
    """The folder `pictures` as the first two stages see it."""
    write(Path("pictures"), FILES)
    build(Path("pictures"), params)
    params(restore={"dump": str(paths.FOLDER_DUMP)}, extract=EXTRACT)
    stages.restore.main()
    stages.extract.main()
    return pd.read_parquet(paths.IMAGES)


def get(address: tuple[str, int], url: str) -> tuple[int, bytes]:
    connection = HTTPConnection(*address)
    try:
        connection.request("GET", url.removeprefix("http://folder.localhost"))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_stages_read_it_and_the_host_serves_it(catalogue: pd.DataFrame, tmp_path: Path) -> None:
    rows = catalogue.set_index("name")
    assert sorted(rows.index) == ["Dogs, big/four.gif", "cats/new\nline.webp", "cats/old/two.jpg", "cats/one.png"]
    assert dict(rows.label) == {name: "cats" if name.startswith("cats") else "others" for name in rows.index}
    assert list(rows.tags["cats/one.png"]) == ["artist:zoe", "cats", "safe"]
    assert list(rows.tags["Dogs, big/four.gif"]) == ["dogs big"]
    assert (rows.artist["cats/one.png"], rows.width["cats/one.png"], rows.height["cats/one.png"]) == ("zoe", 100, 50)
    assert rows.nw.between(0, 255).all()
    assert json.loads(paths.EXTRACT_SUMMARY.read_text())["dropped"]["too_small"] == 1
    assert json.loads(paths.FOLDER_SUMMARY.read_text()) == {
        "images": 5,
        "doubles": 1,
        "doubles_with_different_labels": 1,
        "repeated_rows": 0,
        "labels": {"cats": 3, "dogs big": 2, "safe": 1},
        "tags": 5,
        "left_out": {"corrupt": 1, "missing": 1},
    }
    assert paths.FOLDER_LEFT_OUT.read_text().splitlines()[1:] == [
        "cats/gone.png,missing,named by metadata",
        "safe/broken.png,corrupt,no readable picture (UnidentifiedImageError)",
    ]

    wanted = [WantedPicture(row.image_id, row.url, row.sha512) for row in catalogue.itertuples()]
    settings = params(Path("pictures"))
    with server.opened(settings) as addresses, PictureStore(tmp_path / "store") as store:
        crawl(settings, store, wanted, len(wanted), addresses)
        assert [result and result.status for result in store.results(wanted)] == ["ok"] * 4
        (address,) = addresses.values()
        check_host(address, rows)
    catalogue.assign(url=catalogue.url.str.replace("full", "medium")).to_parquet(paths.IMAGES)
    with pytest.raises(FolderError, match=r"in full size only; set extract\.version=full"):
        server.opened(settings).__enter__()


def check_host(address: tuple[str, int], rows: pd.DataFrame) -> None:
    """What the host answers besides."""
    url = rows.url["cats/one.png"]
    assert get(address, url) == (200, FILES["cats/one.png"])
    for wrong in (
        "/img/x",
        "/img/1/full.png",
        "/img/../metadata.csv",
        "/img/%2e%2e/metadata.csv",
        "/img/2000/1/1/" + "9" * 30,
    ):
        assert get(address, wrong)[0] == 404
    assert get(address, url.replace("/2000/", "/2001/"))[0] == 404
    assert get(address, url.replace("full", "medium"))[0] == 404
    Path("pictures/cats/one.png").write_bytes(picture("changed since"))
    assert get(address, url)[0] == 404
    Path("pictures/cats/one.png").unlink()
    Path("pictures/cats/one.png").symlink_to("/etc/passwd")
    assert get(address, url)[0] == 404


def test_equal_folders_give_equal_dumps(
    workplace: Path, params: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Path("pictures"), FILES)
    first = build(Path("pictures"), params)
    others = [path.read_bytes() for path in (paths.FOLDER_LEFT_OUT, paths.FOLDER_SUMMARY)]
    # The same files, written in another order, at another time, in another folder, listed and read in another order.
    write(Path("elsewhere/copy"), dict(reversed(FILES.items())))
    for file in Path("elsewhere/copy").rglob("*.*"):
        os.utime(file, (1, 1))
    scan = os.scandir

    class Reversed(list[Any]):
        __enter__, __exit__ = (lambda self: iter(self)), (lambda self, *_: None)

    monkeypatch.setattr(os, "scandir", lambda path: Reversed([*scan(path)][::-1]))
    monkeypatch.setattr("stages.folder.gathering.PROCESSES", 1)
    assert build(Path("elsewhere/copy"), params) == first
    assert [path.read_bytes() for path in (paths.FOLDER_LEFT_OUT, paths.FOLDER_SUMMARY)] == others


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"pictures has no picture with a label \(left out: none\); put pictures there, a folder for each label"),
        (
            {"a.png": picture("a"), "cats/b.png": "no picture"},
            r"pictures has no picture with a label \(left out: 1 corrupt, 1 no_label\); put pictures there",
        ),
        ({"metadata.csv": "name\n"}, r"/pictures/metadata\.csv has no column file_name in its first line"),
    ],
)
def test_a_folder_without_pictures_is_an_error(
    workplace: Path, params: Callable[..., None], files: dict[str, bytes | str], message: str
) -> None:
    Path("pictures").mkdir()
    write(Path("pictures"), files)
    with pytest.raises(FolderError, match=message):
        build(Path("pictures"), params)
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"host": "stages/crawl/remote.py", "folder": {}}, "names no folder; choose it with"),
        ({"folder": {}}, "need each other; set source=folder"),
        ({"folder": {"pictures": "~/pictures"}}, "~ is not expanded"),
    ],
)
def test_a_source_without_a_folder_is_an_error(
    workplace: Path, params: Callable[..., None], changed: dict[str, Any], message: str
) -> None:
    params(download={**DOWNLOAD, **changed})
    with pytest.raises(MLpyError, match=message):
        folder_stage.main()


def test_ctrl_c_ends_it_without_a_trace(workplace: Path, params: Callable[..., None]) -> None:
    write(Path("pictures"), {f"a/{number}.png": picture(f"{number}", size=(140, 140)) for number in range(300)})
    params(download=DOWNLOAD)
    code = """
import os, signal
from stages.folder import contents
add, count = contents.Contents.add, iter(range(10**6))
def interrupted(*arguments):
    if next(count) == 20:
        os.kill(os.getpid(), signal.SIGINT)
    add(*arguments)
contents.Contents.add = interrupted
import runpy
runpy.run_module("stages.folder", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "interrupted; finished work is kept\n"
    assert not paths.FOLDER_DUMP.exists()
