"""`metadata.csv` and `metadata.jsonl`, however a spreadsheet or a stranger wrote them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from folders import gathered, picture, write
from hypothesis import given
from hypothesis import strategies as st

from stages.folder import metadata
from stages.folder.metadata import MOST_LINE, MOST_NAMES
from stages.workspace.errors import FolderError

TEXT = 'file_name,label,tags\na.png,Cat,"Big,  old"\nb.png,dog,\n'
CAT, DOG = ("big", "cat", "old"), ("dog",)


def tags(folder: Path) -> dict[str, tuple[str, ...]]:
    """Each picture's tags."""
    with gathered(folder) as contents:
        return {image.path: image.tags for image in contents.images()}


def left_out(folder: Path) -> list[tuple[str, str]]:
    with gathered(folder) as contents:
        return [(path, reason) for path, reason, _ in contents.left_out()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    return write(tmp_path, {"a.png": picture("a"), "b.png": picture("b")})


@pytest.mark.parametrize(
    "written",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace('"Big,  old"', "Big,  old".replace(",", "|")).replace(",", ";").encode(),
        TEXT.replace('"Big,  old"', "Big;old").replace(",", "\t").encode(),
        b'"FILE_NAME" ,Label,TAGS\n./a.png,Cat,big|old\n.\\b.png,dog\n\n',
    ],
    ids=["plain", "byte order mark", "UTF-16", "Windows", "semicolons", "tabs", "capitals"],
)
def test_a_csv_is_read_as_spreadsheets_write_it(folder: Path, written: bytes) -> None:
    write(folder, {"metadata.csv": written})
    assert tags(folder) == {"a.png": CAT, "b.png": DOG}


def test_json_lines_are_read(folder: Path) -> None:
    rows = [
        {"file_name": "a.png", "labels": ["Cat", None, 1], "tags": "big; old"},
        {"file_name": "b.png", "label": True},
    ]
    write(folder, {"metadata.jsonl": "\n\n".join(map(json.dumps, rows))})
    assert tags(folder) == {"a.png": ("1", "big", "cat", "old"), "b.png": ("true",)}


def test_what_no_database_takes_is_replaced(folder: Path) -> None:
    write(
        folder,
        {
            "metadata.jsonl": r"""{"file_name": "a.png", "label": "c\u0000at\ud800", "source": "x\u0000y"}
{"file_name": "\ud800\u0000.png", "label": "dog"}"""
        },
    )
    with gathered(folder) as contents:
        assert [(image.tags, image.source) for image in contents.images()] == [(("c at?",), "x y")]
        assert [reason for _, reason, _ in contents.left_out()] == ["missing", "no_metadata"]


def test_metadata_in_folders_of_splits_are_relative_to_them(tmp_path: Path) -> None:
    row = "file_name,label\none.png,{}\n"
    folder = write(
        tmp_path,
        {
            "train/one.png": picture("a"),
            "train/metadata.csv": row.format("cat"),
            "test/one.png": picture("b"),
            "test/metadata.csv": row.format("dog"),
        },
    )
    assert tags(folder) == {"train/one.png": ("cat",), "test/one.png": ("dog",)}


def test_without_labels_they_add_to_the_folders(tmp_path: Path) -> None:
    text = "file_name,artist,origin,license,source,note\ncats/a.png,Zoe,zoo,CC0,https://example.org/a,x\n"
    folder = write(tmp_path, {"metadata.csv": text, "cats/a.png": picture("a"), "dogs/b.png": picture("b")})
    assert tags(folder) == {"cats/a.png": ("artist:zoe", "cats", "licence:cc0", "origin:zoo"), "dogs/b.png": ("dogs",)}
    with gathered(folder) as contents:
        assert {image.source for image in contents.images()} == {"https://example.org/a", ""}


def test_what_has_no_row_or_no_file_is_counted(folder: Path) -> None:
    text = "file_name,label\na.png,cat\ngone.png,cat\n../x.png,cat\n/etc/passwd,cat\na/../../y.png,cat\nc.png,\n"
    write(folder, {"metadata.csv": text, "c.png": picture("c")})
    assert left_out(folder) == [
        ("../x.png", "outside"),
        ("../y.png", "outside"),
        ("/etc/passwd", "outside"),
        ("b.png", "no_metadata"),
        ("c.png", "no_label"),
        ("gone.png", "missing"),
    ]


def test_an_empty_list_of_labels_is_no_missing_label(folder: Path) -> None:
    write(folder, {"metadata.csv": "file_name,labels\na.png,cat;dog\nb.png,\n"})
    assert tags(folder) == {"a.png": ("cat", "dog"), "b.png": ()}


def test_several_rows_of_a_file_are_one(folder: Path) -> None:
    write(folder, {"metadata.csv": "file_name,label\nb.png,dog\na.png,cat\na.png,cat\na.png,animal\n"})
    with gathered(folder) as contents:
        assert {image.path: image.tags for image in contents.images()} == {
            "a.png": ("animal", "cat"),
            "b.png": ("dog",),
        }
        assert contents.repeated_rows() == 2


def test_a_name_is_found_however_its_accents_are_composed(tmp_path: Path) -> None:
    composed, apart = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    text = f"file_name,label\n{composed}.png,{apart}\n"
    folder = write(tmp_path, {f"{apart}.png": picture("a"), "metadata.csv": text})
    assert tags(folder) == {f"{apart}.png": (composed,)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("csv", "", "has no column file_name in its first line"),
        ("csv", "name,label\na.png,cat\n", "has no column file_name in its first line"),
        ("csv", "file_name,label,Label\n", "has the column label twice; keep one of them"),
        (
            "csv",
            "file_name,label\na.png,cat\nb.png,a,dog\n",
            "line 3: 3 fields for 2 columns; put a field with a , in it",
        ),
        ("csv", "file_name,label\n,cat\n", "line 2: file_name is empty"),
        ("csv", b"file_name,label\na.png,caf\xe9\n", "is not UTF-8 .*; save it with the encoding UTF-8"),
        ("csv", "file_name,label\na.png," + "x" * 300, "line 2: xxx.* is longer than 250 characters"),
        ("csv", "file_name,tags\na.png," + "x" * 200_000, r"line 2: no readable CSV \(field larger"),
        ("csv", "file_name,tags\na.png," + "x" * MOST_LINE, "line 2: longer than 1,000,000 characters"),
        ("csv", "file_name,tags\na.png," + ";".join(map(str, range(MOST_NAMES + 1))), "line 2: more than 1,000 labels"),
        ("jsonl", '{"file_name": "a.png"', "line 1: no readable JSON"),
        ("jsonl", "[" * 100_000, "line 1: no readable JSON"),
        ("jsonl", '\n["a.png"]', "line 2: no object"),
        ("jsonl", '{"file_name": ["a.png"]}', "line 1: file_name is not one value"),
        ("jsonl", '{"file_name": "a.png", "tags": [{}]}', "line 1: tags is not a list of texts"),
        ("jsonl", '{"label": "cat"}', "line 1: file_name is empty"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    file = write(tmp_path, {f"metadata.{name}": text}) / f"metadata.{name}"
    with pytest.raises(FolderError, match=message) as caught:
        list(metadata.read(file))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_two_files_of_metadata_are_an_error(folder: Path) -> None:
    write(folder, {"metadata.csv": TEXT, "metadata.jsonl": ""})
    with pytest.raises(FolderError, match=r"has both metadata\.csv and metadata\.jsonl; keep one of them"):
        tags(folder)


def test_a_link_is_not_followed(folder: Path) -> None:
    (folder / "metadata.csv").symlink_to("/etc/passwd")
    with pytest.raises(FolderError, match=r"metadata\.csv is a symbolic link; put the file itself there"):
        tags(folder)


@given(written=st.binary(max_size=200), kind=st.sampled_from(["csv", "jsonl"]))
def test_any_bytes_are_rows_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, written: bytes, kind: str) -> None:
    file = tmp_path_factory.getbasetemp() / f"metadata.{kind}"
    file.write_bytes((b"file_name,labels,tags\n" if kind == "csv" else b"") + written)
    rows = []
    with contextlib.suppress(FolderError):
        rows += metadata.read(file)
    for row in rows:
        for name in (*row.labels, *row.tags, row.source):
            assert name.isprintable()
            name.encode()
