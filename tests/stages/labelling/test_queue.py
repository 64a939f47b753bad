from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.labelling import queue
from stages.workspace import paths
from stages.workspace.errors import ModelError
from tests.stages.labelling.conftest import HOSTILE, put, sha512


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_likely_wrong_labels_come_first_then_the_most_doubtful(folder: Path) -> None:
    put(folder)
    pictures = queue.read()
    assert list(pictures.items) == [3, 2, 5, 13, 1, 4]
    assert [item.is_likely for item in pictures.items.values()] == [True, True, False, False, False, False]
    first = pictures.items[3]
    assert (first.label, first.alternatives) == ("clean", ("flagged",))
    assert first.doubt == pytest.approx(0.95)
    assert (first.sha512, pictures.items[4].sha512) == (sha512(3), "")
    assert HOSTILE in first.tags
    assert pictures.rules == {"flagged": "any of gun", "clean": "everything else"}


def test_other_labels_are_offered_by_their_scores(folder: Path) -> None:
    put(folder, "multiclass")
    assert queue.read().items[3].alternatives == ("guns", "flags")
    put(folder, "multilabel")
    items = queue.read().items
    assert (items[3].label, items[3].alternatives) == ("none", ("guns", "flags"))
    assert (items[2].label, items[2].alternatives) == ("guns", ("none", "guns+flags"))
    assert items[2].doubt == pytest.approx(0.8)


def test_scores_of_pictures_that_the_scoring_head_did_not_learn_from_count(folder: Path) -> None:
    put(folder)
    table = pa.table({"image_id": [14, 1], "score_flagged": [1.0, 0.0], "score_clean": [0.0, 1.0]})
    paths.CHECKPOINT.parent.mkdir(parents=True)
    pq.write_table(table, paths.CHECKPOINT.parent / "out_of_fold.parquet")
    pq.write_table(pa.table({"epoch": [1]}), paths.CHECKPOINT.parent / "unrelated.parquet")
    items = queue.read().items
    assert list(items) == [3, 2, 14, 5, 13, 1, 4]
    assert items[1].scores["flagged"] == pytest.approx(0.9), "the test split's own scores go first"


def test_without_label_issues_the_scores_order(folder: Path) -> None:
    put(folder)
    paths.LABEL_ISSUES.unlink()
    assert list(queue.read().items) == [3, 2, 5, 13, 1, 4]


def test_what_is_missing_is_said(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"images\.parquet is missing or damaged; run `dvc repro`"):
        queue.read()
    put(folder)
    pq.write_table(pa.table({"image_id": [1], "score_sexual": [1.0]}), paths.PREDICTIONS)
    with pytest.raises(ModelError, match="there are no scores of the policy house's labels; run `dvc repro`"):
        queue.read()
    paths.PREDICTIONS.unlink()
    with pytest.raises(ModelError, match="there are no scores"):
        queue.read()
    paths.IMAGES.write_bytes(b"PAR1")
    with pytest.raises(ModelError, match=r"images\.parquet is missing or damaged"):
        queue.read()
