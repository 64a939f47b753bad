"""What goes wrong: Discord, the CDN, the database, the model, too much at once, a stop in the middle."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from tiny import blue, red, redness
from waiting import until
from world import SimulatedServer

from bot.model.release import Release, Repository
from bot.pictures.judging import Judge
from bot.rules.policy import Action, Mode, ModerationRule
from stages.workspace.errors import ModelError

DELETE = (ModerationRule("flagged", 0.6, Action.DELETE),)


def counted(world: SimulatedServer, name: str, **labels: str) -> float:
    return world.bot.services.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_a_refused_deletion_is_left_to_the_moderators(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    world.env.inject_error("DELETE", "/channels/*/messages/*", status=503, times=None)
    await world.post(red())
    assert len(world.posts(world.general)) == 1
    (decision,) = await world.decisions()
    assert (decision.action, decision.done, decision.state) == (Action.DELETE, Action.FLAG, "open")
    assert "HTTP 503" in decision.detail
    assert len(world.entries()) == 1
    assert counted(world, "mlpy_actions_total", action="delete", result="refused") == 1


async def test_calls_to_discord_are_retried_on_5xx(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    world.env.inject_error("DELETE", "/channels/*/messages/*", status=503, times=2)
    await world.post(red())
    assert world.posts(world.general) == []
    (decision,) = await world.decisions()
    assert (decision.done, decision.detail) == (Action.DELETE, "")


async def test_a_message_that_its_author_already_deleted_counts_as_deleted(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    world.env.inject_error("DELETE", "/channels/*/messages/*", status=404, code=10008, message="Unknown Message")
    await world.post(red())
    (decision,) = await world.decisions()
    assert (decision.done, decision.detail) == (Action.DELETE, "the author had already deleted it")


async def test_a_failed_modlog_entry_is_logged_and_counted(
    world: SimulatedServer, caplog: pytest.LogCaptureFixture
) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    world.env.inject_error("POST", "/channels/*/messages", status=500, times=None)
    await world.post(red())
    assert world.posts(world.general) == []
    assert "could not post to the mod-log: Discord answered HTTP 500" in caplog.text
    assert counted(world, "mlpy_errors_total", where="mod-log") == 1


@pytest.mark.parametrize("faults", [[(500, {})], [(429, {"Retry-After": "0.01"})], [(503, {}), (500, {})]])
async def test_failed_downloads_are_retried(world: SimulatedServer, faults: list[tuple[int, dict[str, str]]]) -> None:
    world.cdn.faults = faults
    await world.post(red())
    assert [each.verdict for each in await world.decisions()] == ["flagged"]


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ((404, {}), "unreachable"),
        ((302, {"Location": "https://example.com/"}), "outside"),
        ((200, {"Content-Encoding": "gzip"}), "corrupt"),
    ],
)
async def test_a_failed_download_has_a_verdict(
    world: SimulatedServer, fault: tuple[int, dict[str, str]], verdict: str
) -> None:
    world.cdn.faults = [fault] * 3
    await world.post(red())
    (decision,) = await world.decisions()
    assert decision.verdict == verdict
    assert counted(world, "mlpy_pictures_total", verdict=verdict, origin="unjudged") == 1


async def test_pictures_beyond_the_queue_follow_the_rule_for_overloaded(
    world: SimulatedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.restart(judge=replace(world.settings.judge, queue=2))
    await world.policy(Mode.REVIEW, rules=(ModerationRule("overloaded", 0.5, Action.FLAG),))
    await world.post(*(blue(seed=seed) for seed in range(5)))
    verdicts = sorted(each.verdict for each in await world.decisions())
    assert verdicts == ["clean", "clean", "overloaded", "overloaded", "overloaded"]
    assert counted(world, "mlpy_pictures_total", verdict="overloaded", origin="unjudged") == 3
    assert sum(getattr(each, "verdict", "") == "overloaded" for each in caplog.records) == 3
    assert len(world.entries()) == 1
    assert world.bot.services.judge.admitted == 0


async def test_an_internal_error_has_a_verdict(world: SimulatedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Judge, *_: object) -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(Judge, "scores", broken)
    await world.post(red())
    (decision,) = await world.decisions()
    assert (decision.verdict, decision.detail) == ("failed", "RuntimeError")


async def test_moderation_goes_on_without_a_database(world: SimulatedServer, caplog: pytest.LogCaptureFixture) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await _lose(world)
    await world.post(red())
    assert world.posts(world.general) == []
    assert world.bot.services.store.waiting > 0
    assert "the database does not answer" in caplog.text
    await _return(world)
    await world.env.advance_time(20)
    assert world.bot.services.store.waiting == 0
    assert [each.verdict for each in await world.decisions()] == ["flagged"]


async def test_a_click_without_a_database_can_be_repeated(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=DELETE)
    await world.post(red())
    (entry,) = world.entries()
    await _lose(world)
    result = await world.mod.click(entry, label="Delete")
    assert "No action taken: the database does not answer" in result.followups[0].content
    assert len(world.posts(world.general)) == 1
    await _return(world)
    await world.mod.click(entry, label="Delete")
    assert world.posts(world.general) == []


async def test_a_command_without_a_database_says_so(world: SimulatedServer) -> None:
    await _lose(world)
    result = await world.manager.slash(world.general, "channel clear")
    assert "The command failed: the database does not answer" in result.response.content
    await _return(world)


async def _lose(world: SimulatedServer) -> None:
    """Take the database away: its file becomes a folder, and connections to it are closed."""
    file = world.folder / "bot.sqlite"
    await world.bot.services.store._engine.dispose()
    for each in world.folder.glob("bot.sqlite*"):
        each.rename(each.with_name(each.name.replace("bot", "away")))
    file.mkdir()


async def _return(world: SimulatedServer) -> None:
    (world.folder / "bot.sqlite").rmdir()
    for each in world.folder.glob("away.sqlite*"):
        each.rename(each.with_name(each.name.replace("away", "bot")))


async def test_old_decisions_are_deleted(world: SimulatedServer) -> None:
    await world.post(red())
    world.now += 89 * 86400
    await world.env.advance_time(3601)
    assert len(await world.decisions()) == 1
    world.now += 2 * 86400
    await world.env.advance_time(3601)
    assert await world.decisions() == []


async def test_the_data_of_a_server_is_deleted_when_the_bot_leaves(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW)
    await world.post(red())
    world.env.backend.remove_guild(world.guild.id)
    await world.env.settle()
    assert await world.decisions() == []
    assert (await world.bot.services.store.policy(world.guild.id)).mode is Mode.SHADOW


async def test_a_stop_finishes_the_messages_in_progress(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    world.cdn.released.clear()

    async def stop() -> None:
        await until(lambda: world.cdn.asked)
        finishing = asyncio.create_task(world.bot.moderation.finish(120.0))
        await until(lambda: world.bot.moderation.stopping)
        world.cdn.released.set()
        await finishing

    stopped = asyncio.create_task(stop())
    await world.post(red())
    await stopped
    assert world.posts(world.general) == []
    await world.post(red(seed=4))
    assert len(await world.decisions()) == 1, "nothing new is begun"


async def test_messages_not_finished_in_time_are_logged(
    world: SimulatedServer, caplog: pytest.LogCaptureFixture
) -> None:
    world.cdn.released.clear()

    async def stop() -> None:
        await until(lambda: world.cdn.asked)
        await world.bot.moderation.finish(0.1)

    task = asyncio.create_task(stop())
    message = await world.post(red())
    await task
    (entry,) = [
        each for each in caplog.records if each.message == "stopped before the pictures of a message were checked"
    ]
    world.cdn.released.set()
    assert entry.message_id == message.id
    assert world.bot.services.judge.admitted == 0


async def test_a_new_model_is_taken_up_without_a_restart(world: SimulatedServer, tmp_path: Path) -> None:
    await world.post(blue(seed=1))
    other = redness(tmp_path / "other" / "moderator.onnx", threshold=0.01)
    release = replace(world.serving.current.release, version="moderator@v2.0.0", md5="2" * 32)
    release = replace(release, model=other, sidecar=other.with_suffix(".json"))
    world.serving.switch_to(release)
    await world.post(blue(seed=1))
    new, old = sorted(await world.decisions(), key=lambda each: each.model, reverse=True)
    assert (old.verdict, old.model) == ("clean", "moderator@v1.0.0")
    assert (new.verdict, new.model, new.origin) == ("flagged", "moderator@v2.0.0", "model")


async def test_a_bad_model_is_refused_and_the_old_one_keeps_serving(world: SimulatedServer, tmp_path: Path) -> None:
    bad = tmp_path / "moderator.onnx"
    bad.write_bytes(b"not a model")
    release = replace(world.serving.current.release, version="moderator@v2.0.0", model=bad)
    with pytest.raises(ModelError):
        world.serving.switch_to(release)
    assert world.serving.version == "moderator@v1.0.0"
    await world.post(red())
    assert (await world.decisions())[0].model == "moderator@v1.0.0"


BROKEN = ["no model", "an input of another name", "labels that are no JSON", "a side-car that is no JSON"]


def broken_model(folder: Path, how: str) -> Path:
    """A model that cannot be used."""
    path = redness(folder / "moderator.onnx")
    if how == "no model":
        path.write_bytes(path.read_bytes()[:100])
    elif how == "a side-car that is no JSON":
        path.with_suffix(".json").write_text("[1, 2")
    else:
        model = onnx.load(path)
        if how == "an input of another name":
            model.graph.input[0].name = model.graph.node[0].input[0] = "picture"
            model.graph.output[0].name = model.graph.node[-1].output[0] = "probabilities"
        else:
            onnx.helper.set_model_props(model, {"labels": "{"})
        onnx.save(model, path)
    return path


@pytest.mark.parametrize("how", BROKEN)
async def test_the_poll_survives_any_model(world: SimulatedServer, tmp_path: Path, how: str) -> None:
    broken = broken_model(tmp_path / "broken", how)
    good = world.serving.current.release
    repository = Releases(replace(good, version="moderator@v2.0.0", commit="2" * 40, md5="2" * 32, model=broken,
                                  sidecar=broken.with_suffix(".json")))  # fmt: skip
    world.serving.repository = repository
    for _ in range(2):
        await world.bot.poll()
    assert world.serving.version == "moderator@v1.0.0"
    assert counted(world, "mlpy_errors_total", where="model") == 1
    repository.newest = replace(good, version="moderator@v3.0.0", commit="3" * 40, md5="3" * 32)
    await world.bot.poll()
    assert world.serving.version == "moderator@v3.0.0"


async def test_periodic_work_survives_any_error(world: SimulatedServer) -> None:
    world.serving.repository = Releases(None)
    await world.bot.poll()
    assert counted(world, "mlpy_errors_total", where="periodic") == 1


class Releases(Repository):
    """A repository whose newest release is given."""

    def __init__(self, newest: Release | None) -> None:
        self.newest = newest

    def latest(self, requested: str) -> str:
        return self.newest.commit  # type: ignore[union-attr]

    def release(self, requested: str) -> Release:
        assert self.newest
        return self.newest
