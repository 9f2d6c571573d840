"""Trainings with the search policies, objectives, constraints, anchors and races."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, Evolve, OptoPrime, fit
from optimizers.training.acceptance import Paired
from optimizers.training.guide import BadVerdict, judge
from optimizers.training.policies.beam import Beam
from optimizers.training.policies.greedy import Greedy
from optimizers.training.policies.islands import Islands
from optimizers.training.policies.pareto import Pareto, dominates
from optimizers.training.policies.ucb import UCB
from optimizers.training.racing import Racing
from tests.optimizers.training.stand_ins import Changes, Says
from tests.worlds.hidden_rules import HiddenRules
from tracegraph.errors import OptimizerError

SEARCHES = [Beam, UCB, Pareto, lambda: Pareto("objectives"), Islands]


@pytest.fixture
def word() -> Any:
    return tg.node("plain", trainable=True, name="word")


def length(example: Any, output: Any) -> tuple[float, str]:
    return float(len(output)), f"make {example} longer"


def in_words(result: Any) -> list[Any]:
    return [
        [e.kind, e.step, e.score and round(e.score, 9), e.before and round(e.before, 9), e.candidate,
         e.spend.runs, e.spend.calls]
        for e in result.history if e.kind != "started"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "options", "digest"),
    [
        (1, {}, "011c4ded20b6"),
        (2, {"validate_every": 3, "batch_size": 5}, "013837c56f19"),
        (0, {"proposals": 2, "tries": 1}, "040e29d130bb"),
        (2, {"validation": None, "perfect": 1.0}, "99ae914a3935"),
    ],
)
def test_greedy_goes_as_the_loop_went_before_there_were_policies(
    seed: int, options: dict[str, Any], digest: str
) -> None:
    """The digests are those of the loop that knew no policy, on these worlds."""
    world = HiddenRules(seed, sabotage=0.3)
    run, prompt = world.workflow()
    given = {
        "validation": world.validation, "budget": Budget(steps=8, runs=300), "seed": seed,
        "optimizer": OptoPrime([prompt], llm=world.ask, budget=1_250), "search": Greedy(), **options,
    }  # fmt: skip
    told = json.dumps(in_words(fit(run, world.train, world.guide, **given)))
    assert hashlib.sha256(told.encode()).hexdigest()[:12] == digest


def world_of(seed: int, search: Any, **options: Any) -> tuple[Any, Any, HiddenRules]:
    world = HiddenRules(seed, sabotage=0.2)
    run, prompt = world.workflow()
    given = {
        "validation": world.validation, "budget": Budget(steps=10, runs=700), "seed": seed,
        "optimizer": OptoPrime([prompt], llm=world.ask, budget=1_250), "search": search, **options,
    }  # fmt: skip
    return fit(run, world.train, world.guide, **given), prompt, world


@pytest.mark.parametrize("make", SEARCHES)
def test_every_search_learns_and_ends_with_the_best_that_it_compared(make: Any) -> None:
    result, prompt, world = world_of(3, make())
    assert result.score > result.baseline + 0.3
    compared = {e.candidate: e.score for e in result.history if e.kind == "validated"}
    assert result.score == pytest.approx(max(compared.values()))
    assert prompt.data == result.best.values["prompt"]
    assert result.spend.runs == world.calls["task"] <= 700
    accepted = [e.candidate for e in result.history if e.kind == "accepted"]
    assert set(accepted) <= compared.keys()
    assert all(e.parents for e in result.history if e.kind == "accepted")


@pytest.mark.parametrize("make", SEARCHES)
def test_the_same_seed_gives_the_same_run_with_1_and_16_workers(make: Any) -> None:
    runs = [world_of(5, make(), workers=workers)[0] for workers in (1, 16)]
    assert in_words(runs[0]) == in_words(runs[1])
    assert runs[0].best == runs[1].best


@pytest.mark.parametrize("make", SEARCHES)
@pytest.mark.parametrize("runs", [90, 117, 160])
def test_no_search_exceeds_the_budget_of_runs(make: Any, runs: int) -> None:
    result, _, world = world_of(1, make(), budget=runs, batch_size=5, tries=2)
    assert result.spend.runs == world.calls["task"] <= runs
    assert "budget" in result.stopped


def test_without_a_validation_set_a_search_compares_on_the_training_set(word: Any) -> None:
    result = fit(
        lambda x: word + x, ["a", "bb", "ccc"], length, optimizer=Says(word, "longer", "bad"),
        search=Beam(2), budget=Budget(steps=2), tries=1, batch_size=2, acceptance=Paired(1.0),
    )  # fmt: skip
    assert (result.baseline, result.score) == (7.0, 8.0)
    assert [len(e.scores) for e in result.front] == [3]


def test_a_policy_that_is_given_is_not_changed_and_serves_again(word: Any) -> None:
    search = Beam(2)
    for text in ("longer", "much longer"):
        fit(
            lambda x: word + x, ["a", "bb", "ccc"], length, optimizer=Says(word, text),
            search=search, budget=Budget(steps=1), tries=1,
        )  # fmt: skip
    assert word.data == "much longer"
    assert search.entries == []


# Several branches, and a merge of them


def test_a_merged_candidate_is_tested_and_kept() -> None:
    a = tg.node(0, trainable=True, name="a")
    b = tg.node(0, trainable=True, name="b")

    @tg.bundle
    def solve(a: int, b: int, example: str) -> float:
        """Each parameter helps its own examples; `keep` is solved by the start alone."""
        return {"a": float(a), "b": float(b), "start": 1.0 - 0.4 * (a + b) / 2}[example]

    def change(present: dict[str, int], count: int) -> dict[str, int]:
        return {"a": 1} if count % 2 == 0 else {"b": 1}

    result = fit(
        lambda example: solve(a, b, example), ["a", "b", "start"], lambda e, o: float(o),
        optimizer=Changes([a, b], lambda p, n: change(p, n) if p == {"a": 0, "b": 0} else {}),
        search=Pareto(), budget=Budget(steps=25), acceptance=Paired(1.0), tries=1,
    )  # fmt: skip
    merged = [e for e in result.history if e.kind == "accepted" and len(e.parents) == 2]
    assert len(merged) == 1
    assert (a.data, b.data) == (1, 1)
    assert result.candidates[merged[0].candidate].parents == merged[0].parents


# Several objectives


def answer(word: Any) -> Any:
    return lambda x: word + x


def trade_off(example: str, output: str) -> tuple[dict[str, float], str]:
    return {"long": len(output) / 10, "few e": -float(output.count("e"))}, "longer, and no e"


def test_objectives_go_from_the_guide_to_the_result(word: Any) -> None:
    result = fit(
        answer(word), ["a", "b", "c"], trade_off, validation=["x"], search=Pareto("objectives"),
        optimizer=Says(word, "eeeeeeeeeeeeeeeeee", "plainest", "plain", "plains"),
        weights={"long": 1.0, "few e": 0.0}, budget=Budget(steps=3), tries=1,
    )  # fmt: skip
    accepted = [e for e in result.history if e.kind == "accepted"]
    assert accepted[0].objectives == {"long": pytest.approx(1.9), "few e": -18.0}
    assert "long 1.900" in str(accepted[0])
    assert result.best.values["word"] == "e" * 18  # by the weights
    points = [tuple(v for _, v in sorted(e.objectives.items())) for e in result.front]
    assert len(points) >= 2
    assert not any(dominates(p, q) for p in points for q in points)


def test_weights_decide_what_is_better(word: Any) -> None:
    for weights, wanted in (
        ({"long": 1, "few e": 0}, "e" * 18),
        ({"long": 0, "few e": 1}, "plain"),
    ):
        word.assign("plain")
        fit(
            answer(word), ["a", "b", "c"], trade_off, weights=weights, tries=1,
            optimizer=Says(word, "e" * 18), budget=Budget(steps=1),
        )  # fmt: skip
        assert word.data == wanted


def test_the_optimizer_reads_each_objective(word: Any) -> None:
    optimizer = Says(word, "longer")
    fit(answer(word), ["a"], trade_off, optimizer=optimizer, budget=Budget(steps=1))
    assert "long 0.6, few e -0" in optimizer.seen[0]
    assert "longer, and no e" in optimizer.seen[0]


@pytest.mark.parametrize(
    ("said", "weights"),
    [({}, None), ({"a": float("nan")}, None), ({1: 1.0}, None), ({"a": 1.0}, {"b": 1.0}),
     ([{"a": 1.0}, {"b": 1.0}], None), ({"a": True, "b": None}, None)],
    ids=str,
)  # fmt: skip
def test_objectives_that_cannot_be_used_are_an_error(said: Any, weights: Any) -> None:
    with pytest.raises(BadVerdict, match="the-example"):
        judge(lambda example, output: said, "the-example", "output", weights)


def test_objectives_are_the_same_for_every_example(word: Any) -> None:
    with pytest.raises(BadVerdict, match="the same for every example"):
        fit(answer(word), ["a", "b"], lambda e, o: {e: 1.0}, optimizer=Says(word, "x"), workers=1)


# Constraints and anchors


def no_digits(example: Any, output: str) -> tuple[bool, str]:
    return not any(c.isdigit() for c in output), "digits are forbidden"


@pytest.mark.parametrize("search", [None, *SEARCHES[:4]])
def test_a_candidate_that_cheats_is_never_kept_whatever_its_score(word: Any, search: Any) -> None:
    optimizer = Says(word, "1234567890" * 9, "longer", "0" * 99, "longer still")
    result = fit(
        answer(word), ["a", "b", "c"], length, validation=["x", "y"], optimizer=optimizer,
        constraints={"plain": no_digits}, budget=Budget(steps=4), tries=1,
        search=None if search is None else search(),
    )  # fmt: skip
    assert word.data == "longer still" == result.best.values["word"]
    assert "violates more constraints" in optimizer.refused[0]
    assert all(e.violations == 0 for e in result.front)


def test_a_start_that_violates_a_constraint_recovers_even_at_a_lower_score(word: Any) -> None:
    word.assign("123456789")
    optimizer = Says(word, "short")
    result = fit(
        answer(word), ["a", "b", "c"], length, validation=["x"], optimizer=optimizer,
        constraints={"plain": no_digits}, budget=Budget(steps=1), tries=1,
    )  # fmt: skip
    assert word.data == "short"
    assert result.score < result.baseline
    assert "plain does not hold: digits are forbidden" in optimizer.seen[0]


def test_failing_is_no_way_to_keep_a_constraint_or_to_be_good_at_an_objective() -> None:
    number = tg.node(2, trainable=True, name="number")

    @tg.bundle
    def divided(number: int, by: int) -> float:
        """Fails at zero."""
        return by / number

    result = fit(
        lambda by: divided(number, by), [1, 2, 3], lambda e, o: {"a": o, "b": -o}, tries=1,
        constraints={"whole": lambda e, o: o == int(o)}, optimizer=Says(number, 0),
        budget=Budget(steps=1), search=Pareto("objectives"),
    )  # fmt: skip
    assert number.data == 2
    (tried,) = (e for e in result.history if e.kind == "proposed")
    assert tried.objectives == {"a": 0.5, "b": -1.5}  # the worst of any run


@pytest.mark.parametrize("said", [None, "no", (1, 2, 3), 1 / 3 > 5 or "x"])
def test_a_constraint_that_says_nothing_is_an_error(word: Any, said: Any) -> None:
    with pytest.raises(BadVerdict, match="True or False"):
        fit(
            answer(word), ["a"], length, optimizer=Says(word, "x"),
            constraints={"plain": lambda e, o: said},
        )  # fmt: skip


def test_a_constraint_that_raises_is_named(word: Any) -> None:
    with pytest.raises(BadVerdict, match="constraint 'plain' raised ZeroDivisionError"):
        fit(
            answer(word), ["a"], length, optimizer=Says(word, "x"),
            constraints={"plain": lambda e, o: 1 / 0},
        )  # fmt: skip


@pytest.mark.parametrize("search", [None, *SEARCHES[:3]])
def test_what_makes_an_anchor_worse_is_refused(word: Any, search: Any) -> None:
    def guide(example: str, output: str) -> float:
        return -float(len(output)) if example == "anchor" else float(len(output))

    optimizer = Says(word, "longer", "plain", "LARGER")
    result = fit(
        answer(word), ["a", "b", "c"], guide, optimizer=optimizer, anchors=["anchor"],
        budget=Budget(steps=2), tries=1, search=None if search is None else search(),
    )  # fmt: skip
    assert word.data == "plain"
    assert "the anchor 'anchor' got worse: -12 where" in optimizer.refused[0]
    assert result.spend.runs >= 3 + 3 + 2


def test_an_anchor_that_stays_as_good_lets_a_candidate_pass(word: Any) -> None:
    fit(
        answer(word), ["a", "b", "c"], length, optimizer=Says(word, "longer"), anchors=["d", "e"],
        budget=Budget(steps=1), tries=1,
    )  # fmt: skip
    assert word.data == "longer"


# Racing


def test_racing_saves_runs_and_finds_the_same(word: Any) -> None:
    examples = ["x" * (n % 7) for n in range(60)]
    texts = ["", "p", "pl", "a longer word"]

    def spent(racing: Racing | None) -> tuple[str, int, list[str]]:
        word.assign("plain")
        result = fit(
            answer(word), examples, lambda e, o: float(len(o)), optimizer=Says(word, *texts),
            batch_size=60, proposals=4, budget=Budget(steps=1), tries=1, racing=racing,
        )  # fmt: skip
        return word.data, result.spend.runs, [e.kind for e in result.history]

    plain, raced = spent(None), spent(Racing(0.2, block=10))
    assert plain[0] == raced[0] == "a longer word"
    assert plain[1] == 60 * 5
    assert raced[1] <= 60 * 2 + 3 * 20  # two looks and three are out
    assert raced[2].count("dropped") == 3


def test_the_present_values_race_too(word: Any) -> None:
    optimizer = Says(word, "p")
    result = fit(
        answer(word), ["x"] * 40, lambda e, o: float(len(o)), optimizer=optimizer, batch_size=40,
        budget=Budget(steps=1), tries=1, racing=Racing(block=10),
    )  # fmt: skip
    assert result.spend.runs == 40 + 10
    assert "dropped early" in optimizer.refused[0]


def test_a_search_that_asks_is_told_of_what_was_dropped() -> None:
    number = tg.node(5.0, trainable=True, name="number")
    search = Evolve([number], seed=1)
    random = Random(0)
    noise = [random.random() / 100 for _ in range(40)]
    fit(
        lambda x: number * 1, list(range(40)), lambda e, o: noise[e] - (o - 1) ** 2,
        optimizer=search, budget=Budget(steps=8), proposals=4, tries=1, batch_size=40,
        racing=Racing(block=10),
    )  # fmt: skip
    assert abs(number.data - 1) < 1.5
    assert len(search.history) > 25


# Afterwards


def test_a_report_shows_who_descends_from_whom(word: Any, tmp_path: Path) -> None:
    result = fit(
        answer(word), ["a", "b", "c"], trade_off, validation=["x"], search=Beam(2),
        optimizer=Says(word, "plainly", "</script><b>no", "x"), budget=Budget(steps=3), tries=1,
    )  # fmt: skip
    text = result.report(tmp_path / "report.html").read_text()
    assert "plainly" in text
    assert "long" in text
    for event in result.history:
        assert event.candidate[:8] in text
    assert "<b>no" not in text


def test_a_kept_run_has_the_lineage_and_each_objective(word: Any, tmp_path: Path) -> None:
    with tg.run("search", store=tmp_path):
        result = fit(
            answer(word), ["a", "b", "c"], trade_off, search=Beam(2), tries=1,
            optimizer=Says(word, "plainly", "plainly so"), budget=Budget(steps=2),
        )  # fmt: skip
    kept = {c.id: c for c in tg.History(tmp_path).run("search").candidates}
    best = kept[result.best.id]
    assert best.parents == result.best.parents
    assert set(best.parents) <= kept.keys()
    assert best.details["values"] == {"word": "plainly so"}
    (scored,) = (e for e in result.history if e.candidate == best.id and e.kind == "validated")
    assert best.score == scored.score
    assert best.scores == scored.objectives
    assert len(best.details["examples"]) == 3


def test_misspelled_options_are_named_with_the_nearest() -> None:
    with pytest.raises(TypeError, match="'batchsize'; did you mean 'batch_size'"):
        fit(len, [1], length, batchsize=3)


@pytest.mark.parametrize(
    "wrong",
    [{"search": "pareto"}, {"racing": 3}, {"acceptance": 3}, {"patience": 0}, {"target": "high"},
     {"on": [3]}, {"constraints": [len]}, {"constraints": {"a": 3}}, {"weights": {"a": "much"}},
     {"weights": {"a": 0}}, {"seed": 1.5}, {"anchors": "text"}, {"store": 3}, {"workers": 0}],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused_before_anything_runs(
    word: Any, wrong: dict[str, Any]
) -> None:
    ran: list[Any] = []
    with pytest.raises(OptimizerError):
        fit(ran.append, [1, 2], length, optimizer=Says(word, "x"), **wrong)
    assert not ran
