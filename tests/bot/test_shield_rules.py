"""Whose limits apply, and what strikes lead to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.rules.bursts import BurstLimits
from bot.rules.policy import GuildPolicy
from bot.rules.shield import ShieldPolicy, describe_limits
from bot.rules.strikes import Penalty, StrikePolicy

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("joined", "channels"), [(None, 3), (NOW - timedelta(days=7), 3), (NOW - timedelta(days=6, hours=23), 2), (NOW, 2)]
)
def test_newcomers_have_limits_of_their_own(joined: datetime | None, channels: int) -> None:
    shield = ShieldPolicy(newcomer_days=7)
    assert shield.limits(joined, NOW).channels == channels
    assert ShieldPolicy().limits(joined, NOW) == BurstLimits(3, 120), "off by default"


def test_the_shield_is_off_and_careful_by_default() -> None:
    policy = GuildPolicy()
    assert (policy.shield.on, policy.shield.any_picture, policy.shield.spare_moderators) == (False, False, True)
    assert (policy.strikes.on, policy.evidence) == (False, False)
    assert describe_limits(policy.shield.limits(None, NOW)) == "the same picture in 3 channels within 120 s"


numbers = st.integers(0, 20)
strike_policies = st.builds(StrikePolicy, timeout=numbers, kick=numbers, ban=numbers)


@given(strike_policies, st.integers(0, 30))
def test_the_severest_penalty_that_is_due_is_chosen(policy: StrikePolicy, count: int) -> None:
    steps = {Penalty.TIMEOUT: policy.timeout, Penalty.KICK: policy.kick, Penalty.BAN: policy.ban}
    due = [penalty for penalty, needed in steps.items() if needed and count >= needed]
    assert policy.penalty(count) == (due[-1] if due else Penalty.NONE)
    assert policy.on or policy.penalty(count) is Penalty.NONE


@given(st.dictionaries(st.sampled_from(["newer", "unknown", "moon"]), st.integers()), st.booleans(), numbers)
def test_nested_settings_of_a_newer_version_are_kept(added: dict[str, int], on: bool, ban: int) -> None:
    policy = GuildPolicy(shield=ShieldPolicy(on=on, unknown=added), strikes=StrikePolicy(ban=ban, unknown=added))
    again = GuildPolicy.from_json(policy.to_json())
    assert again == policy
    assert (again.shield.unknown, again.strikes.unknown) == (added, added)
    assert again.to_json() == policy.to_json()
