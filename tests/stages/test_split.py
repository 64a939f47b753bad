"""The split stage on a small board of drawn pictures: files in, files out."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from stages import split
from stages.dataset import hashes
from stages.workspace import shards
from stages.workspace.errors import PolicyError
from stages.workspace.paths import IMAGES, SHARDS, SPLIT_SUMMARY, SPLITS

ROOT = Path(__file__).parents[2]
TEXTS = {"label", "url", "format", "sha512", "artist", "name"}
Row = dict[str, Any]


def drawn(seed: int, side: int = 96) -> Image.Image:
    """A picture of smooth blobs, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def row(image_id: int, data: bytes, **values: Any) -> Row:
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
    height, width = grey.shape
    halves = [half for rows in np.array_split(grey, 2) for half in np.array_split(rows, 2, axis=1)]
    corners = {name: float(half.mean()) for name, half in zip(("nw", "ne", "sw", "se"), halves, strict=True)}
    given = {
        "label": "flagged" if image_id % 2 else "clean",
        "artist": f"a{image_id}",
        "name": f"picture {image_id}.png",
    }
    whole = {"url": "http://sample.localhost/x.png", "format": "png", "sha512": None, "size": len(data), "merged": []}
    return {
        "image_id": image_id,
        "width": width,
        "height": height,
        "tags": ["drawn"],
        "bytes": data,
        **(corners | given | whole | values),
    }


@functools.cache
def rows() -> list[Row]:
    """150 different pictures, then a near-duplicate of each kind from id 1001 on."""
    board = [row(seed, encoded(drawn(seed))) for seed in range(1, 151)]
    far = dict.fromkeys(("nw", "ne", "sw", "se"))
    board += [
        row(1001, encoded(drawn(1), "JPEG", quality=80), **far),
        row(1002, encoded(drawn(2).resize((300, 300))), **far),
        row(1003, encoded(drawn(3)), artist=None, **far),
        row(1004, encoded(drawn(1004)), artist="a4", name="Picture-77.JPG"),
        row(1005, encoded(drawn(1005)), merged=[5]),
        row(1006, encoded(drawn(1006)), **{corner: board[5][corner] for corner in far}),
        row(1007, encoded(drawn(1007)), artist="a7", name="another.png"),
        row(1008, encoded(drawn(1008)), merged=[8, 9]),
    ]
    return board


def put(board: list[Row], policy: dict[str, Any] | None = None, missing: int | None = None) -> None:
    """Write the catalogue and its shards under the current folder."""
    described = policy or {"name": "house", "kind": "binary", "labels": ["flagged", "clean"]}
    types = {name: pa.string() for name in TEXTS} | {"label": pa.string(), "labels": pa.list_(pa.string())}
    types |= {name: pa.int64() for name in ("image_id", "size")} | {name: pa.int32() for name in ("width", "height")}
    types |= {name: pa.float64() for name in ("nw", "ne", "sw", "se")}
    types |= {"merged": pa.list_(pa.int64()), "tags": pa.list_(pa.string())}
    names = [name for name in board[0] if name != "bytes"]
    schema = pa.schema([(name, types[name]) for name in names], {"mlpy": json.dumps({"policy": described})})
    IMAGES.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{name: one[name] for name in names} for one in board], schema), IMAGES)
    shutil.rmtree(SHARDS, ignore_errors=True)
    for number in {one["image_id"] // 1000 for one in board}:
        stored = [one for one in board if one["image_id"] // 1000 == number and one["image_id"] != missing]
        shards.write(SHARDS / shards.name(number), ({**one, "sha256": sha256(one["bytes"])} for one in stored))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put_params(**values: Any) -> None:
    whole = yaml.safe_load((ROOT / "params.yaml").read_text())
    whole["split"] |= {"seed": 0, "fold": 0, "folds": 5, "phash_max_distance": 64} | values
    Path("params.yaml").write_text(yaml.safe_dump(whole))


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPY_CACHE", str(shared_cache))
    put_params()


def results() -> dict[int, tuple[str, int]]:
    """Split and group of each picture."""
    tables = {name: pq.read_table(path) for name, path in SPLITS.items()}
    return {
        image: (name, group)
        for name, table in tables.items()
        for image, group in zip(table["image_id"].to_pylist(), table["group"].to_pylist(), strict=True)
    }


def test_near_duplicates_of_every_kind_share_a_group_and_others_do_not() -> None:
    put(rows())
    split.main()
    found = results()
    for near, first in {1001: 1, 1002: 2, 1003: 3, 1004: 4, 1005: 5, 1006: 6}.items():
        assert found[near] == found[first] == (found[first][0], first)
    assert found[1007] == (found[1007][0], 1007), "an artist's other pictures are on their own"
    summary = json.loads(SPLIT_SUMMARY.read_text())
    # 8 and 9, in different buckets, were merged into 1008: it is left out, and nothing else
    assert found.keys() == {one["image_id"] for one in rows()} - {1008}
    assert summary["left_out"] == {"not_downloaded": 0, "undecodable": 0, "cross_split_links": 1}
    assert summary["pictures"] == 158
    assert summary["groups"] == 151
    assert summary["group_sizes"]["2"] == 6
    assert summary["rules"]["bytes"] == {"pairs": 1, "pictures": 2}
    assert sum(one["pictures"] for one in summary["splits"].values()) == 157


def test_the_splits_have_every_column_in_order_and_the_policy() -> None:
    board = rows()
    put(board, missing=12)
    split.main()
    catalogue = pq.read_table(IMAGES)
    tables = [pq.read_table(path) for path in SPLITS.values()]
    for table in tables:
        assert table.schema.metadata[b"mlpy"] == catalogue.schema.metadata[b"mlpy"]
        assert table.column_names == [*catalogue.column_names, "group"]
        assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
    whole = pa.concat_tables(tables).sort_by("image_id")
    assert 12 not in whole["image_id"].to_pylist()
    kept = catalogue.filter(pa.array([one not in (12, 1008) for one in catalogue["image_id"].to_pylist()]))
    assert whole.drop_columns("group").equals(kept)
    assert json.loads(SPLIT_SUMMARY.read_text())["left_out"]["not_downloaded"] == 1


def test_the_same_input_gives_the_same_bytes_and_no_picture_is_decoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    put(rows())
    split.main()
    outs = [*SPLITS.values(), SPLIT_SUMMARY]
    before = [path.read_bytes() for path in outs]
    decoded: list[bytes] = []
    monkeypatch.setattr(hashes, "hash_picture", lambda data: decoded.append(data) or 0)
    split.main()
    assert [path.read_bytes() for path in outs] == before
    assert decoded == []


def test_damaged_cache_files_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    put(rows())
    split.main()
    before = results()
    for cached in (tmp_path / "cache/phash").iterdir():
        cached.write_bytes(cached.read_bytes()[:-9])
    split.main()
    assert results() == before


def test_new_images_move_no_old_ones() -> None:
    board = rows()
    put(board[:100])
    split.main()
    before = results()
    put(board)
    split.main()
    assert before.items() <= results().items()


def test_the_folds_test_every_picture_once_in_the_same_groups() -> None:
    put(rows())
    tested: dict[int, int] = {}
    for fold in range(5):
        put_params(fold=fold)
        split.main()
        now = {image: group for image, (name, group) in results().items() if name == "test"}
        assert not tested.keys() & now.keys()
        tested |= now
    assert tested == {image: group for image, (_, group) in results().items()}


def test_grouped_by_artist_no_artist_is_in_two_splits() -> None:
    board = [row(seed, encoded(drawn(seed)), artist=f"a{seed % 30}" if seed % 10 else None) for seed in range(1, 200)]
    put(board)
    put_params(group_by="artist")
    split.main()
    found = results()
    of_artist: dict[str | None, set[int]] = {}
    for one in board:
        of_artist.setdefault(one["artist"], set()).add(found[one["image_id"]][1])
    assert len(of_artist.pop(None)) == 19, "pictures of no known artist are each on their own"
    assert all(len(groups) == 1 for groups in of_artist.values())


def test_a_multilabel_board_is_split_too() -> None:
    axes = (["sexual"], ["gross", "sexual"], [], ["gross"])
    board = [row(seed, encoded(drawn(seed)), labels=axes[seed % 4]) for seed in range(1, 150)]
    board = [{name: value for name, value in one.items() if name != "label"} for one in board]
    put(board, {"name": "ratings", "kind": "multilabel", "labels": ["sexual", "gross"]})
    split.main()
    said = json.loads(SPLIT_SUMMARY.read_text())["splits"]
    assert sum(one["labels"]["gross"] for one in said.values()) == sum("gross" in one["labels"] for one in board)


def test_a_split_without_a_label_is_an_error_that_says_what_to_change() -> None:
    board = rows()
    put([one | {"label": "flagged" if one["image_id"] == 7 else "clean"} for one in board])
    with pytest.raises(PolicyError, match=r"none labelled flagged; change split\.seed or split\.fold"):
        split.main()
    assert not any(path.exists() for path in SPLITS.values())


def test_a_picture_that_cannot_be_decoded_is_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    board = rows()
    odd = board[6]["image_id"]
    put([one | {"bytes": b"no picture"} if one["image_id"] == odd else one for one in board])
    for _ in range(2):  # whether its shard's other hashes are cached or not
        split.main()
        assert json.loads(SPLIT_SUMMARY.read_text())["left_out"]["undecodable"] == 1
        assert odd not in results()
        assert f"image {odd} in data/download/shards/shard-00000.parquet is left out: corrupt: " in caplog.text


def test_without_a_catalogue_the_command_says_what_to_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stages.split"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: there is no data/extract/images.parquet; run `dvc repro extract`"
