"""What every test stands on."""

from __future__ import annotations

import signal

# A shell starts what it puts into the background with Ctrl-C ignored, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
