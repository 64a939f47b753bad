"""The progress bar for a program that reads a file, as a terminal shows it."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.dump import progress

READER = """
import sys
with open(sys.argv[1], "rb") as file:
    print(flush=True)
    for line in sys.stdin:
        file.seek(int(line))
        print(flush=True)
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="needs Linux's /proc")
def test_the_bar_follows_the_reader_through_the_parts_and_estimates_the_time(
    tmp_path: Path,
) -> None:
    dump = tmp_path / "a dump"
    dump.write_bytes(bytes(10_000))
    parts = [(5_000, 7_000), (1_000, 3_000)]  # in any order; what lies between is not read
    with subprocess.Popen(
        [sys.executable, "-c", READER, dump], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin
        assert reader.stdout
        reader.stdout.readline()
        with contextlib.redirect_stderr(Terminal()) as terminal, progress.bar(dump, parts) as update:
            for position in (1_000, 2_000, 4_000, 6_000):
                print(position, file=reader.stdin, flush=True)
                reader.stdout.readline()
                time.sleep(0.12)  # tqdm draws ten times a second
                update(reader.pid)
        reader.stdin.close()
    bars = terminal.getvalue()
    assert list(dict.fromkeys(re.findall(r"restore: +(\d+)%", bars))) == ["0", "25", "50", "75", "100"]
    assert re.findall(r"\| ([\d.]+k?)/([\d.]+k) ", bars)[-1] == ("4.00k", "4.00k")
    assert re.search(r"25%.*?\[\d\d:\d\d<\d\d:\d\d,", bars), "the estimate itself depends on the machine's load"


def test_without_a_known_position_the_bar_ends_full(tmp_path: Path) -> None:
    dump = tmp_path / "a dump"
    dump.write_bytes(bytes(10_000))
    with contextlib.redirect_stderr(Terminal()) as terminal, progress.bar(dump, [(0, 10_000)]) as update:
        update(2**30)  # no such process
    assert list(dict.fromkeys(re.findall(r"restore: +(\d+)%", terminal.getvalue()))) == ["0", "100"]
