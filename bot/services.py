"""The parts of a running bot that its actions and commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import discord

from bot.model.serving import Serving
from bot.operation.metrics import Metrics
from bot.pictures import lists
from bot.pictures.examining import Examiner
from bot.pictures.fetching import Fetcher
from bot.pictures.judging import Judge
from bot.pictures.memory import Rulings
from bot.settings import Settings
from bot.storage.appeals import Appeals
from bot.storage.store import BotStore


@dataclass(frozen=True)
class Services:
    """What actions and commands work with. Build it with `assemble`."""

    settings: Settings
    serving: Serving
    store: BotStore
    fetcher: Fetcher
    judge: Judge
    metrics: Metrics
    rulings: Rulings
    examiner: Examiner
    appeals: Appeals

    @classmethod
    def assemble(
        cls, settings: Settings, serving: Serving, store: BotStore, fetcher: Fetcher, judge: Judge
    ) -> Services:
        """Derive the other parts from these, which the caller opens and closes.

        Raises:
            ListError: if a list of the settings cannot be read.
        """
        rulings = Rulings(store, {path.stem[:80]: lists.read(path) for path in settings.lists})
        examiner = Examiner(fetcher, judge, serving, store, rulings)
        return cls(settings, serving, store, fetcher, judge, Metrics(), rulings, examiner, Appeals(store))


class HasServices(Protocol):
    """A Discord client with services: `bot.client.Bot`, without importing it."""

    @property
    def services(self) -> Services:
        """Those of the running bot."""


def services_of(interaction: discord.Interaction[Any]) -> Services:
    """The services behind a click or a command.

    discord.py builds review buttons anew for each click and passes its error handler nothing else, so an interaction's
    client is their only way to the services.
    """
    client: HasServices = interaction.client
    return client.services
