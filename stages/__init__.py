"""The pipeline: a verb is the DVC stage of that name, a noun is what stages share."""

import os

# Threads that wait sleep, and leave the cores to others: two trainings side by side take half the CPU time. It must be
# said before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
