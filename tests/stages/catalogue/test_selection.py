"""The SQL statement compared with a Python implementation of the policy's rules, on random boards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from stages.catalogue.images import Catalogue
from stages.catalogue.tags import TABLE, Tags, number_tags
from stages.config.extract import Extract, Policy, TagRule
from stages.dump import lite
from stages.dump.databases import BoardDatabase
from stages.dump.postgres import Server
from stages.workspace.errors import PolicyError

NAMES = ["gun", "Übel", "100%", "it's", "a, b", '"q"', "{x}", "artist:ann", "safe", "%(zero)s", "\\", "$1"]
ALIASES = {10: 0, 11: 10}
"""Index of an alias in `NAMES` -> its target: the second is an alias of an alias."""

rules = st.builds(
    lambda **words: words,
    any=st.lists(st.sampled_from(NAMES), max_size=3),
    all=st.lists(st.sampled_from(NAMES), max_size=2),
    none=st.lists(st.sampled_from(NAMES), max_size=2),
).filter(lambda words: any(words.values()))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    kind = draw(st.sampled_from(["binary", "multiclass", "multilabel"]))
    count = {"binary": 2, "multiclass": 3, "multilabel": draw(st.integers(1, 3))}[kind]
    labels = {f"label {place}": TagRule(**draw(rules)) for place in range(count)}
    if draw(st.booleans()):
        labels[f"label {count - 1}"] = TagRule(rest=True)
    overlap = draw(st.sampled_from(["exclude", "first"]))
    return Policy(name="any", kind=kind, labels=labels, overlap=overlap, min_tags=draw(st.integers(0, 2)))  # type: ignore[arg-type]


boards = st.lists(st.frozensets(st.integers(0, len(NAMES) - 1), max_size=5), min_size=1, max_size=8)


def canonical(index: int) -> int:
    while index in ALIASES:
        index = ALIASES[index]
    return index


def expected_labels(policy: Policy, tags: frozenset[int]) -> list[str] | str:
    """The labels of an image, or why it is left out."""
    has = {NAMES[canonical(index)] for index in tags}

    def same(names: list[str]) -> list[str]:
        return [NAMES[canonical(NAMES.index(name))] for name in names]

    def takes(rule: TagRule) -> bool:
        return (
            (not rule.any or any(name in has for name in same(rule.any)))
            and all(name in has for name in same(rule.all))
            and not any(name in has for name in same(rule.none))
        )

    if len(has - {"artist:ann", "safe"}) < policy.min_tags:
        return "untagged"
    labels = [label for label, rule in policy.labels.items() if not rule.rest and takes(rule)]
    if not labels:
        labels = [label for label, rule in policy.labels.items() if rule.rest]
    if policy.kind == "multilabel":
        return labels
    if len(labels) > 1 and policy.overlap == "exclude":
        return "overlap"
    return labels[:1] or "no_label"


@pytest.fixture(scope="module")
def database(server: Server) -> BoardDatabase:
    """A database in the shape that restore leaves, with `NAMES` as its tags."""
    maintenance = server.connect()
    with maintenance.cursor() as cursor:
        cursor.execute("CREATE DATABASE rules TEMPLATE template0")
    maintenance.close()
    database = BoardDatabase(server, "rules")
    lite.shape(database)
    with database.cursor() as cursor:
        cursor.executemany("INSERT INTO tags (id, name) VALUES (%s, %s)", [*enumerate(NAMES)])
        cursor.executemany("INSERT INTO tag_aliases VALUES (%s, %s)", [*ALIASES.items()])
    return database


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(policy=policies(), board=boards)
def test_the_statement_selects_what_the_rules_match(
    database: BoardDatabase, policy: Policy, board: list[frozenset[int]]
) -> None:
    with database.cursor() as cursor:
        cursor.execute("TRUNCATE images, image_taggings")
        for id, tags in enumerate(board):
            cursor.execute(
                "INSERT INTO images (id, created_at, image_width, image_height, image_format) "
                "VALUES (%s, '2020-01-01', 100, 100, 'PNG')",
                [id],
            )
            cursor.executemany("INSERT INTO image_taggings VALUES (%s, %s)", [(id, tag) for tag in tags])
        catalogue = Catalogue(cursor, Extract(policy=policy, root="http://localhost"))
        rows = {row["image_id"]: row for batch in catalogue.batches() for row in batch.to_pylist()}
    expected = [expected_labels(policy, tags) for tags in board]
    assert {
        id: row.get("labels") or [row["label"]] if "label" in row else row["labels"] for id, row in rows.items()
    } == {id: labels for id, labels in enumerate(expected) if isinstance(labels, list)}
    for reason in ("untagged", "overlap", "no_label"):
        assert catalogue.dropped[reason] == expected.count(reason)
    for id, row in rows.items():
        assert row["tags"] == sorted({NAMES[canonical(index)] for index in board[id]})


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=names)
def test_a_tag_name_is_found_or_refused_and_never_executed(database: BoardDatabase, name: str) -> None:
    with database.cursor() as cursor:
        policy = Policy(name=name, kind="multilabel", labels={"label": TagRule(any=[name])})
        params = Extract(policy=policy, root="http://localhost")
        if name.lower() in [known.lower() for known in NAMES]:
            Catalogue(cursor, params)
        else:
            with pytest.raises(PolicyError, match="which the board does not have"):
                Catalogue(cursor, params)
        cursor.execute("SELECT count(*) FROM tags")
        assert cursor.fetchall() == [(len(NAMES),)]


def test_parallel_processes_number_the_tags_once(database: BoardDatabase) -> None:
    def numbered(_: int) -> tuple[list[int], int]:
        with database.cursor() as cursor:
            numbers = number_tags(cursor).numbers.to_pylist()
            cursor.execute("SELECT %s::regclass::oid", [TABLE])
            return numbers, cursor.fetchall()[0][0]

    for _ in range(5):
        with database.cursor() as cursor:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(TABLE)))
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(numbered, range(8)))
        assert results == [results[0]] * 8
    assert numbered(8) == results[0]


def test_similar_names_are_suggested_from_many(server: Server, database: Any) -> None:
    every = pa.array(
        [f"{word} {number}" for number in range(50_000) for word in ("gun", "pony", "twilight", "artist:x")]
    )
    many = Tags(every, every, pa.array(range(1, len(every) + 1)))
    assert many.nearest("twiligt 4999")[0] == "twilight 4999"
