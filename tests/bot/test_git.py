"""Where a repository may be, what is no commit of it, and a URL's copy that follows the tags there."""

from __future__ import annotations

import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from repository import GitProject, run

from bot.model.release import Repository
from stages.workspace.errors import ModelError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> GitProject:
    """Two commits, tagged `first` and `second`."""
    return GitProject.of_two_commits(tmp_path_factory.mktemp("plain") / "ours")


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/repositories"


@pytest.mark.parametrize(
    "rev", ["", "absent", "--all", "^HEAD", "first..HEAD", "HEAD\n", "\0", "HEAD:file", "🐴" * 300]
)
def test_an_invalid_revision_is_refused(plain: GitProject, rev: str) -> None:
    with pytest.raises(
        ModelError, match=r"ours has no branch, tag or commit '.*; list the tags with `git tag`, or name a model"
    ):
        Repository(str(plain.folder)).latest(rev)


@pytest.mark.parametrize("where", ["absent/folder", "--upload-pack=touch x", "ext::sh -c true", "ftp://host/x", "a\0b"])
def test_an_invalid_repository_address_is_refused(where: str) -> None:
    with pytest.raises(
        ModelError, match="is neither a folder nor a URL that git can fetch; write it as https://, ssh://"
    ):
        Repository(where).latest("main")


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\(fatal: not a git repository .*\); name one with --repo, by its folder or"):
        Repository(str(tmp_path)).latest("main")


def test_variables_of_a_git_hook_are_ignored(plain: GitProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert Repository(str(plain.folder)).latest("main") == plain.git("--git-dir=.git", "rev-parse", "main")


def test_missing_git_is_reported(plain: GitProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ModelError, match=r"reading .*ours needs git, which is not installed"):
        Repository(str(plain.folder)).latest("main")


def test_the_tags_of_a_url_are_followed(plain: GitProject, tmp_path: Path) -> None:
    ours = plain.copy(tmp_path / "ours")
    repository = Repository(ours.url)
    for tag in ("chosen", "chosen/one"):  # the second cannot be beside the first, which is deleted
        for rev in ("first", "second", "first"):
            ours.git("tag", "--force", tag, rev)
            assert repository.latest(tag) == ours.git("rev-parse", rev)
        ours.git("tag", "--delete", tag)
        with pytest.raises(ModelError, match=f"{ours.url} has no branch, tag or commit '{tag}'; list the tags with"):
            repository.latest(tag)


def test_a_branch_that_was_rewritten_is_followed(plain: GitProject, tmp_path: Path) -> None:
    ours = plain.copy(tmp_path / "ours")
    repository = Repository(ours.url)
    assert repository.latest("HEAD") == repository.latest("main") == ours.git("rev-parse", "second")
    ours.git("reset", "--quiet", "--hard", "first")
    (ours.folder / "file").write_text("third")
    third = ours.commit()
    assert repository.latest("HEAD") == repository.latest("main") == third


def test_a_ref_that_another_process_has_locked_is_waited_for(
    plain: GitProject, tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = plain.copy(tmp_path / "ours")
    repository = Repository(ours.url)
    repository.latest("main")
    (copy,) = copies.iterdir()
    lock = copy / "refs/tags/second.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    ours.git("tag", "--force", "second", "first")
    with pytest.raises(ModelError, match=rf"error: cannot lock ref .*; if they are right, delete the mirror {copy}"):
        repository.latest("second")
    monkeypatch.setattr("bot.model.git.time", SimpleNamespace(sleep=lambda _: lock.unlink()))  # in its first pause
    assert repository.latest("second") == ours.git("rev-parse", "first")


def test_several_processes_may_fetch_at_once(plain: GitProject, tmp_path: Path, copies: Path) -> None:
    ours = plain.copy(tmp_path / "ours")
    code = f"from bot.model.release import *; print(Repository({ours.url!r}).latest('tag-50'))"

    def another(_: int) -> str:
        return run(ROOT, sys.executable, "-c", code)

    with ThreadPoolExecutor(4) as pool:
        for rev in ("first", "second"):
            for number in range(100):
                ours.git("tag", "--force", f"tag-{number}", rev)
            assert set(pool.map(another, range(4))) == {ours.git("rev-parse", rev)}
    assert [folder.suffix for folder in copies.iterdir()] == [".git"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass:word@127.0.0.1:9/x.git", "http://127.0.0.1:9/x.git"),
        ("http://user:pass/word@127.0.0.1:9/x.git", "http://127.0.0.1:9/x.git"),
        ("http://password@127.0.0.1:9/x.git", "http://127.0.0.1:9/x.git"),
        ("file://user:pass@word@/absent", "file:///absent"),
    ],
)
def test_errors_contain_no_password(url: str, shown: str, copies: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Repository(url).latest("main")
    said = str(caught.value)
    assert said.startswith(f"{shown} cannot be fetched (fatal: ")
    assert said.endswith("); check the address, the network and git's credentials")
    assert "pass" not in said
    assert "word" not in said
    assert list(copies.iterdir()) == []


def test_a_copy_keeps_no_url(plain: GitProject, copies: Path) -> None:
    assert Repository(plain.url).latest("first") == plain.git("rev-parse", "first")
    (copy,) = copies.iterdir()
    assert not [file for file in copy.rglob("*") if file.is_file() and plain.url.encode() in file.read_bytes()]


def test_a_broken_mirror_is_reported_and_does_not_touch_an_enclosing_repository(
    plain: GitProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = GitProject.begin(tmp_path / "around")
    around.commit()
    around.git("tag", "mine")
    monkeypatch.setenv("MLPY_CACHE", str(around.folder / "cache"))
    repository = Repository(plain.url)
    repository.latest("first")
    (copy,) = (around.folder / "cache/repositories").iterdir()
    shutil.rmtree(copy)
    copy.mkdir()
    with pytest.raises(
        ModelError, match=rf"cannot be fetched \(fatal: not a git repository.*, delete the mirror {copy}"
    ):
        repository.latest("first")
    assert around.git("tag") == "mine"
    copy.rmdir()
    assert repository.latest("first") == plain.git("rev-parse", "first")


def test_a_host_that_does_not_answer_times_out(monkeypatch: pytest.MonkeyPatch, copies: Path) -> None:
    monkeypatch.setattr("bot.model.git.FETCH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        with pytest.raises(ModelError, match=f"fetching {url} took longer than 0.5 s; check that the host answers"):
            Repository(url).latest("main")
    assert list(copies.iterdir()) == []
