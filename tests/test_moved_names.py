"""The names that users of Microsoft Trace type, what becomes of each, and that what it names is there."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import optimizers
import tracegraph
from tracegraph import Module, Node, Parameter

SAME = {
    "tracegraph": "node bundle model Module Node ExecutionError stop_tracing Seq Map operators backward",
    "optimizers": "OptoPrime OPRO TextGrad Optimizer",
}
"""They are imported as before, from another package."""

MOVED = {
    "tracegraph": {
        "GRAPH": "Graph", "NAME_SCOPES": "scope", "ParameterNode": "Parameter", "MessageNode": "Node",
        "ExceptionNode": "Node", "FunModule": "Bundle", "ParameterContainer": "Module",
        "TraceGraph": "Graph", "apply_op": "apply", "propagators": "register_rule",
        "Propagator": "register_rule",
        "GraphPropagator": "register_rule", "SumPropagator": "register_rule", "batchify": "backward",
        "LLM": "llm.LiteLLM", "LiteLLM": "llm", "CustomLLM": "llm.LiteLLM", "DummyLLM": "llm.Scripted",
        "TracedLLM": "call_llm", "Projection": "", "BlackCodeFormatter": "", "NodeContainer": "",
        "TraceMissingInputsError": "", "disable_external_dependencies_check": "",
    },
    "optimizers": {
        "FunctionOptimizer": "OptoPrime", "OptoPrimeV1": "OptoPrime", "OptoPrimeV2": "OptoPrime",
        "OptoPrimeMulti": "Several",
        "OptoprimeBatchOpt": "OptoPrime", "OPROv2": "OPRO", "train": "fit", "Guide": "",
        "LLMJudge": "ModelJudge", "DataLoader": "fit", "Minibatch": "fit", "MinibatchAlgorithm": "fit",
        "BasicSearchAlgorithm": "fit", "BeamSearch": "Beam", "BeamsearchAlgorithm": "Beam",
        "UCBSearchAlgorithm": "UCB", "PrioritySearch": "Islands", "ParetobasedPS": "Pareto",
        "GEPAAlgorithmBase": "Reflect", "ObjectiveConfig": "Pareto", "batch_run": "fit", "async_run": "afit",
    },
}  # fmt: skip
"""Each is an error that names what to use; empty where nothing is needed."""

MEMBERS: list[tuple[type, str]] = [
    (
        Node,
        "data inputs parents py_name is_root is_leaf info description trainable clone detach backward name",
    ),
    (Parameter, "trainable _set feedback"),
    (Module, "parameters parameters_dict save load copy"),
    (optimizers.Optimizer, "zero_feedback backward step propose"),
]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "howto" / "from-trace.md"


@pytest.mark.parametrize("home", SAME)
def test_what_has_the_same_name_is_there(home: str) -> None:
    package = importlib.import_module(home)
    assert [name for name in SAME[home].split() if not hasattr(package, name)] == []


@pytest.mark.parametrize(("home", "name"), [(home, name) for home in MOVED for name in MOVED[home]])
def test_what_has_another_name_says_so_and_that_is_there(home: str, name: str) -> None:
    with pytest.raises(ImportError) as caught:
        exec(f"from {home} import {name}")
    target = MOVED[home][name]
    if target:
        assert target.rpartition(".")[2] in str(caught.value)
        found: Any = importlib.import_module(home)
        for part in target.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize(("home", "name"), [(home, name) for home in MOVED for name in MOVED[home]])
def test_a_name_that_moved_is_not_there_and_asking_says_where_it_went(home: str, name: str) -> None:
    package = importlib.import_module(home)
    assert not hasattr(package, name)
    assert getattr(package, name, None) is None
    with pytest.raises(AttributeError, match=f"{home} has no '{name}': .") as caught:
        getattr(package, name)
    assert caught.value.name == name


@pytest.mark.parametrize("home", MOVED)
def test_the_table_is_whole(home: str) -> None:
    """What the package explains is what is tested here."""
    assert importlib.import_module(home)._FORMER.keys() == MOVED[home].keys()
    assert not MOVED[home].keys() & set(importlib.import_module(home).__all__)


@pytest.mark.parametrize(
    ("owner", "names"), MEMBERS, ids=lambda given: getattr(given, "__name__", "")
)
def test_members_keep_their_names(owner: type, names: str) -> None:
    lacking = [name for name in names.split() if not hasattr(owner, name)]
    assert lacking == []


def test_options_keep_their_names() -> None:
    step = inspect.signature(optimizers.OptoPrime.propose).parameters
    assert {"mask", "verbose"} <= step.keys()
    assert "bypassing" in inspect.signature(optimizers.Optimizer.step).parameters
    assert {"trainable", "description", "name"} <= inspect.signature(
        tracegraph.node
    ).parameters.keys()


def test_the_page_tells_of_every_name_that_moved() -> None:
    page = PAGE.read_text("utf-8")
    unexplained = {"FunctionOptimizer", "OptoPrimeV1", "OptoprimeBatchOpt", "OPROv2",
                   "Minibatch", "BeamsearchAlgorithm",
                   "GEPAAlgorithmBase", "GraphPropagator", "SumPropagator", "Propagator", "propagators",
                   "FunModule",
                   "ParameterContainer", "NodeContainer", "BlackCodeFormatter", "LLM",
                   "disable_external_dependencies_check"}  # fmt: skip
    for names in MOVED.values():
        assert [n for n in names if n not in page and n not in unexplained] == []
