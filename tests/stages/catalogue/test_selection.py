"""The SQL statement compared with a Python implementation of the policy's rules, on random boards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from stages.catalogue.corrections import Correction, read, write
from stages.catalogue.images import Catalogue
from stages.catalogue.tags import TABLE, Tags, number_tags
from stages.config.extract import Extract, Policy, TagRule
from stages.dump import lite
from stages.dump.databases import BoardDatabase
from stages.dump.postgres import Server
from stages.workspace.errors import CorrectionsError, PolicyError

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


def fill(cursor: Any, board: list[frozenset[int]]) -> None:
    """Put images with these tags onto the board; ids are from 1, and in the hashes."""
    cursor.execute("TRUNCATE images, image_taggings")
    for id, tags in enumerate(board, 1):
        cursor.execute(
            "INSERT INTO images (id, created_at, image_width, image_height, image_format, image_sha512_hash) "
            "VALUES (%s, '2020-01-01', 100, 100, 'PNG', %s)",
            [id, digits(id)],
        )
        cursor.executemany("INSERT INTO image_taggings VALUES (%s, %s)", [(id, tag) for tag in tags])


def digits(id: int) -> str:
    return f"{id:0128x}"[::-1]


Edits = dict[int, tuple[frozenset[int], frozenset[int]]]
"""Image id -> tags to add and to remove, as places in `NAMES`."""


@st.composite
def corrections_of(draw: st.DrawFn, policy: Policy, board: list[frozenset[int]]) -> tuple[Edits, dict[int, str]]:
    """Tags to change, and labels, of some of a board's images."""
    ids = range(1, len(board) + 1)
    tags = st.frozensets(st.integers(0, len(NAMES) - 1), max_size=3)
    edits = {}
    for id in draw(st.lists(st.sampled_from(ids), max_size=3, unique=True)):
        added, removed = draw(tags), draw(tags)
        gone = {canonical(index) for index in removed}
        added = frozenset(index for index in added if canonical(index) not in gone)
        if added | removed:
            edits[id] = added, removed
    names = st.sampled_from(list(policy.labels))
    if policy.kind == "multilabel":
        names = st.frozensets(names).map(lambda labels: "+".join(sorted(labels)) or "none")
    return edits, draw(st.dictionaries(st.sampled_from(ids), st.just("?") | names, max_size=3))


def correction_rows(edits: Edits, labels: dict[int, str], policy: Policy) -> list[Correction]:
    by_tags = [
        Correction(id, "", "", "", *(tuple(NAMES[index] for index in sorted(of)) for of in both))
        for id, both in edits.items()
    ]
    return by_tags + [Correction(None, digits(id)[:16], policy.name, label) for id, label in labels.items()]


def selected(cursor: Any, policy: Policy, file: Path | None = None) -> tuple[Catalogue, dict[int, dict[str, Any]]]:
    params = Extract(policy=policy, root="http://localhost", corrections=file and str(file))
    catalogue = Catalogue(cursor, params)
    return catalogue, {row["image_id"]: row for batch in catalogue.batches() for row in batch.to_pylist()}


def labels_of(rows: dict[int, dict[str, Any]]) -> dict[int, list[str]]:
    return {id: [row["label"]] if "label" in row else row["labels"] for id, row in rows.items()}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(policy=policies(), board=boards, data=st.data())
def test_the_statement_selects_what_the_rules_and_the_corrections_say(
    database: BoardDatabase, tmp_path: Path, policy: Policy, board: list[frozenset[int]], data: st.DataObject
) -> None:
    edits, labels = data.draw(corrections_of(policy, board))
    file = tmp_path / "corrections.csv"
    with database.cursor() as cursor:
        fill(cursor, board)
        write(file, correction_rows(edits, labels, policy))
        catalogue, rows = selected(cursor, policy, file)
        _, before = selected(cursor, policy)
        write(file, [*read(file), *read(file)])
        again, same = selected(cursor, policy, file)
    has = {id: frozenset(map(canonical, tags)) for id, tags in enumerate(board, 1)}
    by_tags = {id: expected_labels(policy, tags) for id, tags in has.items()}
    assert labels_of(before) == {id: expected for id, expected in by_tags.items() if isinstance(expected, list)}
    for id, (added, removed) in edits.items():
        has[id] = frozenset((has[id] | {*map(canonical, added)}) - {*map(canonical, removed)})
    expected = {id: expected_labels(policy, tags) for id, tags in has.items()}
    places = list(policy.labels)
    for id, label in labels.items():
        if label != "?":
            expected[id] = [] if label == "none" else sorted(label.split("+"), key=places.index)
    assert labels_of(rows) == {id: labels for id, labels in expected.items() if isinstance(labels, list)}
    for reason in ("untagged", "overlap", "no_label"):
        assert catalogue.dropped[reason] == list(expected.values()).count(reason)
    for id, row in rows.items():
        assert row["tags"] == sorted(NAMES[index] for index in has[id])
    assert same == rows, "what is said twice is done once"
    counts = catalogue.corrected.summary()
    assert again.corrected.summary() == {
        name: 2 * count if isinstance(count, int) else count for name, count in counts.items()
    }
    given = {id: label for id, label in labels.items() if label != "?"}
    retagged = {id for id in edits if id in rows and has[id] != {*map(canonical, board[id - 1])}}
    changed = {id for id in given if expected[id] != expected_labels(policy, has[id])}
    assert counts == {
        "rows": len(edits) + len(labels),
        "labels_changed": len(changed),
        "labels_confirmed": len(given) - len(changed),
        "undecided": sum(label == "?" and id in rows for id, label in labels.items()),
        "tags_changed": len(retagged),
        "without_effect": len(edits.keys() & rows.keys() - retagged),
        "excluded": len(edits.keys() - rows.keys()) + sum(id not in rows for id in labels),
        "other_policies": {},
    }


GUNS = Policy(
    name="house", kind="binary", labels={"flagged": TagRule(any=["gun"]), "clean": TagRule(rest=True)}, min_tags=1
)
MISFITS = {
    "9,,house,clean,,": "line 2: the board has no image 9; delete the line",
    f"9,{digits(2)},house,clean,,": "line 2: the board has no image 9; image 2 has this SHA-512: write that id",
    f"1,{digits(2)},house,clean,,": "the SHA-512 of image 1 begins with 1000000000000000, which is another; "
    "image 2 has it: write that id",
    f"1,{digits(9)},house,clean,,": "which is another; correct it, or look at the picture again",
    f",{digits(9)},house,clean,,": "no image of the board has a SHA-512 that begins with 9000000000000000; correct it",
    "1,,house,flaged,,": "the policy house has no label 'flaged'; write one of flagged, clean, \\?",
    "1,,,,guns,": "it names the tag 'guns', which the board does not have; did you mean gun\\?",
    "1,,,,,rifle": "it names the tag 'rifle', which the board does not have; look up its spelling on the board",
    f"1,,house,clean,,\n,{digits(1)},house,flagged,,": "line 3: image 1 has two labels in the policy house, "
    "'clean' and 'flagged': see line 2; delete one of the two",
    "1,,people,a,,\n1,,people,b,,": "line 3: image 1 has two labels in the policy people",
    "1,,,,gun,\n2,,,,gun,\n1,,,,,GUN": "line 4: this line and line 2 add and remove the tag 'GUN' of image 1",
}
"""Rows that do not fit the board, each with its error."""


def test_a_row_that_does_not_fit_the_board_is_an_error_that_names_its_line(
    database: BoardDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "corrections.csv"
    with database.cursor() as cursor:
        fill(cursor, [frozenset([0]), frozenset([2])])
        for text, message in MISFITS.items():
            file.write_text(f"image_id,sha512,policy,label,add_tags,remove_tags\n{text}\n")
            with pytest.raises(CorrectionsError, match=message) as error:
                selected(cursor, GUNS, file)
            assert str(error.value).startswith(f"{file}, line ")


def test_a_hash_alone_names_all_images_that_have_it(database: BoardDatabase, tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    with database.cursor() as cursor:
        fill(cursor, [frozenset([0]), frozenset([0]), frozenset([0]), frozenset()])
        for id, hash in ((1, "AB" * 64), (2, "ab" * 64), (3, None), (4, "ab" * 20 + "00" * 44)):
            cursor.execute("UPDATE images SET image_sha512_hash = %s WHERE id = %s", [hash, id])
        write(file, [Correction(None, "ab" * 64, "house", "clean"), Correction(3, "cd" * 8, "people", "people")])
        catalogue, rows = selected(cursor, GUNS, file)
        assert labels_of(rows) == {1: ["clean"], 2: ["clean"], 3: ["flagged"]}
        assert catalogue.summary()["corrections"] == {
            "rows": 2, "labels_changed": 1, "labels_confirmed": 0, "undecided": 0, "tags_changed": 0,
            "without_effect": 0, "excluded": 0, "other_policies": {"people": 1},
        }  # fmt: skip
        write(file, [Correction(None, "ab" * 8, "house", "clean")])
        with pytest.raises(CorrectionsError, match="images 1 and 4 both have a SHA-512 that begins so; give more"):
            selected(cursor, GUNS, file)


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
