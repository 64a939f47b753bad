"""Files made to take for ever or to fill the memory: each has a verdict of its own, and nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import hostile
import psutil
import pytest
from containers import drawing, encoded
from tinted import predictor

from bot.pictures.judging import Judge, JudgeCaps, sha256_of
from stages.inference import PictureError
from stages.inference.predictor import Predictor

MB = 2**20
TREE_MB = 350
"""What decoding may take beyond the test's own process, all processes together: 500 less what the bot itself takes."""
ATTACKER, OTHERS = (1, 1), (2, 2)
VERDICTS = {
    "scans": "timed_out",
    "frames": "too_large",
    "still webp": "too_large",
    "avif": "too_large",
    "coefficients": "too_large",
    "comments": "timed_out",
    "transparent": "decoded",
    "padding": "decoded",
    "segments": "decoded",
}
"""Kind -> verdict. Others end in one of these, as the machine is fast or slow."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return predictor(tmp_path_factory.mktemp("tinted"))


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: make() for name, make in hostile.KINDS.items()}


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    made = Judge(replace(JudgeCaps(), seconds=1.0))
    yield made
    made.close()


def memory_below() -> float:
    """MB of the processes that decode; what they share counts once."""
    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):  # and not another test's
                total += child.memory_full_info().pss
        except psutil.NoSuchProcess:
            pass
    return total / MB


async def most(figure: Callable[[], float], running: asyncio.Task[object]) -> float:
    """The highest value until a task ends."""
    values = [figure()]
    while not running.done():
        values.append(figure())
        await asyncio.sleep(0.02)
    return max(values)


async def outcome(judge: Judge, model: Predictor, data: bytes) -> str:
    try:
        await judge.decode(data, model, sha256_of(data), ATTACKER)
    except PictureError as error:
        return error.reason
    return "decoded"


@pytest.mark.slow
async def test_every_hostile_file_has_a_verdict_of_its_own(
    judge: Judge, model: Predictor, files: dict[str, bytes]
) -> None:
    outcomes = {name: await outcome(judge, model, data) for name, data in files.items()}
    assert set(outcomes.values()) <= {"timed_out", "too_large", "decoded"}
    assert {name: outcomes[name] for name in VERDICTS} == VERDICTS


@pytest.mark.slow
async def test_others_are_decoded_while_hostile_files_are(
    judge: Judge, model: Predictor, files: dict[str, bytes]
) -> None:
    """In terms of work, which load does not change: ordinary pictures overtake the hostile ones that came first."""
    ordinary = [encoded([drawing(seed)], "PNG") for seed in range(20)]
    attack = asyncio.gather(*(outcome(judge, model, data) for data in files.values()))
    watch = asyncio.create_task(most(memory_below, attack))  # type: ignore[arg-type]
    await asyncio.sleep(0)  # the hostile ones are in the queue first
    for data in ordinary:
        decoded = await judge.decode(data, model, sha256_of(data), OTHERS)
        assert decoded.seen.missed == 0
    assert not attack.done(), "the last hostile file ends after twenty ordinary ones that came later"
    await attack
    assert await watch < TREE_MB


async def test_a_hostile_file_leaves_processes_that_work(judge: Judge, model: Predictor) -> None:
    for kind in ("scans", "frames", "still webp"):
        assert await outcome(judge, model, hostile.KINDS[kind]()) == VERDICTS[kind]
        assert await outcome(judge, model, encoded([drawing(1)], "PNG")) == "decoded"


def test_hostile_files_are_within_the_caps(files: dict[str, bytes]) -> None:
    assert max(map(len, files.values())) <= JudgeCaps().max_bytes
