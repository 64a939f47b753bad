from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import stages.extract
import stages.restore
from stages.philomena import addresses
from stages.workspace import paths
from stages.workspace.errors import PolicyError

ROOT = Path(__file__).parents[2]
BINARY = {
    "name": "test",
    "kind": "binary",
    "labels": {"flagged": {"any": ["gun"], "none": ["toy"]}, "clean": {"rest": True}},
}


GUNS = {**BINARY, "labels": {"flagged": {"any": ["gun"]}, "clean": {"rest": True}}}


def extract(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the stage as DVC does."""
    return subprocess.run(
        [sys.executable, "-m", "stages.extract"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def catalogue(board: Any, own_server: str, params: Any) -> Any:
    """Runs restore once, and extract with the given parameters -> the catalogue's rows, the summary."""

    def run_stages(**section: Any) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
        params(
            restore={"dump": "board.pgdump"},
            extract={"root": "http://sample.localhost/img", "policy": BINARY, **section},
        )
        if not paths.LITE_DUMP.exists():
            board.dump(Path("board.pgdump"))
            stages.restore.main()
        stages.extract.main()
        rows = pq.read_table(paths.IMAGES).to_pylist()
        assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
        summary = json.loads(paths.EXTRACT_SUMMARY.read_text())
        assert summary["kept"] == len(rows)
        assert summary["kept"] + sum(summary["dropped"].values()) == summary["images"]
        return {row["image_id"]: row for row in rows}, summary

    return run_stages


@pytest.fixture
def mess(board: Any) -> Any:
    """Images of every kind that a board has."""
    names = ["gun", "toy", "cat", "artist:zoe", "artist:ann", "safe", "guns", 'pokémon, 100% "it\'s"', "dog", "error"]
    names += ["origin:tango", "licence:gpl"]
    categories = [None, None, "species", "origin", "origin", "rating", None, None, None, "error", None, None]
    for id, (name, category) in enumerate(zip(names, categories, strict=True), 1):
        board.tag(id, name, category)
    board.insert("tag_aliases", [{"tag_id": 7, "target_tag_id": 1}])
    board.image(1, [1, 3, 4, 5, 6], image_format="JPG", image_size=77)
    board.image(2, [1, 2])
    board.image(3, [7], image_sha512_hash=None, image_format="svg")
    board.image(4, [3, 8], image_format="GIF", image_name='a "name",\nof two lines')
    board.image(5, [1], hidden_from_users=True)
    board.image(6, [1])
    board.image(7, [1])
    board.image(8, [3])
    board.image(9, [1], image_format="webm")
    board.image(10, [1], image_height=10)
    board.image(11, [4, 6, 10])
    board.image(12, [11, 12])
    board.image(13, [1, 7, 11])
    board.insert("image_hides", [{"image_id": 6, "reason": "rule 1"}, {"image_id": 6, "reason": "again"}])
    board.insert("image_duplicates", [{"image_id": 7, "target_id": 8}, {"image_id": 8, "target_id": 1}])
    board.insert("image_intensities", [dict(zip(("image_id", *CORNERS), (1, 0.1, 2.5, 3.5, 255.0), strict=True))])
    return board


CORNERS = [f"{corner}_intensity" for corner in ("nw", "ne", "sw", "se")]


def test_every_image_is_kept_or_counted_under_one_reason(mess: Any, catalogue: Any) -> None:
    rows, summary = catalogue(formats=["png", "jpeg", "gif", "svg"], min_side=16, policy={**BINARY, "min_tags": 1})
    assert {id: row["label"] for id, row in rows.items()} == {
        1: "flagged", 2: "clean", 3: "flagged", 4: "clean", 13: "flagged"
    }  # fmt: skip
    assert summary == {
        "policy": "test",
        "images": 13,
        "kept": 5,
        "labels": {"flagged": 3, "clean": 2},
        "dropped": {
            "merged": 2, "removed": 2, "invalid_id": 0, "invalid_date": 0, "invalid_size": 0, "format": 1,
            "too_small": 1, "untagged": 2, "overlap": 0, "no_label": 0, "over_limit": 0,
        },
        "invalid_intensities": 0,
        "corrections": {
            "rows": 0, "labels_changed": 0, "labels_confirmed": 0, "undecided": 0, "tags_changed": 0,
            "without_effect": 0, "excluded": 0, "other_policies": {},
        },
    }  # fmt: skip


def test_a_row_has_all_facts_about_its_image(mess: Any, catalogue: Any) -> None:
    rows, _ = catalogue()
    first = rows[1]
    assert first["tags"] == ["artist:ann", "artist:zoe", "cat", "gun", "safe"]
    assert (first["artist"], first["origin"]) == ("ann", None)
    assert (rows[13]["artist"], rows[13]["origin"]) == (None, "tango")
    assert first["format"] == "jpeg"
    assert first["url"] == "http://sample.localhost/img/2013/1/2/1/medium.jpg"
    assert (first["width"], first["height"], first["size"]) == (1000, 900, 77)
    assert [first[corner] for corner in ("nw", "ne", "sw", "se")] == [0.1, 2.5, 3.5, 255.0]
    assert first["sha512"] == f"{1:0128x}"
    assert first["merged"] == [7, 8], "7 was merged into 8, and 8 into 1"
    assert first["created_at"].isoformat() == "2013-01-02T03:04:05"
    assert (rows[3]["sha512"], rows[3]["artist"], rows[3]["nw"], rows[3]["merged"]) == (None, None, None, [])
    assert (rows[3]["format"], rows[3]["tags"]) == ("png", ["gun"]), "an svg is served as png; an alias is its target"
    assert rows[4]["tags"] == ["cat", 'pokémon, 100% "it\'s"']
    assert rows[4]["name"] == 'a "name",\nof two lines'
    assert rows[13]["tags"] == ["gun", "origin:tango"], "an image with an alias and its target has one tag"


@pytest.mark.parametrize("version", ["full", "thumb_tiny", "tall"])
def test_addresses_equal_those_of_the_single_images(board: Any, catalogue: Any, version: str) -> None:
    board.tag(1, "gun", None)
    board.tag(2, "toy", None)
    shapes = itertools.product(("png", "jpg", "JPEG", "Gif", "svg", "webm"), ((16, 16), (51, 16), (16, 5000)))
    shapes_by_id = {
        id: {
            "image_format": name,
            "image_width": width,
            "image_height": height,
            "created_at": f"2021-{id % 12 + 1}-{id}",
        }
        for id, (name, (width, height)) in enumerate(shapes, 1)
    }
    for id, row in shapes_by_id.items():
        board.image(id, [1 + id % 2], **row)
    rows, _ = catalogue(
        formats=["png", "jpeg", "gif", "svg", "webm"], min_side=1, version=version, root="https://x.org/img/"
    )
    assert {id: row["url"] for id, row in rows.items()} == {
        id: "https://x.org/img/"
        + addresses.picture_path(
            datetime(2021, id % 12 + 1, id, tzinfo=UTC),
            *(id, row["image_format"], row["image_width"], row["image_height"], version),
        )
        for id, row in shapes_by_id.items()
    }


def test_corrections_are_applied_and_counted(mess: Any, catalogue: Any, workplace: Path) -> None:
    before, _ = catalogue()
    Path("corrections.csv").write_text(
        "image_id,sha512,policy,label,add_tags,remove_tags,who,why\n"
        "1,,test,clean,,,ann,a toy\n"
        f",{4:0128x},test,clean,,,ann,\n"
        "9,,test,?,,,ann,\n"
        "3,,,,dog,,bob,\n"
        "13,,,,,gun,bob,\n"
        "10,,,,gun,,bob,on the board by now\n"
        "5,,test,clean,,,bob,removed\n"
        '4,,people,people,,,bob,"another policy, so not\nof this one"\n'
    )
    rows, summary = catalogue(corrections="corrections.csv")
    changed = {id for id in rows if rows[id] != before[id]}
    assert changed == {1, 3, 13}
    assert (rows[1]["label"], rows[1]["tags"]) == ("clean", before[1]["tags"])
    assert (rows[3]["label"], rows[3]["tags"]) == ("flagged", ["dog", "gun"])
    assert (rows[13]["label"], rows[13]["tags"]) == ("clean", ["origin:tango"])
    assert summary["corrections"] == {
        "rows": 8, "labels_changed": 1, "labels_confirmed": 1, "undecided": 1, "tags_changed": 2,
        "without_effect": 1, "excluded": 1, "other_policies": {"people": 1},
    }  # fmt: skip
    Path("corrections.csv").write_text("image_id,policy,label\n1,test,clean\n\n77,test,clean\n")
    done = extract(MLPY_DATABASE_URL="")
    assert done.returncode == 1
    assert done.stderr == "error: corrections.csv, line 4: the board has no image 77; delete the line\n"


def test_schema_metadata_hold_the_policy(mess: Any, catalogue: Any) -> None:
    catalogue()
    metadata = json.loads(pq.read_schema(paths.IMAGES).metadata[b"mlpy"])
    rules = {
        "flagged": {"any": ["gun"], "all": [], "none": ["toy"], "rest": False},
        "clean": {"any": [], "all": [], "none": [], "rest": True},
    }
    assert metadata == {"policy": {"name": "test", "kind": "binary", "labels": ["flagged", "clean"], "rules": rules}}


def test_names_are_found_through_aliases_in_any_case(mess: Any, catalogue: Any) -> None:
    labels = {"flagged": {"any": ["GUNS"]}, "odd": {"all": ['POKÉMON, 100% "it\'s"', "Cat"]}, "clean": {"rest": True}}
    rows, _ = catalogue(policy={"name": "odd", "kind": "multiclass", "labels": labels})
    assert rows[4]["label"] == "odd"
    assert {id for id, row in rows.items() if row["label"] == "flagged"} == {1, 2, 3, 9, 10, 13}


def test_an_overlapping_image_is_excluded_or_gets_the_first_label(mess: Any, catalogue: Any) -> None:
    labels = {"flagged": {"any": ["gun"]}, "toys": {"any": ["toy"]}, "cats": {"any": ["cat"]}}
    policy = {"name": "three", "kind": "multiclass", "labels": labels}
    with pytest.raises(PolicyError, match="no image matches the label toys"):
        catalogue(policy=policy)
    rows, summary = catalogue(policy={**policy, "labels": {"toys": labels["toys"], **labels}, "overlap": "first"})
    assert (rows[2]["label"], rows[1]["label"]) == ("toys", "flagged")
    assert summary["dropped"]["no_label"] == 2


def test_multilabel_keeps_images_of_any_number_of_labels(mess: Any, catalogue: Any) -> None:
    labels = {"flagged": {"any": ["gun"]}, "toys": {"any": ["toy"]}}
    rows, summary = catalogue(policy={"name": "many", "kind": "multilabel", "labels": labels})
    assert (rows[1]["labels"], rows[2]["labels"], rows[4]["labels"]) == (["flagged"], ["flagged", "toys"], [])
    assert summary["labels"] == {"flagged": 6, "toys": 1}
    assert "label" not in rows[1]


def test_a_larger_limit_only_adds(board: Any, catalogue: Any) -> None:
    board.tag(1, "gun")
    for id in range(1, 60):
        board.image(id, [1] if id % 3 == 0 else [])
    before: set[int] = set()
    seen = set()
    for limit in (1, 5, 12, 1000):
        rows, summary = catalogue(
            limit=limit, policy={**BINARY, "labels": {"flagged": {"any": ["gun"]}, "clean": {"rest": True}}}
        )
        assert summary["labels"] == {"flagged": min(limit, 19), "clean": min(limit, 40)}
        assert before <= rows.keys()
        before = set(rows)
        seen.add(frozenset(rows))
    other, _ = catalogue(
        limit=12, seed=1, policy={**BINARY, "labels": {"flagged": {"any": ["gun"]}, "clean": {"rest": True}}}
    )
    assert frozenset(other) not in seen


def test_which_images_a_limit_chooses_is_fixed(board: Any, catalogue: Any) -> None:
    board.tag(1, "gun")
    for id in range(1, 21):
        board.image(id, [1] if id <= 10 else [])
    labels = {"flagged": {"any": ["gun"]}, "clean": {"rest": True}}
    rows, _ = catalogue(limit=3, seed=7, policy={**BINARY, "labels": labels})

    def first(ids: range) -> list[int]:
        return sorted(ids, key=lambda id: hashlib.md5(f"7:{id}".encode()).hexdigest())[:3]

    assert sorted(rows) == sorted([*first(range(1, 11)), *first(range(11, 21))])


UNUSABLE = {
    "invalid_date": [
        {"created_at": None},
        *(
            {"created_at": at}
            for at in ("infinity", "-infinity", "0044-03-15 BC", "0001-01-01", "294276-12-31", "9999-1-1")
        ),
    ],
    "invalid_size": [
        {"image_width": None},
        {"image_height": None},
        {"image_width": 0},
        {"image_height": -1},
        {"image_width": 2**31 - 1, "image_height": 2**31 - 1},
        {"image_height": -(2**31)},
        {"image_width": 32_768},
    ],
    "format": [{"image_format": None}, {"image_format": "mp4"}],
}
"""Reason -> values with which an image cannot be used."""


def test_rows_that_cannot_be_used_are_counted_under_a_reason(board: Any, catalogue: Any) -> None:
    board.sql(
        "ALTER TABLE images "
        + ", ".join(
            f"ALTER {column} DROP NOT NULL"
            for column in ("created_at", "image_width", "image_height", "image_format", "image_size")
        )
    )
    board.tag(1, "gun")
    board.sql("ALTER TABLE tags ALTER name DROP NOT NULL", "INSERT INTO tags (id, name, slug) VALUES (2, NULL, '')")
    board.image(1, [1])
    board.image(2, [2])
    board.image(3, [], image_size=-1)
    ids = itertools.count(10)
    for values in itertools.chain.from_iterable(UNUSABLE.values()):
        board.image(next(ids), [1], **values)
    rows, summary = catalogue(policy=GUNS)
    assert rows.keys() == {1, 2, 3}
    assert (rows[2]["tags"], rows[3]["size"]) == ([], None)
    counts = {reason: count for reason, count in summary["dropped"].items() if count}
    assert counts == {reason: len(rows) for reason, rows in UNUSABLE.items()}


def test_values_that_their_column_cannot_hold_are_not_fatal(board: Any, catalogue: Any) -> None:
    board.sql(
        "ALTER TABLE images ALTER image_width TYPE double precision, ALTER image_height TYPE bigint, "
        "ALTER image_size TYPE numeric, ALTER hidden_from_users DROP DEFAULT, ALTER hidden_from_users TYPE text, "
        "ALTER created_at TYPE text"
    )
    board.tag(1, "gun")
    good = {"hidden_from_users": "f", "created_at": "2013-01-02 03:04:05"}
    board.image(1, [1], **good)
    board.image(2, [], **good)
    for id, width in enumerate(("NaN", "Infinity", "-Infinity", 1e300), 10):
        board.image(id, [1], **{**good, "image_width": width})
    board.image(20, [1], **{**good, "image_height": 2**40})
    board.image(21, [1], **{**good, "image_size": "NaN"})
    board.image(22, [1], **{**good, "created_at": "2013-02-30"})
    board.image(23, [1], **{**good, "hidden_from_users": "true"})
    rows, summary = catalogue(policy=GUNS)
    assert rows.keys() == {1, 2, 21}
    assert summary["dropped"] | {"removed": 1, "invalid_date": 1, "invalid_size": 5} == summary["dropped"]


def test_intensities_that_are_no_brightness_are_left_out_and_counted(board: Any, catalogue: Any) -> None:
    board.tag(1, "gun")
    wrong = [("NaN", 1, 1, 1), (1, "Infinity", 1, 1), (1, 1, -0.5, 1), (1, 1, 1, 255.5), (None, 1, 1, 1)]
    for id, corners in enumerate([(0, 1, 2, 255), *wrong], 1):
        board.image(id, [1] if id % 2 else [])
        board.insert("image_intensities", [{"image_id": id, **dict(zip(CORNERS, corners, strict=True))}])
    rows, summary = catalogue(policy=GUNS)
    assert len(rows) == 6
    assert {id: row["se"] for id, row in rows.items()} == {1: 255, 2: None, 3: None, 4: None, 5: None, 6: None}
    assert summary["invalid_intensities"] == len(wrong)


def test_chains_of_aliases_and_merges_have_any_length(board: Any, catalogue: Any) -> None:
    length = 3_000
    board.sql(
        f"INSERT INTO tags SELECT i, 0, CASE WHEN i = {length} THEN 'gun' ELSE 'alias ' || i END, i "
        f"FROM generate_series(1, {length}) i",
        f"INSERT INTO tag_aliases SELECT i, i + 1 FROM generate_series(1, {length - 1}) i",
    )
    board.image(1, [1])
    board.image(2, [])
    for id in range(10, 310):
        board.image(id, [1])
        board.insert("image_duplicates", [{"image_id": id, "target_id": id + 1 if id < 309 else 1}])
    rows, _ = catalogue(policy=GUNS)
    assert rows.keys() == {1, 2}
    assert (rows[1]["label"], rows[1]["tags"], rows[2]["label"]) == ("flagged", ["gun"], "clean")
    assert rows[1]["merged"] == list(range(10, 310))


def test_rings_of_aliases_and_merges_end(board: Any, catalogue: Any) -> None:
    for id, name in enumerate(["gun", "b", "c", "leads in", "self", "two targets", "dangling"], 1):
        board.tag(id, name)
    pairs = [(1, 2), (2, 3), (3, 1), (4, 1), (5, 5), (6, 5), (6, 7), (7, 99)]
    board.insert("tag_aliases", [{"tag_id": tag, "target_tag_id": target} for tag, target in pairs])
    for id in range(1, 8):
        board.image(id, [id])
    board.image(8, [])
    board.image(9, [])
    board.insert("image_duplicates", [{"image_id": 8, "target_id": 9}, {"image_id": 9, "target_id": 8}])
    rows, summary = catalogue(policy=GUNS)
    names = {id: row["tags"] for id, row in rows.items()}
    assert names == {1: ["gun"], 2: ["b"], 3: ["c"], 4: ["leads in"], 5: ["self"], 6: ["self"], 7: ["dangling"]}
    assert summary["dropped"]["merged"] == 2


def test_an_unknown_tag_offers_the_nearest(mess: Any, catalogue: Any) -> None:
    catalogue()
    paths.IMAGES.unlink()
    paths.EXTRACT_SUMMARY.unlink()
    with pytest.raises(
        PolicyError, match="the policy names the tag 'gnu', which the board does not have; did you mean gun"
    ):
        catalogue(policy={**BINARY, "labels": {"flagged": {"any": ["gnu"]}, "clean": {"rest": True}}})
    assert list(paths.IMAGES.parent.iterdir()) == []


def test_an_embedded_database_restored_from_the_lite_dump_gives_the_same_bytes(mess: Any, catalogue: Any) -> None:
    catalogue()
    first = (paths.IMAGES.read_bytes(), paths.EXTRACT_SUMMARY.read_bytes())
    done = extract(MLPY_DATABASE_URL="")
    assert done.returncode == 0, done.stderr
    assert (paths.IMAGES.read_bytes(), paths.EXTRACT_SUMMARY.read_bytes()) == first


def test_a_changed_policy_needs_a_query_and_no_restore(mess: Any, catalogue: Any, params: Any) -> None:
    catalogue()
    clusters = Path(os.environ["MLPY_CACHE"]) / "postgres"
    seen = []
    for tag in ("gun", "cat"):
        policy = {**BINARY, "labels": {"flagged": {"any": [tag]}, "clean": {"rest": True}}}
        params(extract={"root": "http://sample.localhost/img", "policy": policy})
        done = extract(MLPY_DATABASE_URL="")
        assert done.returncode == 0, done.stderr
        labels = pq.read_table(paths.IMAGES, columns=["label"])["label"].to_pylist()
        seen.append((labels.count("flagged"), clusters.stat().st_mtime_ns))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] == seen[1][1], "a restore would make a new cluster beside the kept one"


def test_two_at_once_do_not_disturb_each_other(mess: Any, catalogue: Any, workplace: Path, params: Any) -> None:
    catalogue()
    first = paths.IMAGES.read_bytes()
    command = [sys.executable, "-m", "stages.extract"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLPY_DATABASE_URL": ""}
    (workplace / "other/data/restore").mkdir(parents=True)
    (workplace / "other" / paths.LITE_DUMP).write_bytes(paths.LITE_DUMP.read_bytes())
    (workplace / "other/params.yaml").write_bytes(Path("params.yaml").read_bytes())
    runs = [subprocess.Popen(command, env=environment, cwd=folder) for folder in (workplace, workplace / "other")]
    assert [run.wait() for run in runs] == [0, 0]
    assert paths.IMAGES.read_bytes() == first == (workplace / "other" / paths.IMAGES).read_bytes()


def test_without_the_lite_dump_it_says_what_to_do(workplace: Path, params: Any) -> None:
    params(extract={"root": "http://sample.localhost/img", "policy": BINARY})
    done = extract()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {paths.LITE_DUMP} is missing: run `dvc repro restore`")
