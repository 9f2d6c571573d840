from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizers.candidate import Candidate
from optimizers.training.policies.beam import Beam
from optimizers.training.policies.greedy import Greedy
from optimizers.training.policies.islands import Islands
from optimizers.training.policies.merge import ancestors, merged
from optimizers.training.policies.pareto import Pareto, dominates, front
from optimizers.training.policies.policy import Entry, Policy
from optimizers.training.policies.ucb import UCB
from tracegraph.errors import OptimizerError

POLICIES = [Greedy, Beam, UCB, Pareto, lambda: Pareto("objectives"), Islands]
vectors = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=12)


def entry(x: Any, scores: Any, *parents: Entry, violations: int = 0, **objectives: float) -> Entry:
    candidate = Candidate.of({"x": x}, tuple(p.candidate.id for p in parents))
    scores = [scores] if isinstance(scores, (int, float)) else scores
    return Entry(candidate, scores, objectives, violations)


def entries(vectors: list[list[int]]) -> list[Entry]:
    return [entry(number, scores) for number, scores in enumerate(vectors)]


def asked(policy: Policy, times: int, seed: int = 0) -> list[Any]:
    random = Random(seed)
    return [policy.ask(random).candidate.values["x"] for _ in range(times)]


# The front


@given(vectors)
def test_nobody_on_the_front_is_beaten_and_everybody_off_it_is(vectors: list[list[int]]) -> None:
    told = entries(vectors)
    on = front(told)
    places = [tuple(e.scores) for e in on]
    assert len(set(places)) == len(places) >= 1
    for e in told:
        beaten = any(dominates(place, e.scores) for place in places)
        assert beaten != (tuple(e.scores) in places)


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=2),
    st.lists(st.integers(0, 3), min_size=2, max_size=2),
)
def test_dominance_goes_one_way(first: list[int], second: list[int]) -> None:
    assert not (dominates(first, second) and dominates(second, first))
    assert not dominates(first, first)


def test_a_planted_candidate_that_violates_a_constraint_is_never_on_the_front() -> None:
    told = [entry(0, [0, 0]), entry(1, [9, 9], violations=1), entry(2, [1, 0])]
    assert [e.candidate.values["x"] for e in front(told)] == [2]
    for make in (Beam, UCB, Pareto):
        policy = make()
        for e in told:
            policy.tell(e)
        assert 1 not in asked(policy, 2)


def test_where_all_violate_the_fewest_come_first() -> None:
    told = [entry(0, [5], violations=3), entry(1, [1], violations=2), entry(2, [2], violations=2)]
    assert [e.candidate.values["x"] for e in front(told)] == [2]


@given(vectors, st.lists(st.integers(0, 1), min_size=12, max_size=12))
def test_the_front_of_one_told_after_the_other_is_that_of_all(
    vectors: list[list[int]], violations: list[int]
) -> None:
    policy, told = Pareto(), []
    for number, scores in enumerate(vectors):
        told.append(entry(number, scores, violations=violations[number]))
        policy.tell(told[-1])
        assert policy.front() == front(told)


@given(vectors, st.integers(0, 99))
def test_pareto_draws_from_the_front_by_how_often_one_is_the_best(
    vectors: list[list[int]], seed: int
) -> None:
    policy = Pareto(merge=False)
    for e in entries(vectors):
        policy.tell(e)
    members = {e.candidate.values["x"] for e in policy.front()}
    most = [max(column) for column in zip(*vectors, strict=True)]
    winning = {x for x in members if any(v == m for v, m in zip(vectors[x], most, strict=True))}
    assert set(asked(policy, 20, seed)) <= winning


def test_pareto_draws_as_often_as_one_wins() -> None:
    policy = Pareto(merge=False)
    policy.tell(entry(0, [1, 1, 1, 0]))
    policy.tell(entry(1, [0, 0, 0, 1]))
    drawn = asked(policy, 4_000)
    assert drawn.count(1) / len(drawn) == pytest.approx(1 / 4, abs=0.03)


def test_pareto_over_objectives_keeps_the_trade_offs() -> None:
    policy = Pareto("objectives", merge=False)
    for x, right, short in ((0, 0.5, 0.5), (1, 0.9, 0.1), (2, 0.1, 0.9), (3, 0.4, 0.4)):
        policy.tell(entry(x, [0.5], right=right, short=short))
    assert set(asked(policy, 200)) == {0, 1, 2}


# Merging


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=6))
def test_a_merge_takes_from_each_side_what_it_changed(values: list[tuple[int, int, int]]) -> None:
    start = Candidate.of({str(i): v[0] for i, v in enumerate(values)})
    one = Entry(Candidate.of({str(i): v[1] for i, v in enumerate(values)}), [1.0])
    two = Entry(Candidate.of({str(i): v[2] for i, v in enumerate(values)}), [0.0])
    made = merged(one, two, start)
    wanted = {
        str(i): second if first == base else first for i, (base, first, second) in enumerate(values)
    }
    known = (start.id, one.candidate.id, two.candidate.id)
    assert (made is None) == (Candidate.of(wanted).id in known)
    if made is not None:
        assert dict(made.values) == wanted
        assert made.parents == (one.candidate.id, two.candidate.id)


def two_parts(x: int, y: int, scores: list[float], *parents: Entry) -> Entry:
    return Entry(Candidate.of({"x": x, "y": y}, tuple(p.candidate.id for p in parents)), scores)


def test_pareto_merges_what_two_branches_learned_once() -> None:
    start = two_parts(0, 0, [0, 0])
    left, right = two_parts(1, 0, [1, 0], start), two_parts(0, 2, [0, 1], start)
    policy = Pareto()
    for e in (start, left, right):
        policy.tell(e)
    task = policy.ask(Random(0))
    assert task.merged
    assert dict(task.candidate.values) == {"x": 1, "y": 2}
    assert set(task.candidate.parents) == {left.candidate.id, right.candidate.id}
    assert not policy.ask(Random(0)).merged
    policy.tell(two_parts(0, 3, [0, 1], right))  # something new, and nothing new to merge
    assert not policy.ask(Random(0)).merged


def test_a_parent_and_its_child_are_not_merged() -> None:
    start = two_parts(0, 0, [0, 1])
    child = two_parts(1, 0, [1, 0], start)
    policy = Pareto()
    policy.tell(start)
    policy.tell(child)
    assert not policy.ask(Random(0)).merged


def test_ancestors_are_found_once_each_the_nearest_first() -> None:
    a = Candidate.of({"x": 0})
    b, c = Candidate.of({"x": 1}, (a.id,)), Candidate.of({"x": 2}, (a.id,))
    d = Candidate.of({"x": 3}, (b.id, c.id, "gone"))
    known = {one.id: one for one in (a, b, c, d)}
    assert list(ancestors(d, known)) == [b.id, c.id, a.id]


# Greedy, beam, UCB


@given(vectors)
def test_greedy_goes_on_from_the_one_told_last(vectors: list[list[int]]) -> None:
    policy = Greedy()
    for number, e in enumerate(entries(vectors)):
        policy.tell(e)
        assert asked(policy, 2) == [number, number]


@given(vectors, st.integers(1, 4))
def test_a_beam_asks_for_the_best_of_all_once_a_round(vectors: list[list[int]], width: int) -> None:
    policy, told = Beam(width), []
    for e in entries(vectors):
        policy.tell(e)
        told.append(e)
        if len(told) % 3 == 0 or len(told) == len(vectors):
            best = sorted(told, key=lambda e: e.score, reverse=True)[:width]
            round_ = asked(policy, len(best))
            assert len(set(round_)) == len(round_) <= width
            assert sorted(told[x].score for x in round_) == sorted(e.score for e in best)


@given(st.integers(1, 6), st.integers(1, 60))
def test_ucb_visits_equals_equally(size: int, times: int) -> None:
    policy = UCB()
    for x in range(size):
        policy.tell(entry(x, 0.5))
    asked(policy, times)
    assert max(policy.visits) - min(policy.visits) <= 2
    assert sum(policy.visits) == times


@given(st.floats(0.05, 1.0), st.floats(0.05, 2.0), st.integers(10, 400))
def test_ucb_visits_the_worse_as_seldom_as_the_bound_allows(
    gap: float, c: float, times: int
) -> None:
    """A candidate that is worse by `gap` is chosen only while its bound reaches the best score."""
    policy = UCB(c)
    policy.tell(entry(0, 1.0))
    policy.tell(entry(1, 1.0 - gap))
    asked(policy, times)
    assert policy.visits[1] <= c**2 * math.log(times) / gap**2 + 2


def test_ucb_never_gives_anyone_up() -> None:
    policy = UCB(c=0.5)
    for x, score in enumerate((0.9, 0.5, 0.1)):
        policy.tell(entry(x, score))
    asked(policy, 3_000)
    assert policy.visits[0] > policy.visits[1] > policy.visits[2] > 1


# Islands


def told_by(policy: Islands, rounds: int, islands: int) -> None:
    """Each island makes candidates of its own: island k the numbers k, k + 10, k + 20 and so on."""
    policy.tell(entry(-1, 0.0))
    random = Random(0)
    for turn in range(rounds * islands):
        policy.ask(random)
        place = turn % islands
        policy.tell(entry(place + 10 * (turn // islands + 1), 0.01 * turn + 10 * (place == 0)))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_between_migrations_islands_know_only_their_own(count: int) -> None:
    policy = Islands(count, every=100, make=lambda: Beam(50))
    told_by(policy, 5, count)
    for place, island in enumerate(policy.islands):
        assert isinstance(island, Beam)
        others = {e.candidate.values["x"] for e in island.entries} - {-1}
        assert {x % 10 for x in others} == {place}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_best_of_all_reaches_every_island_around_the_ring(count: int) -> None:
    policy = Islands(count, every=1, make=lambda: Beam(50))
    told_by(policy, count + 1, count)
    for island in policy.islands:
        assert isinstance(island, Beam)
        assert any(e.candidate.values["x"] % 10 == 0 for e in island.entries)
        names = [e.candidate.id for e in island.entries]
        assert len(set(names)) == len(names)  # nobody comes twice


def test_one_migration_goes_one_island_further() -> None:
    policy = Islands(3, every=2, make=lambda: Beam(50))
    told_by(policy, 3, 3)
    seen = [{e.candidate.values["x"] % 10 for e in i.entries} for i in policy.islands]  # type: ignore[attr-defined]
    assert [found - {9} for found in seen] == [{0, 2}, {1, 0}, {2, 1}]


# Of all


@pytest.mark.parametrize("make", POLICIES)
@given(vectors=vectors, seed=st.integers(0, 5))
def test_the_same_asks_tells_and_chance_give_the_same(
    make: Any, vectors: list[list[int]], seed: int
) -> None:
    def go() -> list[Any]:
        policy, found = make(), []
        for number, scores in enumerate(vectors):
            policy.tell(entry(number, scores, right=float(scores[0]), short=float(scores[1])))
            found += asked(policy, 2, seed + number)
        return found

    assert go() == go()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Beam(0), lambda: UCB(0), lambda: UCB(math.inf), lambda: Pareto("scores"),  # type: ignore[arg-type]
        lambda: Islands(1), lambda: Islands(every=0), lambda: Beam(True),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(make: Any) -> None:
    with pytest.raises(OptimizerError):
        make()
