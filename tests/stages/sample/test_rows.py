"""The sample board's dump: written by a real PostgreSQL, restored by it, and read by the stages that follow."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clipart
import debs
import pyarrow.parquet as pq
import pytest

import stages.extract
import stages.restore
from stages.dump import programs
from stages.dump.postgres import Server
from stages.philomena import addresses, board
from stages.sample import __main__ as sample
from stages.sample import debian, openclipart
from stages.sample.rows import ROOT as BOARD
from stages.sample.rows import tables as tables_of
from stages.sample.uploads import ALIASES, IMPLICATIONS, Upload
from stages.workspace import paths
from stages.workspace.errors import DatabaseError

ROOT = Path(__file__).parents[3]
FACTS = {
    "images": "id bigint, created_at timestamp, updated_at timestamp, image_width integer, image_height integer, "
    "image_size integer, comment_count integer, score integer, favorites integer, upvotes integer, downvotes integer, "
    "hides integer, image_aspect_ratio double, user_id bigint, hidden_from_users boolean, image_mime_type text, "
    "image_format text, image_name text, version_path text, image_sha512_hash text, image_orig_sha512_hash text, "
    "description text",
    "tags": "id bigint, image_count bigint, name citext, slug text, category text, description text, "
    "short_description text",
    "image_taggings": "image_id bigint, tag_id bigint",
    "image_intensities": "image_id bigint, nw_intensity double, ne_intensity double, sw_intensity double, "
    "se_intensity double",
    "image_duplicates": "image_id bigint, target_id bigint",
    "image_hides": "image_id bigint, reason text",
    "image_sources": "image_id bigint, source text",
    "tag_aliases": "tag_id bigint, target_tag_id bigint",
    "tag_implications": "tag_id bigint, target_tag_id bigint",
}
"""What a board's public dump has, as its users know it."""
IGNORED = ("users", "comments", "image_faves")
"""What it has, too, and nobody here reads."""

Rows = list[tuple[Any, ...]]
Query = Callable[..., Rows]


@pytest.fixture(scope="module")
def dump(uploaded: list[Upload], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny board's dump."""
    folder = tmp_path_factory.mktemp("sample")
    board.write_dump(tables_of(uploaded), folder / "cluster", folder / "dump.pgdump")
    assert not (folder / "cluster").exists()
    return folder / "dump.pgdump"


@pytest.fixture(scope="module")
def query(dump: Path, server: Server) -> Iterator[Query]:
    """Asks the dump, restored as the boards tell their users to."""
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE sample_board")
    programs.run([programs.binary("pg_restore"), "-e", "-O", "-d", server.dsn("sample_board"), dump])
    with contextlib.closing(server.connect("sample_board")) as connection, connection.cursor() as cursor:

        def ask(statement: str, *values: object) -> Rows:
            cursor.execute(statement, values)
            return cursor.fetchall()

        yield ask


@pytest.mark.parametrize("table", FACTS)
def test_a_table_has_the_boards_columns_and_rows(query: Query, table: str) -> None:
    columns = query(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        f"public.{table}",
    )
    assert {f"{name} {kind.split()[0]}" for name, kind in columns} == set(FACTS[table].split(", "))
    assert query(f"SELECT count(*) FROM {table}") > [(0,)]


@pytest.mark.parametrize("table", IGNORED)
def test_a_table_that_must_be_ignored_has_rows(query: Query, table: str) -> None:
    assert query(f"SELECT count(*) FROM {table}") > [(0,)]


def test_no_other_table_is_in_it(query: Query) -> None:
    rows = query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
    assert {name for (name,) in rows} == {*FACTS, *IGNORED}


def test_hidden_images_are_in_it_and_say_why(query: Query) -> None:
    rows = query(
        "SELECT image_name, hidden_from_users, target_id IS NOT NULL, reason IS NOT NULL FROM images "
        "LEFT JOIN image_duplicates ON image_duplicates.image_id = id LEFT JOIN image_hides h ON h.image_id = id"
    )
    assert len(rows) == 17
    hidden = {name: (merged, removed) for name, is_hidden, merged, removed in rows if is_hidden}
    assert hidden == {
        **dict.fromkeys(["kitty.png", "kitten.png", "lady.png", "katana.png"], (True, False)),
        **dict.fromkeys(["clip.png", "mute.png"], (False, True)),
    }
    assert not any(merged or removed for _, is_hidden, merged, removed in rows if not is_hidden)


def test_merged_and_removed_images_keep_their_taggings(query: Query) -> None:
    rows = query(
        "SELECT image_name, array_agg(name::text ORDER BY name::text) FROM images "
        "JOIN image_taggings ON image_id = images.id JOIN tags ON tags.id = tag_id "
        "WHERE hidden_from_users GROUP BY image_name"
    )
    assert dict(rows)["katana.png"] == ["artist:eve", "katana", "licence:public domain", "origin:openclipart", "safe"]
    assert dict(rows)["clip.png"] == ["artist:ann", "clip", f"licence:{clipart.BY_SA}", "origin:openclipart", "safe"]
    assert len(rows) == 6


def test_formats_are_of_mixed_case_and_a_hash_is_null(query: Query) -> None:
    assert {kind for (kind,) in query("SELECT DISTINCT image_format FROM images")} == {"png", "PNG"}
    assert query("SELECT id FROM images WHERE image_sha512_hash IS NULL") == [(3,)]


def test_a_row_tells_its_picture(query: Query, uploaded: list[Upload]) -> None:
    rows = query(
        "SELECT id, image_width, image_height, image_size, image_aspect_ratio, created_at, version_path, "
        "coalesce(image_sha512_hash, ''), ARRAY[nw_intensity, ne_intensity, sw_intensity, se_intensity] "
        "FROM images JOIN image_intensities ON image_id = id ORDER BY id"
    )
    for image, row in zip(uploaded, rows, strict=True):
        size, day = image.picture.statistics, image.created_at
        assert row == (
            *(image.id, size.width, size.height, size.size, size.width / size.height, day),
            f"http://sample.localhost/img/{day.year}/{day.month}/{day.day}/{image.id}/",
            *("" if image.id == 3 else size.sha512, list(size.corners)),
        )


def test_artists_ratings_and_accents_are_tags(query: Query) -> None:
    rows = {name: (slug, category) for name, slug, category in query("SELECT name::text, slug, category FROM tags")}
    assert rows["artist:zoe"] == ("artist-colon-zoe", "origin")
    assert rows["origin:openclipart"][1] == rows["licence:public domain"][1] == "origin"
    assert rows["safe"][1] == rows["semi-grimdark"][1] == "rating"
    assert rows["étoile"] == ("%C3%A9toile", None)
    assert rows["card & dice"] == ("card+%26+dice", None)


def test_aliases_and_implications_are_told_by_id(query: Query) -> None:
    for table, expected in (("tag_aliases", ALIASES), ("tag_implications", IMPLICATIONS)):
        rows = query(
            f"SELECT a.name::text, b.name::text FROM {table} JOIN tags a ON a.id = tag_id "
            "JOIN tags b ON b.id = target_tag_id"
        )
        assert dict(rows) == expected
    assert query("SELECT count(*) FROM image_taggings JOIN tag_aliases USING (tag_id)") > [(0,)], "some are in use"


def test_counts_agree_with_the_rows_they_count(query: Query) -> None:
    assert (
        query(
            "SELECT id FROM images WHERE score <> upvotes - downvotes "
            "OR favorites <> (SELECT count(*) FROM image_faves WHERE image_id = id) "
            "OR comment_count <> (SELECT count(*) FROM comments WHERE image_id = images.id)"
        )
        == []
    )
    visible = "image_taggings JOIN images ON images.id = image_id AND NOT hidden_from_users"
    counted = f"SELECT count(*) FROM {visible} WHERE tag_id = tags.id"
    assert query(f"SELECT name FROM tags WHERE image_count <> ({counted})") == []


def test_the_same_library_gives_the_same_bytes_and_the_command_writes_them(
    dump: Path, tiny: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tiny.cache))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr(openclipart.gather, "__defaults__", (tiny.packages, ()))
    sample.main()
    assert paths.SAMPLE_DUMP.read_bytes() == dump.read_bytes()
    assert list(paths.SAMPLE_DUMP.parent.iterdir()) == [paths.SAMPLE_DUMP], "nothing else is left behind"


def test_rows_that_postgresql_refuses_are_told_in_one_sentence(uploaded: list[Upload], tmp_path: Path) -> None:
    tables = tables_of(uploaded)
    tables["images"] += tables["images"][:1]
    with pytest.raises(DatabaseError, match=r"rejected the board's rows: duplicate key .*\"images_pkey\"$"):
        board.write_dump(tables, tmp_path / "cluster", tmp_path / "dump.pgdump")
    assert not (tmp_path / "dump.pgdump").exists()
    assert not (tmp_path / "cluster").exists()


def test_without_the_packages_the_command_ends_in_one_sentence(workplace: Path) -> None:
    debs.put(workplace, openclipart.PACKAGES[0], b"no package")
    done = subprocess.run(
        [sys.executable, "-m", "stages.sample"],
        env={**os.environ, "PYTHONPATH": str(ROOT), debian.FOLDER_VARIABLE: str(workplace)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {workplace}/openclipart-png_")
    assert line.endswith("; delete it and run the command again")
    assert not paths.SAMPLE_DUMP.exists()


def test_restore_and_extract_give_the_shown_images_only(
    dump: Path, uploaded: list[Upload], own_server: str, params: Any
) -> None:
    labels = {"armed": {"any": ["sword"]}, "starry": {"any": ["Étoile"]}, "clean": {"rest": True}}
    policy = {"name": "test", "kind": "multiclass", "labels": labels}
    params(restore={"dump": str(dump)}, extract={"root": BOARD, "policy": policy})
    stages.restore.main()
    stages.extract.main()
    rows = {row["image_id"]: row for row in pq.read_table(paths.IMAGES).to_pylist()}
    visible = {image.id: image for image in uploaded if not image.hidden}
    assert rows.keys() == visible.keys()
    for id, image in visible.items():
        row, size = rows[id], image.picture.statistics
        path = addresses.picture_path(image.created_at, id, image.format, size.width, size.height, "medium")
        assert row["url"] == f"{BOARD}/{path}"
        assert [row[corner] for corner in ("nw", "ne", "sw", "se")] == list(size.corners)
        assert row["tags"] == sorted({ALIASES.get(tag, tag) for tag in image.tags})
        assert row["merged"] == [other.id for other in uploaded if other.merged_into == id]
    labels_by_name = {visible[id].name: row["label"] for id, row in rows.items()}
    assert {name: label for name, label in labels_by_name.items() if label != "clean"} == {
        "sword.png": "armed",
        "flag.png": "starry",
    }
    assert Counter(labels_by_name.values()) == {"clean": 9, "armed": 1, "starry": 1}
