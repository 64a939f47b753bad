"""The slash commands: one cog per file, grouped by who may use them. `watching` and `appealing` have none."""

from __future__ import annotations

from discord.ext import commands

from bot.actions.appeals import AppealPost
from bot.actions.moderation import Moderation
from bot.commands.appealing import Appealing
from bot.commands.checking import Checking
from bot.commands.configuring import Configuring
from bot.commands.insight import Insight
from bot.commands.members import Members
from bot.commands.model import ModelCommands
from bot.commands.pictures import PictureMemory
from bot.commands.privacy import Privacy
from bot.commands.rules import Rules
from bot.commands.setting_up import SettingUp
from bot.commands.shielding import Shielding
from bot.commands.watching import Watching
from bot.services import Services


def cogs(
    bot: commands.AutoShardedBot, services: Services, moderation: Moderation, appeals: AppealPost
) -> list[commands.Cog]:
    """All cogs, ready to be added to `bot`."""
    return [
        Configuring(services),
        Rules(services),
        SettingUp(services),
        Checking(bot, services, moderation),
        Insight(services),
        ModelCommands(bot, services),
        PictureMemory(bot, services),
        Privacy(services),
        Shielding(services),
        Members(services),
        Watching(bot, services, moderation.teller),
        Appealing(services, appeals),
    ]
