"""The pipeline: a module named by a verb is the DVC stage of that name, a folder holds nouns that stages share."""

import signal
import sys

# While `python -m stages.X` looks for X, argv[0] is "-m". Until `errors.run` takes over, Ctrl-C ends the process as
# SIGTERM does: Python's own handler would raise inside an import, which prints a traceback or is swallowed there.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
