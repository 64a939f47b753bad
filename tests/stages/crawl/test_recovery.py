"""A lost or damaged index, and damaged shards: what is whole anywhere is not downloaded again; all is done in one run.

Every test counts the requests at a real host.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from crawls import DownloadProject, pictures
from faults import FaultyHost, faulty_host
from hypothesis import given, settings
from hypothesis import strategies as st

COUNT = 180
"""Pictures: shards of 50, 50, 50 and 30, in row groups of 64 at most."""
STORE = Path("cache/pictures")
INDEX = STORE / "index.sqlite"


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


@pytest.fixture(scope="module")
def finished(host: FaultyHost, tmp_path_factory: pytest.TempPathFactory) -> DownloadProject:
    """A project whose crawl is done; it is only copied."""
    project = DownloadProject(tmp_path_factory.mktemp("finished") / "project", pictures(host, COUNT))
    assert project.run()[0] == 0
    for file in (project.folder / STORE).glob("*.segment"):
        file.unlink()  # as the next run would, were they older: all pictures are in shards
    return project


@pytest.fixture
def project(finished: DownloadProject, tmp_path: Path) -> DownloadProject:
    """A copy of it in which nothing is linked, so that damage stays where it is done."""
    shutil.copytree(finished.folder, tmp_path / "project")
    for file in (tmp_path / "project" / STORE).glob("*.parquet"):
        file.chmod(0o644)
    return DownloadProject.opened(tmp_path / "project")


def rerun(project: DownloadProject, host: FaultyHost) -> tuple[int, str]:
    """Run the stage without errors; returns the number of requests, and the log."""
    before = host.requested.total()
    code, output = project.run()
    assert code == 0, output
    assert "Traceback" not in output
    return host.requested.total() - before, output


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("*.parquet")}


def overwritten(file: Path, start: int, data: bytes) -> None:
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.seek(start)
        opened.write(data)


def executed(*statements: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with contextlib.closing(sqlite3.connect(file)) as index, index:
            for statement in statements:
                index.execute(statement)

    return damage


def other_layout(file: Path) -> None:
    file.unlink()
    executed("CREATE TABLE pictures (url TEXT PRIMARY KEY, file BLOB)")(file)


INDEX_DAMAGE: dict[str, Callable[[Path], None]] = {
    "deleted": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut to its header": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "cut within a page": lambda file: file.write_bytes(file.read_bytes()[:-1000]),
    "garbage": lambda file: file.write_bytes(random.Random(0).randbytes(50_000)),
    "garbage within": lambda file: overwritten(file, 8192, random.Random(0).randbytes(3 * 4096)),
    "zeros within": lambda file: overwritten(file, 4096, bytes(2 * 4096)),
    "another layout": other_layout,
    "no tables": executed("DROP TABLE pictures", "DROP TABLE shards"),
    "no table of pictures": executed("DROP TABLE pictures"),
    "no rows": executed("DELETE FROM pictures", "DELETE FROM shards"),
    "fewer rows": executed("DELETE FROM pictures WHERE url LIKE '%7'"),
    "no stamps": executed("DELETE FROM shards"),
    "other values": executed("UPDATE pictures SET width = width + 1, format = 'gif' WHERE url LIKE '%3'"),
    "other hashes": executed("UPDATE pictures SET sha256 = '' WHERE url LIKE '%3'"),
    "other places": executed("UPDATE pictures SET segment = 'x', start = -5, length = 1 << 60 WHERE url LIKE '%4'"),
    "other stamps": executed("UPDATE shards SET size = -1, used = 9e999"),
}


@pytest.mark.parametrize("where", ["cache", "cache and workspace"])
@pytest.mark.parametrize("damage", INDEX_DAMAGE)
def test_with_a_lost_index_nothing_is_requested_and_no_shard_is_written(
    host: FaultyHost, project: DownloadProject, damage: str, where: str
) -> None:
    outs, shards = project.outs(), stamps(project.folder / STORE)
    INDEX_DAMAGE[damage](project.folder / INDEX)
    if where == "cache":
        project.clear()
    requests, output = rerun(project, host)
    assert requests == 0, output
    assert project.outs() == outs
    if "stamps" not in damage:  # else they are written again, from themselves
        assert stamps(project.folder / STORE) == shards
    project.clear()
    requests, output = rerun(project, host)
    assert requests == 0
    assert len(output.splitlines()) == 1, "nothing is left to be said"


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_bytes_changed_anywhere_in_the_index_change_no_output(
    host: FaultyHost, finished: DownloadProject, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder, chance = tmp_path_factory.mktemp("flipped") / "project", random.Random(seed)
    shutil.copytree(finished.folder, folder)
    project = DownloadProject.opened(folder)
    data = bytearray((folder / INDEX).read_bytes())
    for _ in range(chance.choice([1, 3, 50])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    (folder / INDEX).write_bytes(data)
    requests, _ = rerun(project, host)
    assert requests == 0
    assert project.outs() == finished.outs()
    shutil.rmtree(folder)


def test_pictures_in_segments_are_found_without_the_index(host: FaultyHost, tmp_path: Path) -> None:
    urls = {**pictures(host, 60), 60: host.url("503/segments")}
    project = DownloadProject(tmp_path, urls, shard_size=1000, max_failed=0.0)
    assert project.run()[0] == 1  # so that no shard holds a picture
    for file in (tmp_path / STORE).glob("*.parquet"):
        file.unlink()
    (segment,) = (tmp_path / STORE).glob("*.segment")
    (tmp_path / INDEX).unlink()
    project.change(max_failed=0.3, shard_size=1000)
    assert rerun(project, host)[0] == 3, "of the one that failed"

    records = segment.read_bytes().split(segment.stem.encode())
    records[11] = records[11][:-9] + b"?" + records[11][-8:]  # the bytes of a picture
    records[21] = records[21].replace(b'"length"', b"'length'")  # a header
    records[31] = records[31][:40]  # cut
    segment.write_bytes(segment.stem.encode().join(records))
    for file in [tmp_path / INDEX, *(tmp_path / STORE).glob("*.parquet")]:
        file.unlink()
    project.clear()
    assert rerun(project, host)[0] == 3 + 3
    assert list(project.status().values()).count("ok") == 60


def test_a_picture_cannot_forge_a_record(host: FaultyHost, tmp_path: Path) -> None:
    """Its bytes have what a header has, but for the random name that the host does not know."""
    from stages.crawl.segments import SegmentWriter, records

    writer = SegmentWriter(tmp_path, 10_000)
    forged = b'f00d {"url": "https://example.org/victim", "length": 3}\nbad'
    name, _ = writer.append({"url": "https://example.org/hostile", "length": len(forged)}, forged)
    writer.append({"url": "https://example.org/next", "length": 3}, b"abc")
    file = tmp_path / name
    file.write_bytes(file.read_bytes().replace(b'"length"', b"'length'", 1))  # the search goes on within the picture
    assert [record.header["url"] for record in records(file)] == ["https://example.org/next"]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def changed(file: Path) -> None:
    places = [match.end() for match in re.finditer(b"IDAT", file.read_bytes())]
    overwritten(file, places[len(places) // 2], b"!")  # within one picture; the first and last may be statistics


SHARD_DAMAGE: dict[str, Callable[[Path], None]] = {
    "deleted": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "garbage": lambda file: file.write_bytes(random.Random(1).randbytes(9000)),
    "changed": changed,
}


@pytest.mark.parametrize("index", ["whole", "deleted"])
@pytest.mark.parametrize("damage", SHARD_DAMAGE)
def test_several_damaged_shards_are_found_and_fetched_again_in_one_run(
    host: FaultyHost, project: DownloadProject, damage: str, index: str
) -> None:
    outs = project.outs()
    files = sorted((project.folder / STORE).glob("*.parquet"), key=first_id)
    for file in files[1:3]:
        SHARD_DAMAGE[damage](file)
    if index == "deleted":
        (project.folder / INDEX).unlink()
    project.clear()
    requests, output = rerun(project, host)
    assert project.outs() == outs
    assert requests == (2 if damage == "changed" else 100), output
    for file in files[1:3]:
        said = [line for line in output.splitlines() if line.startswith(f"{file} ")]
        if damage == "deleted" and index == "deleted":
            assert said == [], "nobody knows of it"
        else:
            (line,) = said
            assert re.search("is gone" if damage == "deleted" else "is damaged", line)
    assert rerun(project, host)[0] == 0


def first_id(file: Path) -> int:
    return int(pq.read_table(file, columns=["image_id"])["image_id"][0].as_py())


@pytest.mark.parametrize("damage", SHARD_DAMAGE)
def test_what_is_damaged_in_the_cache_is_taken_from_the_workspace(
    host: FaultyHost, project: DownloadProject, damage: str
) -> None:
    outs = project.outs()
    for file in sorted((project.folder / STORE).glob("*.parquet"))[:2]:
        SHARD_DAMAGE[damage](file)
    requests, output = rerun(project, host)
    assert requests == 0, output
    assert project.outs() == outs


def test_the_cache_root_may_be_deleted(host: FaultyHost, project: DownloadProject) -> None:
    outs = project.outs()
    shutil.rmtree(project.folder / "cache")
    requests, output = rerun(project, host)
    assert requests == 0
    assert f"recovered {COUNT} pictures" in output
    assert project.outs() == outs
    assert len(stamps(project.folder / STORE)) == 4
    links = {file.stat().st_nlink for file in (project.folder / STORE).glob("*.parquet")}
    assert links == {2}, "the bytes are on the disk once"


def dvc(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "-q", *words], cwd=folder, check=True)


DVC = "[core]\n no_scm = true\n analytics = false\n check_update = false\n[cache]\n type = hardlink,copy\n"
STAGE = """
stages:
  download:
    cmd: "true"
    outs: [data/download/shards]
"""


@pytest.fixture
def tracked(project: DownloadProject) -> DownloadProject:
    """A project whose shards are in DVC's cache and in `dvc.lock`, and nowhere else."""
    (project.folder / ".dvc").mkdir()
    (project.folder / ".dvc/config").write_text(DVC)
    (project.folder / "dvc.yaml").write_text(STAGE)
    dvc(project.folder, "commit", "-f", "download")
    shutil.rmtree(project.folder / "data/download/shards")
    shutil.rmtree(project.folder / "cache")
    return project


def test_shards_are_found_in_dvcs_cache(host: FaultyHost, tracked: DownloadProject, finished: DownloadProject) -> None:
    requests, output = rerun(tracked, host)
    assert requests == 0, output
    assert tracked.outs() == finished.outs()
    dvc(tracked.folder, "commit", "-f", "download")  # DVC still has its own, unchanged
    dvc(tracked.folder, "checkout", "download")
    assert tracked.outs() == finished.outs()


@pytest.mark.parametrize("text", ["", "stages: {}", "stages: [", "a: *b", "stages: {download: {outs: [1]}}", "\0"])
def test_a_damaged_dvc_lock_stops_nothing(host: FaultyHost, tracked: DownloadProject, text: str) -> None:
    (tracked.folder / "dvc.lock").write_text(text)
    requests, output = rerun(tracked, host)
    assert requests == COUNT
    assert "dvc.lock" in output


def test_a_damaged_file_in_dvcs_cache_costs_its_pictures_alone(host: FaultyHost, tracked: DownloadProject) -> None:
    files = sorted((tracked.folder / ".dvc/cache/files/md5").glob("??/*"))
    listing = next(file for file in files if file.suffix == ".dir")
    one = json.loads(listing.read_bytes())[0]["md5"]
    file = listing.parents[1] / one[:2] / one[2:]
    file.chmod(0o644)
    cut(file)
    requests, output = rerun(tracked, host)
    assert requests == 50
    assert f"{file} is damaged: none of its pictures can be read" in output


def test_pictures_of_another_address_are_not_taken(host: FaultyHost, project: DownloadProject) -> None:
    """Such as those of another size: a shard tells where its pictures are from."""
    shutil.rmtree(project.folder / "cache")
    project.list({number: host.url(f"good/other/{number}") for number in range(COUNT)})
    assert rerun(project, host)[0] == COUNT


def test_an_index_of_the_layout_before_is_read(host: FaultyHost, project: DownloadProject) -> None:
    project.clear()
    file = project.folder / INDEX
    with contextlib.closing(sqlite3.connect(file)) as index, index:
        facts = "url, sha512, status, http_status, detail, width, height, format, sha256"
        index.execute(f"CREATE TABLE old AS SELECT {facts}, segment, start, length, caps, seen FROM pictures")
        index.execute("DROP TABLE pictures")
        index.execute(
            "CREATE TABLE pictures (url TEXT, sha512 TEXT, status TEXT NOT NULL, http_status INTEGER, detail TEXT,"
            " width INTEGER, height INTEGER, format TEXT, sha256 TEXT, segment TEXT, start INTEGER, length INTEGER,"
            " caps TEXT, seen REAL, PRIMARY KEY (url, sha512)) WITHOUT ROWID"
        )
        index.execute("INSERT INTO pictures SELECT * FROM old")
        index.execute("DROP TABLE old")
    requests, output = rerun(project, host)
    assert requests == 0
    assert "made anew" in output
