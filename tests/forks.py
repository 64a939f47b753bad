"""Commands without the second that a new Python takes for the download stage's imports: a process that has them forks.

What a command does with signals, or beside others, is tested on a new Python.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORKING = """
import json, os, runpy, sys
import pandas, stages.download
for line in sys.stdin:
    module, words, folder, environment, *outputs = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for number, output in enumerate((os.devnull, *outputs)):
            os.dup2(os.open(output, os.O_RDWR), number)
        sys.argv = [module, *words]
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@cache
def forking() -> subprocess.Popen[str]:
    """The process that forks, for all of the session."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def run(
    module: str, *words: str, folder: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m module words`, as `subprocess.run` does it with captured text."""
    process = forking()
    assert process.stdin
    assert process.stdout
    with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as error:
        given = dict(os.environ) if environment is None else environment
        told = [module, words, str(folder or Path.cwd()), given, output.name, error.name]
        print(json.dumps(told), file=process.stdin, flush=True)
        code = os.waitstatus_to_exitcode(int(process.stdout.readline()))
        said = [Path(file.name).read_text() for file in (output, error)]
    return subprocess.CompletedProcess([module, *words], code, *said)
