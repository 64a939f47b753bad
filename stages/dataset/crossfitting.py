"""Members of a network that learn from all pictures but a part each, so that each picture is judged by another's eyes.

With one member that part is the validation split. With more, train and validation splits are pooled and shared out into
as many parts: the network that serves has then learnt from every picture, and the scores that choose its epoch, its
calibration and its thresholds are of all of them, each by the member that has not learnt from it or from one alike.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stages.dataset import grouping
from stages.dataset.grouping import Flags, Ints


def held_out(ids: Ints, groups: Ints, strata: Ints, members: int, seed: int) -> Flags:
    """Which pictures each member does not learn from: [n, members], one member a picture.

    Args:
        ids: [n], ascending.
        groups: [n] near-duplicates and series, which stay together.
        strata: [n] labels as numbers, of which each part has its share.
        members: more than one.
        seed: of the hash that decides.
    """
    weights = np.full(members, 1 / members)
    preferred = grouping.preferences(ids, seed, weights)
    rule = grouping.equal("group", pa.chunked_array([groups]))
    _groups, parts = grouping.assign([rule], preferred, weights, strata)
    held: Flags = parts[:, None] == np.arange(members)
    return held
