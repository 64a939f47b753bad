"""What a stage, a version, a git rev and the workspace are served as, from another machine; and what is refused."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from repository import Project, run
from tiny import blue, red

from bot.lock import Entry, locked
from bot.release import Release, Repository
from stages.errors import ModelError
from stages.vision.predictor import Predictor

ROOT = Path(__file__).parents[2]
IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
}


@pytest.fixture(scope="module", autouse=True)
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (IDENTITY | {"HOME": str(tmp_path_factory.mktemp("home"))}).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def trained(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two commits, each with a model that has been pushed: `first` and `second` by git tag."""
    folder = tmp_path_factory.mktemp("trained")
    project = Project.begin(folder / "ours", folder / "storage")
    for name, sharpness in (("first", 50), ("second", 20)):
        project.train(sharpness)
        project.git("tag", name)
    project.push()
    return project


@pytest.fixture(scope="module")
def registered(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Both registered; one has been in `prod`, two is. And other artifacts that have gone ways of their own."""
    project = trained.copy(tmp_path_factory.mktemp("registered") / "ours")
    for date, (name, rev) in enumerate(
        [
            ("moderator@v1.0.0", "first"),
            ("moderator#prod#1", "first"),
            ("moderator@v2.0.0", "second"),
            ("moderator#prod#2", "second"),
            ("gone@v1.0.0", "first"),
            ("gone@v1.1.0", "second"),
            ("gone#prod#1", "first"),
            ("gone@v1.0.0!", "first"),
            ("old@v1.0.0", "first"),
            ("old#prod#1", "first"),
            ("old@deprecated", "first"),
            ("left#prod#1", "first"),
            ("left#prod!#2", "first"),
            ("plain#prod#1", "first"),
        ]
    ):
        project.tag(name, rev, date)
    for name, rev in (("tied#prod#1", "first"), ("tied#prod#2", "second")):
        project.tag(name, rev, 100)
    return project


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[str]:
    """Every file and folder of the releases."""
    return sorted(str(path.relative_to(cache / "releases")) for path in (cache / "releases").rglob("*"))


def no_children(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From now on, whoever asks one of them is out of time."""
    for name in names:
        monkeypatch.setattr(f"bot.release.{name}_SECONDS", 0.001)


def test_a_stage_is_followed_on_another_machine(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trained.copy(tmp_path / "ours")
    theirs = ours.clone(tmp_path / "theirs")
    assert not (theirs.folder / "models/moderator.onnx").exists()
    assert not (theirs.folder / ".dvc/cache").exists()
    path, url = Repository(str(theirs.folder)), Repository(ours.url, tmp_path / "elsewhere")

    def both() -> tuple[Release, str]:
        theirs.git("fetch", "--quiet", "--tags", "--force")
        one, other = path.release("moderator#prod"), url.release("moderator#prod")
        assert (one.version, one.commit, one.md5) == (other.version, other.commit, other.md5)
        assert {path.latest("moderator#prod"), url.latest("moderator#prod")} == {one.commit}
        assert one.model != other.model
        assert one.model.read_bytes() == other.model.read_bytes()
        return one, Predictor(one.model, one.sidecar).judge([red(), blue()])[0].verdict

    ours.gto("register", "moderator", "first", "--version", "v1.0.0")
    ours.gto("assign", "moderator", "--version", "v1.0.0", "--stage", "prod")
    first, verdict = both()
    assert (first.version, first.commit, verdict) == ("moderator@v1.0.0", ours.git("rev-parse", "first"), "flagged")
    assert first.md5 in ours.git("show", "first:dvc.lock")

    ours.gto("register", "moderator", "second", "--version", "v2.0.0")
    ours.gto("assign", "moderator", "--version", "v2.0.0", "--stage", "prod")
    second, verdict = both()
    assert (second.version, second.commit, verdict) == ("moderator@v2.0.0", ours.git("rev-parse", "second"), "flagged")
    assert second.md5 != first.md5

    no_children(monkeypatch, "DVC")  # what was served once is served again without
    ours.gto("assign", "moderator", "--version", "v1.0.0", "--stage", "prod", "--force")
    assert both() == (first, "flagged")


def test_a_rev_is_named_by_the_version_registered_for_it(registered: Project, tmp_path: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    first, second = ours.git("rev-parse", "first"), ours.git("rev-parse", "second")
    path, url = Repository(str(ours.folder)), Repository(ours.url)
    for asked, version, commit in (
        ("first", "moderator@v1.0.0", first),
        (first[:10], "moderator@v1.0.0", first),
        ("main", "moderator@v2.0.0", second),
        ("HEAD", "moderator@v2.0.0", second),
        ("HEAD~1", "moderator@v1.0.0", first),
        ("moderator#prod#2", "moderator@v2.0.0", second),
    ):
        assert path.release(asked) == url.release(asked), asked
        assert (path.release(asked).version, path.release(asked).commit) == (version, commit), asked
        assert path.latest(asked) == url.latest(asked) == commit, asked
    ours.tag("moderator@v1.0.0!", "first", 200)
    assert path.release("first").version == f"moderator@{first[:12]}"
    ours.git("tag", "moderator@v3.0.0", "first")  # gto takes annotated tags only
    assert path.release("first").version == f"moderator@{first[:12]}"
    ours.tag("moderator@v1.0.0#7", "first", 300)
    assert path.release("first").version == "moderator@v1.0.0"


def test_versions_are_gtos(registered: Project) -> None:
    repository = Repository(str(registered.folder))
    for asked, version in (("moderator@v1.0.0", "moderator@v1.0.0"), ("moderator@latest", "moderator@v2.0.0")):
        assert repository.release(asked).version == version
    assert repository.latest("plain#prod") == registered.git("rev-parse", "first"), "a stage of no registered version"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "moderator#dev",
            r"moderator#dev names no version in .*ours; there are v2.0.0 \(prod\), v1.0.0 \(prod\); `gto a",
        ),
        ("absent#prod", "absent#prod names no version in .*: none of absent is registered; `gto register absent` and"),
        ("gone#prod", r"gone#prod names no version in .*; there are v1.1.0, v1.0.0 \(deregistered\); `gto assign gone"),
        ("gone@v1.0.0", r"gone@v1.0.0 names no version in .*; there are v1.1.0, v1.0.0 \(deregistered\); `gto as"),
        ("old#prod", "old#prod names no version in .*: old is deprecated; register or assign a version again"),
        ("left#prod", "left#prod names no version in .*; there are [0-9a-f]{40}; `gto assign left"),
        ("tied#prod", r"tied#prod is ambiguous in .*: \w+ and \w+ were tagged in the same second or for several com"),
        ("old@v1.0", r"ours has no branch, tag or commit 'old@v1.0'; `git tag` lists the tags, and a model is named"),
    ],
)
def test_what_gto_does_not_know_is_told_with_what_it_knows(registered: Project, asked: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Repository(str(registered.folder)).latest(asked)


def test_tags_that_gto_cannot_read_are_told(registered: Project, tmp_path: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    ours.tag("moderator@v9.0.0", "HEAD:dvc.yaml", 500)
    with pytest.raises(
        ModelError, match=r"asking gto for moderator#prod in .* failed \(\w+: .*\); see what `gto show mo"
    ):
        Repository(str(ours.folder)).release("moderator#prod")


def test_the_current_folders_repository_is_the_default(registered: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(registered.folder / "models")
    repository = Repository()
    monkeypatch.chdir("/")
    assert repository.release("main").version == "moderator@v2.0.0"


def test_a_bare_repository_is_used_in_place(registered: Project, tmp_path: Path) -> None:
    registered.git("clone", "--quiet", "--bare", str(registered.folder), str(tmp_path / "bare"))
    repository = Repository(str(tmp_path / "bare"))
    assert repository.release("moderator#prod").version == "moderator@v2.0.0"
    with pytest.raises(ModelError, match="bare has no working tree, so no `workspace`"):
        repository.release("workspace")


def test_neither_gto_nor_dvc_is_asked_twice(registered: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(str(registered.folder))
    found = repository.release("moderator#prod")
    no_children(monkeypatch, "GTO", "DVC")
    assert repository.release("moderator#prod") == found
    assert repository.latest("moderator#prod") == found.commit
    with pytest.raises(ModelError, match=r"asking gto for moderator@v1.0.0 in .*ours took longer than 0.001 s and was"):
        repository.release("moderator@v1.0.0")


def test_the_tags_of_a_url_are_followed(trained: Project, tmp_path: Path) -> None:
    ours = trained.copy(tmp_path / "ours")
    repository = Repository(ours.url)
    for tag in ("chosen", "chosen/one"):  # the second cannot be beside the first, which is deleted
        for rev in ("first", "second", "first"):
            ours.git("tag", "--force", tag, rev)
            assert repository.latest(tag) == ours.git("rev-parse", rev)
        ours.git("tag", "--delete", tag)
        with pytest.raises(ModelError, match=f"{ours.url} has no branch, tag or commit '{tag}'; `git tag` lists"):
            repository.latest(tag)


def test_several_processes_may_do_it_at_once(registered: Project, cache: Path) -> None:
    code = f"from bot.release import *; print(Repository({registered.url!r}).release('main').version)"

    def another(_: int) -> str:
        return run(ROOT, sys.executable, "-c", code)

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(another, range(3))) == {"moderator@v2.0.0"}
    assert len(kept(cache)) == 3, "a folder with two files, and nothing beside it"
    assert len(list((cache / "repositories").iterdir())) == 1


def test_the_workspace_is_what_its_lock_says(registered: Project, tmp_path: Path, cache: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    found = repository.release("workspace")
    assert (found.version, found.commit, repository.latest("workspace")) == ("moderator@workspace", "", "")
    assert found.model.read_bytes() == (ours.folder / "models/moderator.onnx").read_bytes()
    before = kept(cache)
    for name in ("moderator.json", "moderator.onnx"):
        file = ours.folder / "models" / name
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(ModelError, match=f"models/{name} in the working tree .*ours is not there, its dvc.lock"):
            repository.release("workspace")
        file.write_bytes(content[:-1] + b" ")
        with pytest.raises(ModelError, match=f"{name} in .* has the md5 .*; `dvc checkout` puts the locked one back"):
            repository.release("workspace")
        file.write_bytes(content)
    assert kept(cache) == before
    assert repository.release("workspace") == found


def test_a_kept_file_that_was_changed_is_fetched_anew(registered: Project, tmp_path: Path, cache: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    found = repository.release("main")
    right = {file: file.read_bytes() for file in (found.model, found.sidecar)}
    for file, content in right.items():
        file.chmod(0o644)
        file.write_bytes(content + b" ")
        assert repository.release("main") == found
        assert {file: file.read_bytes() for file in right} == right

    found.model.unlink()
    shutil.rmtree(ours.folder / ".dvc/cache")
    run(ours.folder, "dvc", "remote", "modify", "--local", "storage", "url", str(tmp_path / "nowhere"))
    with pytest.raises(
        ModelError, match=r"neither DVC's cache nor its remote has models/moderator.onnx of .* at \w{12};"
    ):
        repository.release("main")
    assert not found.model.exists()
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("place", ["cache", "remote"])
def test_what_dvc_has_under_a_wrong_md5_is_refused(
    registered: Project, tmp_path: Path, cache: Path, place: str
) -> None:
    ours = registered.copy(tmp_path / "ours")
    md5 = Repository(str(ours.folder), tmp_path / "elsewhere").release("main").md5
    objects = ours.folder / ".dvc/cache"
    if place == "remote":
        shutil.copytree(ours.storage, tmp_path / "storage")
        shutil.rmtree(objects)
        objects = tmp_path / "storage"
        run(ours.folder, "dvc", "remote", "modify", "--local", "storage", "url", str(objects))
    file = objects / "files/md5" / md5[:2] / md5[2:]
    file.chmod(0o644)
    file.write_bytes(b"another model")
    with pytest.raises(
        ModelError, match=rf"DVC's copy of models/moderator.onnx of .* has the md5 \w+, dvc.lock says {md5}"
    ):
        Repository(str(ours.folder)).release("main")
    assert kept(cache) == []


@pytest.mark.parametrize(
    "rev", ["", "absent", "--all", "^HEAD", "HEAD~1..HEAD", "HEAD\n", "\0", "HEAD:dvc.yaml", "🐴" * 300]
)
def test_what_is_no_commit_is_refused(registered: Project, rev: str) -> None:
    with pytest.raises(ModelError, match="ours has no branch, tag or commit '"):
        Repository(str(registered.folder)).release(rev)


@pytest.mark.parametrize(
    "where", ["absent/folder", "--upload-pack=touch x", "ext::sh -c true", "ftp://host/x.git", "a\0b"]
)
def test_what_is_no_place_is_refused(where: str) -> None:
    with pytest.raises(ModelError, match="is neither a folder nor a URL that git can fetch: https://, ssh://"):
        Repository(where).release("main")


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"\(fatal: not a git repository .*\); name one with --repo, by its folder or URL"
    ):
        Repository(str(tmp_path)).release("main")


def test_a_url_is_told_and_kept_without_its_password(tmp_path: Path, cache: Path) -> None:
    for url, shown in (
        ("http://user:pass:word@127.0.0.1:9/x.git", r"http://127\.0\.0\.1:9/x\.git"),
        (f"file://user:pass@word@{tmp_path}/absent", f"file://{tmp_path}/absent"),
        ("http://user:pass/word@127.0.0.1:9/x.git", r"http://127\.0\.0\.1:9/x\.git"),
    ):
        with pytest.raises(ModelError, match=rf"^{shown} cannot be fetched \(.*\); check the address, the") as caught:
            Repository(url).release("main")
        assert "pass" not in str(caught.value)
        assert "word" not in str(caught.value)
    assert list((cache / "repositories").iterdir()) == []


def test_a_copy_keeps_no_url(registered: Project, cache: Path) -> None:
    assert Repository(registered.url).latest("first")
    (copy,) = (cache / "repositories").iterdir()
    assert not [file for file in copy.rglob("*") if file.is_file() and registered.url.encode() in file.read_bytes()]


def test_a_host_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.git.FETCH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        with pytest.raises(ModelError, match=f"fetching {url} took longer than 0.5 s and was stopped; see whether the"):
            Repository(url).latest("main")


def test_a_commit_without_a_lock_is_refused(registered: Project, tmp_path: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    (ours.folder / "dvc.lock").write_bytes(b" " * 3_000_000)
    ours.commit()
    with pytest.raises(
        ModelError, match=r"dvc.lock of .*ours at \w{12} has 3,000,000 bytes, more than 2,000,000 are not"
    ):
        repository.release("main")
    with pytest.raises(ModelError, match=r"dvc.lock has more than 2,000,000 bytes"):
        repository.release("workspace")
    (ours.folder / "dvc.lock").unlink()
    ours.commit()
    for asked, at in (("main", r"ours at \w{12}"), ("workspace", "the working tree .*ours")):
        with pytest.raises(ModelError, match=rf"there is no dvc.lock of .*{at}; commit what `dvc repro` wrote"):
            repository.release(asked)


LOCK = "stages: {train: {outs: [{path: models/moderator.onnx, md5: %s}, {path: models/moderator.json, md5: %s}]}}"
YAML = "artifacts: {moderator: {path: models/moderator.onnx}}"
A, B = "a" * 32, "0123456789" * 3 + "01"


def test_the_lock_tells_both_files() -> None:
    entries = Entry("models/moderator.onnx", A), Entry("models/moderator.json", B)
    assert locked(YAML.encode(), (LOCK % (A, B)).encode(), "moderator", "x") == entries


BOMB = "a: &a {x: y}\n" + "".join(
    f"{n}: &{n} {{<<: [{', '.join(['*' + p] * 9)}]}}\n" for p, n in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("definition", "lock", "said"),
    [
        (None, LOCK % (A, B), "there is no dvc.yaml of x at 1; commit"),
        (YAML, None, "there is no dvc.lock of x at 1; commit"),
        (YAML, "", "dvc.lock of x at 1 is no mapping; mend it"),
        ("[]", LOCK % (A, B), "dvc.yaml of x at 1 is no mapping; mend it"),
        ("artifacts: [moderator]", LOCK % (A, B), "dvc.yaml of x at 1 has no artifact moderator; declare one"),
        ("artifacts: {moderator: {path: [x]}}", LOCK % (A, B), "dvc.yaml of x at 1 has no artifact moderator"),
        (YAML.replace("models", ".."), LOCK % (A, B), "path '../moderator.onnx', which is no .onnx file in the repo"),
        (YAML.replace("models", "/etc"), LOCK % (A, B), "path '/etc/moderator.onnx', which is no .onnx file in the"),
        (YAML.replace(".onnx", ".pkl"), LOCK % (A, B), "path 'models/moderator.pkl', which is no .onnx file in the"),
        (
            YAML,
            "stages: {train: {outs: 1}, test: 2}",
            "dvc.lock of x at 1 has no models/moderator.onnx; make it an out",
        ),
        (YAML, LOCK.replace(".json", ".txt") % (A, B), "dvc.lock of x at 1 has no models/moderator.json; make it"),
        (YAML, LOCK % (A + ".dir", B), "dvc.lock of x at 1 gives models/moderator.onnx no md5 of 32 hex digits"),
        (YAML, LOCK % (A, "../../x"), "dvc.lock of x at 1 gives models/moderator.json no md5 of 32 hex digits"),
        (YAML, LOCK % (A, "[1]"), "dvc.lock of x at 1 gives models/moderator.json no md5 of 32 hex digits"),
        (YAML, "a: b: c", "dvc.lock of x at 1 is no YAML that can be read"),
        (YAML, "a: *b", "dvc.lock of x at 1 is no YAML that can be read"),
        (YAML, "\0", "dvc.lock of x at 1 is no YAML that can be read"),
        (YAML, "[" * 200_000, "dvc.lock of x at 1 is no YAML that can be read .nested too deep.; mend it"),
        (YAML, "- " * 200_000, "dvc.lock of x at 1 is no YAML that can be read .nested too deep.; mend it"),
        (YAML, BOMB, "dvc.lock of x at 1 has no models/moderator.onnx"),
        (YAML, "stages: !!python/object/apply:os.system [exit]", "dvc.lock of x at 1 has no models/moderator.onnx"),
    ],
)
def test_a_hostile_repository_is_refused(definition: str | None, lock: str | None, said: str) -> None:
    contents = [text if text is None else text.encode() for text in (definition, lock)]
    with pytest.raises(ModelError, match=said):
        locked(contents[0], contents[1], "moderator", "x at 1")


def test_neither_torch_nor_pandas_nor_dvc_nor_gto_is_imported() -> None:
    code = "import sys; import bot.release; print({'torch', 'pandas', 'dvc', 'gto'} & set(sys.modules))"
    assert run(ROOT, sys.executable, "-c", code) == "set()"
