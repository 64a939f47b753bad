"""A small Philomena board on the real PostgreSQL, dumped by the real pg_dump."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2.extras
import pytest
import yaml
from drawn import encoded, sidecar  # noqa: F401 (fixtures)

from stages.dump import postgres, programs
from stages.dump.postgres import Server

SCHEMA = (Path(__file__).parent / "philomena.sql").read_text()


class SmallBoard:
    """A board's database with Philomena's tables: fill it, then dump it."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', database="postgres")
        self.sql(f'CREATE DATABASE "{name}"', database="postgres")
        self.sql(SCHEMA)

    def sql(self, *statements: str, database: str | None = None) -> None:
        connection = self.server.connect(database or self.name)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        connection = self.server.connect(self.name)
        try:
            with connection.cursor() as cursor:
                for row in rows:
                    columns = ", ".join(row)
                    psycopg2.extras.execute_values(
                        cursor, f"INSERT INTO {table} ({columns}) VALUES %s", [list(row.values())]
                    )
        finally:
            connection.close()

    def image(self, id: int, tags: Sequence[int] = (), **other: Any) -> None:
        row = {
            "created_at": "2013-01-02 03:04:05",
            "updated_at": "2020-01-01",
            "image_width": 1000,
            "image_height": 900,
            "image_size": 12345,
            "image_aspect_ratio": 1.1,
            "image_mime_type": "image/png",
            "image_format": "png",
            "image_name": f"{id}.png",
            "version_path": "",
            "image_sha512_hash": f"{id:0128x}",
        }
        self.insert("images", [{"id": id, **row, **other}])
        self.insert("image_taggings", [{"image_id": id, "tag_id": tag} for tag in tags])

    def tag(self, id: int, name: str, category: str | None = None) -> None:
        self.insert("tags", [{"id": id, "name": name, "slug": f"slug {id}", "category": category}])

    def dump(self, path: Path, *words: str) -> Path:
        program = programs.binary("pg_dump")
        programs.run([program, "-Fc", "-Z1", *words, "-f", path, "-d", self.server.dsn(self.name)])
        return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running PostgreSQL for the whole session, to make boards on."""
    with postgres.cluster(tmp_path_factory.mktemp("postgres") / "cluster") as running:
        yield running


@pytest.fixture
def board(server: Server) -> SmallBoard:
    """An empty board."""
    return SmallBoard(server, "board")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run stages in, with its own cache and no configured server."""
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PG") or name in ("MLPY_DATABASE_URL", "DVC_STAGE")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "a workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def own_server(server: Server, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The session's server, configured as a user's own server: creating databases there takes milliseconds."""
    url = f"postgresql://postgres@/postgres?host={server.parameters['host']}&port={server.parameters['port']}"
    monkeypatch.setenv("MLPY_DATABASE_URL", url)
    return url


def write_params(**sections: dict[str, Any]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))


@pytest.fixture
def params() -> Any:
    """Writes `params.yaml` to the current folder: `params(restore={...}, extract={...})`."""
    return write_params
