"""Commands without the seconds that a new Python takes to import torch or pandas: a process that has them forks.

The code that runs is that of the folder it runs in, as with `python -m`. What a command does with signals, or beside
others, is tested on a new Python; so is the whole pipeline, once.

    python tests/forks.py serve SOCKET MODULE...  imports the modules, then forks for whoever asks
    python tests/forks.py ask SOCKET -m MODULE WORD...  runs `python -m MODULE WORD...` in a fork of that process
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
DOWNLOADING = ("pandas", "stages.download")
TRAINING = ("stages.train", "stages.test")


@cache
def forking(*modules: str) -> Path:
    """Start a process that has these modules and forks, for all of the session.

    Returns:
        The folder of its `socket`, and of a `python` that asks it to run those of the modules that are stages.
    """
    kept = tempfile.TemporaryDirectory(prefix="forks-")
    folder = Path(kept.name)
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", str(folder / "socket"), *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline(), f"none of {modules} may fail to import"
    atexit.register(kept.cleanup)
    atexit.register(process.communicate)  # its stdin is closed, so that it ends
    asked = "|".join(f"'-m {module}'" for module in modules if module.startswith("stages."))
    ask = shlex.join([sys.executable, "-IS", __file__, "ask", str(folder / "socket")])
    text = f'#!/bin/sh\ncase "$1 $2" in {asked}) exec {ask} "$@";; esac\nexec {shlex.quote(sys.executable)} "$@"\n'
    (folder / "python").write_text(text)
    (folder / "python").chmod(0o755)
    return folder


def run(
    modules: tuple[str, ...], module: str, *words: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """`python -m module words` in a fork of a process with `modules`, as by `subprocess.run` with captured text."""
    with tempfile.TemporaryFile("r+") as output, tempfile.TemporaryFile("r+") as error:
        files = [sys.__stdin__.fileno(), output.fileno(), error.fileno()]
        with socket.socket(socket.AF_UNIX) as connection:
            code = _told(connection, forking(*modules) / "socket", [module, *words], folder, environment, files)
        for file in (output, error):
            file.seek(0)
        return subprocess.CompletedProcess([module, *words], code, output.read(), error.read())


def _told(
    connection: socket.socket,
    server: Path | str,
    words: list[str],
    folder: Path | str,
    environment: Mapping[str, str],
    files: list[int],
) -> int:
    """The exit code of a command that the server runs for us with these files as its stdin, stdout and stderr."""
    connection.connect(str(server))
    text = json.dumps([words, str(folder), dict(environment)]).encode() + b"\n"
    socket.send_fds(connection, [text[:1]], files)
    connection.sendall(text[1:])
    return int(connection.recv(100))


def _ask(server: str, _: str, *words: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: connection.send(bytes([number])))
        code = _told(connection, server, list(words), Path.cwd(), os.environ, [0, 1, 2])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _serve(path: str, *modules: str) -> None:
    sys.path[0] = str(ROOT)
    for module in modules:
        importlib.import_module(module)
    del sys.path[0]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        os.write(1, b"\n")  # it may be asked now
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _attend(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _attend(connection: socket.socket) -> NoReturn:
    """Run a command in a child of ours, and tell whoever asked for it how it ended; the asker's end is its end, too."""
    text, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer)
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.close()
        _run(*json.loads(text), files)
    while True:
        ready = select.select([connection, reader], [], [])[0]
        if reader in ready:
            os.read(reader, 100)
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                os._exit(0)
        if connection in ready:
            numbers = connection.recv(100)
            for number in numbers or [signal.SIGKILL]:
                os.kill(child, number)
            if not numbers:
                os._exit(0)


def _run(words: list[str], folder: str, environment: dict[str, str], files: list[int]) -> NoReturn:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate(files):
        os.dup2(file, number)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    if (Path(folder) / "stages").exists():
        for name in [name for name in sys.modules if name.partition(".")[0] == "stages"]:
            del sys.modules[name]  # that are of our own folder
    module, *_ = sys.argv = words
    sys.modules.pop(module, None)
    code: object = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code or 0
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        # Libraries would wait for threads that they began when they were imported, and a fork has none of them.
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    sys.exit({"serve": _serve, "ask": _ask}[sys.argv[1]](*sys.argv[2:]))
