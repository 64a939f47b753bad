"""The written tables of other hands' pictures: well formed, with every concept of the policies; what they choose."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.sample import tables
from stages.sample.tables import Chosen, Origin, Rule

POLICIES = Path(__file__).parents[3] / "conf/policy"
WRITTEN = tables.read()
CONCEPTS = {
    "flags": {"flag"},
    "cards and gambling": {"card", "dice", "casino", "gambling"},
    "weapons": {"weapon", "sword", "gun", "knife", "axe", "military", "bomb"},
    "alcohol and tobacco": {"alcohol", "smoking", "tobacco", "pipe"},
}
"""Of the policy `house`: concept -> its commonest tags."""


def flagged(policy: str) -> set[str]:
    """The tags that the policy's first label takes."""
    (label, _) = yaml.safe_load((POLICIES / f"{policy}.yaml").read_text())["extract"]["policy"]["labels"].values()
    return set(label["any"])


def tags_of(origin: Origin) -> set[str]:
    return {tag for rule in origin.rules for tag in rule.tags}


@pytest.mark.parametrize("tags", CONCEPTS.values(), ids=CONCEPTS.keys())
def test_each_concept_of_house_is_drawn_by_four_others(tags: set[str]) -> None:
    assert tags <= flagged("house")
    assert len([origin.name for origin in WRITTEN if tags_of(origin) & tags]) >= 4


def test_people_are_drawn_by_three_others() -> None:
    assert len([origin.name for origin in WRITTEN if tags_of(origin) & flagged("people")]) >= 3


@pytest.mark.parametrize("policy", ["house", "people"])
def test_most_origins_draw_harmless_pictures_as_well(policy: str) -> None:
    harmless = [origin for origin in WRITTEN if any(r.tags and not flagged(policy) & {*r.tags} for r in origin.rules)]
    assert len(harmless) > len(WRITTEN) / 2


@pytest.mark.parametrize("origin", WRITTEN, ids=lambda origin: origin.name)
def test_a_table_is_whole(origin: Origin) -> None:
    assert re.fullmatch("[0-9a-f]{64}", origin.sha256)
    assert re.fullmatch("[a-z-]+", origin.name)
    assert origin.licence
    assert origin.creator
    assert origin.homepage.startswith("http")
    assert all(tag == tag.lower().strip() and "," not in tag for tag in tags_of(origin))
    assert all(re.compile(pattern) for rule in origin.rules for pattern in rule.names)


def test_each_origin_has_a_thousand_ids() -> None:
    first = sorted(origin.first_id for origin in WRITTEN)
    assert first[0] >= 10_000, "Open Clip Art's are below"
    assert all(after - before >= 1000 for before, after in itertools.pairwise(first))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tgas": []}, "tgas"),
        ({"rules": [{"names": ["a"], "tags": ["b"], "mots": 1}]}, "mots"),
        ({"reader": "x"}, "reader"),
    ],
)
def test_a_misspelt_word_is_an_error(tmp_path: Path, change: dict[str, object], message: str) -> None:
    table = yaml.safe_load((tables.FOLDER / "tango.yaml").read_text())
    (tmp_path / "tango.yaml").write_text(yaml.safe_dump(table | change))
    with pytest.raises(pydantic.ValidationError, match=message):
        tables.read(tmp_path)


def origin_of(*rules: Rule) -> Origin:
    return Origin("p", "1", "0" * 64, "someone", "GPL-2+", "http://x", "files", "usr", 10_000, rules, "mine")


def test_the_first_rule_that_matches_the_whole_name_decides() -> None:
    origin = origin_of(
        Rule(("cats/black.*", "nothing"), ()), Rule(("cats/.*",), ("cat", "animal")), Rule((".*/dog",), ("dog",))
    )
    names = ["cats/black tom", "cats/dog", "cats/tom", "dogs/dog", "dogs/dogs", "a cats/tom"]
    assert tables.choose(origin, names) == [
        Chosen("cats/dog", ("cat", "animal")),
        Chosen("cats/tom", ("cat", "animal")),
        Chosen("dogs/dog", ("dog",)),
    ]


@given(st.sets(st.text("ab/", min_size=1, max_size=5)), st.integers(0, 5), st.randoms())
def test_at_most_so_many_are_chosen_in_whatever_order_they_come(names: set[str], most: int, random: object) -> None:
    origin = origin_of(Rule(("a.*",), ("a",), most), Rule((".*",), ("other",)))
    chosen = tables.choose(origin, names)
    shuffled = sorted(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tables.choose(origin, shuffled) == chosen
    limited = [picture for picture in chosen if picture.tags == ("a",)]
    assert len(limited) == min(most, sum(name.startswith("a") for name in names))
    assert {picture.name for picture in chosen} - {p.name for p in limited} == {n for n in names if n[0] != "a"}


def test_a_larger_number_keeps_what_a_smaller_one_takes() -> None:
    names = [f"picture {number}" for number in range(100)]
    few, many = ({p.name for p in tables.choose(origin_of(Rule((".*",), ("x",), most)), names)} for most in (7, 30))
    assert few < many
    assert len({name[:9] for name in few}) > 3, "spread over the package"
