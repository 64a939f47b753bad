"""What a stage, a version, a git rev and the workspace are served as, on another machine too; and what is refused."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from repository import GitProject, run
from tiny import blue, red

from bot.model.release import Release, Repository
from stages.inference.predictor import Predictor
from stages.workspace.errors import ModelError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> GitProject:
    """Two commits, each with a model that has been pushed: `first` and `second` by git tag. Both have been served."""
    folder = tmp_path_factory.mktemp("trained")
    project = GitProject.begin(folder / "ours")
    project.track(folder / "storage")
    for name, sharpness in (("first", 50), ("second", 20)):
        project.train(sharpness)
        project.git("tag", name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLPY_CACHE", str(folder / "cache"))
            Repository(str(project.folder)).release("workspace")
    project.push()
    return project


@pytest.fixture(scope="module")
def registered(trained: GitProject, tmp_path_factory: pytest.TempPathFactory) -> GitProject:
    """Both registered; one has been in `prod`, two is."""
    project = trained.copy(tmp_path_factory.mktemp("registered") / "ours")
    project.tags(
        [
            *(("moderator@v1.0.0", "first"), ("moderator#prod#1", "first")),
            *(("moderator@v2.0.0", "second"), ("moderator#prod#2", "second")),
        ]
    )
    return project


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def warm(trained: GitProject, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache is one that has both models already."""
    folder = trained.folder.parent / "cache"
    monkeypatch.setenv("MLPY_CACHE", str(folder))
    return folder


def kept(cache: Path) -> list[str]:
    """Every file and folder of the releases."""
    return sorted(str(path.relative_to(cache / "releases")) for path in (cache / "releases").rglob("*"))


@pytest.mark.slow
def test_a_stage_is_followed_on_another_machine(
    trained: GitProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trained.copy(tmp_path / "ours")
    theirs = ours.clone(tmp_path / "theirs")
    assert not (theirs.folder / "models/moderator.onnx").exists()
    assert not (theirs.folder / ".dvc/cache").exists()
    path, url = Repository(str(theirs.folder)), Repository(ours.url)

    def served() -> Release:
        theirs.git("fetch", "--quiet", "--tags", "--force")
        releases = []
        for repository, folder in ((path, "cache"), (url, "elsewhere")):  # so that each has to fetch
            monkeypatch.setenv("MLPY_CACHE", str(tmp_path / folder))
            releases.append(repository.release("moderator#prod"))
            assert repository.latest("moderator#prod") == releases[-1].commit
        one, other = releases
        assert (one.version, one.commit, one.md5) == (other.version, other.commit, other.md5)
        assert one.model != other.model
        for release in (one, other):
            judged = Predictor(release.model, release.sidecar).judge([red(), blue()])
            assert [judgement.verdict for judgement in judged] == ["flagged", "clean"]
        return one

    ours.gto("register", "moderator", "first", "--version", "v1.0.0")
    ours.gto("assign", "moderator", "--version", "v1.0.0", "--stage", "prod")
    first = served()
    assert (first.version, first.commit) == ("moderator@v1.0.0", ours.git("rev-parse", "first"))
    assert first.md5 in ours.git("show", "first:dvc.lock")

    ours.gto("register", "moderator", "second", "--version", "v2.0.0")
    ours.gto("assign", "moderator", "--version", "v2.0.0", "--stage", "prod")
    second = served()
    assert (second.version, second.commit) == ("moderator@v2.0.0", ours.git("rev-parse", "second"))
    assert second.md5 in ours.git("show", "second:dvc.lock")
    assert second.md5 != first.md5

    monkeypatch.setattr("bot.model.release.DVC_SECONDS", 0.001)  # what was served once is served again without it
    ours.gto("assign", "moderator", "--version", "v1.0.0", "--stage", "prod", "--force")
    assert served() == first


def test_a_revision_has_the_version_registered_for_it(registered: GitProject, tmp_path: Path, warm: Path) -> None:
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
        release = path.release(asked)
        assert (release.version, release.commit) == (version, commit), asked
        assert url.release(asked) == release
        assert path.latest(asked) == url.latest(asked) == commit, asked
    for tag, version in (("v1.0.0!", first[:12]), ("v1.0.0#7", "v1.0.0"), ("v1.0.0!#8", first[:12])):
        ours.tag(f"moderator@{tag}", "first", 100 + len(tag))
        assert path.release("first").version == f"moderator@{version}"
    ours.git("tag", "moderator@v3.0.0", "first")  # gto takes annotated tags only
    assert path.release("first").version == f"moderator@{first[:12]}"


def test_a_version_and_a_stage_of_no_version(registered: GitProject, tmp_path: Path, warm: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    assert repository.release("moderator@v1.0.0").version == "moderator@v1.0.0"
    ours.git("commit", "--quiet", "--allow-empty", "--message", "x")
    ours.tag("moderator#dev#3", "HEAD", 100)
    commit = ours.git("rev-parse", "HEAD")
    assert repository.release("moderator#dev").version == f"moderator@{commit[:12]}"


def test_the_current_folders_repository_is_the_default(
    registered: GitProject, monkeypatch: pytest.MonkeyPatch, warm: Path
) -> None:
    monkeypatch.chdir(registered.folder / "models")
    repository = Repository()
    monkeypatch.chdir("/")
    assert repository.release("main").version == "moderator@v2.0.0"


def test_bare_and_linked_repositories_are_used_in_place(
    registered: GitProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = registered.copy(tmp_path / "ours")
    ours.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    ours.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "first")
    for name, version in (("bare", "moderator@v2.0.0"), ("linked", "moderator@v1.0.0")):
        monkeypatch.setenv("MLPY_CACHE", str(tmp_path / f"cache of {name}"))
        repository = Repository(str(tmp_path / name))
        assert repository.release("HEAD").version == version
    with pytest.raises(
        ModelError, match=r"bare has no working tree; instead of `workspace`, name a stage or a revision"
    ):
        Repository(str(tmp_path / "bare")).release("workspace")


def test_several_processes_may_do_it_at_once(registered: GitProject, cache: Path) -> None:
    code = f"from bot.model.release import *; print(Repository({registered.url!r}).release('main').version)"

    def another(_: int) -> str:
        return run(ROOT, sys.executable, "-c", code)

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(another, range(2))) == {"moderator@v2.0.0"}
    assert len(kept(cache)) == 3, "a folder with two files, and nothing beside it"


def test_the_workspaces_files_must_match_its_lock(registered: GitProject, tmp_path: Path, cache: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    release = repository.release("workspace")
    assert (release.version, release.commit, repository.latest("workspace")) == ("moderator@workspace", "", "")
    assert release.model.read_bytes() == (ours.folder / "models/moderator.onnx").read_bytes()
    before = kept(cache)
    for name in ("moderator.json", "moderator.onnx"):
        file = ours.folder / "models" / name
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(
            ModelError, match=f"models/{name} in the working tree .*ours is missing, but its dvc.lock has"
        ):
            repository.release("workspace")
        file.write_bytes(content[:-1] + b"?")
        with pytest.raises(
            ModelError, match=rf"{name} in .* has the md5 \w+, but its .*; restore the locked file with `dvc checkout`"
        ):
            repository.release("workspace")
        file.write_bytes(content)
    assert kept(cache) == before
    assert repository.release("workspace") == release


def test_a_damaged_file_in_the_cache_is_fetched_again(
    trained: GitProject, registered: GitProject, tmp_path: Path, cache: Path
) -> None:
    warm = trained.folder.parent / "cache"
    shutil.copytree(warm, cache)
    ours = registered.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    release = repository.release("main")
    right = {file: file.read_bytes() for file in (release.model, release.sidecar)}
    for file in right:
        file.write_bytes(b"another")
    assert repository.release("main") == release
    assert {file: file.read_bytes() for file in right} == right

    release.model.unlink()
    shutil.rmtree(ours.folder / ".dvc/cache")
    ours.remote(tmp_path / "nowhere")
    with pytest.raises(
        ModelError, match=r"neither DVC's cache nor its remote has models/moderator.onnx of .* at \w{12};"
    ):
        repository.release("main")
    assert not release.model.exists()
    assert len(kept(cache)) == len(kept(warm)) - 1


@pytest.mark.parametrize("place", ["cache", "remote"])
def test_what_dvc_has_under_a_wrong_md5_is_refused(
    trained: GitProject, registered: GitProject, tmp_path: Path, cache: Path, place: str
) -> None:
    ours = registered.copy(tmp_path / "ours")
    md5 = ours.git("show", "main:dvc.lock").partition("path: models/moderator.onnx")[2].split("md5: ")[1][:32]
    objects = ours.folder / ".dvc/cache"
    if place == "remote":
        shutil.rmtree(objects)
        objects = tmp_path / "storage"
        shutil.copytree(trained.folder.parent / "storage", objects)
        ours.remote(objects)
    file = objects / "files/md5" / md5[:2] / md5[2:]
    file.chmod(0o644)
    file.write_bytes(b"another model")
    with pytest.raises(
        ModelError, match=rf"DVC's copy of models/moderator.onnx of .* has the md5 \w+, but .* has {md5}: it"
    ):
        Repository(str(ours.folder)).release("main")
    assert kept(cache) == []


def test_an_unreachable_remote_is_reported(registered: GitProject, tmp_path: Path, cache: Path) -> None:
    ours = registered.clone(tmp_path / "ours")
    run(ours.folder, "dvc", "remote", "add", "--local", "--force", "storage", "ssh://user:password@127.0.0.1/x")
    with pytest.raises(
        ModelError, match=r"getting moderator of .* at \w{12} through DVC failed \(.*\); check the"
    ) as caught:
        Repository(str(ours.folder)).release("main")
    assert "password" not in str(caught.value)
    assert kept(cache) == []


def test_a_commit_without_a_lock_is_refused(registered: GitProject, tmp_path: Path) -> None:
    ours = registered.copy(tmp_path / "ours")
    repository = Repository(str(ours.folder))
    (ours.folder / "dvc.lock").write_bytes(b" " * 3_000_000)
    ours.commit()
    with pytest.raises(
        ModelError, match=r"dvc.lock of .*ours at \w{12} has 3,000,000 bytes, over the limit of 2,000,000"
    ):
        repository.release("main")
    with pytest.raises(ModelError, match=r"dvc\.lock is over the limit of 2,000,000 bytes"):
        repository.release("workspace")
    (ours.folder / "dvc.lock").unlink()
    ours.commit()
    for asked, at in (("main", r"ours at \w{12}"), ("workspace", "the working tree .*ours")):
        with pytest.raises(ModelError, match=rf"there is no dvc.lock of .*{at}; run `dvc repro` and commit"):
            repository.release(asked)


def test_an_unwritable_cache_is_reported(
    registered: GitProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"the cache cannot be written \(.*\); set MLPY_CACHE to another folder"):
        Repository(str(registered.folder)).release("main")


def test_neither_torch_nor_pandas_nor_dvc_nor_gto_is_imported() -> None:
    code = "import sys; import bot.model.release; print({'torch', 'pandas', 'dvc', 'gto'} & set(sys.modules))"
    assert run(ROOT, sys.executable, "-c", code) == "set()"
