"""Trainings on Dask and Ray, by the real packages."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, fit
from optimizers.candidate import Candidate
from optimizers.training.ray_tasks import RayTasks
from tests.optimizers.training import elsewhere
from tests.optimizers.training.stand_ins import HELLO, NAMES, Says, greeting, length
from tracegraph.errors import MissingExtra

ROOT = str(Path(__file__).resolve().parents[3])


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@pytest.fixture(scope="module")
def dask() -> Iterator[Executor]:
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


@pytest.fixture(scope="module")
def ray() -> Iterator[Executor]:
    import ray

    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": ROOT}},
    )  # fmt: skip
    with RayTasks() as tasks:
        yield tasks
    ray.shutdown()


CLUSTERS = [
    pytest.param(
        "dask", marks=pytest.mark.skipif(not has("distributed"), reason="needs distributed")
    ),
    pytest.param(
        "ray",
        marks=[pytest.mark.skipif(not has("ray"), reason="needs ray"), pytest.mark.campaign],
    ),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> Executor:
    made: Executor = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def word() -> Any:
    return tg.node("hi", trainable=True, name="word")


@pytest.mark.parametrize("executor", CLUSTERS, indirect=True)
def test_a_cluster_gives_what_threads_here_give(word: Any, executor: Executor) -> None:
    here = greeting(word).scores(HELLO, NAMES)
    there = greeting(word, executor=executor, remote=elsewhere.greeted, workers=3)
    assert there.scores(HELLO, NAMES) == here


@pytest.mark.parametrize("executor", CLUSTERS, indirect=True)
def test_what_fails_in_a_cluster_is_a_low_score_with_its_own_error(
    word: Any, executor: Executor
) -> None:
    done = greeting(word, executor=executor, remote=elsewhere.fails_for_bob).scores(HELLO, NAMES)
    assert [e.score for e in done] == [9, 0, 9, 9]
    assert done[1].error == "KeyError: 'no such name'"


@pytest.mark.parametrize("executor", CLUSTERS, indirect=True)
def test_a_training_goes_the_same_way_in_a_cluster(executor: Executor) -> None:
    def go(**options: Any) -> Any:
        word = tg.node("hi", trainable=True, name="word")
        return fit(
            lambda name: word + " " + name, list(NAMES.values()), length, validation=["Eva"],
            optimizer=Says(word, "good day", "hm", "a very good day"), budget=Budget(steps=3),
            batch_size=2, tries=1, **options,
        )  # fmt: skip

    here, there = go(), go(executor=executor, remote=elsewhere.greeted, workers=2)
    assert (here.best, here.score, here.history) == (there.best, there.score, there.history)


@pytest.mark.parametrize("executor", CLUSTERS, indirect=True)
def test_a_call_that_never_ends_in_a_cluster_is_given_up(
    word: Any, executor: Executor, tmp_path: Path
) -> None:
    executor.submit(elsewhere.greeted, {"word": ""}, "warm").result()
    names = {0: "Bob", 1: "Ann"}
    late = greeting(word, executor=executor, remote=elsewhere.waits_for_bob, timeout=2.0, workers=2)
    begun = tmp_path / "begun"
    done = late.scores(Candidate.of({"word": str(begun)}), names)
    assert (done[0].error or "").startswith("TimeoutError")
    assert done[1].error is None
    begun.with_suffix(".end").touch()  # lets a thread of Dask end


@pytest.mark.skipif(not has("ray"), reason="needs ray")
@pytest.mark.campaign
def test_a_task_of_ray_that_is_cancelled_really_ends(ray: Executor, tmp_path: Path) -> None:
    there = tmp_path / "beats"
    task = ray.submit(elsewhere.beats, str(there))
    while not there.exists():
        time.sleep(0.05)
    task.cancel()
    assert task.exception(timeout=30) is not None
    size = there.stat().st_size
    time.sleep(0.5)
    assert there.stat().st_size == size


@pytest.mark.skipif(has("ray"), reason="ray is installed")
def test_ray_that_is_not_installed_is_said() -> None:
    with pytest.raises(MissingExtra, match=r"tracegraph\[ray\]"):
        RayTasks()
