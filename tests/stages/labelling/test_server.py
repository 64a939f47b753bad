"""What the page's server answers, what it refuses, and what is then in the file."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from stages.catalogue.corrections import COLUMNS, Correction, read, write
from stages.labelling import queue
from stages.labelling.answers import given, put
from stages.labelling.server import MAX_BODY, NAMES
from stages.workspace import paths, shards
from tests.stages.labelling.conftest import COLOURS, FILE, SCORES, SHARD_SIZE, labelling, sha512
from tests.stages.labelling.conftest import put as put_board

HEADER = ",".join(COLUMNS)


class Page:
    """What the page does."""

    def __init__(self, client: TestClient[Any, Any], token: str) -> None:
        self.client, self.token = client, token

    async def get(self, path: str = "", **headers: str) -> ClientResponse:
        return await self.client.get(f"/{self.token}/{path}", headers=headers)

    async def items(self, scope: str = "all") -> dict[str, Any]:
        response = await self.get(f"items?scope={scope}")
        return dict(await response.json())

    async def answer(
        self, image_id: int, label: str | None, before: str | None = None, note: str = ""
    ) -> ClientResponse:
        return await self.post({"id": image_id, "label": label, "before": before, "note": note})

    async def post(self, body: object, **headers: str) -> ClientResponse:
        return await self.client.post(f"/{self.token}/answers", json=body, headers=headers)


Open = Callable[..., Any]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the page, for a policy of a kind; the second time on the same file."""
    clients = []

    async def opener(kind: str = "binary", who: str = "ann") -> Page:
        if not clients:
            put_board(tmp_path, kind)
        application = labelling(tmp_path, who)
        client: TestClient[Any, Any] = TestClient(TestServer(application.application()))
        await client.start_server()
        clients.append(client)
        return Page(client, application.token)

    yield opener
    for client in clients:
        await client.close()


def rows(folder: Path) -> list[Correction]:
    return read(folder / FILE)


async def test_an_answer_is_in_the_file_at_once(opened: Open, tmp_path: Path) -> None:
    page = await opened()
    state = await page.items("likely")
    assert [item["id"] for item in state["items"]] == [3, 2]
    assert state["likely"] == {"done": 0, "all": 2}
    assert (await page.answer(3, "flagged", note="  a\n gun ")).status == 200
    assert rows(tmp_path) == [Correction(3, sha512(3)[:16], "house", "flagged", who="ann", why="a gun")]
    assert (await page.answer(2, "flagged")).status == 200
    assert (await page.answer(4, "?")).status == 200
    assert rows(tmp_path)[0].why == "looked at; score 0.200 for flagged"
    assert [(row.image_id, row.sha512, row.label) for row in rows(tmp_path)] == [
        (2, sha512(2)[:16], "flagged"), (3, sha512(3)[:16], "flagged"), (4, "", "?")
    ]  # fmt: skip
    state = await page.items("likely")
    assert (state["items"], state["likely"]) == ([], {"done": 2, "all": 2})
    assert state["scored"] == {"done": 3, "all": len(SCORES)}
    assert state["answers"] == {"right": 1, "wrong": 1, "skipped": 1}
    assert [item["id"] for item in (await page.items())["items"]] == [5, 13, 1]
    (skipped,) = (await page.items("skipped"))["items"]
    assert (skipped["id"], skipped["answer"]) == (4, "?")
    assert (await page.answer(4, "clean", before="?")).status == 200
    assert rows(tmp_path)[-1].label == "clean"


async def test_an_answer_taken_back_leaves_the_file_as_it_was(opened: Open, tmp_path: Path) -> None:
    page = await opened()
    others = [
        Correction(2, "", "people", "others", who="bob"),
        Correction(2, "", "", "", ("gun",), (), "bob"),
        Correction(999, "", "house", "?"),
    ]
    write(tmp_path / FILE, others)
    before = (tmp_path / FILE).read_bytes()
    await page.answer(2, "clean")
    assert len(rows(tmp_path)) == 4
    await page.answer(2, None, before="clean")
    assert (tmp_path / FILE).read_bytes() == before


async def test_two_tabs_lose_no_answer(opened: Open, tmp_path: Path) -> None:
    one, other = await opened(who="ann"), await opened(who="bob")
    await asyncio.gather(
        *(tab.answer(image_id, "clean") for tab, ids in ((one, (1, 2, 3)), (other, (4, 5, 13))) for image_id in ids)
    )
    assert {row.image_id: row.who for row in rows(tmp_path)} == {
        1: "ann",
        2: "ann",
        3: "ann",
        4: "bob",
        5: "bob",
        13: "bob",
    }
    statuses = [
        response.status
        for response in await asyncio.gather(*(tab.answer(1, "flagged", "clean") for tab in (one, other)))
    ]
    assert sorted(statuses) == [200, 409]
    refused = await other.answer(2, "flagged")
    assert (refused.status, await refused.json()) == (409, {"error": "image 2 was answered elsewhere: clean"})
    assert {row.image_id: row.label for row in rows(tmp_path)}[2] == "clean"
    await one.answer(2, None, "clean")
    refused = await other.answer(2, "flagged", "clean")
    assert await refused.json() == {"error": "the answer for image 2 was taken back elsewhere"}


async def test_a_file_that_was_broken_meanwhile_is_told_and_kept(opened: Open, tmp_path: Path) -> None:
    page = await opened()
    (tmp_path / FILE).write_text(f"{HEADER}\nx\n")
    response = await page.answer(1, "clean")
    assert response.status == 500
    assert "mine.csv, line 2: it has 1 cells" in (await response.json())["error"]
    assert (tmp_path / FILE).read_text() == f"{HEADER}\nx\n"


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
async def test_other_kinds_of_policies_take_their_labels(opened: Open, tmp_path: Path, kind: str) -> None:
    page = await opened(kind)
    for alternative in (await page.items())["items"][0]["alternatives"]:
        before = rows(tmp_path)[0].label if rows(tmp_path) else None
        assert (await page.answer(3, alternative, before)).status == 200
        assert [row.label for row in rows(tmp_path)] == [alternative]


def test_a_hash_alone_stays_the_name_of_a_picture(tmp_path: Path) -> None:
    put_board(tmp_path)
    items = labelling(tmp_path).queue.items
    named = Correction(None, sha512(2), "house", "clean")
    write(tmp_path / FILE, [named, Correction(None, sha512(3)[:20], "people", "people")])
    assert given(tmp_path / FILE, "house", items.values()) == {2: "clean"}
    put(tmp_path / FILE, "house", items[2], "flagged", "clean", "ann", "")
    assert rows(tmp_path)[0] == Correction(None, sha512(2), "house", "flagged", who="ann")


async def test_a_picture_is_encoded_anew(opened: Open, tmp_path: Path) -> None:
    page = await opened()
    response = await page.get("pictures/1")
    assert response.headers["Content-Type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(await response.read()))
    assert picture.size == (48, 32)
    red, green, blue = picture.convert("RGB").getpixel((24, 16))
    assert red > 200 > 50 > max(green, blue)
    for absent in (99, 14, 9999999999999999999):
        assert (await page.get(f"pictures/{absent}")).status == 404
    damaged = [{"image_id": 13, "bytes": b"<svg onload=alert(1)>"}]
    shards.write(tmp_path / paths.SHARDS / shards.name(13 // SHARD_SIZE), damaged)
    response = await page.get("pictures/13")
    assert (response.status, response.headers["Content-Type"]) == (422, "text/plain; charset=utf-8")
    assert "svg" not in await response.text()


async def test_only_the_page_itself_is_answered(opened: Open, tmp_path: Path) -> None:
    page = await opened()
    port = page.client.port
    assert (await page.client.get("/")).status == 404
    assert (await page.client.get("/wrong/items?scope=all")).status == 404
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
        assert (await page.get(Host=host)).status in (400, 403), host
    for host in NAMES:
        assert (await page.get(Host=f"{host}:1")).status == 200, "a tunnel's port"
    answer = {"id": 1, "label": "clean", "before": None, "note": ""}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert (await page.post(answer, **headers)).status == 403, headers
    assert (await page.post(answer, **{"Content-Type": "text/plain"})).status == 415
    assert (await page.client.options(f"/{page.token}/answers")).status == 405
    assert (await page.client.get(f"/{page.token}/answers")).status == 405
    assert rows(tmp_path) == []
    assert (await page.post(answer, Origin=f"http://127.0.0.1:{port}")).status == 200


async def test_what_is_no_answer_is_refused(opened: Open, tmp_path: Path) -> None:
    page = await opened()
    good = {"id": 1, "label": "clean", "before": None, "note": ""}
    wrong: list[object] = [
        [], "x", {}, good | {"id": 99}, good | {"id": True}, good | {"id": [1]}, good | {"id": "1"},
        good | {"label": "flaged"}, good | {"label": 1}, good | {"before": 1}, good | {"note": None},
        good | {"note": ["x"]}, good | {"label": ["clean"]},
    ]  # fmt: skip
    for body in wrong:
        assert (await page.post(body)).status == 400, body
    path = f"/{page.token}/answers"
    for data in (b"{", b"\xff\xfe", b"[" * 3000):
        response = await page.client.post(path, data=data, headers={"Content-Type": "application/json"})
        assert response.status == 400, data[:5]
    assert (await page.post(good | {"note": "x" * MAX_BODY})).status == 413
    assert (await page.get("items?scope=none")).status == 400
    assert rows(tmp_path) == []


async def test_nothing_may_be_loaded_from_elsewhere_or_shown_within_another_page(opened: Open) -> None:
    page = await opened()
    for path in ("", "items?scope=all", "pictures/1", "pictures/99"):
        headers = (await page.get(path, Origin=f"http://127.0.0.1:{page.client.port}")).headers
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
    first, second = [(await page.get()).headers["Content-Security-Policy"] for _ in range(2)]
    assert first != second, "a nonce is used once"
    assert "default-src 'none'" in first
    assert "unsafe" not in first
    assert "frame-ancestors 'none'" in first


def test_the_colours_are_in_the_queue(tmp_path: Path) -> None:
    put_board(tmp_path)
    pictures = queue.read(tmp_path / paths.IMAGES, tmp_path / "none.csv", [tmp_path / paths.PREDICTIONS])
    assert pictures.items.keys() == COLOURS.keys() - {14}
