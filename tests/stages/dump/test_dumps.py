"""A board's dump from each PostgreSQL from 12 to 17; `dumps/README.md` describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import stages.extract
import stages.restore
from stages.dump import archive, programs, tables
from stages.workspace import paths

FOLDER = Path(__file__).parents[1] / "dumps"
OLD = "postgresql-12-of-2020"
FILES = sorted(path.stem for path in FOLDER.glob("*.pgdump"))
ARCHIVE_VERSIONS = {"12": "1.14.0", "13": "1.14.0", "14": "1.14.0", "15": "1.14.0", "16": "1.15.0", "17": "1.16.0"}
ROWS = {
    "images": 20, "tags": 10, "image_taggings": 41, "tag_aliases": 1, "image_duplicates": 3, "image_hides": 2,
    "image_intensities": 20,
}  # fmt: skip
FORMATS = {
    1: "png", 2: "jpeg", 3: "jpeg", 4: "gif", 5: "png", 11: "gif", 14: "png", 15: "png", 18: "gif", 19: "png",
}  # fmt: skip
"""An svg is served as png; ratings and errors do not count as tags."""
FLAGGED = {3, 4, 11, 18}
FORMATS_OF_2020 = FORMATS | {7: "png", 8: "png", 12: "png", 17: "jpeg"}
FLAGGED_OF_2020 = {3, 12, 18}
"""The dump of 2020 has no removed images, no aliases and no tag categories."""
POLICY = {
    "name": "test",
    "kind": "binary",
    "labels": {"flagged": {"any": ["gun"], "none": ["TOY"]}, "clean": {"rest": True}},
    "min_tags": 1,
}


def version(name: str) -> str:
    return name.split("-")[1]


def test_there_is_a_dump_of_each_version() -> None:
    assert {version(name) for name in FILES} == ARCHIVE_VERSIONS.keys()
    assert OLD in FILES


@pytest.mark.parametrize("name", FILES)
def test_every_version_gives_the_same_board(name: str, own_server: str, workplace: Path, params: Any) -> None:
    source = FOLDER / f"{name}.pgdump"
    params(
        restore={"dump": str(source)},
        extract={"root": "http://sample.localhost/img", "formats": ["png", "jpeg", "gif", "svg"], "policy": POLICY},
    )
    stages.restore.main()
    stages.extract.main()
    check_tables(name)
    check_catalogue(of_2020=name == OLD)
    check_that_no_user_data_came_through(source)


def check_tables(name: str) -> None:
    summary = json.loads(paths.TABLES.read_text())
    absent = dict.fromkeys(["tag_aliases", "image_hides", "image_intensities"], 0) if name == OLD else {}
    assert summary["rows"] == ROWS | absent
    assert summary["dump"]["server_version"].startswith(f"{version(name)}.")
    assert summary["dump"]["archive_version"] == ARCHIVE_VERSIONS[version(name)]


def check_catalogue(*, of_2020: bool) -> None:
    rows = {row["image_id"]: row for row in pq.read_table(paths.IMAGES).to_pylist()}
    formats, flagged = (FORMATS_OF_2020, FLAGGED_OF_2020) if of_2020 else (FORMATS, FLAGGED)
    assert {id: row["format"] for id, row in rows.items()} == formats
    assert {id for id, row in rows.items() if row["label"] == "flagged"} == flagged
    assert {row["label"] for row in rows.values()} == {"flagged", "clean"}
    assert rows[1]["tags"] == ["Cat", "artist:zoe", "pokémon", "safe"]
    assert rows[2]["tags"] == ['a "name",\tof two', "artist:zoe", "safe"]
    assert rows[11]["tags"] == (["guns", "safe"] if of_2020 else ["gun", "safe"])
    assert (rows[3]["merged"], rows[11]["merged"], rows[1]["name"]) == ([9], [10, 13], "1 é.png")
    assert rows[1]["created_at"].isoformat() == "2013-01-03T03:04:05"
    assert rows[1]["url"] == "http://sample.localhost/img/2013/1/3/1/medium.png"
    assert [rows[1][corner] for corner in ("nw", "se")] == ([None, None] if of_2020 else [1, 0.1])


def check_that_no_user_data_came_through(source: Path) -> None:
    script = programs.run([programs.binary("pg_restore"), "-f", "-", source])
    assert "secret text of a user" in script
    assert "a user" not in programs.run([programs.binary("pg_restore"), "-f", "-", paths.LITE_DUMP])
    kept = {entry.name for entry in archive.read(paths.LITE_DUMP).entries if entry.kind == "TABLE"}
    assert kept == tables.TABLES.keys()
