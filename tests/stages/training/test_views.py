"""Changed copies of pictures, from which a probe learns besides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.dataset.arrays import Rows
from stages.dataset.targets import Examples
from stages.training.backbones import create, normalised
from stages.training.batches import Samples
from stages.training.features import extracted, viewed, views
from stages.training.stem import PooledStem

COUNT = 20


@pytest.fixture(scope="module")
def pooled() -> PooledStem:
    torch.manual_seed(0)
    network = create("test_efficientnet", "none")
    return PooledStem(network, normalised(network, "none"))


@pytest.fixture
def pictures(tmp_path: Path) -> Rows:
    """One shard of random pictures of 64 px."""
    np.save(tmp_path / "shard.npy", np.random.default_rng(0).integers(0, 256, (COUNT, 64, 64, 3), np.uint8))
    return Rows((tmp_path / "shard.npy",), ("a shard",), (np.arange(COUNT),))


def test_a_view_is_the_same_each_time_and_unlike_the_picture_and_other_views(
    pictures: Rows, pooled: PooledStem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cache, number in (("one", 0), ("two", 0), ("one", 1)):
        monkeypatch.setenv("MLPY_CACHE", str(tmp_path / cache))
        torch.manual_seed(len(found))  # a view hangs on its number, not on what was drawn before
        found.append(viewed(pictures, pooled, 1, number).take(np.arange(COUNT)))
    plain = extracted(pictures, pooled, 1).take(np.arange(COUNT))
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])
    assert not np.allclose(found[0], plain)


@pytest.mark.filterwarnings("error")
def test_a_changed_picture_keeps_its_size_and_kind() -> None:
    change = views((64, 64))
    picture = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    seen = [change(picture) for _ in range(50)]
    assert {(each.shape, each.dtype) for each in seen} == {(picture.shape, torch.uint8)}
    assert any((each[0] == each[1]).all() for each in seen), "some are grey"


def rows(value: float) -> Rows:
    found = Rows((), ("rows",), (np.arange(1000),))
    found.__dict__["arrays"] = [np.full((1000, 2), value, np.float32)]
    return found


def test_every_second_picture_is_one_of_its_views() -> None:
    nothing = np.zeros((1000, 1))
    examples = Examples(np.arange(1000), nothing.astype(np.float32), nothing.astype(bool), nothing.astype(np.float32))
    torch.manual_seed(0)
    taken, *_ = Samples(examples, rows(0), views=[rows(1), rows(2)]).__getitems__(list(range(1000)))
    shares = [(taken[:, 0] == value).float().mean().item() for value in (0, 1, 2)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.05)
    assert torch.equal(taken[:, 0], taken[:, 1]), "a row is of one view"
