"""EvoLLM and LLAMBO: better than chance when the model reads the history, and chance when it cannot."""

from __future__ import annotations

import enum
import functools
import json
import math
import re
from collections.abc import Callable
from random import Random
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import tracegraph as tg
from optimizers import LLAMBO, Budget, EvoLLM, RandomSearch, fit
from optimizers.llm.llambo import expected_improvement
from optimizers.llm.space import Space
from optimizers.training.acceptance import p_value
from tracegraph.errors import OptimizerError
from tracegraph.llm import Request, Scripted

ROW = re.compile(r"^score (\S+): (\{.*\})$", re.M)
SEEDS = range(5_000, 5_030)
"""Used for nothing but these comparisons."""


class Shape(enum.Enum):
    ROUND = 1
    SQUARE = 2


def task(seed: int) -> tuple[dict[str, Any], Callable[[Any], float]]:
    """Two numbers and a choice, and a score with its best value 0 somewhere inside."""
    random = Random(f"task {seed}")
    best = {"x": random.uniform(1, 9), "y": random.uniform(-4, 4), "c": random.choice("abc")}
    unit = Annotated[float, Field(ge=0, le=10)], Annotated[float, Field(ge=-5, le=5)]
    made = {
        "x": tg.node(5.0, trainable=True, name="x", constraint=unit[0]),
        "y": tg.node(0.0, trainable=True, name="y", constraint=unit[1]),
        "c": tg.node("a", trainable=True, name="c", constraint=Literal["a", "b", "c"]),
    }

    def score(values: Any) -> float:
        away = (values["x"] - best["x"]) ** 2 + (values["y"] - best["y"]) ** 2
        return -away - 10.0 * (values["c"] != best["c"])

    return made, score


def reached(search: Any, score: Callable[[Any], float], runs: int) -> float:
    for _ in range(runs):
        for candidate in search.ask():
            search.tell(candidate, score(candidate.values))
    return float(search.best_score)


def read(request: Request) -> list[tuple[float, dict[str, Any]]]:
    """The history that a request states, the best last."""
    rows = ROW.findall(request.messages[-1].text.split("#Wanted")[0])
    return sorted(((float(s), json.loads(p)) for s, p in rows), key=lambda row: row[0])


def centre(request: Request) -> str:
    """A model that takes the weighted mean of the better half; knows nothing but what it reads."""
    rows = read(request)
    if not rows:
        return "I have seen nothing."
    return json.dumps({"mean": {**centred(rows), "c": rows[-1][1]["c"]}})


def centred(rows: list[tuple[float, dict[str, Any]]]) -> dict[str, int]:
    """The weighted mean of the better half of a history, the best last."""
    best = rows[::-1][: max(1, len(rows) // 2)]
    weights = [math.log(len(best) + 1) - math.log(n + 1) for n in range(len(best))]
    return {
        name: round(
            sum(w * p[name] for w, (_, p) in zip(weights, best, strict=True)) / sum(weights)
        )
        for name in best[0][1]
    }


def neighbour(request: Request) -> str:
    """A model that suggests points near the best it reads, and predicts by the nearest it reads."""
    text, rows = request.messages[-1].text, read(request)
    random = Random(text)
    asked = re.search(r"#Wanted\n(\d+) points", text)
    if asked is None:
        points = [json.loads(p) for p in text.split("#Points\n")[1].splitlines()]
        return json.dumps({"scores": [predicted(rows, p, random) for p in points]})
    made = []
    for _ in range(int(asked[1])):
        if rows:
            near, step = rows[-1][1], 2.0 * 0.9 ** len(rows)
            x, y = (near[name] + random.gauss(0, step) for name in ("x", "y"))
            made.append({"x": x, "y": y, "c": random.choice([near["c"], *"abc"])})
        else:
            made.append(
                {"x": random.uniform(0, 10), "y": random.uniform(-5, 5), "c": random.choice("abc")}
            )
    return json.dumps({"points": made})


def predicted(
    rows: list[tuple[float, dict[str, Any]]], point: dict[str, Any], random: Random
) -> float:
    """The score of the nearest point that was read, the less sure the farther that is."""

    def away(row: tuple[float, dict[str, Any]]) -> float:
        known = row[1]
        return (
            (known["x"] - point["x"]) ** 2 + (known["y"] - point["y"]) ** 2
            + 100 * (known["c"] != point["c"])
        )  # fmt: skip

    if not rows:
        return 0.0
    near = min(rows, key=away)
    return near[0] + random.gauss(0, math.sqrt(away(near)))


@functools.cache
def by_chance(seed: int, runs: int) -> float:
    """How far from the best random search stays."""
    made, score = task(seed)
    return -reached(RandomSearch(made, seed=seed), score, runs)


def luck(make: Callable[[Any, int], Any], runs: int) -> float:
    """How likely it is by luck that a search comes nearer to the best than random search by as many runs.

    Fisher's test for pairs: the differences of the logarithms of the regrets, seed by seed.
    """
    gains = []
    for seed in SEEDS:
        made, score = task(seed)
        regret = -reached(make(made, seed), score, runs)
        gains.append(math.log(by_chance(seed, runs)) - math.log(regret))
    return p_value(gains)


PARTS: dict[str, dict[str, Any]] = {
    "all": {},
    "sampler": {"surrogate": "none", "warm_start": "random"},
    "surrogate": {"sampler": "random", "warm_start": "random"},
}


# The laws


@pytest.mark.parametrize("runs", [30, 60])
def test_evollm_beats_random_search(runs: int) -> None:
    assert luck(lambda made, seed: EvoLLM(made, Scripted(centre), seed=seed), runs) < 0.01


@pytest.mark.parametrize(
    "part", [p if p == "sampler" else pytest.param(p, marks=pytest.mark.campaign) for p in PARTS]
)
def test_each_part_of_llambo_beats_random_search(part: str) -> None:
    options = PARTS[part]
    assert luck(lambda m, seed: LLAMBO(m, Scripted(neighbour), seed=seed, **options), 30) < 0.01


def test_llambo_without_history_is_random_search() -> None:
    options = {"mask": ["History"], "surrogate": "none"}
    found = luck(lambda m, seed: LLAMBO(m, Scripted(neighbour), seed=seed, **options), 30)
    assert 0.01 < found < 0.99


def test_evollm_without_history_is_one_that_was_told_nothing() -> None:
    def tried(model: Any, **options: Any) -> list[Any]:
        made, score = task(3)
        search = EvoLLM(made, Scripted(model), seed=3, **options)
        reached(search, score, 40)
        return [trial.candidate.values for trial in search.history]

    masked = tried(centre, mask=["#History"])
    assert masked == tried(lambda request: "no idea")
    assert masked != tried(centre)


def test_a_warm_start_that_knows_the_basin_is_ahead_from_the_first_points() -> None:
    def knows(seed: int) -> Callable[[Request], str]:
        random = Random(f"task {seed}")
        x, y, c = random.uniform(1, 9), random.uniform(-4, 4), random.choice("abc")
        return lambda request: json.dumps({"points": [{"x": x + 0.1, "y": y, "c": c}]})

    won, seeds = 0, SEEDS[:10]
    for seed in seeds:
        made, score = task(seed)
        warm = LLAMBO(made, Scripted(knows(seed)), seed=seed, initial=4)
        won += -reached(warm, score, 5) < by_chance(seed, 5)
    assert won == len(seeds)


# What holds whatever the model says


RUBBISH = st.one_of(
    st.text(max_size=80),
    st.builds(
        lambda x, c, key: json.dumps({key: {"x": x, "y": 3, "c": c}}),
        st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans()),
        st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers())),
        st.sampled_from(["mean", "points", "scores"]),
    ),
    st.builds(
        lambda items: json.dumps({"points": items, "scores": items}),
        st.lists(st.one_of(st.integers(), st.dictionaries(st.sampled_from("xyc"), st.floats()))),
    ),
)


@pytest.mark.parametrize("make", [EvoLLM, LLAMBO])
@given(replies=st.lists(RUBBISH, min_size=1, max_size=4))
@settings(max_examples=25)
def test_every_candidate_is_typed_and_within_bounds(make: Any, replies: list[str]) -> None:
    made, score = task(1)
    number = iter(range(10_000))
    search = make(made, Scripted(lambda request: replies[next(number) % len(replies)]))
    for _ in range(14):
        for candidate in search.ask():
            for name, value in candidate.values.items():
                assert made[name].check(value) == value
            search.tell(candidate, score(candidate.values))
    assert len({trial.candidate.id for trial in search.history}) == len(search.history) == 14


@pytest.mark.parametrize("make", [EvoLLM, LLAMBO])
def test_step_by_step_is_the_same_search_and_a_resumed_one_goes_on_exactly(make: Any) -> None:
    model = {EvoLLM: centre, LLAMBO: neighbour}[make]

    def fresh() -> tuple[Any, Any, Any]:
        made, score = task(2)
        return made, score, make(made, Scripted(model), seed=2)

    _, score, whole = fresh()
    reached(whole, score, 24)
    wanted = [trial.candidate.values for trial in whole.history]

    made, score, stepped = fresh()
    for _ in range(24):
        output = made["x"] + made["y"]
        stepped.zero_feedback()
        stepped.backward((output, made["c"])[0], score({n: p.data for n, p in made.items()}))
        stepped.step()
    assert [trial.candidate.values for trial in stepped.history] == wanted

    _, score, first = fresh()
    reached(first, score, 13)
    state = json.loads(json.dumps(first.state_dict()))
    _, score, second = fresh()
    second.load_state_dict(state)
    reached(second, score, 11)
    assert [trial.candidate.values for trial in second.history] == wanted
    for damaged in ({}, {**state, "asked": 3}, 5):
        with pytest.raises(OptimizerError):
            second.load_state_dict(damaged)
    assert [trial.candidate.values for trial in second.history] == wanted


@pytest.mark.parametrize("make", [EvoLLM, LLAMBO])
def test_bypassing_changes_nothing_of_the_search(make: Any) -> None:
    made, _ = task(2)
    search = make(made, Scripted({EvoLLM: centre, LLAMBO: neighbour}[make]))
    search.backward(made["x"] + 1, -1.0)

    def remembered() -> str:
        return json.dumps({k: v for k, v in search.state_dict().items() if k != "asked"})

    before = remembered()
    search.step(bypassing=True)
    assert remembered() == before
    assert made["x"].data == 5.0


@pytest.mark.parametrize("make", [EvoLLM, LLAMBO])
def test_a_step_tells_what_it_cost_and_the_prompt_stays_bounded(make: Any) -> None:
    made, score = task(4)
    llm = Scripted({EvoLLM: centre, LLAMBO: neighbour}[make])
    search = make(made, llm, budget=400)
    paid = 0
    for _ in range(60):
        search.zero_feedback()
        search.backward(made["x"] + made["y"], score({n: p.data for n, p in made.items()}))
        paid += search.step().usage.calls
    assert paid == search.usage.calls == len(llm.requests) > 2
    assert max(len(r.messages[-1].text) for r in llm.requests) <= 4 * 400


def test_minimizing_shows_the_smallest_last() -> None:
    made, score = task(5)
    llm = Scripted(centre)
    search = EvoLLM(made, llm, minimize=True)
    for _ in range(17):
        for candidate in search.ask():
            search.tell(candidate, -score(candidate.values))
    text = llm.requests[-1].messages[-1].text
    shown = [float(s) for s, _ in ROW.findall(text.split("#Wanted")[0])]
    assert shown == sorted(shown, reverse=True)
    wanted = re.search(r"#Wanted\nscore (\S+):", text)
    assert wanted is not None
    assert float(wanted[1]) < shown[-1]


def test_many_parameters_are_asked_for_in_blocks() -> None:
    unit = Annotated[float, Field(ge=0, le=1)]
    made = {f"p{n}": tg.node(0.5, trainable=True, name=f"p{n}", constraint=unit) for n in range(7)}
    llm = Scripted(lambda request: '{"mean": {"p0": 1000, "p3": 0, "p6": 250}}')
    search = EvoLLM(made, llm, block=3, population=2)
    for _ in range(3):
        for candidate in search.ask():
            search.tell(candidate, 1.0)
    assert len(llm.requests) == 3
    assert [search.mean[name] for name in ("p0", "p1", "p3", "p6")] == [1.0, 0.5, 0.0, 0.25]


def test_what_lies_outside_the_grid_leaves_the_mean_and_the_step_and_the_model_is_told() -> None:
    unit = Annotated[float, Field(ge=0, le=1)]
    rate = tg.node(0.5, trainable=True, name="rate", constraint=unit)
    replies = ['{"mean": {"rate": 1001}}', "no idea", '{"mean": {"rate": 250}}', "{}"]
    llm = Scripted(replies)
    search = EvoLLM([rate], llm, population=2, sigma=0.2, decay=0.5)
    found = []
    while len(llm.requests) < 4:
        for candidate in search.ask():
            search.tell(candidate, 1.0)
        found.append((search.mean["rate"], search.sigma))
    assert list(dict.fromkeys(found)) == [(0.5, 0.2), (0.25, 0.1)]
    told = [request.messages[-1].text for request in llm.requests]
    assert "rate: a whole number from 0 to 1000, got 1001" in told[1]
    assert "the reply had no object" in told[2]
    assert "#Refused" not in told[0] + told[3]
    again = EvoLLM([rate], llm, population=2, sigma=0.2, decay=0.5)
    again.load_state_dict(json.loads(json.dumps(search.state_dict())))
    assert again.refused == search.refused == ['the reply had no object {"mean": {...}}']


def test_in_a_training_the_values_improve() -> None:
    made, score = task(6)

    @tg.bundle
    def run(x: float, y: float, c: str, example: int) -> dict[str, Any]:
        return {"x": x, "y": y, "c": c}

    result = fit(
        lambda example: run(made["x"], made["y"], made["c"], example), list(range(6)), lambda e, o: score(o),
        optimizer=LLAMBO(made, Scripted(neighbour)), budget=Budget(steps=25), workers=1,
        failure_score=-1e9,
    )  # fmt: skip
    assert result.score > result.baseline


# The space


@given(st.integers(0, 10_000))
def test_what_is_drawn_is_taken_and_its_places_lead_back(seed: int) -> None:
    made = {
        "rate": tg.node(0.01, trainable=True, constraint=Annotated[float, Field(gt=1e-6, lt=1.0)]),
        "size": tg.node(8, trainable=True, constraint=Annotated[int, Field(ge=1, le=64)]),
        "even": tg.node(
            4, trainable=True, constraint=Annotated[int, Field(ge=1, le=9, multiple_of=2)]
        ),
        "shape": tg.node(Shape.ROUND, trainable=True),
        "fast": tg.node(True, trainable=True),
    }
    space = Space(made)
    values = space.drawn(Random(seed))
    assert values is not None
    again = space.at(space.places(values))
    assert again is not None
    assert again["rate"] == pytest.approx(values["rate"])
    assert {n: again[n] for n in made if n != "rate"} == {n: values[n] for n in made if n != "rate"}
    assert space.read(json.loads(space.row(values)))[0] == values


def test_wide_positive_ranges_are_drawn_evenly_in_the_logarithm() -> None:
    rate = tg.node(0.1, trainable=True, constraint=Annotated[float, Field(ge=1e-6, le=1.0)])
    space, random = Space({"rate": rate}), Random(0)
    low = sum((space.drawn(random) or {})["rate"] < 1e-3 for _ in range(400))
    assert abs(low - 200) <= 3 * math.sqrt(400) / 2


def test_bad_input_is_refused_before_anything_is_asked() -> None:
    llm = Scripted(["never"])
    with pytest.raises(OptimizerError, match="needs a least and a largest"):
        EvoLLM([tg.node(1.0, trainable=True, name="x")], llm)
    with pytest.raises(OptimizerError, match="is text"):
        LLAMBO([tg.node("a", trainable=True, name="x")], llm)
    made, _ = task(0)
    for options in ({"population": 1}, {"sigma": 0}, {"resolution": 1}, {"mask": ["Nothing"]}):
        with pytest.raises(OptimizerError):
            EvoLLM(made, llm, **options)
    for options in ({"points": 0}, {"alpha": 2}, {"surrogate": "magic"}, {"warm_start": len}):
        with pytest.raises(OptimizerError):
            LLAMBO(made, llm, **options)
    assert llm.requests == []


@given(st.floats(-3, 3), st.floats(0.01, 3), st.floats(-3, 3))
def test_expected_improvement_is_the_mean_of_what_exceeds(
    mean: float, spread: float, best: float
) -> None:
    steps = [-8 + 16 * (n + 0.5) / 4_000 for n in range(4_000)]
    weights = [math.exp(-z * z / 2) for z in steps]
    simulated = sum(
        w * max(mean + spread * z - best, 0.0) for w, z in zip(weights, steps, strict=True)
    ) / sum(weights)
    assert expected_improvement(mean, spread, best) == pytest.approx(simulated, abs=1e-3)
