"""A changed file of code reruns the stages whose rooms it is in, and no others: as DVC itself says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clones import ROOT, Clone, after_smoke
from dvc.repo import Repo

from stages.config.compose import compose

ROWS = re.compile(r"^\| `((?:stages|conf)/\S+\.(?:py|j2|csv))` \| (.+) \|$", re.MULTILINE)
"""A row of the table: a file, the stages that rerun after any edit of it, even of a comment, or `none`."""
TABLE = ROWS.findall((ROOT / "stages/README.md").read_text())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return after_smoke(tmp_path_factory)


def changed(clone: Clone) -> set[str]:
    """The stages of which DVC says that a dep has changed."""
    with Repo(str(clone.folder)) as repo:
        status = repo.status()
    return {
        name.rpartition(":")[2]
        for name, changes in status.items()
        if any("changed deps" in change for change in changes if isinstance(change, dict))
    }


@pytest.mark.parametrize(("file", "stages"), TABLE, ids=[file for file, _ in TABLE])
def test_an_edit_of_a_file_reruns_exactly_these_stages(clone: Clone, file: str, stages: str) -> None:
    path = clone.folder / file
    text = path.read_text()
    path.write_text(f"{text}# A comment.\n")
    try:
        assert changed(clone) == set(stages.split(", ")) - {"none"}
    finally:
        path.write_text(text)


def test_the_table_names_a_file_of_every_room() -> None:
    rooms = {path.name for path in (ROOT / "stages").iterdir() if (path / "__init__.py").exists()}
    assert {Path(file).parts[1] for file, _ in TABLE} >= rooms - {"folder"}, "which is the next test's"


@pytest.mark.parametrize(
    ("source", "rooms"),
    [("sample", {"sample"}), ("folder", {"folder"}), ("derpibooru", set()), ("furbooru", set())],
)
def test_the_code_of_a_source_is_a_dep_of_that_source_alone(clone: Clone, source: str, rooms: set[str]) -> None:
    path = clone.folder / "params.yaml"
    text = path.read_text()
    path.write_text(compose([f"source={source}"], ROOT / "conf"))
    try:
        with Repo(str(clone.folder)) as repo:
            stages = {stage.name: {dep.def_path for dep in stage.deps} for stage in repo.index.stages}
        makers = {"sample": "sample", "folder@pictures": "folder"}
        code = {
            Path(dep).name
            for name, deps in stages.items()
            if name not in makers or makers[name] == source
            for dep in deps
        }
        assert code & {"sample", "folder"} == rooms
        # The stage that makes a dump of a folder is there for that source alone: elsewhere its input would be missing.
        assert ("folder@pictures" in stages) == (source == "folder")
    finally:
        path.write_text(text)
