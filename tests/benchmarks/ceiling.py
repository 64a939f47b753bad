"""What a judge would score that sees every picture rightly, for the sample's labels are users' tags: some are wrong.

`label_audit.csv` tells of pictures that were looked at whether they show what their policy flags:

- all that people's tags flag, 240 drawn by lot of those that house's flag (stratum `flagged`);
- of the others the 192 that a model thought likeliest (`likely`), and 192 drawn by lot of the rest (`other`).
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AUDIT = Path(__file__).parent / "label_audit.csv"
SIZES = {
    "house": {"flagged": 637, "likely": 192, "other": 2829},
    "people": {"flagged": 292, "likely": 192, "other": 3176},
}
"""Pictures of each stratum in the five folds by content."""
DRAWS = 2000
HEAD = "policy | flagged, but not shown | shown, but not flagged | AUROC | at best | average precision | at best"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(table())  # noqa: T201 - the command's answer


def table() -> str:
    """A Markdown table: each policy's wrong labels, and what such judges score, with 95 % intervals."""
    lines = [HEAD, " | ".join(["---"] * 7)]
    for policy, seen in read().items():
        draws = [drawn_scores(seen, SIZES[policy], number) for number in range(DRAWS)]
        percentiles = np.percentile(draws, (50, 2.5, 97.5), axis=0).T
        told = ["{0:{3}} ({1:{3}} to {2:{3}})".format(*each, ".0f" if each[0] > 1 else ".2f") for each in percentiles]
        lines.append(" | ".join([policy, *told]))
    return "\n".join(f"| {line} |" for line in lines)


def read() -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Policy -> stratum -> whether each picture shows what is flagged; what is arguable is taken as labelled."""
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with AUDIT.open() as file:
        for row in csv.DictReader(file):
            as_labelled = row["stratum"] == "flagged"
            found[row["policy"]][row["stratum"]].append(
                as_labelled if row["shown"] == "arguable" else row["shown"] == "yes"
            )
    return {policy: {name: np.array(each) for name, each in strata.items()} for policy, strata in found.items()}


def drawn_scores(seen: dict[str, NDArray[np.bool_]], sizes: dict[str, int], seed: int) -> list[float]:
    """One draw of the board that was looked at in part: its wrong labels of both kinds, and scores of two judges.

    What was not looked at is drawn from what was, stratum by stratum. Both judges put first what shows it: the one by
    lot, the other at best, with what is flagged before what nobody tagged. The rest comes by lot.
    """
    chance = np.random.default_rng(seed)
    shown = np.concatenate([drawn(seen[name], size, chance) for name, size in sizes.items()])
    labels = np.repeat([name == "flagged" for name in sizes], list(sizes.values()))
    lot = chance.random(len(shown))
    by_lot, at_best = (scores(labels[np.lexsort((lot, *keys))]) for keys in ((~shown,), (~(shown & labels), ~shown)))
    return [
        float((labels & ~shown).sum()),
        float((~labels & shown).sum()),
        *(score for both in zip(by_lot, at_best, strict=True) for score in both),
    ]


def scores(ranked: NDArray[np.bool_]) -> tuple[float, float]:
    """AUROC and average precision of labels in the order of a judge, likeliest first."""
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    lost = np.cumsum(~ranked)[ranked].mean() / (~ranked).sum()
    return float(1 - lost), float(precision[ranked].mean())


def drawn(seen: NDArray[np.bool_], size: int, chance: np.random.Generator) -> NDArray[np.bool_]:
    """A stratum of so many pictures: those that were seen, and others at a rate that fits them (Jeffreys' prior)."""
    rate = chance.beta(seen.sum() + 0.5, (~seen).sum() + 0.5)
    return np.concatenate([seen, chance.random(size - len(seen)) < rate])


if __name__ == "__main__":
    main()
