"""The rules: what a guild's settings make of scores, and that nothing done is ever milder than it should be."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinted import sidecar

from bot.rules.policy import UNJUDGED, Action, GuildPolicy, Mode, Outcome, Rule, carried_out, merged, outcome, refused

LABELS = ("red", "green", "blue", "corrupt")
ids = st.integers(0, 2**64 - 1)
shares = st.floats(0, 1)
rules = st.builds(Rule, st.sampled_from(LABELS), shares, st.sampled_from(Action), st.booleans())
scores = st.dictionaries(st.sampled_from(LABELS), shares)
outcomes = st.builds(
    Outcome, st.sampled_from(Action), st.booleans(), st.sampled_from(LABELS), shares, st.none() | shares
)
plain = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
added = st.dictionaries(
    st.text().filter(lambda name: name not in asdict(GuildPolicy())) | st.sampled_from(["unknown", "newer"]), plain
)
policies = st.builds(
    GuildPolicy,
    mode=st.sampled_from(Mode),
    rules=st.none() | st.lists(rules).map(tuple),
    modlog=st.none() | ids,
    moderators=st.none() | ids,
    exempt_roles=st.frozensets(ids),
    exempt_channels=st.frozensets(ids),
    skip_age_gated=st.booleans(),
    skip_bots=st.booleans(),
    timeout_minutes=st.integers(1, 40_320),
    unknown=added,
)


@settings(deadline=None)
@given(policies)
def test_settings_come_back_as_they_were_stored(policy: GuildPolicy) -> None:
    again = GuildPolicy.loads(policy.dumps())
    assert (again, again.unknown) == (policy, policy.unknown)
    assert again.dumps() == policy.dumps()
    assert isinstance(again.mode, Mode)
    assert all(isinstance(rule.action, Action) for rule in again.rules or ())


@settings(deadline=None)
@given(policies, st.sets(st.sampled_from(sorted(asdict(GuildPolicy())))))
def test_settings_of_an_older_version_lack_fields_and_get_todays_defaults(
    policy: GuildPolicy, absent: set[str]
) -> None:
    stored = {name: value for name, value in json.loads(policy.dumps()).items() if name not in absent}
    defaults = GuildPolicy()
    expected = replace(policy, **{name: getattr(defaults, name) for name in absent - {"unknown"}})
    assert GuildPolicy.loads(json.dumps(stored)) == expected


def test_rules_of_another_version_are_read() -> None:
    stored = {"rules": [{"label": "red", "threshold": 0.5, "action": 3, "appeal": "a newer version's"}], "badge": 1}
    policy = GuildPolicy.loads(json.dumps(stored))
    assert policy.rules == (Rule("red", 0.5, Action.DELETE, ping=False),)
    assert json.loads(policy.dumps())["badge"] == 1


def test_nothing_stored_is_the_most_careful_of_settings() -> None:
    policy = GuildPolicy.loads("{}")
    assert policy == GuildPolicy()
    assert (policy.mode, policy.skip_age_gated, policy.rules) == (Mode.SHADOW, True, None)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("binary", ["red"]), ("multiclass", ["red", "green"]), ("multilabel", ["red", "green", "blue"])],
)
def test_without_rules_of_its_own_a_guild_flags_from_the_models_thresholds_on(kind: str, labels: list[str]) -> None:
    found = GuildPolicy().effective(sidecar(kind))
    assert found == tuple(Rule(label, 0.6, Action.FLAG) for label in labels)
    assert GuildPolicy(rules=()).effective(sidecar(kind)) == (), "a guild may want none"


@settings(deadline=None)
@given(policies, rules)
def test_a_rule_takes_the_place_of_that_of_its_label_and_action(policy: GuildPolicy, rule: Rule) -> None:
    model = sidecar("multiclass")
    changed = policy.with_rule(model, rule)
    others = [each for each in policy.effective(model) if (each.label, each.action) != (rule.label, rule.action)]
    assert changed.rules is not None
    assert sorted(changed.rules, key=repr) == sorted([*others, rule], key=repr)
    assert changed.with_rule(model, rule) == changed
    without = changed.without_rule(model, rule.label, rule.action)
    assert sorted(without.rules or (), key=repr) == sorted(others, key=repr)
    assert replace(changed, rules=policy.rules) == policy
    assert changed.unknown == policy.unknown


RULES = (
    Rule("red", 0.5, Action.FLAG),
    Rule("red", 0.9, Action.DELETE, ping=True),
    Rule("green", 0.5, Action.FLAG, ping=True),
    Rule("blue", 0.2, Action.LOG),
    Rule("corrupt", 1.0, Action.FLAG),
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"red": 0.95}, Outcome(Action.DELETE, True, "red", 0.95, 0.9)),
        ({"red": 0.9}, Outcome(Action.DELETE, True, "red", 0.9, 0.9)),
        ({"red": math.nextafter(0.9, 0)}, Outcome(Action.FLAG, False, "red", math.nextafter(0.9, 0), 0.5)),
        ({"red": 0.6, "green": 0.7}, Outcome(Action.FLAG, True, "green", 0.7, 0.5)),
        ({"red": 0.8, "green": 0.5}, Outcome(Action.FLAG, True, "red", 0.8, 0.5)),
        ({"red": 0.95, "green": 0.99}, Outcome(Action.DELETE, True, "red", 0.95, 0.9)),
        ({"red": 0.1, "blue": 0.3}, Outcome(Action.LOG, False, "blue", 0.3, 0.2)),
        ({"red": 0.45, "blue": 0.1}, Outcome(Action.LOG, False, "red", 0.45, None)),
        ({"red": 0.3, "green": 0.1, "other": 0.9}, Outcome(Action.LOG, False, "red", 0.3, None)),
        ({"other": 0.9, "more": 0.1}, Outcome(Action.LOG, False, "other", 0.9, None)),
        ({"corrupt": 1.0}, Outcome(Action.FLAG, False, "corrupt", 1.0, 1.0)),
        ({}, Outcome()),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_what_the_rules_make_of_scores(given: dict[str, float], expected: Outcome) -> None:
    assert outcome(given, RULES) == expected
    assert outcome(given, RULES[::-1]) == expected, "their order says nothing"


@pytest.mark.parametrize("reason", UNJUDGED)
def test_a_picture_that_cannot_be_judged_is_let_through_unless_a_rule_says_otherwise(reason: str) -> None:
    assert outcome({reason: 1.0}, RULES[:4]) == Outcome(Action.LOG, False, reason, 1.0, None)
    assert outcome({reason: 1.0}, [*RULES[:4], Rule(reason, 1.0, Action.DELETE)]).action is Action.DELETE


@settings(deadline=None)
@given(scores, st.lists(rules), st.sampled_from(LABELS), shares)
def test_a_higher_score_is_never_milder(before: dict[str, float], kept: list[Rule], label: str, score: float) -> None:
    after = {**before, label: max(score, before.get(label, 0.0))}
    assert outcome(after, kept).action >= outcome(before, kept).action
    assert outcome(after, kept).ping >= outcome(before, kept).ping


@settings(deadline=None)
@given(scores, st.lists(rules), rules)
def test_one_more_rule_is_never_milder(found: dict[str, float], kept: list[Rule], more: Rule) -> None:
    assert outcome(found, [*kept, more]).action >= outcome(found, kept).action


@settings(deadline=None)
@given(scores, st.lists(rules))
def test_an_outcome_names_the_rule_that_was_met(found: dict[str, float], kept: list[Rule]) -> None:
    made = outcome(found, kept)
    met = [rule for rule in kept if rule.label in found and found[rule.label] >= rule.threshold]
    assert (made.threshold is None) == (not met)
    assert made.action == max((rule.action for rule in met), default=Action.LOG)
    assert made.score == found.get(made.label, 0.0)
    if met:
        assert any(
            (each.label, each.threshold, each.action) == (made.label, made.threshold, made.action) for each in met
        )


@settings(deadline=None)
@given(st.sampled_from(LABELS), st.lists(rules))
def test_what_a_moderator_refused_is_at_least_deleted(label: str, kept: list[Rule]) -> None:
    made = refused(label, kept)
    assert made.action == max(Action.DELETE, *(rule.action for rule in kept if rule.label == label), Action.LOG)
    assert isinstance(made.action, Action)
    assert (made.label, made.score) == (label, 1.0)


@settings(deadline=None)
@given(st.sampled_from(Action))
def test_modes_hold_back(action: Action) -> None:
    assert carried_out(Mode.SHADOW, action) is Action.LOG
    assert carried_out(Mode.REVIEW, action) is min(action, Action.FLAG)
    assert carried_out(Mode.ENFORCE, action) is action


@settings(deadline=None)
@given(st.lists(outcomes))
def test_a_message_is_as_bad_as_its_worst_picture(every: list[Outcome]) -> None:
    made = merged(iter(every))
    assert made.action == max((each.action for each in every), default=Action.LOG)
    assert made.ping == any(each.ping for each in every)
    assert (
        made == Outcome() if not every else replace(made, ping=False) in [replace(each, ping=False) for each in every]
    )


def test_the_entry_of_a_message_names_a_met_rule_before_a_high_score() -> None:
    unmet, met = Outcome(label="corrupt", score=1.0), Outcome(label="blue", score=0.3, threshold=0.2)
    assert merged([unmet, met]) == merged([met, unmet]) == met


def test_actions_are_stored_by_number() -> None:
    stored = json.loads(GuildPolicy(rules=(Rule("red", 0.5, Action.TIMEOUT),)).dumps())
    assert stored["rules"] == [{"label": "red", "threshold": 0.5, "action": 4, "ping": False}]
    assert [int(action) for action in Action] == list(range(5)), "what is stored means the same for ever"
