"""Rows in a file per shard."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import red

from stages.dataset.arrays import Rows, decoded
from stages.workspace.errors import ModelError
from tests.stages.evaluation.samples import write_shards


def rows(folder: Path, counts: list[int]) -> Rows:
    """Files with these numbers of rows [10 * id, 10 * id + 1]; ids are even."""
    ids = 2 * np.arange(sum(counts))
    parts = np.split(ids, list(itertools.accumulate(counts))[:-1])
    files = [folder / f"{number}.npy" for number in range(len(counts))]
    for file, part in zip(files, parts, strict=True):
        np.save(file, 10 * part[:, None] + [0, 1])
    return Rows(tuple(files), tuple(file.name for file in files), tuple(parts))


@given(st.data(), st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any))
def test_rows_are_taken_in_the_order_of_the_ids(data: st.DataObject, counts: list[int]) -> None:
    ids = 2 * np.array(data.draw(st.lists(st.integers(0, sum(counts) - 1))), np.int64)
    with tempfile.TemporaryDirectory() as folder:
        assert np.array_equal(rows(Path(folder), counts).take(ids), 10 * ids[:, None] + [0, 1])


@pytest.mark.parametrize("unknown", [-1, 3, 99])
def test_an_image_that_is_in_no_file_is_an_error(tmp_path: Path, unknown: int) -> None:
    with pytest.raises(ModelError, match=f"image {unknown} is in a split but in no shard; run `dvc repro split`"):
        rows(tmp_path, [2, 3]).take(np.array([2, unknown]))


def test_a_picture_that_cannot_be_decoded_is_a_black_row_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "shards").mkdir()
    folder = write_shards(tmp_path / "shards", [red(1), b"no picture", red(2)])
    pictures = decoded(folder, 32, 128, threads=1)
    black = [bool((row == 0).all()) for row in pictures.take(pictures.ids[0])]
    assert black == [False, True, False]
    assert "image 1 cannot be used: corrupt: " in caplog.text
