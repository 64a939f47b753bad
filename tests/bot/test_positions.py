"""How far a channel was checked: never past a message in progress, nor past a gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.actions.positions import Positions

GUILD, CHANNEL = 10, 20


def begun(start: int = 0, **gaps: int) -> Positions:
    positions = Positions()
    positions.begin(GUILD, {CHANNEL: gaps["gap"]} if gaps else {}, {} if gaps else {CHANNEL: start})
    return positions


def test_a_position_stays_before_the_oldest_message_in_progress() -> None:
    positions = begun(5)
    with positions.checking(GUILD, CHANNEL, 7):
        with positions.checking(GUILD, CHANNEL, 9):
            pass
        assert positions.position(CHANNEL) == 6
    assert positions.position(CHANNEL) == 9
    assert positions.take_changed() == [(GUILD, CHANNEL, 9)]
    assert positions.take_changed() == []


def test_a_message_that_was_broken_off_is_looked_at_again() -> None:
    positions = begun(5)
    with pytest.raises(KeyboardInterrupt), positions.checking(GUILD, CHANNEL, 7):
        raise KeyboardInterrupt
    with positions.checking(GUILD, CHANNEL, 9):
        pass
    assert positions.position(CHANNEL) == 6


def test_an_error_is_not_tried_for_ever() -> None:
    positions = begun(5)
    with pytest.raises(ValueError, match="x"), positions.checking(GUILD, CHANNEL, 7):
        raise ValueError("x")
    assert positions.position(CHANNEL) == 7


def test_new_messages_do_not_hide_a_gap() -> None:
    positions = begun(gap=5)
    with positions.checking(GUILD, CHANNEL, 100):
        pass
    assert positions.position(CHANNEL) == 5
    positions.shrink_gap(CHANNEL, 50)
    assert positions.position(CHANNEL) == 50
    positions.close_gap(CHANNEL)
    assert positions.position(CHANNEL) == 100


def test_a_lost_session_holds_all_positions_until_the_gaps_are_known() -> None:
    positions = begun(5)
    with positions.checking(GUILD, CHANNEL, 6):
        pass
    positions.forget_session(lambda guild: guild == GUILD)
    with positions.checking(GUILD, CHANNEL, 100):
        pass
    assert not positions.is_known(GUILD)
    assert positions.take_changed() == []
    assert positions.gaps(GUILD) == {CHANNEL: 6}
    positions.begin(GUILD, {}, {CHANNEL: 100})
    assert positions.position(CHANNEL) == 100


def test_other_servers_keep_theirs() -> None:
    positions = begun(5)
    positions.forget_session(lambda guild: guild != GUILD)
    assert positions.is_known(GUILD)


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from(["begin", "end"])), max_size=60))
def test_a_position_never_passes_what_is_in_progress(steps: list[tuple[int, str]]) -> None:
    positions, open_ones = begun(0), {}
    for message, step in steps:
        if step == "begin" and message not in open_ones:
            open_ones[message] = positions.checking(GUILD, CHANNEL, message)
            open_ones[message].__enter__()
        elif step == "end" and message in open_ones:
            open_ones.pop(message).__exit__(None, None, None)
        assert all(positions.position(CHANNEL) < message for message in open_ones)
