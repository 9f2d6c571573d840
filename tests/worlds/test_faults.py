"""A server that misbehaves: the whole loop goes on, learns, and spends no more than it may."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from optimizers import OptoPrime, fit
from optimizers.training.loop import TrainingStopped
from tests.worlds.hidden_rules import HiddenRules
from tests.worlds.server import FAULTS, Answer, Server
from tests.worlds.world import TASK
from tracegraph.errors import ModelFailed
from tracegraph.llm import Budgeted, LiteLLM, Retrying

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_CALLS = 40


class Faulty:
    """Every third request of one kind is answered by a fault."""

    def __init__(self, world: HiddenRules, fault: Answer, *, tasks: bool = False) -> None:
        self.world, self.fault, self.tasks = world, fault, tasks
        self.faults = self.seen = 0
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any]) -> Answer:
        with self._lock:
            if request["messages"][-1]["content"].startswith(TASK) == self.tasks:
                self.seen += 1
                if self.seen % 3 == 0:
                    self.faults += 1
                    return self.fault
        return self.world.answer(request)


def trained(
    world: HiddenRules, respond: Faulty, timeout: float, *, runs: int = 150, tasks: bool = False
) -> tuple[Any, float, Budgeted, int]:
    with Server(respond) as server:
        real = LiteLLM("openai/served", api_base=server.base, api_key="x", timeout=timeout)
        model = Budgeted(Retrying(real, wait=0.0), calls=_CALLS if not tasks else 10_000)
        run, prompt = world.workflow(model if tasks else None)
        result = fit(
            run, world.train, world.guide, validation=world.validation, budget=runs, batch_size=6,
            optimizer=OptoPrime([prompt], llm=model), workers=1, perfect=1.0,
        )  # fmt: skip
        return result, world.accuracy(prompt.data), model, len(server.requests)


@pytest.mark.parametrize("name", FAULTS)
def test_the_loop_survives_each_fault_and_spends_within_its_budget(name: str) -> None:
    world = HiddenRules(2, rules=6, sizes=(12, 6, 30))
    respond = Faulty(world, FAULTS[name])
    result, accuracy, model, _ = trained(world, respond, 0.3 if name == "a hang" else 30.0)
    assert respond.faults >= 1
    assert result.error is None
    passing = FAULTS[name].status in (429, 500) or FAULTS[name].hang
    failed = [event for event in result.history if "the model failed" in event.note]
    assert not (passing and failed)  # asked again, and no proposal lost
    assert accuracy >= 0.6
    assert result.spend.runs == world.calls["task"] <= 150
    assert result.spend.calls <= model.spent.calls <= _CALLS


@pytest.mark.campaign
def test_a_task_whose_model_fails_is_a_low_score_and_no_end() -> None:
    """Faults that no second try mends, in the workflow itself."""
    world = HiddenRules(2, rules=6, sizes=(12, 6, 30))
    respond = Faulty(world, Answer(status=400), tasks=True)
    result, accuracy, _, _ = trained(world, respond, 30.0, runs=120, tasks=True)
    assert respond.faults >= 10
    assert result.error is None
    assert accuracy > 0.0
    assert result.spend.runs <= 120


def test_a_provider_that_never_comes_back_ends_it_and_keeps_what_was_there() -> None:
    world = HiddenRules(2, rules=6, sizes=(12, 6, 30))

    def down(request: dict[str, Any]) -> Answer:
        return Answer(status=503)

    with Server(down) as server:
        model = Retrying(
            LiteLLM("openai/served", api_base=server.base, api_key="x"), attempts=2, wait=0.0
        )
        run, prompt = world.workflow()
        with pytest.warns(TrainingStopped, match="503"):
            result = fit(
                run, world.train, world.guide, budget=150, batch_size=6, workers=1,
                optimizer=OptoPrime([prompt], llm=model),
            )  # fmt: skip
        assert len(server.requests) == 2 * 3
    assert isinstance(result.error, ModelFailed)
    assert result.spend.runs == world.calls["task"] == 6
    assert prompt.data == prompt.initial
