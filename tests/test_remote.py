"""The pipeline's artifacts travel by an S3 remote: pushed from one clone, pulled into another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

BIN = Path(sys.executable).parent
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
STAGE = """
stages:
  train:
    cmd: python -c "import os; os.makedirs('models'); open('models/moderator.onnx', 'w').write('weights')"
    outs: [models/moderator.onnx]
  download:
    cmd: python -c "import os; os.makedirs('shards'); [open(f'shards/shard-{n}', 'w').write(str(n)) for n in range(3)]"
    outs: [shards]
"""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A real S3 server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, **KEYS, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def commit(folder: Path) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "x")


def test_push_and_pull_through_s3(tmp_path: Path, endpoint: str) -> None:
    import boto3

    boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    ).create_bucket(Bucket="artifacts")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    run(ours, "git", "init", "-q")
    run(ours, "dvc", "init", "-q")
    run(ours, "dvc", "remote", "add", "--default", "storage", "s3://artifacts/mlpy")
    run(ours, "dvc", "remote", "modify", "storage", "endpointurl", endpoint)
    (ours / "dvc.yaml").write_text(STAGE)
    run(ours, "dvc", "repro", "-q")
    commit(ours)
    assert "5 files pushed" in run(ours, "dvc", "push")

    run(tmp_path, "git", "clone", "-q", str(ours), str(theirs))
    assert not (theirs / "models/moderator.onnx").exists()
    run(theirs, "dvc", "pull")
    assert (theirs / "models/moderator.onnx").read_text() == "weights"
    assert sorted(file.name for file in (theirs / "shards").iterdir()) == ["shard-0", "shard-1", "shard-2"]
    assert "up to date" in run(theirs, "dvc", "status")

    assert not any(secret in (ours / ".dvc/config").read_text() for secret in ("test", "KEY"))
