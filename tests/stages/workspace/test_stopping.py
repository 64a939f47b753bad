"""A signal at any moment, during imports too, ends a command quickly, without a traceback or a half-written file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clones import Clone, after_smoke

ROOT = Path(__file__).parents[3]
STAGES = ("restore", "extract", "download", "split", "train", "test")
AT_AN_EVENT = """
import runpy, signal, sys
verb, number, moment = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
events = 0

def count(event, details):
    global events
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler or event not in EVENTS:
        return
    events += 1
    if events == moment:
        signal.raise_signal(number)

EVENTS = ("import", "open", "os.listdir", "os.mkdir", "os.rename", "os.remove", "subprocess.Popen", "socket.connect")
sys.argv = ["-m"]  # as `python -m` has it while it looks for the module
sys.addaudithook(count)
try:
    runpy.run_module(f"stages.{verb}", run_name="__main__", alter_sys=True)
finally:
    if events < moment or not moment:
        print(events)
"""
"""Runs a stage and sends itself a signal at its n-th event: an import, an opened file ... If there were fewer, or with
0, it prints how many."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return after_smoke(tmp_path_factory)


def outs(clone: Clone) -> dict[Path, bytes]:
    files = [path for folder in ("data", "models") for path in (clone.folder / folder).rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name != ".gitignore"}


def run(clone: Clone, stage: str, number: int, moment: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AT_AN_EVENT, stage, str(number), str(moment)],
        cwd=clone.folder,
        env=clone.environment | {"PYTHONPATH": str(clone.folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_at_any_event_ends_a_stage(clone: Clone, stage: str) -> None:
    before = outs(clone)
    counted = run(clone, stage, signal.SIGINT, 0)
    assert counted.returncode == 0, counted.stderr
    events = int(counted.stdout.split()[-1])
    assert outs(clone).keys() == before.keys()
    before = outs(clone)
    moments = [1, *(events * share // 10 for share in (3, 6, 9))]
    for turn, moment in enumerate(moments):
        number = (signal.SIGINT, signal.SIGTERM)[turn % 2]
        done = run(clone, stage, number, moment)
        if done.stdout and moment == moments[-1]:
            continue  # the number of events differs a little from run to run: this one had fewer
        where = f"{stage}, signal {number} at event {moment} of {events}:\n{done.stderr}"
        assert done.returncode in (128 + number, -number), where
        assert "Traceback" not in done.stderr, where
        assert "Error" not in done.stderr, where
        assert outs(clone).keys() == before.keys(), where
        servers = list(Path(clone.environment["MLPY_CACHE"]).glob("postgres/*/postmaster.pid"))
        assert not servers, where


def command(body: str) -> subprocess.Popen[str]:
    code = f"import os, signal, sys, time\nfrom stages.workspace.errors import run\ndef main():\n{body}\nrun(main)"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_swallowed_signal_comes_again(name: str, code: int) -> None:
    body = f"""
    for _ in range(3):
        try:
            os.kill(os.getpid(), signal.{name})
            time.sleep(1)
        except BaseException:
            pass
    class Late:
        def __del__(self): time.sleep(1)
    Late()
    time.sleep(300)
    """
    process = command(body)
    _, complaints = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in complaints


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_cleans_up_is_not_disturbed(name: str) -> None:
    body = f"""
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(300)
    finally:
        os.kill(os.getpid(), signal.{name})  # as `timeout` does, which sends it twice
        for _ in range(4): time.sleep(0.3)
        print("cleaned up")
    """
    process = command(body)
    assert process.communicate()[0] == "cleaned up\n"
    assert process.returncode == 128 + getattr(signal, name)


def test_another_signal_a_while_later_ends_the_process_at_once() -> None:
    body = """
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(300)
    finally:
        time.sleep(1.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(300)
    """
    process = command(body)
    process.communicate()
    assert process.returncode == -signal.SIGTERM


def test_an_error_after_a_signal_is_its_consequence() -> None:
    process = command("    try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)\n    finally: raise KeyError('x')")
    _, complaints = process.communicate()
    assert (process.returncode, complaints) == (143, "")


def test_a_long_statement_ends_with_a_signal(own_server: str) -> None:
    body = """
    from stages.dump import databases
    with databases.new() as database, database.cursor() as cursor:
        print(flush=True)
        cursor.execute("SELECT pg_sleep(1000)")
    """
    process = command(body)
    assert process.stdout
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate()
    assert (process.returncode, complaints) == (130, "interrupted; finished work is kept\n")


def test_ctrl_c_is_ignored_where_it_was() -> None:
    code = "import stages.workspace.errors as e, signal, os; e.run(lambda: os.kill(os.getpid(), signal.SIGINT))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0
