"""The file of corrections: what is read, and what is not."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.catalogue.corrections import COLUMNS, LEAST_DIGITS, UNDECIDED, Correction, read, write
from stages.workspace.errors import CorrectionsError

ROOT = Path(__file__).parents[3]
HEADER = ",".join(COLUMNS)
HASH = "0123456789abcdef"
WRONG = {
    "": "line 1: it has neither the column image_id nor sha512",
    "image_id;policy;label\n": "line 1: 'image_id;policy;label' is not a column; the columns are `image_id,sha512,",
    "image_id,image_id\n": "line 1: a column is there twice",
    "policy,label\n": "line 1: it has neither the column image_id nor sha512",
    f"{HEADER}\n1,,house\n": "line 2: it has 3 cells, the first line 8; put a cell with a comma in quotes",
    f"{HEADER}\nx,,house,clean,,,,\n": "line 2: the image_id 'x' is no number of an image",
    f"{HEADER}\n-1,,house,clean,,,,\n": "line 2: the image_id '-1' is no number",
    f"{HEADER}\n0,,house,clean,,,,\n": "line 2: the image_id '0' is no number",
    f"{HEADER}\n{2**63},,house,clean,,,,\n": f"line 2: the image_id '{2**63}' is no number",
    f"{HEADER}\n,abc,house,clean,,,,\n": "line 2: the sha512 'abc' has not 16 to 128 hexadecimal digits",
    f"{HEADER}\n,{HASH}xyz,house,clean,,,,\n": f"line 2: the sha512 '{HASH}xyz' has not",
    f"{HEADER}\n,,house,clean,,,,\n": "line 2: it names no image; give its image_id or sha512",
    f"{HEADER}\n1,,house,,,,,\n": "line 2: it has a policy alone; give both policy and label, or tags",
    f"{HEADER}\n1,,,clean,,,,\n": "line 2: it has a label alone",
    f"{HEADER}\n1,,house,clean,gun,,,\n": "line 2: it has a label and tags",
    f"{HEADER}\n1,,,,,,ann,\n": "line 2: it has neither a label nor tags",
    f'{HEADER}\n1,,,,"gun, toy",toy,,\n': "line 2: it adds and removes the tag 'toy'; leave one of them out",
    f'{HEADER}\n1,,,,"""gun",,,\n': "line 2: add_tags is no list of tags",
    f'{HEADER}\n1,,house,clean,,,,"two\nlines"\n2,,,,,,,\n': "line 4: it has neither",
    f'{HEADER}\n1,,house,clean,,,,"no end\n': "it is not CSV",
    f"{HEADER}\n<<<<<<< HEAD\n1,,house,clean,,,,\n": "line 2: git could not merge it; choose",
}
"""Content of a file -> its error."""


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_cannot_be_understood_is_an_error_that_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text(text)
    with pytest.raises(CorrectionsError) as error:
        read(file)
    assert str(error.value).startswith(f"{file}, line ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_text_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    with pytest.raises(CorrectionsError, match=f"corrections.csv: there is no such file; write one with .*{HEADER}"):
        read(file)
    file.write_bytes(f"{HEADER}\n1,,house,clean,,,J\xf6rg,\n".encode("latin-1"))
    with pytest.raises(CorrectionsError, match="line 2: it is not UTF-8; save it as CSV in UTF-8"):
        read(file)


def test_columns_may_be_in_any_order_and_are_optional(tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    file.write_bytes("label,policy,image_id\r\nclean,house, 7 \r\n\r\nflagged,house,8\r\n".encode("utf-8-sig"))
    assert [(row.image_id, row.label, row.line) for row in read(file)] == [(7, "clean", 2), (8, "flagged", 4)]


words = st.text(st.characters(codec="utf-8"), max_size=12).map(str.strip)
tag_lists = st.lists(words.filter(bool), max_size=3, unique=True).map(tuple)


@st.composite
def corrections(draw: st.DrawFn) -> Correction:
    digits = st.text("0123456789abcdef", min_size=LEAST_DIGITS, max_size=128)
    image_id, sha512 = draw(
        st.one_of(
            st.tuples(st.integers(1, 2**63 - 1), st.just("") | digits),
            st.tuples(st.none(), digits),
        )
    )
    who, why = draw(words), draw(words)
    if draw(st.booleans()):
        return Correction(image_id, sha512, draw(words.filter(bool)), draw(words.filter(bool)), who=who, why=why)
    add, remove = draw(tag_lists.filter(bool)), draw(tag_lists)
    return Correction(image_id, sha512, "", "", add, tuple(tag for tag in remove if tag not in add), who, why)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=st.lists(corrections(), max_size=6), seed=st.integers())
def test_what_is_written_is_read_and_in_one_order(tmp_path: Path, rows: list[Correction], seed: int) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    write(one, rows)
    assert sorted(read(one), key=repr) == sorted(rows, key=repr)
    random.Random(seed).shuffle(rows)
    write(other, rows)
    assert other.read_bytes() == one.read_bytes()


def test_the_sample_has_what_the_audit_saw() -> None:
    shown = {"house": ("flagged", "clean"), "people": ("people", "others")}
    rows = {(row.policy, row.image_id): row for row in read(ROOT / "conf/corrections/sample.csv")}
    with (ROOT / "tests/benchmarks/label_audit.csv").open() as file:
        for seen in csv.DictReader(file):
            if seen["stratum"].startswith("rest"):  # a check of what has no correction
                assert (seen["policy"], int(seen["image_id"])) not in rows
                continue
            row = rows[seen["policy"], int(seen["image_id"])]
            yes, no = shown[seen["policy"]]
            assert row.label == {"yes": yes, "no": no, "arguable": UNDECIDED}[seen["shown"]], row
