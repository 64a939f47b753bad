"""A folder of labelled pictures -> its contents: every file read, decoded and measured, or counted with a reason."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from stages.config.download import Download
from stages.folder import listing
from stages.folder.contents import Contents
from stages.folder.describing import described
from stages.folder.listing import Entry
from stages.folder.measuring import measure
from stages.inference.decoding import Caps
from stages.inference.processes import Limits, Processes
from stages.workspace.errors import PictureError
from stages.workspace.progress import Progress

PROCESSES = min(8, os.cpu_count() or 1)
"""That decode pictures."""


def gather(root: Path, params: Download, contents: Contents) -> None:
    """Fill `contents` from a folder that `listing.checked` returned.

    Raises:
        FolderError: if metadata cannot be read.
    """
    total = sum(1 for _ in listing.entries(root))
    asyncio.run(_gather(root, params, contents, total))


async def _gather(root: Path, params: Download, contents: Contents, total: int) -> None:
    caps = Caps(params.max_bytes, params.max_pixels)
    processes = Processes(Limits.of_pictures(params.max_bytes, params.max_pixels), PROCESSES)
    remaining = described(root, contents)
    with Progress("read", total, unit="file") as progress:

        async def work() -> None:
            for entry, known in remaining:  # one iterator for all workers: each takes the next file
                fault = entry if known is None else None
                if known is not None:
                    try:
                        data = await asyncio.to_thread(listing.read, root, entry.path, params.max_bytes)
                        if data is None:
                            raise PictureError("too_large", f"over {params.max_bytes} bytes")
                        contents.add(entry.path, known, await processes.run(measure, data, caps))
                    except PictureError as error:
                        fault = Entry(entry.path, error.reason, error.detail)
                    except OSError as error:
                        fault = Entry(entry.path, "unreadable", error.strerror or "")
                if fault:
                    contents.leave_out(fault)
                progress.update(failure=fault.reason if fault else None)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(2 * PROCESSES):
                    group.create_task(work())
        except* Exception as errors:  # of one task; the others were cancelled
            raise errors.exceptions[0] from None
        finally:
            processes.close()
