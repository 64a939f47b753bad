"""Runs decoders of untrusted bytes in processes that can be killed, with hard limits of CPU time and memory.

A decoder is C code that no exception interrupts: a small file can keep it busy for minutes, or make it take gigabytes.
So the kernel enforces the limits, and what exceeds them costs its own process, which is then replaced. Processes are
forked from a server that has the decoders imported, so a new one takes milliseconds and little memory of its own.

`multiprocessing` alone, on purpose. In other pools all workers share a channel, which nobody can use while a busy one
is stopped (pebble), or all end with any of them (loky, `concurrent.futures`). Here a worker has a pipe of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from stages.workspace.errors import PictureError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PRELOAD = ["stages.inference.frames"]
"""Modules that processes have at once: those of every decoder."""
SECONDS = 5.0
"""CPU time for one picture; the largest that a board accepts takes about one second."""
PIXEL_BYTES = 20
"""Memory for each pixel that a picture may have: what WebP takes, which needs most."""
OVERHEAD = 64_000_000
GROWTH = 64_000_000
"""Bytes of memory that a process may have needed for a picture and be kept: freed memory is not always given back."""
STATUS = Path("/proc/self/status")
"""What Linux says of a process; elsewhere memory has no limit, and time has."""
CRASHES = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE))
"""Signals that a bug in a decoder ends it with. Others come from outside."""


@dataclass(frozen=True)
class Limits:
    """Of one call."""

    seconds: float
    """CPU time."""
    memory: int
    """Bytes that a process may take beyond what it starts with, its input included."""
    niceness: int = 0
    """By how much the processes' priority is lowered."""

    @classmethod
    def of_pictures(cls, max_bytes: int, max_pixels: int) -> Limits:
        """What decoding one picture within these caps may take."""
        return cls(SECONDS, max_pixels * PIXEL_BYTES + 3 * max_bytes + OVERHEAD)


class Processes:
    """Some processes, which start with the first call. Safe to share between threads."""

    def __init__(self, limits: Limits, count: int = 1, preload: Sequence[str] = ()) -> None:
        """Start nothing yet.

        Args:
            limits: of each call.
            count: number of processes.
            preload: modules that they have at once, besides `PRELOAD`. The first `Processes` that starts one decides.
        """
        self.limits = limits
        self._preload = [*PRELOAD, *preload]
        self._threads = ThreadPoolExecutor(count, "processes")  # each waits for a process of its own
        self._own = threading.local()
        self._all: set[_Worker] = set()
        self._closed = False

    async def run(
        self,
        function: Callable[Concatenate[bytes, Arguments], Result],
        data: bytes,
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Result:
        """`function(data, ...)` in one of the processes. The function must be importable, its result picklable.

        Raises:
            PictureError: what the function raises; `timed_out` or `too_large` over a limit; `corrupt` if it crashes.
            RuntimeError: if the function raises anything else.
        """
        call = (function, arguments, keywords)
        result = await asyncio.get_running_loop().run_in_executor(self._threads, self._call, data, call)
        return cast("Result", result)

    def close(self) -> None:
        """End all processes at once, whatever they are doing."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in tuple(self._all):
            worker.kill()

    def _call(self, data: bytes, call: tuple[Any, ...]) -> object:
        """One call, in a thread. A process that ends for a reason outside of it is replaced, and asked once more."""
        for _ in range(2):
            worker = self._worker()
            try:
                done, value, last = worker.call(data, call, 10 * self.limits.seconds + 30)
            except TimeoutError as error:
                self._drop(worker)
                raise PictureError("timed_out", str(error)) from None
            except (EOFError, OSError):
                self._drop(worker)
                self._check_end(worker)
                continue
            if last:
                self._drop(worker)
            if done is None:
                raise RuntimeError(value)
            if not done:
                raise PictureError(*value)
            return value
        raise PictureError("too_large", "the decoding process was killed twice")

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._own.worker = _Worker(self.limits, self._preload)
            self._all.add(worker)
            if self._closed:
                worker.kill()
        return worker

    def _drop(self, worker: _Worker) -> None:
        self._own.worker = None
        self._all.discard(worker)
        worker.kill()

    def _check_end(self, worker: _Worker) -> None:
        """Raise what a process's end says about the picture, if anything."""
        if self._closed:
            raise PictureError("timed_out", "the decoding processes were closed")
        number = -(worker.exitcode() or 0)
        if number == signal.SIGPROF:
            raise PictureError("timed_out", f"decoding takes more than {self.limits.seconds:g} s of CPU time")
        if number in CRASHES:
            raise PictureError("corrupt", f"the decoder crashed ({signal.Signals(number).name})")


class _Worker:
    """A process, seen from the thread that waits for it."""

    def __init__(self, limits: Limits, preload: list[str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(preload)
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs, limits), daemon=True)
        self._process.start()
        theirs.close()  # or its end would not be noticed

    def call(self, data: bytes, call: tuple[Any, ...], seconds: float) -> tuple[bool | None, Any, bool]:
        """Whether the call succeeded (None: a bug), its result or error, and whether the process ends after it.

        Raises:
            TimeoutError: if the process does not answer within this time.
            EOFError, OSError: if it has ended.
        """
        self._connection.send(call)
        self._connection.send_bytes(data)  # apart: pickled, it would be copied
        if not self._connection.poll(seconds):  # the machine is overloaded, or the process was stopped
            raise TimeoutError(f"no answer within {seconds:g} s")
        answer: tuple[bool | None, Any, bool] = self._connection.recv()
        return answer

    def kill(self) -> None:
        self._process.kill()

    def exitcode(self) -> int | None:
        """Negative: the number of the signal that ended it."""
        self._process.join(10)
        return self._process.exitcode


# Below: in the process.


def _serve(connection: Connection, limits: Limits) -> None:
    """Answer calls until the other end is closed, or the memory has grown."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the parent acts on it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    os.nice(limits.niceness)
    for module in PRELOAD:  # there already, unless the server started in a folder from which it cannot be imported
        importlib.import_module(module)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C write there what they dislike about a file
    _limit_memory(limits.memory)
    start = _peak_memory()
    while True:
        try:
            call = connection.recv()
            data = connection.recv_bytes()
        except (EOFError, OSError, MemoryError):
            return  # the other end is closed; or the input alone is over the limit: it is sent once more, and given up
        answer = _answer(data, call, limits.seconds)
        last = _peak_memory() - start > GROWTH
        connection.send((*answer, last))
        if last:
            return
        del data, answer


def _answer(data: bytes, call: tuple[Any, ...], seconds: float) -> tuple[bool | None, object]:
    """Whether a call succeeded, and its result, or a `PictureError`'s arguments; None and a text for other errors."""
    function, arguments, keywords = call
    # The kernel ends the process when its CPU time is up. Unlike RLIMIT_CPU, this counts from here, and in fractions.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return True, function(data, *arguments, **keywords)
    except PictureError as error:
        return False, (error.reason, error.detail)
    except MemoryError:
        return False, ("too_large", "decoding takes more memory than it may")
    except Exception as error:
        return None, f"{function.__qualname__}: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory(growth: int) -> None:
    """Let this process's address space grow by this many bytes at most. Not all systems can."""
    if STATUS.exists():
        size = _status("VmSize") + growth
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file


def _peak_memory() -> int:
    """Most resident bytes of this process so far; 0 if the system does not tell."""
    return _status("VmHWM") if STATUS.exists() else 0


def _status(name: str) -> int:
    """One of the kernel's figures on this process's memory, in bytes."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(name))
