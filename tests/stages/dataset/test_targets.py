"""Splits -> training targets, or an error if nothing can be learnt from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.dataset.targets import Task, read
from stages.philomena.tags import PREFIXES
from stages.workspace.errors import ModelError

Row = dict[str, Any]
HOUSE = {"name": "house", "kind": "binary", "labels": ["flagged", "clean"]}
AXES = {"name": "axes", "kind": "multilabel", "labels": ["gross", "dark"]}


def rows(count: int, **values: Any) -> list[Row]:
    """Pictures from id 1 on, alternately clean and flagged."""
    plain = [{"image_id": n, "label": "clean" if n % 2 else "flagged", "tags": ["drawn"]} for n in range(1, count + 1)]
    return [row | values for row in plain]


def put(path: Path, board: list[Row], policy: dict[str, Any] | None = HOUSE) -> Path:
    said = {} if policy is None else {"mlpy": json.dumps({"policy": policy})}
    path.parent.mkdir(parents=True, exist_ok=True)
    grouped = [{"group": row["image_id"]} | row for row in board]
    pq.write_table(pa.Table.from_pylist(grouped).replace_schema_metadata(said), path)
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return put(tmp_path / "train.parquet", rows(40))


@pytest.fixture
def val(tmp_path: Path) -> Path:
    return put(tmp_path / "val.parquet", rows(4))


def axes(folder: Path) -> Task:
    """40 training pictures, of which 21 are gross, 20 are dark, and 1 is both; 4 validation pictures."""
    learnt = [["gross", "dark"], *[["gross"]] * 20, *[["dark"]] * 19]
    board = [{"image_id": 10 + n, "labels": labels, "tags": []} for n, labels in enumerate(learnt)]
    measured = [["dark", "gross"], [], ["dark"], []]
    other = [{"image_id": n, "labels": labels, "tags": []} for n, labels in enumerate(measured)]
    return read(put(folder / "train.parquet", board, AXES), put(folder / "val.parquet", other, AXES), 1)


def test_a_binary_policy_has_a_column_per_label_and_one_output(train: Path, val: Path) -> None:
    task = read(train, val, 10)
    assert (task.kind, task.labels, task.outputs) == ("binary", ("flagged", "clean"), 1)
    assert task.val.ids.tolist() == [1, 2, 3, 4]
    assert task.val.labels.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert task.val.labels.dtype == "float32"


def test_a_multilabel_policy_is_many_hot_whatever_the_order_of_a_pictures_labels(tmp_path: Path) -> None:
    task = axes(tmp_path)
    assert task.outputs == 2
    assert task.val.labels.tolist() == [[1, 1], [0, 0], [0, 1], [0, 0]]
    assert task.train.labels.sum(0).tolist() == [21, 20]


def test_a_multiclass_policy_has_an_output_per_label(tmp_path: Path) -> None:
    policy = {"name": "three", "kind": "multiclass", "labels": ["a", "b", "c"]}
    board = [{"image_id": n, "label": "abc"[n % 3], "tags": []} for n in range(60)]
    task = read(put(tmp_path / "t.parquet", board, policy), put(tmp_path / "v.parquet", board[:3], policy), 1)
    assert task.outputs == 3
    assert task.val.labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_only_tags_with_enough_training_pictures_are_targets(tmp_path: Path, val: Path) -> None:
    board = rows(40)
    for number, row in enumerate(board):
        row["tags"] = [*(["zebra"] if number < 10 else []), *(["apple"] if number < 9 else []), "drawn"]
    train = put(tmp_path / "train.parquet", board)
    assert read(train, val, 10).vocabulary == ("drawn", "zebra")
    assert read(train, val, 9).vocabulary == ("apple", "drawn", "zebra")
    assert read(train, val, 41).vocabulary == ()


def test_tags_are_many_hot_over_the_training_splits_vocabulary(tmp_path: Path) -> None:
    train = put(tmp_path / "train.parquet", rows(40, tags=["cat", "dog"]))
    val = put(tmp_path / "val.parquet", [row | {"tags": ["dog", "bird"]} for row in rows(4)])
    task = read(train, val, 10)
    assert task.vocabulary == ("cat", "dog")
    assert task.train.tags.tolist() == [[True, True]] * 40
    assert task.val.tags.tolist() == [[False, True]] * 4


def test_tags_of_provenance_are_no_targets(tmp_path: Path, val: Path) -> None:
    tags = [*(f"{prefix}something" for prefix in PREFIXES), "cat"]
    train = put(tmp_path / "train.parquet", rows(40, tags=tags))
    assert read(train, val, 1).vocabulary == ("cat",)


def test_origins_are_counted_over_both_splits_with_their_licences(tmp_path: Path) -> None:
    drawn, tango = ["cat", "origin:drawn", "licence:gpl", "licence:ofl"], ["cat", "origin:tango"]
    train = put(tmp_path / "train.parquet", [*rows(40, tags=drawn), *rows(3, tags=tango), *rows(9, tags=["cat"])])
    val = put(tmp_path / "val.parquet", [*rows(4, tags=tango), *rows(4, tags=["origin:drawn", "licence:mit"])])
    for heads in (1, 5):
        task = read(train, val, 1, heads)
        assert task.vocabulary == ("cat",)
        assert list(task.origins.items()) == [
            ("drawn", {"pictures": 44, "licences": ["gpl", "mit", "ofl"]}),
            ("tango", {"pictures": 7, "licences": []}),
        ]


def pooled(tmp_path: Path, heads: int = 5, seed: int = 0) -> Task:
    """240 pictures in groups of three, the first 180 in the training split; three groups of ten are flagged."""
    board = [
        {"image_id": n, "group": n - n % 3, "label": "flagged" if n // 3 % 10 < 3 else "clean", "tags": ["drawn"]}
        for n in range(240)
    ]
    return read(put(tmp_path / "t.parquet", board[:180]), put(tmp_path / "v.parquet", board[180:]), 1, heads, seed)


def test_a_single_head_learns_from_train_and_scores_val(train: Path, val: Path) -> None:
    task = read(train, val, 10)
    assert (task.train.heads.tolist(), task.val.heads.tolist()) == ([[1]] * 40, [[1]] * 4)


def test_each_of_several_heads_scores_one_part_of_both_splits_and_learns_from_the_rest(tmp_path: Path) -> None:
    task = pooled(tmp_path)
    assert task.train.ids.tolist() == task.val.ids.tolist() == list(range(240))
    assert task.train.heads.shape == (240, 5)
    assert (task.val.heads.sum(1) == 1).all()
    assert (task.train.heads + task.val.heads == 1).all()
    assert task.val.heads.sum(0) == pytest.approx([48] * 5, abs=12)


def test_each_part_has_its_share_of_each_label_and_keeps_groups_whole(tmp_path: Path) -> None:
    task = pooled(tmp_path)
    parts = task.val.heads.argmax(1)
    assert (parts.reshape(-1, 3) == parts[::3, None]).all(), "three pictures are a group"
    flagged = [int(task.val.labels[parts == part, 0].sum()) for part in range(5)]
    assert flagged == pytest.approx([14.4] * 5, abs=6)


@pytest.mark.parametrize("parts", ["artist", "origin"])
def test_an_artists_or_an_origins_pictures_are_in_one_part(tmp_path: Path, parts: str) -> None:
    board = [
        {
            "image_id": n,
            "group": n,
            "label": "flagged" if n % 3 else "clean",
            "tags": ["drawn"],
            "artist": None,
            parts: f"number {n % 20}" if n % 4 else None,
        }
        for n in range(240)
    ]
    train, val = put(tmp_path / "t.parquet", board[:180]), put(tmp_path / "v.parquet", board[180:])
    task = read(train, val, 1, 5, 0, parts)
    number = task.val.heads.argmax(1)
    names = {row["image_id"]: row[parts] for row in board}
    parts_of: dict[str, set[int]] = {}
    for image_id, part in zip(task.val.ids.tolist(), number.tolist(), strict=True):
        if names[image_id]:
            parts_of.setdefault(names[image_id], set()).add(part)
    assert len(parts_of) == 15
    assert {len(found) for found in parts_of.values()} == {1}
    assert (task.val.heads.sum(0) > 20).all()
    assert (task.train.heads + task.val.heads == 1).all()


def test_a_picture_without_an_origin_stays_with_its_artists(tmp_path: Path) -> None:
    board = [
        {
            "image_id": n,
            "group": n,
            "label": "flagged" if n % 2 else "clean",
            "tags": ["drawn"],
            "artist": f"artist {n % 12}",
            "origin": "a collection" if n % 12 < 2 else None,
        }
        for n in range(240)
    ]
    train, val = put(tmp_path / "t.parquet", board[:180]), put(tmp_path / "v.parquet", board[180:])
    task = read(train, val, 1, 5, 0, "origin")
    number = task.val.heads.argmax(1)
    assert len(set(number[task.val.ids % 12 < 2])) == 1
    others = [set(number[task.val.ids % 12 == artist]) for artist in range(2, 12)]
    assert {len(found) for found in others} == {1}
    assert len(set.union(*others)) > 2


def test_a_picture_that_links_two_parts_is_left_out(tmp_path: Path) -> None:
    board = [
        {
            "image_id": n,
            "group": 100 if n in (100, 101, 239) else n,
            "label": "flagged" if n % 3 else "clean",
            "tags": ["drawn"],
            "artist": None,
            "origin": f"collection {n % 2}",
        }
        for n in range(240)
    ]
    train, val = put(tmp_path / "t.parquet", board[:180]), put(tmp_path / "v.parquet", board[180:])
    task = read(train, val, 1, 2, 0, "origin")
    assert task.train.ids.tolist() == task.val.ids.tolist()
    assert set(range(240)) - set(task.val.ids.tolist()) <= {100, 101, 239}
    assert len(task.val.ids) < 240
    assert (task.val.heads.sum(1) == 1).all()
    assert (task.train.heads + task.val.heads == 1).all()


def test_a_split_without_artists_says_what_to_run(train: Path, val: Path) -> None:
    with pytest.raises(ModelError, match=r"the splits have no column artist; run `dvc repro split`"):
        read(train, val, 1, 5, 0, "artist")


def test_another_seed_gives_other_parts(tmp_path: Path) -> None:
    first, again, other = (pooled(tmp_path, seed=seed).val.heads for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_missing_split_says_what_to_run(tmp_path: Path, train: Path) -> None:
    with pytest.raises(ModelError, match=r"no split .*absent\.parquet; run `dvc repro split`"):
        read(train, tmp_path / "absent.parquet", 1)


def test_a_damaged_split_says_what_to_run(train: Path, val: Path) -> None:
    val.write_bytes(val.read_bytes()[:-30])
    with pytest.raises(ModelError, match=r"val\.parquet is not a readable parquet file; run `dvc repro split`"):
        read(train, val, 1)


@pytest.mark.parametrize(
    ("board", "policy"),
    [
        (rows(4), None),
        ([{"image_id": 1, "label": "clean"}], HOUSE),
        ([{"image_id": 1, "tags": ["drawn"]}], HOUSE),
    ],
    ids=["no policy", "no tags", "no labels"],
)
def test_a_split_of_another_layout_is_refused(
    board: list[Row], policy: dict[str, Any] | None, tmp_path: Path, train: Path
) -> None:
    val = put(tmp_path / "val.parquet", board, policy)
    with pytest.raises(ModelError, match=r"val\.parquet lacks the policy or columns"):
        read(train, val, 1)


def test_splits_of_different_policies_are_refused(train: Path, val: Path) -> None:
    put(val, rows(4), HOUSE | {"name": "people"})
    with pytest.raises(ModelError, match=r"val\.parquet are of different policies; run `dvc repro split`"):
        read(train, val, 1)


def test_a_label_needs_twenty_training_pictures(train: Path, val: Path) -> None:
    assert read(put(train, rows(40)), val, 1).train.labels.sum(0).tolist() == [20, 20]
    with pytest.raises(ModelError, match=r"label flagged has 19 training pictures but needs 20: add tags to it"):
        read(put(train, rows(39)), val, 1)


@pytest.mark.parametrize(
    ("label", "said"),
    [("clean", "has no pictures of label flagged"), ("flagged", "has only pictures of label flagged")],
)
def test_a_validation_split_without_both_classes_is_refused(label: str, said: str, train: Path, val: Path) -> None:
    put(val, rows(4, label=label))
    with pytest.raises(ModelError, match=rf"{said}, so no score can be measured: raise split\.val"):
        read(train, val, 1)
