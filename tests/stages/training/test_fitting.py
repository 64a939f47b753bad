"""What training writes besides the model, and how it resumes from that."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from stages.config.train import Train
from stages.dataset.arrays import Rows
from stages.dataset.targets import Examples, Task
from stages.training import fitting
from stages.training.batches import DataModule
from stages.training.fitting import save_checkpoint
from stages.training.networks import Architecture, Head
from stages.workspace.parameters import validated

ROOT = Path(__file__).parents[3]
VALUES = 8
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "another file": lambda _: b"{}\n",
    "a changed byte": lambda data: changed(data, data.index(b"state_dict")),
    "a changed weight": lambda data: changed(data, weights(data)),
}


def changed(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def weights(data: bytes) -> int:
    """Where the largest tensor begins in a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    name, extra = struct.unpack_from("<HH", data, largest.header_offset + 26)
    return largest.header_offset + 30 + int(name) + int(extra)


def test_the_checkpoint_does_not_depend_on_the_name_of_its_file(tmp_path: Path) -> None:
    network, architecture = nn.Linear(2, 1), Architecture("probe", 32, 1, 0, 0.0)
    contents = []
    for name in ("a.partial", ".checkpoint.ckpt.x_1.partial"):
        save_checkpoint(tmp_path / name, network, architecture, 2, ("one", "two"))
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


@pytest.fixture
def training(tmp_path: Path) -> Callable[[], list[Tensor]]:
    """Train in `tmp_path`/folder, from its checkpoints if there are some; returns the weights."""
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    section["model"]["tag_loss"] = 0.0
    params = replace(validated(Train, section), epochs=2, threads=1)
    numbers = np.random.default_rng(0)
    features = numbers.normal(size=(64, VALUES)).astype(np.float32)
    np.save(tmp_path / "rows.npy", features)
    ids = np.arange(64)
    flagged = features[:, 0] > 0
    labels = np.stack([flagged, ~flagged], 1).astype(np.float32)
    examples = Examples(ids, labels, np.zeros((64, 0), bool), np.ones((64, 1), np.float32))
    task = Task({"name": "house", "kind": "binary", "labels": {"a": {}, "b": {}}}, (), examples, examples)
    data = DataModule(task, Rows((tmp_path / "rows.npy",), ("rows",), (ids,)), params)

    def train() -> list[Tensor]:
        fitting.seed_everything(params)
        head = Head(VALUES, 4, 0.0, 1, 0)
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        fitting.fit(head, task, data, params, folder)
        return [weights.detach().clone() for weights in head.parameters()]

    return train


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_damaged_checkpoint_is_named_and_the_training_begins_anew(
    training: Callable[[], list[Tensor]], tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    undamaged = training()
    file = tmp_path / "folder" / name
    if name == "last.ckpt":
        (tmp_path / "folder/done").unlink()  # as after a kill
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    again = training()
    assert [message for message in caplog.messages if "damaged" in message] == [
        f"the checkpoint {file} is damaged; the training begins anew"
    ]
    assert all(torch.equal(*pair) for pair in zip(undamaged, again, strict=True))


def test_bits_changed_anywhere_in_a_checkpoint_change_no_weight(
    training: Callable[[], list[Tensor]], tmp_path: Path
) -> None:
    undamaged = training()
    file = tmp_path / "folder/last.ckpt"
    whole, chance = file.read_bytes(), random.Random(0)
    for _ in range(12):
        data: Any = bytearray(whole)
        for _ in range(chance.choice([1, 20])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        (tmp_path / "folder/done").unlink()
        assert all(torch.equal(*pair) for pair in zip(undamaged, training(), strict=True))
        whole = file.read_bytes()
