"""A model's way to the bot, as in bot/README.md: pushed to S3, tagged, served from another machine, rolled back."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import ROOT, Clone
from moto.server import ThreadedMotoServer
from repository import IDENTITY, PIPELINE, GitProject
from tiny import redness

BIN = Path(sys.executable).parent
SECRET = "s3cret+key/of+the+remote"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
README = (ROOT / "bot/README.md").read_text()
SHARDS = """  download:
    cmd: mkdir -p data/download/shards && for n in 0 1 2; do echo $n > data/download/shards/shard-$n.parquet; done
    outs: [data/download/shards]
"""
THERE, BOT, BACK = re.findall(
    r"^```sh\n(.*?)^```$",
    README.partition("\n## Deploying from a tag\n")[2].partition("\n## A moderator's first five minutes\n")[0],
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A real S3 server on loopback, with the bucket `bucket`."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1"
        ).create_bucket(Bucket="bucket")
        yield url
    finally:
        server.stop()


class Machine:
    """A folder to give commands in, with a home, a cache root and S3's credentials in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        home = folder.parent / f"home of {folder.name}"
        home.mkdir()
        (home / "token").write_text("a-token")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLPY_", "AWS_", "GIT_"))
        }
        self.environment |= KEYS | IDENTITY
        self.environment |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(home),
            "MLPY_CACHE": str(home / "cache"),
        }

    def run(self, *words: str, code: int = 0) -> str:
        words = tuple(word.replace("/run/secrets/discord", f"{self.environment['HOME']}/token") for word in words)
        variables = dict(
            word.split("=", 1) for word in itertools.takewhile(lambda word: re.match("[A-Z_]+=", word), words)
        )
        done = subprocess.run(
            words[len(variables) :],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == code, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def follow(self, block: str, **instead: str) -> str:
        """Give the README's commands, with words in them replaced; those that end by themselves -> what they print."""
        for word, other in instead.items():
            block = block.replace(word, other)
        lines = (shlex.split(re.sub(r"#(?=\w)", r"\\#", line), comments=True) for line in block.splitlines())
        return "".join(self.run(*words) for words in lines if words[0] != "make" and "--poll" not in words)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Machine:
    """Where one trains: a clone of this checkout with a toy of a pipeline, an S3 remote, and an origin to push to."""
    folder = tmp_path_factory.mktemp("remote")
    machine = Machine(Clone(folder).folder)
    (machine.folder / "dvc.yaml").write_text(PIPELINE + SHARDS)
    (machine.folder / "dvc.lock").unlink()
    for words in (
        ("git", "checkout", "--quiet", "-B", "main"),
        ("git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder / "origin.git")),
        ("git", "remote", "set-url", "origin", str(folder / "origin.git")),
        tuple(re.findall(r"`(dvc remote add [^`]+)`; credentials", README)[0].split()),
        ("dvc", "remote", "modify", "store", "endpointurl", endpoint),
    ):
        machine.run(*words)
    redness(machine.folder / "source/moderator.onnx", 50)
    machine.run("dvc", "repro", "--quiet")
    machine.run("git", "add", "--all")
    machine.run("git", "commit", "--quiet", "--message", "Served before")
    machine.run("dvc", "push", "--quiet")
    GitProject(machine.folder).tags([("moderator@v1.1.0", "HEAD")])
    redness(machine.folder / "source/moderator.onnx", 20)
    machine.run("git", "add", "source")
    machine.follow(THERE)
    return machine


@pytest.fixture(scope="module")
def bot(there: Machine) -> Machine:
    """Where the bot is to run: another home, no cache of DVC's, nothing but the clone and the credentials."""
    folder = there.folder.parent / "mlpy"
    there.run("git", "clone", "--quiet", f"file://{there.folder.parent / 'origin.git'}", str(folder))
    assert not (folder / "models/moderator.onnx").exists()
    return Machine(folder)


@contextlib.contextmanager
def no_key_known(endpoint: str) -> Iterator[None]:
    """Have the S3 server refuse every key for a while."""

    def accept(requests: bytes) -> None:
        asked = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", requests, {"Content-Type": "text/plain"})
        urllib.request.urlopen(asked).close()

    accept(b"0")
    try:
        yield
    finally:
        accept(b"inf")


def md5(machine: Machine, rev: str) -> str:
    lock = machine.run("git", "show", f"{rev}:dvc.lock")
    return lock.partition("path: models/moderator.onnx")[2].split("md5: ")[1][:32]


@pytest.mark.slow
def test_the_readmes_commands_bring_a_model_to_the_bot_and_back(there: Machine, bot: Machine) -> None:
    origin = f"file://{there.folder.parent / 'origin.git'}"
    clone, rest = BOT.split("\n", 1)
    assert clone.split() == ["git", "clone", "https://.../mlpy.git", "mlpy"]  # as the fixture did
    first, second = md5(there, "moderator@v1.1.0"), md5(there, "moderator@v1.2.0")
    assert first != second
    assert f"ready to serve moderator@v1.2.0 (md5 {second})" in bot.follow(rest, **{"https://.../mlpy.git": origin})
    there.follow(BACK)
    assert f"ready to serve moderator@v1.1.0 (md5 {first})" in bot.follow(rest, **{"https://.../mlpy.git": origin})


def test_another_machine_pulls_what_was_pushed(there: Machine, bot: Machine) -> None:
    bot.run("dvc", "pull", "train", "download")
    assert (bot.folder / "models/moderator.onnx").read_bytes() == (there.folder / "source/moderator.onnx").read_bytes()
    assert [(bot.folder / f"data/download/shards/shard-{n}.parquet").read_text() for n in range(3)] == [
        "0\n",
        "1\n",
        "2\n",
    ]
    assert "up to date" in bot.run("dvc", "status", "train", "download")


def test_credentials_are_in_no_git_file_log_or_error(there: Machine, bot: Machine, endpoint: str) -> None:
    cache = bot.environment["MLPY_CACHE"]
    command = ["python", "-m", "bot", "--model", "moderator#prod", "--check", "--repo"]
    variables = ("MLPY_DISCORD_TOKEN_FILE=/run/secrets/discord", f"MLPY_CACHE={cache} of another")
    with no_key_known(endpoint):
        error = bot.run(*variables, *command, f"file://{there.folder.parent / 'origin.git'}", code=1)
    assert re.search(r"error: getting moderator of .* through DVC failed \(.*\); check the remote's address", error)
    assert "Traceback" not in error
    committed = there.run("git", "log", "--all", "--patch", "--", ".dvc", "dvc.lock", "source", "models", "data")
    for said in (
        there.said,
        bot.said,
        committed,
        *(path.read_text() for path in (there.folder / ".dvc").glob("config*")),
    ):
        assert not any(key in said for key in (SECRET, KEYS["AWS_ACCESS_KEY_ID"]))
