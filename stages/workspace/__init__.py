"""What every stage needs: parameters, paths, atomic writes, the cache, shards, errors."""

import os

# OpenMP's idle threads sleep instead of spinning: two trainings side by side take half the CPU time. It has to be set
# before torch is loaded, and every module that imports torch imports this room first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
