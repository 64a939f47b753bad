"""Dumps that differ from a board's public one: other schemas, types, encodings, packings, and damage of every kind."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import stages.extract
import stages.restore
from stages.dump import archive, databases, programs
from stages.dump.postgres import Server
from stages.workspace import paths
from stages.workspace.errors import DumpError

POLICY = {"name": "test", "kind": "binary", "labels": {"flagged": {"any": ["gun"]}, "clean": {"rest": True}}}
OWN_SCHEMA = """
DROP TABLE image_hides, image_duplicates, image_intensities, tag_aliases CASCADE;
ALTER TABLE images ADD duplicate_id integer, ADD approved boolean DEFAULT false, ALTER id TYPE integer,
    ALTER image_format TYPE character varying, ADD tag_ids integer[] DEFAULT '{}';
ALTER TABLE tags ADD aliased_tag_id integer, ALTER name TYPE character varying;
CREATE TABLE image_hides (image_id bigint NOT NULL, user_id bigint NOT NULL, created_at timestamp NOT NULL);
CREATE TABLE image_intensities (
    id bigint, image_id bigint, nw double precision, ne double precision, sw double precision, se double precision
);
"""
"""A board's own database, as the current Philomena makes it."""


@pytest.fixture
def run(board: Any, own_server: str, params: Any) -> Callable[..., dict[int, dict[str, Any]]]:
    """Dumps the board, restores and extracts it -> the catalogue's rows."""

    def run_stages(*options: str) -> dict[int, dict[str, Any]]:
        board.dump(Path("board.pgdump"), *options)
        params(restore={"dump": "board.pgdump"}, extract={"root": "http://sample.localhost/img", "policy": POLICY})
        stages.restore.main()
        stages.extract.main()
        return {row["image_id"]: row for row in pq.read_table(paths.IMAGES).to_pylist()}

    return run_stages


@pytest.fixture
def two(board: Any) -> Any:
    """A board with an image of either label."""
    board.tag(1, "gun")
    board.tag(2, "Übel")
    board.image(1, [1])
    board.image(2, [2])
    return board


def dropped() -> dict[str, int]:
    counts: dict[str, int] = json.loads(paths.EXTRACT_SUMMARY.read_text())["dropped"]
    return {reason: count for reason, count in counts.items() if count}


def test_a_boards_own_database_is_mapped(board: Any, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    board.sql(OWN_SCHEMA)
    for id, name in enumerate(["gun", "guns", "rifle", "cat"], 1):
        board.tag(id, name)
    board.sql("UPDATE tags SET aliased_tag_id = 1 WHERE id = 2", "UPDATE tags SET aliased_tag_id = 2 WHERE id = 3")
    for id in range(1, 41):
        board.image(id, [3] if id % 2 else [4])
    board.sql(
        "UPDATE images SET duplicate_id = 2, hidden_from_users = true WHERE id = 4",
        "UPDATE images SET hidden_from_users = true WHERE id = 6",
        "INSERT INTO image_hides SELECT id, 7, now() FROM images WHERE id <= 21",
        "INSERT INTO image_intensities SELECT id, id, 1, 2, 3, 4 FROM images",
    )
    rows = run()
    assert rows.keys() == set(range(1, 41)) - {4, 6}, "image_hides are users' own: nothing is removed by them"
    assert dropped() == {"merged": 1, "removed": 1}
    assert {row["label"] for id, row in rows.items() if id % 2} == {"flagged"}, "an alias of an alias"
    assert rows[1]["tags"] == ["gun"]
    assert rows[2]["merged"] == [4]
    assert (rows[1]["nw"], rows[1]["se"]) == (1, 4)
    assert not [record for record in caplog.records if "lacks" in record.message]
    assert b"user_id" not in paths.LITE_DUMP.read_bytes()


def test_what_a_definition_names_besides_is_not_needed(two: Any, run: Any) -> None:
    plain = run()
    bytes_of_plain = paths.IMAGES.read_bytes()
    two.sql(
        "CREATE SEQUENCE numbers",
        "CREATE COLLATION odd (locale = 'C')",
        "CREATE FUNCTION fine(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT length($1) < 100'",
        "CREATE DOMAIN size AS integer CHECK (VALUE > 0)",
        "CREATE TYPE kind AS ENUM ('png', 'jpeg')",
        "ALTER TABLE images ALTER id SET DEFAULT nextval('numbers'), ADD CHECK (fine(image_name))",
        "ALTER TABLE images ALTER image_name TYPE text COLLATE odd, ALTER image_width TYPE size",
        "ALTER TABLE images ALTER image_format TYPE kind USING image_format::kind, ALTER image_height TYPE bigint",
        "ALTER TABLE images ADD twice bigint GENERATED ALWAYS AS (id * 2) STORED, ALTER image_size TYPE numeric(20)",
        "ALTER TABLE images ALTER created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC'",
        'ALTER TABLE images ADD "odd, ""name"")" text DEFAULT \'x\'',
        "ALTER TABLE tags ALTER name TYPE text COLLATE odd, ALTER id ADD GENERATED ALWAYS AS IDENTITY",
    )
    assert run() == plain
    assert paths.IMAGES.read_bytes() == bytes_of_plain


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (["--exclude-table=tag_aliases"], r"lacks the table tag_aliases: a policy's tag does not match images that"),
        (["--exclude-table=image_intensities"], r"lacks the table image_intensities: near-duplicates are found by"),
        (["--exclude-table=image_duplicates"], r"lacks the table image_duplicates: images that were merged .* stay in"),
    ],
    ids=["aliases", "intensities", "duplicates"],
)
def test_what_a_dump_lacks_is_warned_of_once(
    two: Any, run: Any, caplog: pytest.LogCaptureFixture, options: list[str], warning: str
) -> None:
    with caplog.at_level("INFO"):
        run(*options)
    (message,) = [record.message for record in caplog.records if "lacks" in record.message]
    assert re.search(warning, message)


def test_a_dump_without_removed_images_says_that_they_stay(
    two: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    two.sql("ALTER TABLE images DROP hidden_from_users", "DROP TABLE image_hides")
    with caplog.at_level("INFO"):
        run()
    (message,) = [record.message for record in caplog.records if "lacks" in record.message]
    assert message.endswith("the column images.hidden_from_users: removed images stay in, and fail in the download")


@pytest.mark.parametrize("level", [0, 1, 9])
def test_every_packing_gives_the_same_rows(two: Any, run: Any, level: int) -> None:
    rows = run(f"-Z{level}")
    assert rows[2]["tags"] == ["Übel"]


def test_a_dump_from_a_pipe_has_no_offsets(two: Any, run: Any, tmp_path: Path) -> None:
    plain = run()
    command = [str(programs.binary("pg_dump")), "-Fc", "-d", two.server.dsn(two.name)]
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    Path("board.pgdump").write_bytes(piped)
    assert not archive.read(Path("board.pgdump")).extents()
    stages.restore.main()
    stages.extract.main()
    assert {row["image_id"]: row for row in pq.read_table(paths.IMAGES).to_pylist()} == plain


def test_text_in_another_encoding_is_converted(two: Any, run: Any) -> None:
    assert run("--encoding=LATIN1")[2]["tags"] == ["Übel"]


def test_a_packing_that_needs_another_library_says_so(two: Any, run: Any) -> None:
    run()
    data = bytearray(Path("board.pgdump").read_bytes())
    data[11] = 3  # the header's method: zstd
    Path("board.pgdump").write_bytes(data)
    with pytest.raises(DumpError, match=r"is packed with zstd: dump the board with `pg_dump -Fc --compress=gzip`"):
        stages.restore.main()


def test_damage_anywhere_is_one_error_or_harmless(two: Any, run: Any, server: Server) -> None:
    """A dump comes from outside: whatever its bytes are, there is an error that a user understands, and no leftover."""
    run()
    whole, draw = Path("board.pgdump").read_bytes(), random.Random(1)
    table = next(e for e in archive.read(Path("board.pgdump")).entries if e.kind == "TABLE DATA" and e.name == "images")
    start, end = archive.read(Path("board.pgdump")).extents()[table.id]
    places = [draw.randrange(len(whole)) for _ in range(25)] + [draw.randrange(start, end) for _ in range(15)]
    failures = []
    for place in places:
        changed = bytes([whole[place] ^ (1 << draw.randrange(8))])
        Path("board.pgdump").write_bytes(whole[:place] + changed + whole[place + 1 :])
        try:
            stages.restore.main()
        except DumpError as error:
            failures.append(str(error))
    assert all(failure.startswith("board.pgdump") for failure in failures), failures
    assert len(failures) > 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"a page of HTML",
        lambda data: data[:-40] + bytes(40),
        lambda data: data.replace(b"image_taggings", b"image_tuggings"),
    ],
    ids=["cut", "empty", "another", "last bytes", "renamed"],
)
def test_an_error_about_the_lite_dump_says_to_write_it_again(two: Any, run: Any, damage: Any) -> None:
    run()
    data = paths.LITE_DUMP.read_bytes()
    paths.LITE_DUMP.unlink()
    paths.LITE_DUMP.write_bytes(damage(data))
    with pytest.raises(DumpError, match=r"^data/restore/lite.pgdump .*: run `dvc repro restore` to write it again$"):
        stages.extract.main()


def test_a_damaged_cached_database_is_restored(two: Any, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    plain = run()
    with databases.cached(stages.extract.lite.file_hash(paths.LITE_DUMP)) as database:
        assert database
        with database.cursor() as cursor:
            cursor.execute("DROP TABLE image_taggings")
    stages.extract.main()
    assert {row["image_id"]: row for row in pq.read_table(paths.IMAGES).to_pylist()} == plain
    assert [record.message for record in caplog.records if "the cached database is damaged" in record.message]


DAMAGES = {
    "control file": lambda cluster: (cluster / "global/pg_control").write_bytes(bytes(100)),
    "catalogue": lambda cluster: [
        path.write_bytes(b"x" * 8192) for path in (cluster / "base").glob("*/*") if path.name in ("1259", "1249")
    ],
    "rows": lambda cluster: [
        path.write_bytes(b"x" * 8192)
        for path in (cluster / "base").glob("*/*")
        if path.name.isdigit() and int(path.name) > 16383
    ],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_of_the_embedded_database_are_made_anew(
    two: Any, run: Any, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    plain = run()
    monkeypatch.delenv("MLPY_DATABASE_URL")
    stages.extract.main()
    (cluster,) = [path for path in databases.disk_folder().iterdir() if path.is_dir()]  # type: ignore[union-attr]
    DAMAGES[damage](cluster)
    stages.extract.main()
    assert {row["image_id"]: row for row in pq.read_table(paths.IMAGES).to_pylist()} == plain
