"""Features: computed by ONNX Runtime, and cached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.dataset.arrays import Rows
from stages.training import drawings
from stages.training.backbones import Normalise
from stages.training.features import LEAST_CORRELATION, extracted, graph, int8_graph
from stages.training.stem import PooledStem
from stages.workspace import cache


def pixels(count: int = 1, size: int = 64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


class Plain(nn.Module):
    """The smallest network with timm's interface."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)

    def forward_features(self, values: Tensor) -> Tensor:
        return self.conv(values)

    def forward_head(self, values: Tensor, pre_logits: bool) -> Tensor:
        return values.mean((2, 3))


def test_another_normalisation_has_other_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "pixels.npy", pixels(2, 32).numpy())
    rows = Rows((tmp_path / "pixels.npy",), ("one",), (np.array([1, 2]),))
    network = Plain()
    for mean, std in ((0.5, 0.5), (0.4, 0.6)):
        pool = PooledStem(network, Normalise((mean,) * 3, (std,) * 3))
        taken = extracted(rows, graph(pool, rows.shape), 1).take(np.array([2, 1]))
        assert taken == pytest.approx(pool(pixels(2, 32).flip(0)).numpy(), abs=1e-3)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Two shards of five drawings each, and an empty cache."""
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    drawn = drawings.draw(10, 64, seed=1)
    files = (tmp_path / "0.npy", tmp_path / "1.npy")
    for file, shard in zip(files, np.split(drawn, 2), strict=True):
        np.save(file, shard)
    return Rows(files, ("0", "1"), (np.arange(5), np.arange(5, 10)))


@pytest.mark.parametrize("copy", [None, 1], ids=["pictures", "copies"])
def test_only_the_wanted_rows_are_computed_and_later_runs_add_to_them(
    copy: int | None, pictures: Rows, pooled: PooledStem
) -> None:
    stem = graph(pooled, pictures.shape)
    first, more = np.array([1, 3, 6]), np.array([1, 2, 6, 9])
    one = extracted(pictures, stem, 1, copy, first)
    assert np.isfinite(one.take(first)).all()
    assert np.isnan(one.take(np.array([0, 2, 9]))).all()
    before = one.take(first)
    two = extracted(pictures, stem, 1, copy, more)
    assert np.isfinite(two.take(np.union1d(first, more))).all()
    assert np.array_equal(two.take(first), before)
    whole = extracted(pictures, stem, 1, copy)
    # A copy is the same, whichever other pictures are copied with it.
    assert whole.take(more) == pytest.approx(two.take(more), rel=1e-4, abs=1e-4)


def test_a_shard_without_a_wanted_picture_has_rows_of_the_same_shape(pictures: Rows, pooled: PooledStem) -> None:
    rows = extracted(pictures, graph(pooled, pictures.shape), 1, None, np.array([1]))
    assert rows.arrays[0].shape == rows.arrays[1].shape


@pytest.mark.parametrize("kind", ["graphs", "features"])
def test_damaged_files_of_the_cache_are_made_anew(
    kind: str, pictures: Rows, pooled: PooledStem, caplog: pytest.LogCaptureFixture
) -> None:
    def compute() -> np.ndarray:
        return extracted(pictures, graph(pooled, pictures.shape), 1).take(np.arange(10))

    before = compute()
    files = [file for file in (cache.cache_root() / kind).iterdir() if file.suffix in (".npy", ".onnx")]
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
    assert np.array_equal(compute(), before)
    assert sorted(caplog.messages) == sorted(f"the cached file {file} is damaged; it is made anew" for file in files)


def test_an_int8_stem_has_nearly_the_features_of_fp32_and_depends_on_the_stem_alone(
    pictures: Rows, pooled: PooledStem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fp32 = graph(pooled, pictures.shape)
    int8 = int8_graph(fp32, pictures.shape, 1)
    assert int8 is not None
    wide, narrow = (extracted(pictures, file, 1).take(np.arange(10)) for file in (fp32, int8))
    varying = wide.std(0) > 1e-3
    correlations = [
        np.corrcoef(*columns)[0, 1] for columns in zip(wide[:, varying].T, narrow[:, varying].T, strict=True)
    ]
    assert np.mean(correlations) > LEAST_CORRELATION
    assert not np.array_equal(wide, narrow)
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "another cache"))
    again = int8_graph(graph(pooled, pictures.shape), pictures.shape, 1)
    assert again is not None
    assert (again.name, again.read_bytes()) == (int8.name, int8.read_bytes())


def test_a_stem_that_int8_changes_too_much_stays_fp32(
    pictures: Rows, pooled: PooledStem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stages.training.features.LEAST_CORRELATION", 1.0)
    caplog.set_level("INFO")
    assert int8_graph(graph(pooled, pictures.shape), pictures.shape, 1) is None
    assert caplog.messages[-1].startswith("the frozen stem stays fp32: its features' correlation with fp32 is ")


def test_drawings_are_the_same_each_time_and_of_many_kinds() -> None:
    drawn = drawings.draw(16, 48, seed=0)
    assert (drawn.shape, drawn.dtype) == ((16, 48, 48, 3), np.uint8)
    assert np.array_equal(drawn, drawings.draw(16, 48, seed=0))
    assert not np.array_equal(drawn, drawings.draw(16, 48, seed=1))
    means = drawn.mean((1, 2, 3))
    assert means.max() - means.min() > 60
