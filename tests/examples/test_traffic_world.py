"""The simulation behind the traffic example; short runs, since a whole one takes seconds."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

pytest.importorskip("uxsim", reason="needs tracegraph[examples]")

from examples import traffic_world
from examples.traffic_world import GREEN_RANGE, build_world, evaluate


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_world, "DURATION", 300.0)
    monkeypatch.setattr(traffic_world, "DEMAND_UNTIL", 200.0)


def test_the_same_seed_gives_the_same_result_and_another_a_different_one() -> None:
    first = evaluate(40, 20, seed=3)
    assert evaluate(40, 20, seed=3) == first
    assert evaluate(40, 20, seed=4) != first


def test_starving_the_busy_direction_costs_its_drivers_time() -> None:
    fair, unfair = evaluate(40, 20), evaluate(15, 90)
    assert unfair["score"] > 2 * fair["score"]
    assert unfair["east_west"]["average_delay"] > fair["east_west"]["average_delay"]
    assert unfair["north_south"]["average_delay"] < fair["north_south"]["average_delay"]


def test_the_score_is_the_mean_over_all_drivers() -> None:
    result = evaluate(40, 20)
    ways = [result["east_west"], result["north_south"]]
    assert result["trips"] == sum(way["trips"] for way in ways)
    mean = sum(way["trips"] * way["average_delay"] for way in ways) / result["trips"]
    assert result["score"] == pytest.approx(mean, abs=1e-2)
    assert ways[0]["trips"] > 1.5 * ways[1]["trips"]
    assert ways[0]["best_case_delay"] < ways[0]["average_delay"] < ways[0]["worst_case_delay"]


def test_drivers_who_never_arrive_count_with_the_delay_so_far() -> None:
    result = evaluate(15, 90)
    assert result["finished"] < result["trips"]
    assert result["east_west"]["delay_deviation"] > 0


@pytest.mark.parametrize("green", [GREEN_RANGE[0] - 0.1, GREEN_RANGE[1] + 0.1, float("nan"), -1])
@pytest.mark.parametrize("name", ["ew_green", "ns_green"])
def test_a_green_time_out_of_range_is_an_error_that_says_what_to_do(name: str, green: Any) -> None:
    greens = {"ew_green": 30.0, "ns_green": 30.0, name: green}
    with pytest.raises(ValueError, match=rf"{name} must lie within \[15, 90\] seconds, got"):
        build_world(**greens)


@pytest.mark.parametrize("green", ["30", None, True, [30]])
def test_a_green_time_that_is_no_number_is_an_error(green: Any) -> None:
    with pytest.raises(TypeError, match="ew_green must be a number of seconds"):
        build_world(green, 30)


def test_a_world_travels_to_another_process() -> None:
    world = build_world(40, 20, seed=1)
    assert pickle.loads(pickle.dumps(world)) == world
    assert pickle.loads(pickle.dumps(evaluate)) is evaluate
