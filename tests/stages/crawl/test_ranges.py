"""The catalogue in ranges, and shards that are written during the crawl."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import body, ok

from stages.crawl.ranges import IdRanges, ShardFiller
from stages.crawl.results import DownloadResult, WantedPicture
from stages.crawl.store import PictureStore
from stages.workspace import shards
from stages.workspace.errors import CrawlError


def catalogue(file: Path, ids: list[int]) -> Path:
    urls = [f"https://example.org/{number}.png" for number in ids]
    columns = {"image_id": pa.array(ids, pa.int64()), "url": pa.array(urls, pa.string())}
    pq.write_table(pa.table({**columns, "sha512": pa.array([None] * len(ids), pa.string())}), file)
    return file


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PictureStore]:
    with PictureStore(tmp_path / "pictures") as store:
        yield store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("catalogues")


@settings(max_examples=50)
@given(ids=st.sets(st.integers(0, 10**12)).map(sorted), size=st.integers(1, 10**9))
def test_every_picture_is_in_its_range_once_and_in_order(folder: Path, ids: list[int], size: int) -> None:
    ranges = IdRanges(catalogue(folder / "images.parquet", ids), size)
    walked = list(ranges)
    assert [picture.image_id for pictures in walked for picture in pictures] == ids
    numbers = [{ranges.number(picture) for picture in pictures} for pictures in walked]
    assert numbers == [{number} for number in sorted({image_id // size for image_id in ids})]
    assert list(ranges) == walked


def test_a_picture_without_a_hash_has_an_empty_one(tmp_path: Path) -> None:
    assert list(IdRanges(catalogue(tmp_path / "images.parquet", [7]), 5)) == [
        [WantedPicture(7, "https://example.org/7.png", "")]
    ]


def settle(store: PictureStore, filler: ShardFiller, *pictures: WantedPicture) -> None:
    for picture in pictures:
        store.put(picture, ok(body(picture.image_id)), body(picture.image_id))
        filler.settled(picture)


def finished(folder: Path, count: int) -> list[list[int]]:
    """The ids in each finished shard, once there are `count`."""
    for _ in range(30_000):
        if len(files := [*folder.glob("*.parquet")]) >= count:
            break
        time.sleep(0.01)
    return sorted(shards.read(file, ["image_id"])["image_id"].to_pylist() for file in files)


def test_a_shard_is_written_once_all_its_pictures_are_settled_and_not_before(
    store: PictureStore, tmp_path: Path
) -> None:
    known = WantedPicture(3, "https://example.org/3.png", "")
    store.put(known, ok(body(3)), body(3))
    with ShardFiller(store, IdRanges(catalogue(tmp_path / "images.parquet", [1, 2, 3, 11, 12, 21]), 10)) as filler:
        one, two, eleven, twelve, last = filler.missing()
        settle(store, filler, one, twelve)
        store.put(eleven, DownloadResult("missing", 404))
        assert finished(tmp_path / "pictures", 0) == []
        filler.settled(eleven)
        assert finished(tmp_path / "pictures", 1) == [[12]]
        filler.settled(two)  # given up
        assert finished(tmp_path / "pictures", 2) == [[1, 3], [12]]
        settle(store, filler, last)
    assert list(store.results([one, two, last]))[1] is None


def test_damage_to_an_older_picture_does_not_stop_a_crawl(
    store: PictureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = WantedPicture(3, "https://example.org/3.png", "")
    store.put(known, ok(body(4)), body(3))
    with ShardFiller(store, IdRanges(catalogue(tmp_path / "images.parquet", [1, 3, 11]), 10)) as filler:
        one, eleven = filler.missing()
        settle(store, filler, one, eleven)
        assert finished(tmp_path / "pictures", 1) == [[11]]
    assert "damaged" in caplog.text


def test_a_missing_catalogue_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CrawlError, match="run `dvc repro extract`"):
        IdRanges(tmp_path / "images.parquet", 5)
