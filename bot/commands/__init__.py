"""The slash commands, a file for each kind of asker."""

from __future__ import annotations

from bot.commands.checking import Checking
from bot.commands.configuring import Configuring
from bot.commands.insight import Insight
from bot.commands.members import Members
from bot.commands.model import Model
from bot.commands.privacy import Privacy

COGS = (Configuring, Checking, Insight, Model, Privacy, Members)
