"""The file cache: what is not whole is made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stages.workspace import cache

CONTENT = bytes(range(256)) * 40


def damage_nothing(file: Path) -> None:
    """A file that is whole is not damaged."""


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def append(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def damage_the_checksum(file: Path) -> None:
    file.with_name(f"{file.name}.crc32").write_bytes(b"\xff\xfe")


def delete(file: Path) -> None:
    file.unlink()


def delete_the_checksum(file: Path) -> None:
    file.with_name(f"{file.name}.crc32").unlink()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were written, in a cache of its own."""
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path))
    return []


def once(made: list[Path]) -> Path:
    def write(aside: Path) -> None:
        made.append(aside)
        aside.write_bytes(CONTENT)

    return cache.once("kind", "name.bin", write)


@pytest.mark.parametrize(
    ("change", "times", "warned"),
    [
        (damage_nothing, 1, False),
        (truncate, 2, True),
        (empty, 2, True),
        (flip_a_bit, 2, True),
        (append, 2, True),
        (damage_the_checksum, 2, True),
        (delete, 2, False),
        (delete_the_checksum, 2, True),
    ],
)
def test_a_damaged_file_is_named_and_made_anew(
    change: Callable[[Path], None], times: int, warned: bool, made: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    file = once(made)
    change(file)
    assert once(made) == file
    assert file.read_bytes() == CONTENT
    assert len(made) == times
    assert [message.split(";")[0] for message in caplog.messages] == [f"the cached file {file} is damaged"] * warned
    once(made)
    assert len(made) == times


def test_a_failed_write_leaves_nothing(made: list[Path], tmp_path: Path) -> None:
    def fail(aside: Path) -> None:
        aside.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        cache.once("kind", "name.bin", fail)
    assert {path.name for path in (tmp_path / "kind").iterdir()} == {"name.bin.lock"}


def test_a_file_is_completed_from_the_present_one_unless_that_is_damaged(made: list[Path]) -> None:
    present: list[bytes] = []

    def grow(aside: Path) -> None:
        file = aside.with_name("name.bin")
        present.append(file.read_bytes() if file.exists() else b"")
        aside.write_bytes(present[-1] + b"x")

    def get(length: int) -> Path:
        return cache.once("kind", "name.bin", grow, lambda file: file.stat().st_size >= length)

    file = get(1)
    get(1)
    assert get(2).read_bytes() == b"xx"
    truncate(file)
    assert get(1).read_bytes() == b"x"
    assert present == [b"", b"x", b""]
