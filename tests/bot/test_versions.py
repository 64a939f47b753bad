"""What gto says that a stage or a version names, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from repository import GitProject

from bot.model.release import Repository
from stages.workspace.errors import ModelError


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> GitProject:
    """Two commits, and artifacts that have gone ways of their own."""
    project = GitProject.of_two_commits(tmp_path_factory.mktemp("tagged") / "ours")
    project.tags(
        [
            *(("moderator@v1.0.0", "first"), ("moderator@v2.0.0", "second")),
            *(("moderator#prod#1", "first"), ("moderator#prod#2", "second"), ("moderator#prod#3", "first")),
            *(("gone@v1.0.0", "first"), ("gone@v1.1.0", "second"), ("gone#prod#1", "first"), ("gone@v1.0.0!", "first")),
            *(("old@v1.0.0", "first"), ("old#prod#1", "first"), ("old@deprecated", "first")),
            *(("left@v1.0.0", "first"), ("left@v1.1.0", "second"), ("left#prod#1", "first"), ("left#prod!#2", "first")),
            *(("back@v1.0.0", "first"), ("back@v1.1.0", "second"), ("back#prod#1", "first"), ("back#prod#2", "second")),
            ("back#prod!#3", "second"),
            ("unregistered#prod#1", "first"),
        ]
    )
    for name, rev in (("tied#prod#1", "first"), ("tied#prod#2", "second")):
        project.tag(name, rev, 100)
    project.git("tag", "light@v1.0.0", "first")
    return project


@pytest.mark.parametrize(
    ("asked", "rev"),
    [
        ("moderator#prod", "first"),  # rolled back
        ("moderator@v2.0.0", "second"),
        ("moderator@latest", "second"),
        ("back#prod", "first"),  # unassigned from the later one, so the earlier one has it again
        ("unregistered#prod", "first"),
    ],
)
def test_gto_resolves_stages_and_versions(tagged: GitProject, asked: str, rev: str) -> None:
    assert Repository(str(tagged.folder)).latest(asked) == tagged.git("rev-parse", rev)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "moderator#dev",
            r"moderator#dev names no version in .*ours, which has v2.0.0, v1.0.0 \(prod\); tag one with `gto assign mo",
        ),
        (
            "light@v1.0.0",
            "light@v1.0.0 names no version in .*: no version of light is registered; tag one with `gto register li",
        ),
        (
            "gone#prod",
            r"gone#prod names no version in .*, which has v1.1.0, v1.0.0 \(deregistered\); tag one with `gto assign go",
        ),
        (
            "gone@v1.0.0",
            r"gone@v1.0.0 names no version in .*, which has v1.1.0, v1.0.0 \(deregistered\); tag one with `gto assig",
        ),
        (
            "old#prod",
            "old#prod names no version in .*: old is deprecated; to undo that, register or assign a version again",
        ),
        (
            "left#prod",
            "left#prod names no version in .*, which has v1.1.0, v1.0.0; tag one with `gto assign left --version",
        ),
        ("tied#prod", r"tied#prod is ambiguous in .*: \w+ and \w+ were tagged in the same second or for several com"),
        (
            "moderator@v1.0",
            "ours has no branch, tag or commit 'moderator@v1.0'; list the tags with `git tag`, or name a model",
        ),
    ],
)
def test_names_unknown_to_gto_are_reported_with_the_known_versions(
    tagged: GitProject, asked: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Repository(str(tagged.folder)).latest(asked)


def test_tags_that_gto_cannot_read_are_reported(tagged: GitProject, tmp_path: Path) -> None:
    ours = tagged.copy(tmp_path / "ours")
    ours.tag("moderator@v9.0.0", "HEAD:file", 200)
    with pytest.raises(
        ModelError, match=r"asking gto for moderator#prod in .* failed \(\w+: .*\); check the output of `gto show m"
    ):
        Repository(str(ours.folder)).latest("moderator#prod")


def test_gto_is_asked_again_only_after_a_tag_changed(
    tagged: GitProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tagged.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    assert repository.latest("moderator#prod") == ours.git("rev-parse", "first")
    monkeypatch.setattr("bot.model.release.GTO_SECONDS", 0.001)
    assert repository.latest("moderator#prod") == ours.git("rev-parse", "first")
    ours.tag("moderator#prod#4", "second", 200)
    with pytest.raises(ModelError, match=r"asking gto for moderator#prod in .*ours took longer than 0.001 s; check"):
        repository.latest("moderator#prod")
    monkeypatch.undo()
    assert repository.latest("moderator#prod") == ours.git("rev-parse", "second")
