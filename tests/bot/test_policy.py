"""The rules: what a guild's settings make of scores, and that nothing done is ever milder than it should be."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinted import sidecar

from bot.rules.policy import (
    NEVER,
    UNJUDGED,
    Action,
    GuildPolicy,
    Mode,
    ModerationRule,
    RuleOutcome,
    ScopedRule,
    apply_rules,
    limit_action,
    merge_outcomes,
    refused_outcome,
)
from bot.rules.scopes import EVERYWHERE, Circumstances, Scope

LABELS = ("red", "green", "blue", "corrupt")
ids = st.integers(0, 2**64 - 1)
shares = st.floats(0, 1)
rules = st.builds(ModerationRule, st.sampled_from(LABELS), shares, st.sampled_from(Action), st.booleans())
scopes = st.builds(Scope, *(st.none() | st.integers(1, 4) for _ in range(3))).filter(lambda scope: scope != EVERYWHERE)
scoped = st.builds(
    ScopedRule, st.sampled_from(LABELS), shares | st.just(NEVER), st.sampled_from(Action), st.booleans(), scopes
)
places = st.builds(
    Circumstances,
    st.lists(st.integers(1, 4), unique=True, max_size=2).map(tuple),
    st.frozensets(st.integers(1, 4)),
    st.none() | st.floats(0, 6),
)
scores = st.dictionaries(st.sampled_from(LABELS), shares)
outcomes = st.builds(
    RuleOutcome, st.sampled_from(Action), st.booleans(), st.sampled_from(LABELS), shares, st.none() | shares
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
    scoped_rules=st.lists(scoped, unique_by=lambda rule: rule.key).map(tuple),
    exempt_moderators=st.booleans(),
    tell_author=st.booleans(),
    unknown=added,
)


@given(policies)
def test_settings_come_back_as_they_were_stored(policy: GuildPolicy) -> None:
    again = GuildPolicy.from_json(policy.to_json())
    assert (again, again.unknown) == (policy, policy.unknown)
    assert again.to_json() == policy.to_json()
    assert isinstance(again.mode, Mode)
    assert all(isinstance(rule.action, Action) for rule in again.rules or ())


@given(policies, st.sets(st.sampled_from(sorted(asdict(GuildPolicy())))))
def test_settings_of_an_older_version_lack_fields_and_get_todays_defaults(
    policy: GuildPolicy, absent: set[str]
) -> None:
    stored = {name: value for name, value in json.loads(policy.to_json()).items() if name not in absent}
    defaults = GuildPolicy()
    expected = replace(policy, **{name: getattr(defaults, name) for name in absent - {"unknown"}})
    assert GuildPolicy.from_json(json.dumps(stored)) == expected


def test_rules_of_another_version_are_read() -> None:
    stored = {"rules": [{"label": "red", "threshold": 0.5, "action": 3, "appeal": "a newer version's"}], "badge": 1}
    policy = GuildPolicy.from_json(json.dumps(stored))
    assert policy.rules == (ModerationRule("red", 0.5, Action.DELETE, ping=False),)
    assert json.loads(policy.to_json())["badge"] == 1


def test_the_default_settings_are_the_most_careful() -> None:
    policy = GuildPolicy.from_json("{}")
    assert policy == GuildPolicy()
    assert (policy.mode, policy.skip_age_gated, policy.rules) == (Mode.SHADOW, True, None)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("binary", ["red"]), ("multiclass", ["red", "green"]), ("multilabel", ["red", "green", "blue"])],
)
def test_the_default_rules_flag_from_the_models_thresholds(kind: str, labels: list[str]) -> None:
    effective = GuildPolicy().effective_rules(sidecar(kind))
    assert effective == tuple(ModerationRule(label, 0.6, Action.FLAG) for label in labels)
    assert GuildPolicy(rules=()).effective_rules(sidecar(kind)) == (), "a guild may want none"


@given(policies, rules)
def test_a_rule_replaces_the_one_of_the_same_label_and_action(policy: GuildPolicy, rule: ModerationRule) -> None:
    model = sidecar("multiclass")
    changed = policy.with_rule(model, rule)
    others = [each for each in policy.effective_rules(model) if (each.label, each.action) != (rule.label, rule.action)]
    assert changed.rules is not None
    assert sorted(changed.rules, key=repr) == sorted([*others, rule], key=repr)
    assert changed.with_rule(model, rule) == changed
    without = changed.without_rule(model, rule.label, rule.action)
    assert sorted(without.rules or (), key=repr) == sorted(others, key=repr)
    assert replace(changed, rules=policy.rules) == policy
    assert changed.unknown == policy.unknown


RULES = (
    ModerationRule("red", 0.5, Action.FLAG),
    ModerationRule("red", 0.9, Action.DELETE, ping=True),
    ModerationRule("green", 0.5, Action.FLAG, ping=True),
    ModerationRule("blue", 0.2, Action.LOG),
    ModerationRule("corrupt", 1.0, Action.FLAG),
)


@pytest.mark.parametrize(
    ("picture_scores", "expected"),
    [
        ({"red": 0.95}, RuleOutcome(Action.DELETE, True, "red", 0.95, 0.9)),
        ({"red": 0.9}, RuleOutcome(Action.DELETE, True, "red", 0.9, 0.9)),
        ({"red": math.nextafter(0.9, 0)}, RuleOutcome(Action.FLAG, False, "red", math.nextafter(0.9, 0), 0.5)),
        ({"red": 0.6, "green": 0.7}, RuleOutcome(Action.FLAG, True, "green", 0.7, 0.5)),
        ({"red": 0.8, "green": 0.5}, RuleOutcome(Action.FLAG, True, "red", 0.8, 0.5)),
        ({"red": 0.95, "green": 0.99}, RuleOutcome(Action.DELETE, True, "red", 0.95, 0.9)),
        ({"red": 0.1, "blue": 0.3}, RuleOutcome(Action.LOG, False, "blue", 0.3, 0.2)),
        ({"red": 0.45, "blue": 0.1}, RuleOutcome(Action.LOG, False, "red", 0.45, None)),
        ({"red": 0.3, "green": 0.1, "other": 0.9}, RuleOutcome(Action.LOG, False, "red", 0.3, None)),
        ({"other": 0.9, "more": 0.1}, RuleOutcome(Action.LOG, False, "other", 0.9, None)),
        ({"corrupt": 1.0}, RuleOutcome(Action.FLAG, False, "corrupt", 1.0, 1.0)),
        ({}, RuleOutcome()),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_rules_are_applied_to_scores(picture_scores: dict[str, float], expected: RuleOutcome) -> None:
    assert apply_rules(picture_scores, RULES) == expected
    assert apply_rules(picture_scores, RULES[::-1]) == expected, "their order says nothing"


@pytest.mark.parametrize("reason", UNJUDGED)
def test_a_picture_that_cannot_be_judged_is_let_through_unless_a_rule_says_otherwise(reason: str) -> None:
    assert apply_rules({reason: 1.0}, RULES[:4]) == RuleOutcome(Action.LOG, False, reason, 1.0, None)
    assert apply_rules({reason: 1.0}, [*RULES[:4], ModerationRule(reason, 1.0, Action.DELETE)]).action is Action.DELETE


@given(scores, st.lists(rules), st.sampled_from(LABELS), shares)
def test_a_higher_score_is_never_milder(
    before: dict[str, float], kept: list[ModerationRule], label: str, score: float
) -> None:
    after = {**before, label: max(score, before.get(label, 0.0))}
    assert apply_rules(after, kept).action >= apply_rules(before, kept).action
    assert apply_rules(after, kept).ping >= apply_rules(before, kept).ping


@given(scores, st.lists(rules), rules)
def test_one_more_rule_is_never_milder(
    picture_scores: dict[str, float], kept: list[ModerationRule], more: ModerationRule
) -> None:
    assert apply_rules(picture_scores, [*kept, more]).action >= apply_rules(picture_scores, kept).action


@given(scores, st.lists(rules))
def test_an_outcome_names_the_rule_that_was_met(picture_scores: dict[str, float], kept: list[ModerationRule]) -> None:
    result = apply_rules(picture_scores, kept)
    met = [rule for rule in kept if rule.label in picture_scores and picture_scores[rule.label] >= rule.threshold]
    assert (result.threshold is None) == (not met)
    assert result.action == max((rule.action for rule in met), default=Action.LOG)
    assert result.score == picture_scores.get(result.label, 0.0)
    if met:
        assert any(
            (each.label, each.threshold, each.action) == (result.label, result.threshold, result.action) for each in met
        )


@given(st.sampled_from(LABELS), st.lists(rules))
def test_what_a_moderator_refused_is_at_least_deleted(label: str, kept: list[ModerationRule]) -> None:
    result = refused_outcome(label, kept)
    assert result.action == max(Action.DELETE, *(rule.action for rule in kept if rule.label == label), Action.LOG)
    assert isinstance(result.action, Action)
    assert (result.label, result.score) == (label, 1.0)


@given(st.sampled_from(Action))
def test_modes_limit_actions(action: Action) -> None:
    assert limit_action(Mode.SHADOW, action) is Action.LOG
    assert limit_action(Mode.REVIEW, action) is min(action, Action.FLAG)
    assert limit_action(Mode.ENFORCE, action) is action


@given(st.lists(outcomes))
def test_a_message_is_as_bad_as_its_worst_picture(every: list[RuleOutcome]) -> None:
    result = merge_outcomes(iter(every))
    assert result.action == max((each.action for each in every), default=Action.LOG)
    assert result.ping == any(each.ping for each in every)
    assert (
        result == RuleOutcome()
        if not every
        else replace(result, ping=False) in [replace(each, ping=False) for each in every]
    )


def test_the_entry_of_a_message_names_a_met_rule_before_a_high_score() -> None:
    unmet, met = RuleOutcome(label="corrupt", score=1.0), RuleOutcome(label="blue", score=0.3, threshold=0.2)
    assert merge_outcomes([unmet, met]) == merge_outcomes([met, unmet]) == met


def test_actions_are_stored_by_number() -> None:
    stored = json.loads(GuildPolicy(rules=(ModerationRule("red", 0.5, Action.TIMEOUT),)).to_json())
    assert stored["rules"] == [{"label": "red", "threshold": 0.5, "action": 4, "ping": False}]
    assert [int(action) for action in Action] == list(range(5)), "what is stored means the same for ever"


def test_rules_on_labels_that_a_model_lacks_do_not_apply() -> None:
    model = sidecar("binary")
    rules = tuple(ModerationRule(label, 0.5, Action.FLAG) for label in ("red", "blue", "corrupt", "green"))
    assert [rule.label for rule in GuildPolicy(rules=rules).inapplicable_rules(model)] == ["green"]
    local = tuple(ScopedRule(rule.label, 0.5, Action.FLAG, scope=Scope(channel=1)) for rule in rules)
    assert GuildPolicy(scoped_rules=local).inapplicable_rules(model) == (local[3],)
    assert GuildPolicy().inapplicable_rules(model) == ()


# Rules with a scope


def named(rules: tuple[ModerationRule, ...]) -> dict[tuple[str, Action], ModerationRule]:
    found = {(rule.label, rule.action): rule for rule in rules}
    assert len(found) == len(rules), "one rule for each label and action"
    return found


@given(policies, places)
def test_a_scoped_rule_replaces_the_servers_rule_of_its_label_and_action_alone(
    policy: GuildPolicy, place: Circumstances
) -> None:
    model = sidecar("multiclass")
    if policy.rules is not None:
        policy = replace(policy, rules=tuple({(rule.label, rule.action): rule for rule in policy.rules}.values()))
    here, everywhere = named(policy.at(place).effective_rules(model)), named(policy.server_rules(model))
    holding = [rule for rule in policy.scoped_rules if rule.scope.holds(place)]
    local = {(rule.label, rule.action) for rule in holding}
    assert {key: rule for key, rule in here.items() if key not in local} == {
        key: rule for key, rule in everywhere.items() if key not in local
    }
    for key in local:
        rank = max(rule.scope.specificity(place) for rule in holding if (rule.label, rule.action) == key)
        best = [rule for rule in holding if (rule.label, rule.action) == key and rule.scope.specificity(place) == rank]
        assert here[key] in best
        assert here[key].threshold == min(rule.threshold for rule in best), "among equals, the stricter one"


@given(policies, places, scores, st.randoms())
def test_the_order_of_scoped_rules_says_nothing(
    policy: GuildPolicy, place: Circumstances, found: dict[str, float], random: Random
) -> None:
    model = sidecar("multiclass")
    shuffled = list(policy.scoped_rules)
    random.shuffle(shuffled)
    first, second = (
        apply_rules(found, each.at(place).effective_rules(model))
        for each in (policy, replace(policy, scoped_rules=tuple(shuffled)))
    )
    assert first == second


@given(policies, places)
def test_what_is_stored_does_not_depend_on_the_message(policy: GuildPolicy, place: Circumstances) -> None:
    assert policy.at(place).to_json() == policy.to_json()
    assert policy.at(place).at(Circumstances()).effective_rules(sidecar("binary")) == policy.server_rules(
        sidecar("binary")
    )


@given(policies, scoped)
def test_a_scoped_rule_replaces_the_one_of_the_same_key(policy: GuildPolicy, rule: ScopedRule) -> None:
    changed = policy.with_scoped_rule(rule)
    others = [each for each in policy.scoped_rules if each.key != rule.key]
    assert list(changed.scoped_rules) == [*others, rule]
    assert list(changed.without_scoped_rule(rule).scoped_rules) == others
    assert replace(changed, scoped_rules=policy.scoped_rules) == policy


CHANNEL, CATEGORY, ROLE, OTHER_ROLE = 1, 2, 3, 4
PLACE = Circumstances((CHANNEL, CATEGORY), frozenset({ROLE, OTHER_ROLE}), member_days=2.5)


@pytest.mark.parametrize(
    ("loser", "winner"),
    [
        (Scope(newcomer_days=7), Scope(newcomer_days=3)),
        (Scope(newcomer_days=3), Scope(role=ROLE)),
        (Scope(role=ROLE), Scope(role=ROLE, newcomer_days=7)),
        (Scope(role=ROLE, newcomer_days=3), Scope(channel=CATEGORY)),
        (Scope(channel=CATEGORY, role=ROLE), Scope(channel=CHANNEL)),
        (Scope(channel=CHANNEL, newcomer_days=7), Scope(channel=CHANNEL, role=ROLE)),
    ],
)
def test_the_most_specific_scope_decides(loser: Scope, winner: Scope) -> None:
    milder = ScopedRule("red", 0.9, Action.DELETE, scope=winner)
    stricter = ScopedRule("red", 0.1, Action.DELETE, scope=loser)
    for rules in ((milder, stricter), (stricter, milder)):
        policy = GuildPolicy(rules=(ModerationRule("red", 0.5, Action.DELETE),), scoped_rules=rules)
        assert policy.at(PLACE).effective_rules(sidecar("binary")) == (milder,)


@pytest.mark.parametrize(
    "scope",
    [
        Scope(channel=9),
        Scope(role=9),
        Scope(newcomer_days=2),
        Scope(channel=CHANNEL, role=9),
        Scope(channel=9, role=ROLE),
        Scope(channel=CHANNEL, newcomer_days=1),
    ],
)
def test_outside_of_its_scope_a_rule_does_not_apply(scope: Scope) -> None:
    policy = GuildPolicy(rules=(), scoped_rules=(ScopedRule("red", 0.1, Action.DELETE, scope=scope),))
    assert policy.at(PLACE).effective_rules(sidecar("binary")) == ()


def test_who_is_no_member_is_no_newcomer() -> None:
    policy = GuildPolicy(rules=(), scoped_rules=(ScopedRule("red", 0.1, Action.DELETE, scope=Scope(newcomer_days=7)),))
    assert policy.at(Circumstances((CHANNEL,), member_days=None)).effective_rules(sidecar("binary")) == ()
    assert policy.at(Circumstances((CHANNEL,), member_days=0.0)).effective_rules(sidecar("binary")) != ()


def test_an_action_can_be_switched_off_for_a_channel() -> None:
    never = ScopedRule("corrupt", NEVER, Action.DELETE, scope=Scope(channel=CHANNEL))
    policy = GuildPolicy(rules=(ModerationRule("corrupt", 1.0, Action.DELETE),), scoped_rules=(never,))
    assert apply_rules({"corrupt": 1.0}, policy.at(PLACE).effective_rules(sidecar("binary"))).action is Action.LOG


def test_an_older_version_does_not_see_scoped_rules() -> None:
    policy = GuildPolicy(rules=(), scoped_rules=(ScopedRule("red", 0.1, Action.DELETE, scope=Scope(role=ROLE)),))
    stored = json.loads(policy.to_json())
    assert stored["rules"] == [], "it would apply them to the whole server"
    assert stored["scoped_rules"] == [
        {"label": "red", "threshold": 0.1, "action": 3, "ping": False, "scope": {"role": ROLE}}
    ]


def test_a_rule_with_a_condition_of_a_newer_version_is_kept_and_does_not_apply() -> None:
    newer = {"label": "red", "threshold": 0.1, "action": 3, "ping": False, "scope": {"channel": 1, "language": "de"}}
    policy = GuildPolicy.from_json(json.dumps({"scoped_rules": [newer]}))
    assert policy.scoped_rules == ()
    changed = policy.with_scoped_rule(ScopedRule("red", 0.5, Action.FLAG, scope=Scope(channel=1)))
    assert newer in json.loads(changed.to_json())["scoped_rules"]
    assert GuildPolicy.from_json(changed.to_json()).to_json() == changed.to_json()
