"""Lists of decisions on pictures, to share between servers: JSON lines with hashes, never pictures.

A line has `sha256`, `phash` and `pdq` (hex), `fingerprint` (base64, see `bot.pictures.copies`), `decision` (block or
allow), `label`, `reason` and `date`. Other tools can use the PDQ hash. Files are hostile: what is not exactly this is
counted and left out, and sizes are checked before anything is parsed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.pictures.copies import MAX_FINGERPRINT, Fingerprint, FingerprintError
from bot.storage.tables import Ruling
from stages.inference import MLpyError

MAX_BYTES, MAX_LINES, MAX_LINE = 9_500_000, 20_000, 6_000
"""Of a file: bytes, lines, and bytes of a line. Discord takes attachments of up to 10 MB."""
MAX_LABEL, MAX_REASON = 60, 200
"""Characters."""
MAX_NAMED = 5
"""Lines that are named in a message about what is wrong."""
HEX = re.compile(r"[0-9a-f]*")
UNSEEN = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, and those that turn text around or hide it."""


class ListError(MLpyError):
    """A file that is no list."""


@dataclass
class ParsedList:
    """What a file says."""

    rulings: list[Ruling] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Lines that are left out: number and reason."""

    def describe_problems(self) -> str:
        """The first of them, and how many there are; empty if there are none."""
        if not self.problems:
            return ""
        more = f", and {len(self.problems) - MAX_NAMED} more" if len(self.problems) > MAX_NAMED else ""
        return f"Left out: {'; '.join(self.problems[:MAX_NAMED])}{more}."


def write(rulings: Iterable[Ruling]) -> tuple[bytes, int]:
    """The lines of a list, and how many rulings are in it: as many as fit into `MAX_BYTES`."""
    lines: list[bytes] = []
    size = 0
    for ruling in rulings:
        line = json.dumps(_as_values(ruling), ensure_ascii=False).encode() + b"\n"
        if size + len(line) > MAX_BYTES or len(lines) == MAX_LINES:
            break
        lines.append(line)
        size += len(line)
    return b"".join(lines), len(lines)


def _as_values(ruling: Ruling) -> dict[str, Any]:
    data = ruling.fingerprint
    try:
        pdq = Fingerprint.from_bytes(data).pdq.hex() if data else None
    except FingerprintError:
        data = pdq = None
    return {
        "sha256": ruling.sha256,
        "phash": f"{ruling.phash:016x}",
        "pdq": pdq,
        "fingerprint": base64.b64encode(data).decode() if data else None,
        "decision": "allow" if ruling.allowed else "block",
        "label": ruling.label,
        "reason": ruling.reason,
        "date": datetime.fromtimestamp(ruling.created_at, UTC).date().isoformat(),
    }


def parse(data: bytes, guild: int, moderator: int | None, now: int, origin: str = "import") -> ParsedList:
    """Read a file of any origin.

    Args:
        data: its bytes.
        guild: the server that the rulings are for.
        moderator: who imports it.
        now: Unix time, in s: when the rulings begin to count.
        origin: of the rulings.

    Raises:
        ListError: if it is too large, or no text.
    """
    if len(data) > MAX_BYTES:
        raise ListError(f"the list has {len(data):,} bytes, more than {MAX_BYTES:,}; split it into several files")
    if data.count(b"\n") > MAX_LINES:
        raise ListError(f"the list has more than {MAX_LINES:,} lines; split it into several files")
    parsed, known = ParsedList(), set()
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            ruling = _ruling(line, guild, moderator, now, origin)
        except ValueError as error:  # also RecursionError's cause: nesting is limited by the length
            parsed.problems.append(f"line {number}: {error}")
            continue
        if ruling.sha256 in known:
            parsed.problems.append(f"line {number}: the same picture again")
            continue
        known.add(ruling.sha256)
        parsed.rulings.append(ruling)
    return parsed


def read(path: Path) -> list[Ruling]:
    """The rulings of a file that the bot is started with.

    Raises:
        ListError: if it cannot be read, or any line is wrong: whoever starts the bot can mend it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ListError(f"the list {path} cannot be read ({error.strerror}); check --list") from None
    try:
        parsed = parse(data, 0, None, int(path.stat().st_mtime), "list")
    except ListError as error:
        raise ListError(f"{path}: {error}") from None
    if parsed.problems:
        raise ListError(f"{path} is no list of pictures: {parsed.problems[0]}; mend it, or leave --list out")
    return parsed.rulings


def _ruling(line: bytes, guild: int, moderator: int | None, now: int, origin: str) -> Ruling:
    """One line.

    Raises:
        ValueError: if it is none; the message is short, and quotes nothing.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE:,} bytes")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(values, dict):
        raise ValueError("not an object")
    if values.get("decision") not in ("block", "allow"):
        raise ValueError("the decision is neither block nor allow")
    sha256, phash = _hex(values, "sha256", 64), _hex(values, "phash", 16)
    fingerprint = _fingerprint(values.get("fingerprint"))
    if fingerprint is not None and values.get("pdq") not in (None, Fingerprint.from_bytes(fingerprint).pdq.hex()):
        raise ValueError("the PDQ hash is not the fingerprint's")
    allowed = values["decision"] == "allow"
    return Ruling(
        guild_id=guild,
        sha256=sha256,
        phash=int(phash, 16),
        allowed=allowed,
        label=_text(values, "label", MAX_LABEL) or ("allowed" if allowed else "blocked"),
        created_at=now,
        fingerprint=fingerprint,
        moderator_id=moderator,
        reason=_text(values, "reason", MAX_REASON),
        origin=origin,
    )


def _hex(values: dict[str, Any], name: str, length: int) -> str:
    text = values.get(name)
    if not isinstance(text, str) or len(text) != length or not HEX.fullmatch(text):
        raise ValueError(f"{name} is not {length} hex digits")
    return text


def _text(values: dict[str, Any], name: str, length: int) -> str:
    text = values.get(name, "")
    if not isinstance(text, str) or len(text) > length:
        raise ValueError(f"{name} is not a text of up to {length} characters")
    return UNSEEN.sub("", text).encode("utf-8", "replace").decode()


def _fingerprint(text: Any) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > MAX_FINGERPRINT * 4 // 3 + 4:
        raise ValueError("the fingerprint is too long")
    try:
        data = base64.b64decode(text, validate=True)
        Fingerprint.from_bytes(data)
    except (binascii.Error, ValueError):
        raise ValueError("the fingerprint is not one of this version") from None
    return data
