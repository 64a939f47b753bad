"""The user's own PostgreSQL: over TCP, with a password, and a role with the fewest privileges."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clones import Clone

from stages.config.compose import compose
from stages.dump import postgres
from stages.workspace import paths

DUMP = Path(__file__).parents[1] / "dumps/postgresql-17.pgdump"
SECRET = "s3cret-of-the-user"
POLICY = (
    "{name: guns, kind: binary, labels: {flagged: {any: [gun]}, clean: {rest: true}}, overlap: exclude, min_tags: 1}"
)
OUTS = (paths.LITE_DUMP, paths.TABLES, paths.IMAGES, paths.EXTRACT_SUMMARY)
STAGES = ("bash", "-c", "python -m stages.restore && python -m stages.extract")
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
TODAY = pytest.mark.parametrize("address", ["of today"], indirect=True)


@dataclass
class WatchedCommand:
    """A finished command, its output, and what the process list showed."""

    code: int
    output: str
    seen: set[str]
    """The command lines of all processes that started meanwhile."""


class BoardClone(Clone):
    """A clone of this checkout with a board's dump and a policy for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        overrides = ["source=derpibooru", f"restore.dump='{DUMP}'"]
        text = compose([*overrides, f"extract.policy={POLICY}"], self.folder / "conf")
        (self.folder / paths.PARAMS).write_text(text)

    def watch(self, *command: str, url: str | None = None) -> WatchedCommand:
        environment = self.environment | ({"MLPY_DATABASE_URL": url} if url else {})
        log, seen, known = self.folder.parent / "log", set(), processes()
        with log.open("w") as output:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)
            while process.poll() is None:
                seen |= set(command_lines(processes() - known))
                time.sleep(0.01)
        return WatchedCommand(process.returncode, log.read_text(), seen)

    def outs(self) -> dict[Path, bytes]:
        return {path: (self.folder / path).read_bytes() for path in OUTS}


def processes() -> set[Path]:
    return set(Path("/proc").glob("[0-9]*"))


def command_lines(of: Iterable[Path]) -> Iterator[str]:
    for process in of:
        with contextlib.suppress(OSError):
            yield (process / "cmdline").read_text(errors="replace")


@contextlib.contextmanager
def started(folder: Path) -> Iterator[str]:
    """A server on a port of 127.0.0.1 that lets nobody in without a password -> its address, as NAME@127.0.0.1:PORT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with postgres.cluster(folder) as server:
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE ROLE able LOGIN CREATEDB PASSWORD '{SECRET}'; CREATE ROLE poor LOGIN PASSWORD '{SECRET}'"
            )
        (folder / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        postgres._control(folder, "pg_ctl", "-w", "-m", "fast", "stop")
        options = f"-k {server.parameters['host']} -c listen_addresses=127.0.0.1 -c port={port}"
        postgres._control(folder, "pg_ctl", "-w", "-l", "server.log", "-o", options, "start")
        yield f"127.0.0.1:{port}/postgres"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> BoardClone:
    return BoardClone(tmp_path_factory.mktemp("own server"))


@pytest.fixture(scope="module")
def embedded(board: BoardClone) -> dict[Path, bytes]:
    """What the stages write with the server that comes along."""
    ran = board.watch(*STAGES)
    assert ran.code == 0, ran.output
    return board.outs()


@pytest.fixture(scope="module", params=["of today", "installed"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a server as new as our programs, or of one that the system has, which may be older than pg_restore likes."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the programs of PostgreSQL 15 get lost where their user may not enter
        if request.param == "installed":
            if not INSTALLED:
                pytest.skip("no other PostgreSQL is installed")
            patch.setattr(postgres, "binary", lambda name: INSTALLED[0] / name)
        with started(Path(folder) / "cluster") as where:
            yield where


def test_outputs_are_identical_to_those_of_the_embedded_server(
    board: BoardClone, embedded: dict[Path, bytes], address: str
) -> None:
    ran = board.watch(*STAGES, url=f"postgresql://able:{SECRET}@{address}")
    assert ran.code == 0, ran.output
    assert board.outs() == embedded
    check_that_no_password_is_in(board, ran)
    programs = {Path(line.split("\0")[0]).name for line in ran.seen}
    assert programs & {"pg_restore", "psql", "pg_dump"}, "the programs were seen at work"


@TODAY
def test_dvc_stores_no_password(board: BoardClone, address: str) -> None:
    ran = board.watch("dvc", "repro", "restore", url=f"postgresql://able:{SECRET}@{address}")
    assert ran.code == 0, ran.output
    assert "restore:" in (board.folder / "dvc.lock").read_text()
    check_that_no_password_is_in(board, ran)


def check_that_no_password_is_in(board: BoardClone, ran: WatchedCommand) -> None:
    assert SECRET not in ran.output
    assert not [line for line in ran.seen if SECRET in line]
    written = [path for folder in ("data", ".dvc") for path in (board.folder / folder).rglob("*") if path.is_file()]
    for path in (board.folder / "dvc.lock", board.folder / paths.PARAMS, *written):
        assert SECRET.encode() not in path.read_bytes(), path


@TODAY
@pytest.mark.parametrize(
    ("role", "why"),
    [
        (f"poor:{SECRET}", r"the role poor may not create databases; .* ALTER ROLE poor CREATEDB"),
        (f"able:{SECRET}%3F", r"cannot connect to PostgreSQL: .*password authentication failed for user \"able\""),
    ],
)
def test_an_error_of_the_server_is_one_sentence(board: BoardClone, address: str, role: str, why: str) -> None:
    ran = board.watch("python", "-m", "stages.restore", url=f"postgresql://{role}@{address}")
    assert ran.code != 0
    (error,) = re.findall(r"^error: (.*)$", ran.output, re.MULTILINE)
    assert re.search(why, error)
    assert "Traceback" not in ran.output
    check_that_no_password_is_in(board, ran)
