"""A small catalogue with pictures and scores, and the server of the page on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from drawn import encoded_in

from stages.catalogue.corrections import COLUMNS
from stages.config.compose import compose
from stages.labelling import queue
from stages.labelling.pictures import Pictures
from stages.labelling.server import Labelling, serve
from stages.workspace import paths, shards

ROOT = Path(__file__).parents[3]
FILE = Path("conf/corrections/mine.csv")
HOSTILE = "<img src=x onerror=document.title=1>"
LONG = "a_tag_that_is_far_longer_than_a_narrow_phone_is_wide_" * 2
SHARD_SIZE = 10
COLOURS = {1: "red", 2: "blue", 3: "green", 4: "white", 5: "black", 13: "purple", 14: "grey"}
FLAGGED = {1, 2, 5}
SCORES = {1: 0.9, 2: 0.2, 3: 0.95, 4: 0.1, 5: 0.3, 13: 0.6}
"""Of `flagged`. The most doubtful labels are those of 3 (clean), 2 (flagged), 5 (flagged) and 13 (clean)."""
LIKELY = (3, 2)
KINDS: dict[str, dict[str, Any]] = {
    "binary": {"labels": ["flagged", "clean"], "rules": {"flagged": ["gun"], "clean": []}},
    "multiclass": {"labels": ["guns", "flags", "clean"], "rules": {"guns": ["gun"], "flags": ["flag"], "clean": []}},
    "multilabel": {"labels": ["guns", "flags"], "rules": {"guns": ["gun"], "flags": ["flag"]}},
}


def sha512(image_id: int) -> str:
    return f"{image_id:0128x}"[::-1]


def put(folder: Path, kind: str = "binary") -> None:
    """Write what the pipeline leaves, and an empty file of corrections."""
    labels = KINDS[kind]["labels"]
    rules = {
        label: {"any": tags, "all": [], "none": [], "rest": not tags} for label, tags in KINDS[kind]["rules"].items()
    }
    policy = {"name": "house", "kind": kind, "labels": labels, "rules": rules}
    rows, scores = [], []
    for image_id in COLOURS:
        label = labels[0] if image_id in FLAGGED else labels[-1]
        given = {"labels": [labels[0]] if image_id in FLAGGED else []} if kind == "multilabel" else {"label": label}
        facts = {"sha512": sha512(image_id) if image_id != 4 else None, "tags": ["gun", HOSTILE, LONG, "artist:ann"]}
        url = f"https://board.example/{image_id}.png"
        rows.append({"image_id": image_id, **given, **facts, "artist": "ann", "url": url})
        if (score := SCORES.get(image_id)) is not None:
            others = [(1 - score) / (len(labels) - 1)] * (len(labels) - 1)
            scores.append(
                {
                    "image_id": image_id,
                    **{f"score_{name}": own for name, own in zip(labels, [score, *others], strict=True)},
                }
            )
    for path, table in ((paths.IMAGES, rows), (paths.PREDICTIONS, scores)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        metadata = {"mlpy": json.dumps({"policy": policy})}
        pq.write_table(pa.Table.from_pylist(table).replace_schema_metadata(metadata), folder / path)
    (folder / paths.LABEL_ISSUES).write_text("image_id,label\n" + "".join(f"{one},x\n" for one in LIKELY))
    for number in (0, 1):
        pictures = [
            {"image_id": one, "bytes": encoded_in(colour, side=48, height=32)}
            for one, colour in COLOURS.items()
            if one // SHARD_SIZE == number and one != 14
        ]
        shards.write(folder / paths.SHARDS / shards.name(number), pictures)
    sections = yaml.safe_load(compose([], ROOT / "conf"))
    sections["extract"]["corrections"] = str(FILE)
    sections["download"]["shard_size"] = SHARD_SIZE
    (folder / paths.PARAMS).write_text(yaml.safe_dump(sections))
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(",".join(COLUMNS) + "\n")


def labelling(folder: Path, who: str = "ann") -> Labelling:
    """The page's application for what is in a folder."""
    pictures = queue.read(folder / paths.IMAGES, folder / paths.LABEL_ISSUES, [folder / paths.PREDICTIONS])
    return Labelling(pictures, folder / FILE, Pictures(folder / paths.SHARDS, SHARD_SIZE), who)


@pytest.fixture
def served() -> Iterator[Callable[[Labelling], str]]:
    """Serves an application in a thread until the test ends, and tells its address."""
    ends: list[Callable[[], None]] = []

    def start(application: Labelling) -> str:
        loop, ready, address = asyncio.new_event_loop(), threading.Event(), []
        task = loop.create_task(serve(application, 0, lambda url: address.append(url) or ready.set()))

        def work() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

        def end() -> None:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()

        thread = threading.Thread(target=work)
        thread.start()
        ends.append(end)
        ready.wait()
        return address[0]

    yield start
    for end in ends:
        end()
