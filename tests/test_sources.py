"""A board of one's own, as conf/README.md says: its dump fetched by DVC over HTTP, checked, restored and extracted."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import yaml
from clones import ROOT, Clone

from stages.config.compose import compose
from stages.workspace import paths

GUIDE = (ROOT / "conf/README.md").read_text()
DUMP = ROOT / "tests/stages/dumps/postgresql-17.pgdump"
SHA256 = hashlib.sha256(DUMP.read_bytes()).hexdigest()
POLICY = """# @package _global_
extract:
  policy:
    name: guns
    kind: binary
    labels:
      flagged: {any: [gun]}
      clean: {rest: true}
    overlap: exclude
    min_tags: 1
"""


class Published(BaseHTTPRequestHandler):
    """Serves the dump under any path. `dvc update` compares its ETag."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{SHA256[:12]}"')
        self.send_header("Content-Length", str(DUMP.stat().st_size))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(DUMP.read_bytes())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address that a board's data-dump page links to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Published) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/dump.pgdump"
        server.shutdown()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("sources"))
    (clone.folder / "conf/policy/guns.yaml").write_text(POLICY)
    return clone


def commands(address: str) -> list[list[str]]:
    """The guide's commands for a board whose dump is at `address`, up to the stage that would request pictures."""
    section = GUIDE.partition("\n## Your own board\n")[2].partition("```sh\n")[2].partition("```")[0]
    filled = re.sub(r"https://\S+", address, section).replace("sha256=...", f"sha256={SHA256}")
    lines = filled.replace("policy=ratings", "policy=guns").replace("dvc repro", "dvc repro extract").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    # tests/test_experiments.py runs that one.
    return [command for command in words if "stages.experiments" not in command]


def test_a_dump_that_is_not_the_published_one_is_refused(clone: Clone) -> None:
    dump, wrong = clone.folder.parent / "a board.pgdump", "f" * 64
    dump.symlink_to(DUMP)
    clone.run("python", "-m", "stages.config", "source=furbooru", f"restore.dump='{dump}'", f"restore.sha256={wrong}")
    run = subprocess.run(
        ["dvc", "repro", "restore"],
        cwd=clone.folder,
        env=clone.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert [line for line in run.stderr.splitlines() if line.startswith("error:")] == [
        f"error: {dump} has SHA-256 {SHA256}, not the published {wrong}: fetch it again, or correct restore.sha256"
    ]
    assert "Traceback" not in run.stderr
    assert not (clone.folder / paths.LITE_DUMP).exists()


def test_the_guides_commands_bring_a_board(clone: Clone, address: str) -> None:
    for words in commands(address):
        clone.run(*words)
    images = pd.read_parquet(clone.folder / paths.IMAGES)
    assert set(images.label) == {"flagged", "clean"}
    assert images.url.str.startswith("https://derpicdn.net/img/").all()
    assert clone.json(paths.TABLES)["dump"]["sha256"] == SHA256
    staged = clone.run("git", "diff", "--cached", "--name-only").split()
    assert {"data/derpibooru.pgdump.dvc", "params.yaml", "dvc.lock"} <= set(staged)
    assert not [name for name in staged if name.endswith(".pgdump")]
    assert "??" not in clone.run("git", "status", "--porcelain", "data", "models").split()


def test_another_board_is_a_file_in_conf(clone: Clone) -> None:
    conf = clone.folder / "conf"
    theirs = (conf / "source/furbooru.yaml").read_text()
    (conf / "source/example.yaml").write_text(
        theirs.replace("furrycdn.org", "pictures.example.org").replace("furbooru", "example").replace("4.0", "1.5")
    )
    values = yaml.safe_load(compose(["source=example"], conf))
    assert values["restore"]["dump"] == "data/example.pgdump"
    assert values["extract"]["root"] == "https://pictures.example.org/img"
    assert (values["download"]["hosts"], values["download"]["rate"]) == (["pictures.example.org"], 1.5)


def test_every_source_fills_in_the_same_parameters() -> None:
    keys = {
        path.stem: {
            f"{section}.{key}" for section, values in yaml.safe_load(path.read_text()).items() for key in values
        }
        for path in (ROOT / "conf/source").glob("*.yaml")
    }
    optional = {
        "download.faults",
        "download.folder",
        "download.shard_size",
        "extract.formats",
        "extract.version",
        "split.phash_max_distance",
    }
    assert all(names - optional == keys["derpibooru"] - optional for names in keys.values())
