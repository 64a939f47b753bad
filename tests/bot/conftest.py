"""Databases for the bot's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Place, Postgres, SqlitePlace

from bot.model import subprocesses
from stages.dump.postgres import cluster


@pytest.fixture(autouse=True)
def _subprocesses_start() -> None:
    """A bot that a test has closed in this process stopped all of them, also those to come."""
    subprocesses._stopping.clear()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running PostgreSQL that a test may stop."""
    folder = tmp_path_factory.mktemp("postgres") / "cluster"
    with cluster(folder) as server:
        running = Postgres(server, folder)
        yield running
        running.start()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield SqlitePlace(tmp_path / "bot.sqlite")
        return
    server: Postgres = request.getfixturevalue("postgres")
    yield server.new()
    server.start()
