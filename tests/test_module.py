"""Objects that hold parameters."""

import asyncio
import copy
import dataclasses
import functools
import json

import numpy as np
import pytest
import torch

import tracegraph as tg
from tracegraph import Map, Module, Seq, apply, bundle, model, named_parameters, node


@model
class Agent:
    """An agent."""

    def __init__(self, word="Be kind."):
        self.prompt = node(word, trainable=True, name="prompt")
        self.tools = [node(1, trainable=True, name="first"), {"x": node(2.0, trainable=True)}]
        self.fixed = node("fixed")
        self.number = 5
        self.me = self

    @bundle(trainable=True)
    def act(self, x):
        """Act."""
        return f"{self.prompt}{x}"

    @bundle
    def plain(self, x):
        return x

    @staticmethod
    @bundle(trainable=True)
    def static(x):
        return x


class Outer(Module):
    def __init__(self):
        self.agent = Agent()
        self.again = self.agent
        self.weight = node(torch.zeros(2), trainable=True, name="weight")

    def forward(self, x):
        return self.agent.act(x)


def test_parameters_are_found_by_path():
    outer = Outer()
    assert list(named_parameters(outer)) == [
        "agent.prompt", "agent.tools[0]", "agent.tools[1]['x']", "agent.act", "agent.static",
        "weight",
    ]  # fmt: skip
    assert outer.parameters()[0] is outer.agent.prompt
    assert outer.parameters_dict() == outer.named_parameters()
    assert len(outer.parameters()) == 6
    assert outer.agent.act.parameter is named_parameters(outer)["agent.act"]
    assert outer("!").data == "Be kind.!"


def test_what_stands_in_a_class_belongs_to_all_its_objects():
    class Inner(tg.Module):
        def __init__(self):
            self.rate = node(0.5, trainable=True, name="rate")

    class Base(tg.Module):
        prompt = node("Be kind.", trainable=True, name="prompt")
        inner = Inner()
        fixed = node("not trained")

        def forward(self, x):
            return self.prompt + x

    class Heir(Base):
        def __init__(self):
            self.inner = Inner()

    first, heir = Base(), Heir()
    assert first.named_parameters() == {"prompt": Base.prompt, "inner.rate": Base.inner.rate}
    assert heir.named_parameters() == {"inner.rate": heir.inner.rate, "prompt": Base.prompt}
    assert set(first("!").backward("shorter")) == {Base.prompt}
    heir.load_state_dict({"inner.rate": 0.1, "prompt": "Be brief."})
    assert (first.prompt.data, first.inner.rate.data) == ("Be brief.", 0.5)
    with pytest.raises(tg.ParameterError, match=r"Base\.prompt has no place in the text"):
        tg.export(first)


def test_model_keeps_the_class():
    assert Agent.__name__ == "Agent"
    assert Agent.__doc__ == "An agent."
    assert isinstance(Agent(), Agent)
    agent = Agent("x")
    assert len(agent.parameters()) == 5

    @model
    @dataclasses.dataclass
    class Data:
        prompt: object = dataclasses.field(default_factory=lambda: node("p", trainable=True))
        other: int = 5

    assert Data().parameters()[0].data == "p"
    assert Data(other=6).other == 6

    @model
    class WithCall:
        def __call__(self, x):
            return x

    assert WithCall()(5) == 5

    @model
    class WithForward:
        def forward(self, x):
            return x + 1

    assert WithForward()(node(1)).data == 2
    with pytest.raises(TypeError, match="class"):
        model(lambda: 1)


def test_a_method_named_like_ours_is_the_users():
    @model
    class Own:
        def save(self):
            return "mine"

    assert Own().save() == "mine"


def test_containers_partials_and_bound_methods():
    agent = Agent()
    part = functools.partial(agent.act, 1)
    assert list(named_parameters([agent.act])) == ["[0]"]
    assert agent.act.parameter in named_parameters(part).values()
    assert list(named_parameters(Seq(agent.prompt, 3))) == ["[0]"]
    assert list(named_parameters(Map({"p": agent.prompt}))) == ["p"]
    assert named_parameters(5) == {}
    assert named_parameters(node(5)) == {}
    loop: list = [agent.prompt]
    loop.append(loop)
    assert len(named_parameters(loop)) == 1


def test_slots_and_inheritance():
    class Base(Module):
        __slots__ = ("p",)

    class Child(Base):
        __slots__ = ("q",)

    child = Child()
    child.q = node(1, trainable=True)
    child.p = node(2, trainable=True)
    assert set(named_parameters(child)) == {"q", "p"}


def test_properties_are_not_run():
    class Careful(Module):
        def __init__(self):
            self.p = node(1, trainable=True)

        @property
        def danger(self):
            raise RuntimeError("must not run")

    assert list(Careful().named_parameters()) == ["p"]


def test_state_dict_round_trip():
    one, two = Outer(), Outer()
    one.agent.prompt.assign("new")
    one.agent.act.parameter.assign("def act(self, x):\n    return 'changed'")
    one.weight.assign(torch.ones(2))
    state = one.state_dict()
    two.load_state_dict(state)
    assert two.agent.prompt.data == "new"
    assert two("x").data == "changed"
    assert two.weight.data.tolist() == [1, 1]
    state["weight"].fill_(9)
    assert two.weight.data.tolist() == [1, 1]
    assert one.weight.data.tolist() == [1, 1]


def test_a_state_that_does_not_fit_changes_nothing():
    one = Outer()
    good = one.state_dict()
    for change in (
        {"unknown": 1}, {"agent.prompt": 5}, {"weight": torch.ones(3)},
        {"agent.act": "def other(): pass"},
    ):  # fmt: skip
        with pytest.raises(tg.ParameterError):
            one.load_state_dict(
                {
                    "agent.tools[0]": 7,
                    **{k: v for k, v in good.items() if k != "agent.tools[0]"},
                    **change,
                }
            )
        assert one.agent.prompt.data == "Be kind."
        assert one.agent.tools[0].data == 1
    missing = {k: v for k, v in good.items() if k != "weight"}
    with pytest.raises(tg.ParameterError, match="weight"):
        one.load_state_dict(missing)


VALUES = [
    "text\nwith \u00e9 \" quotes", 1, 0.1, True, None, [1, ["a"]], (1, 2), {"a": [1]}, {1, 2},
    np.arange(3.0), np.arange(4).reshape(2, 2), torch.arange(3.0), frozenset({1}),
]  # fmt: skip


@pytest.mark.parametrize(
    "value", VALUES, ids=[type(v).__name__ + str(i) for i, v in enumerate(VALUES)]
)
def test_save_and_load(value, tmp_path):
    class Holder(Module):
        def __init__(self, value):
            self.p = node(value, trainable=True)

    path = tmp_path / "state.json"
    one = Holder(copy.deepcopy(value))
    one.save(path)
    json.loads(path.read_text(encoding="utf-8"))
    two = Holder(copy.deepcopy(value))
    if isinstance(value, (np.ndarray, torch.Tensor)):
        two.p.assign(value * 0)
    two.load(path)
    assert type(two.p.data) is type(value)
    if isinstance(value, (np.ndarray, torch.Tensor)):
        assert two.p.data.dtype == value.dtype
        assert two.p.data.tolist() == value.tolist()
    else:
        assert two.p.data == value


def test_code_of_an_optimizer_stays_untrusted_through_a_file(tmp_path):
    one = Agent()
    one.act.parameter.assign("def act(self, x):\n    return 'model'", origin="optimizer")
    one.save(tmp_path / "a.json")
    two = Agent()
    two.load(tmp_path / "a.json")
    assert two.act.parameter.origin == "optimizer"
    assert not two.act.parameter.trusted


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"p": 5}', '{"p": {"value": 3}, "q": {}}', "\x80"]
)
def test_a_broken_file_is_an_error_and_changes_nothing(text, tmp_path):
    class Holder(Module):
        def __init__(self):
            self.p = node("a", trainable=True)

    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    one = Holder()
    with pytest.raises(tg.ParameterError):
        one.load(path)
    assert one.p.data == "a"
    assert one.p.version == 0
    with pytest.raises(FileNotFoundError):
        one.load(tmp_path / "missing.json")


def test_copy_shares_parameters_and_deepcopy_does_not():
    one = Outer()
    shared = one.copy()
    assert shared is not one
    assert shared.agent is not one.agent
    assert shared.agent.prompt is one.agent.prompt
    apart = copy.deepcopy(one)
    assert apart.agent.prompt is not one.agent.prompt
    apart.agent.prompt.assign("other")
    apart.agent.act.parameter.assign("def act(self, x):\n    return 'apart'")
    assert one("x").data == "Be kind.x"
    assert apart("x").data == "apart"


def test_a_deep_copy_made_after_a_method_was_used_has_its_own_code():
    one = Agent()
    one.act(1)
    two = copy.deepcopy(one)
    two.act.parameter.assign("def act(self, x):\n    return 'two'")
    assert one.act("x").data == "Be kind.x"
    assert two.act("x").data == "two"


def test_apply_keeps_the_structure():
    x = node(1)
    got = apply(lambda v: v + 1, [x, {"a": (2, Seq(3))}, Map({"b": 4}), {5}])
    assert got[0].data == 2
    assert got[1]["a"][0] == 3
    assert list(got[1]["a"][1]) == [4]
    assert got[2]["b"] == 5
    assert got[3] == {6}
    assert x.data == 1


def test_duplicate_names_are_refused_by_optimizers():
    from optimizers.base import collect

    a, b = node(1, trainable=True, name="x"), node(2, trainable=True, name="x")
    with pytest.raises(tg.DuplicateName, match="'x'"):
        collect([a, b])
    assert list(collect([a, a])) == ["x"]
    for wrong in ([node(1)], [5], "text", [], None, {}, lambda: 1, [object()]):
        with pytest.raises(tg.OptimizerError):
            collect(wrong)


def test_a_module_without_forward():
    with pytest.raises(NotImplementedError, match="forward"):
        Module()()


def test_async_forward():
    class Later(Module):
        def __init__(self):
            self.p = node("a", trainable=True)

        async def forward(self, x):
            return self.p + x

    assert asyncio.run(Later()("b")).data == "ab"


def test_a_state_can_be_copied_and_keeps_no_tensor_that_is_in_use():
    class Holder(Module):
        def __init__(self):
            self.rate = node(0.5, trainable=True, name="rate")
            self.weight = node(torch.ones(2), trainable=True, name="weight")

    one = Holder()
    (one.rate * one.weight).data.sum()  # the number may be followed by torch from now on
    state = copy.deepcopy(one.state_dict())
    assert list(state.written) == ["rate"]
    one.rate.assign(0.1, origin="optimizer")
    one.weight.assign(torch.zeros(2))
    one.load_state_dict(state)
    assert (one.rate.data, one.rate.origin, one.weight.data.tolist()) == (0.5, "person", [1, 1])


def test_a_trainable_function_is_saved_and_loaded_by_itself(tmp_path):
    @tg.bundle(trainable=True)
    def f(x):
        return x

    first = f.state_dict()
    f.parameter.assign("def f(x):\n    return x + 1\n")
    f.save(tmp_path / "f.json")
    f.load_state_dict(first)
    assert f(1).data == 1
    f.load(tmp_path / "f.json", trust=True)
    assert f(1).data == 2
