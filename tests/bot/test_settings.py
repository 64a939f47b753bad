"""What the bot needs to be told, and what it says when it was not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tiny import redness

from bot import __main__ as command
from bot import settings
from bot.model.release import Release, Repository
from bot.model.serving import LoadedModel, Serving
from bot.settings import SettingsError

CHECK = ["--model", "workspace", "--check"]


def test_without_a_token_the_bot_says_how_to_give_one() -> None:
    with pytest.raises(SettingsError, match="there is no token; set MLPY_DISCORD_TOKEN"):
        settings.read(["--model", "workspace"], {})


@pytest.mark.parametrize("token", ["", "a token"])
def test_check_tells_of_the_model_first_and_of_a_missing_token_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    model = redness(tmp_path / "moderator.onnx")
    release = Release("moderator@v1.0.0", "0" * 40, "1" * 32, model, model.with_suffix(".json"))
    serving = Serving(Repository(), "workspace", LoadedModel.load(release))
    database = {"MLPY_BOT_DATABASE": f"sqlite:///{tmp_path / 'bot.sqlite'}", "MLPY_DISCORD_TOKEN": token}
    options = settings.read(CHECK, database)
    if token:
        asyncio.run(command._serve(options, serving))
    else:
        with pytest.raises(SettingsError, match="there is no token"):
            asyncio.run(command._serve(options, serving))
    assert capsys.readouterr().out == f"ready to serve moderator@v1.0.0 (md5 {'1' * 32})\n"


@pytest.mark.parametrize(
    "cdn",
    [
        "cdn.example",
        "https://",
        "ftp://cdn.example",
        "https://cdn.example/path",
        "https://cdn.example?query",
        "https://user:hunter2@cdn.example",
        "https://cdn.example:port",
        "https://cdn.example:0",
        "https://cdn.example,nonsense",
        ",",
        "hunter2",
    ],
)
def test_a_cdn_that_is_no_origin_is_refused_at_the_start(cdn: str) -> None:
    with pytest.raises(SettingsError, match="MLPY_DISCORD_CDN") as caught:
        settings.read(CHECK, {"MLPY_DISCORD_CDN": cdn})
    assert "hunter2" not in str(caught.value)


def test_several_origins_of_a_cdn_are_taken() -> None:
    options = settings.read(CHECK, {"MLPY_DISCORD_CDN": "https://cdn.example, http://127.0.0.1:8080/"})
    assert options.origins == {"https://cdn.example", "http://127.0.0.1:8080/"}
