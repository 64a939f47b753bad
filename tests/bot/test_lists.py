"""Lists of decisions: what is written is read again, and nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from bot.pictures import lists
from bot.pictures.copies import MAX_FINGERPRINT, Fingerprint, FingerprintError, sight
from bot.pictures.lists import ListError
from bot.storage.tables import Ruling

PICTURE = np.kron(np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
PRINT = sight(PICTURE).fingerprint
RULING = Ruling(10, "ab" * 32, 2**64 - 5, False, "blocked", 1_700_000_000, PRINT.to_bytes(), 7, "scam <b>", "command")


def line(**changes: object) -> bytes:
    values = {**json.loads(lists.write([RULING])[0]), **changes}
    return json.dumps(values).encode()


def test_a_list_is_read_as_it_was_written() -> None:
    data, count = lists.write([RULING])
    assert count == 1
    (ruling,) = lists.parse(data, 20, 8, 1_800_000_000).rulings
    assert ruling == Ruling(
        20, "ab" * 32, 2**64 - 5, False, "blocked", 1_800_000_000, PRINT.to_bytes(), 8, "scam <b>", "import"
    )
    values = json.loads(data)
    assert values["pdq"] == PRINT.pdq.hex()
    assert values["date"] == "2023-11-14"
    assert "moderator_id" not in values, "a list names nobody"


@pytest.mark.parametrize(
    "wrong",
    [
        b"{",
        b"[]",
        b"[" * 5000,
        b"\xff\xfe",
        line(decision="delete"),
        line(sha256="xy" * 32),
        line(sha256="ab" * 31),
        line(sha256=None),
        line(phash=12),
        line(label="x" * 61),
        line(reason=["x"]),
        line(fingerprint="%%%"),
        line(fingerprint=base64.b64encode(b"\0" * 100).decode()),
        line(fingerprint="A" * 10_000),
        line(pdq="00" * 32),
        b'{"sha256": "' + b"a" * lists.MAX_LINE,
    ],
)
def test_a_wrong_line_is_left_out_and_named(wrong: bytes) -> None:
    parsed = lists.parse(wrong + b"\n" + line(), 20, 8, 0)
    assert len(parsed.rulings) == 1
    assert parsed.describe_problems().startswith("Left out: line 1: ")


def test_texts_that_deceive_are_cleaned() -> None:
    (ruling,) = lists.parse(line(reason="a\u202eb\x00c\ud800"), 20, 8, 0).rulings
    assert ruling.reason == "abc?"


def test_a_file_over_the_limits_is_refused_whole() -> None:
    with pytest.raises(ListError, match="bytes"):
        lists.parse(b" " * (lists.MAX_BYTES + 1), 20, 8, 0)
    with pytest.raises(ListError, match="lines"):
        lists.parse(b"\n" * (lists.MAX_LINES + 1), 20, 8, 0)


def test_a_list_for_the_start_must_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "scams.jsonl"
    with pytest.raises(ListError, match="cannot be read"):
        lists.read(path)
    path.write_bytes(line() + b"\n{")
    with pytest.raises(ListError, match="line 2: not JSON"):
        lists.read(path)
    path.write_bytes(line())
    assert [ruling.origin for ruling in lists.read(path)] == ["list"]


def test_any_bytes_are_a_fingerprint_or_an_error() -> None:
    data = PRINT.to_bytes()
    assert Fingerprint.from_bytes(data).to_bytes() == data
    assert len(data) <= MAX_FINGERPRINT
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            changed[place] = rng.integers(0, 256)
        try:
            fingerprint = Fingerprint.from_bytes(bytes(changed[: rng.integers(0, 2 * len(data))]))
        except FingerprintError:
            continue
        assert fingerprint.points[:, 2].min(initial=1) > 0
