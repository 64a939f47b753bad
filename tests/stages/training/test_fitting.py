"""What training writes besides the model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from stages.training.fitting import save_checkpoint
from stages.training.networks import Architecture


def test_the_checkpoint_does_not_depend_on_the_name_of_its_file(tmp_path: Path) -> None:
    network, architecture = nn.Linear(2, 1), Architecture("probe", 32, 1, 0, 0.0)
    contents = []
    for name in ("a.partial", ".checkpoint.ckpt.x_1.partial"):
        save_checkpoint(tmp_path / name, network, architecture, 2, ("one", "two"))
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
