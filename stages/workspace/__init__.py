"""The DVC workspace as a stage sees it: parameters, paths, files replaced whole, the cache, shards, errors."""

import os

# Waiting threads sleep and leave the cores to others: two trainings side by side take half the CPU time. It must be set
# before torch is loaded, and whatever imports torch here imports this room first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
