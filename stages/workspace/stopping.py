"""Ctrl-C and SIGTERM: each ends a command by an exception, which no library on its way can swallow or print."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

AGAIN = 0.3
"""Seconds after which a signal whose exception was swallowed raises again."""
IMPATIENT = 1.0
"""Seconds from which on another signal ends the process at once. `timeout` sends each one twice."""


class Stop:
    """Turns SIGINT into KeyboardInterrupt and SIGTERM into SystemExit, and remembers which one came.

    An exception raised by a handler can be lost: C code that imports a module, callbacks and `__del__` swallow it, some
    with a traceback on stderr. So it is raised again until it arrives, and nothing is printed after a signal.
    """

    def __init__(self) -> None:
        self.number = 0
        """Of the signal that came, or 0."""
        self._came = 0.0
        self._raised: BaseException | None = None

    @property
    def exit_code(self) -> int:
        """A shell's exit code for a process that the signal ended; 0 without a signal."""
        return 128 + self.number if self.number else 0

    def listen(self) -> None:
        """Handle signals from now on, apart from those that this process was started to ignore."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        sys.excepthook = self._quiet(sys.excepthook)
        sys.unraisablehook = self._quiet(sys.unraisablehook)
        threading.excepthook = self._quiet(threading.excepthook)

    def leave(self) -> None:
        """Let a signal end the process at once: what could be interrupted is done, and the interpreter shuts down."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            if time.monotonic() > self._came + IMPATIENT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self.number, self._came = number, time.monotonic()
        if _cancelled_tasks():
            return
        signal.signal(signal.SIGALRM, self._raise_again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        self._raise()

    def _raise(self) -> None:
        self._raised = KeyboardInterrupt() if self.number == signal.SIGINT else SystemExit(self.exit_code)
        raise self._raised

    def _raise_again(self, number: int, frame: FrameType | None) -> None:
        error = sys.exception()
        while error is not None and error is not self._raised:
            error = error.__cause__ or error.__context__
        if error is None:  # else its `finally` blocks are running
            self._raise()

    def _quiet(self, hook: Any) -> Any:
        return lambda *details: None if self.number else hook(*details)


def _cancelled_tasks() -> bool:
    """Cancel the tasks of a running event loop, as an exception inside one of them would be printed as never retrieved.

    Returns:
        Whether there is a running loop.
    """
    asyncio: Any = sys.modules.get("asyncio")  # importing it would take longer than some commands do
    loop = asyncio and asyncio.events._get_running_loop()
    for task in asyncio.all_tasks(loop) if loop else ():
        loop.call_soon_threadsafe(task.cancel)
    return bool(loop)
