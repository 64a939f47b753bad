"""The command: an answer survives its end, whatever ends it, and what cannot be used is one sentence."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import corrections
from stages.catalogue.corrections import read
from stages.workspace import paths
from stages.workspace.errors import MLpyError
from tests.stages.labelling.conftest import FILE, put
from tests.test_promises import ROOT, closure


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.corrections", "--who", "ann", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(address: str, image_id: int, label: str) -> Any:
    body = json.dumps({"id": image_id, "label": label, "before": None, "note": ""}).encode()
    request = urllib.request.Request(f"{address}answers", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_a_killed_server_loses_no_answer(tmp_path: Path) -> None:
    put(tmp_path)
    for number, image_id in ((signal.SIGKILL, 3), (signal.SIGINT, 2)):
        with started(tmp_path) as process:
            assert process.stdout
            assert process.stderr
            address = process.stdout.readline().strip()
            assert answer(address, image_id, "flagged") == {"answer": "flagged"}
            process.send_signal(number)
            told = process.stderr.read()
        assert [row.image_id for row in read(tmp_path / FILE)] == sorted({3, image_id})
    assert process.returncode == 128 + signal.SIGINT
    assert told.endswith("interrupted; finished work is kept\n")
    assert "Traceback" not in told
    assert address.split("/")[3] not in told, "the token is printed once, as the answer"
    assert [path.name for path in (tmp_path / FILE).parent.iterdir()] == [FILE.name]


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["corrections", "--port", str(port)])
        with pytest.raises(
            MLpyError, match=rf"^port {port} of 127\.0\.0\.1 cannot be used; choose another with --port$"
        ):
            corrections.main()
    FILE.write_text("image_id,policy,label\n7,house\n")
    with pytest.raises(MLpyError, match=rf"^{FILE}, line 2: it has 2 cells"):
        corrections.main()
    values = yaml.safe_load(paths.PARAMS.read_text())
    values["extract"]["corrections"] = None
    paths.PARAMS.write_text(yaml.safe_dump(values))
    with pytest.raises(MLpyError, match=r"^extract\.corrections names no file; set it in conf/source/"):
        corrections.main()
    monkeypatch.setattr(sys, "argv", ["corrections", "--port", "70000"])
    with pytest.raises(SystemExit):
        corrections.main()


@pytest.mark.parametrize("library", ["torch", "pandas"])
def test_it_never_imports(library: str) -> None:
    for file in closure("stages.corrections"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert library not in [name.partition(".")[0] for name in names], file
