"""Whatever is done with code, what an optimizer wrote and nobody trusted never runs in this process.

A machine does to code what programs do: write, refuse, trust, save, load, copy, restore, export, edit, lend.
Beside it stands what a person knows of each text, and after every step all of it must be so. The code
itself tells where it runs: pytest is loaded here and nowhere else.
"""

import copy
import itertools
import json
import os
import signal
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Made
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, multiple, rule

import tracegraph as tg
from optimizers.base import Optimizer, Proposal
from tracegraph import bundle
from tracegraph.cell import Value
from tracegraph.errors import CheckpointError
from tracegraph.history import checkpoint
from tracegraph.module import StateDict
from tracegraph.sandbox import Policy

QUICK = Policy(preload=())
HERE = "'pytest' in __import__('sys').modules"


class OfFunctions(tg.Module):
    def __init__(self):
        @bundle(trainable=True, sandbox=QUICK)
        def f(x):
            return ["first", x, "pytest" in sys.modules]

        self.f = f


class OfMethods(tg.Module):
    @bundle(trainable=True, sandbox=QUICK)
    def f(self, x):
        return ["first", x, "pytest" in sys.modules]


HEADS = {OfFunctions: "def f(x):", OfMethods: "def f(self, x):"}


def text(kind, tag):
    return f"{HEADS[kind]}\n    return ['{tag}', x, {HERE}]\n"


def block(before, after):
    return f"<<<<<<< SEARCH\n{before}=======\n{after}>>>>>>> REPLACE\n"


class Given(Optimizer):
    """Proposes what it was given."""

    def propose(self, **options):
        return Proposal(self.values)

    def ready(self):
        return True


@dataclass(frozen=True)
class Known:
    """What must be so of one code."""

    text: str
    origin: str = "person"
    trusted: bool = True
    version: int = 0

    def next(self, text, origin, trusted):
        return Known(text, origin, trusted, self.version + 1)


class Trust(RuleBasedStateMachine):
    codes = Made("codes")
    states = Made("states")
    files = Made("files")
    saved = Made("saved")
    leaves = Made("leaves")

    @initialize(kind=st.sampled_from([OfFunctions, OfMethods]), target=codes)
    def begin(self, kind):
        self.kind = kind
        self.numbers = itertools.count()
        self.known: dict[int, Known] = {}
        self.held: list[Any] = []
        self.folder = tempfile.TemporaryDirectory()
        self.first = kind().f.parameter.data
        return multiple(self.new(kind()), self.new(kind()))

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def new(self, module, known=None):
        self.held.append(module)
        self.known[id(module)] = known or Known(self.first)
        return module

    def fresh(self):
        return text(self.kind, f"t{next(self.numbers)}")

    def takes(self, module, text, origin, trusted):
        self.known[id(module)] = self.known[id(module)].next(text, origin, trusted)

    def path(self, ending):
        return os.path.join(self.folder.name, f"{next(self.numbers)}{ending}")

    def has(self, module, text):
        """Whether the program has this text itself: it was written with it, or trusts it now."""
        known = self.known[id(module)]
        return text == self.first or (known.trusted and text == known.text)

    # Writing

    @rule(module=codes)
    def a_person_writes(self, module):
        new = self.fresh()
        module.f.parameter.assign(new)
        self.takes(module, new, "person", True)

    @rule(module=codes, blocks=st.booleans())
    def an_optimizer_writes(self, module, blocks):
        parameter = module.f.parameter
        new = self.fresh()
        reply = block(parameter.data, new) if blocks else new
        optimizer = Given(parameter)
        optimizer.values = {parameter: parameter.read(reply)}
        assert optimizer.step().changes
        self.takes(module, new, "optimizer", False)

    @rule(module=codes, first=st.booleans())
    def an_optimizer_finds_an_old_text(self, module, first):
        parameter, known = module.f.parameter, self.known[id(module)]
        old = self.first if first else known.text
        optimizer = Given(parameter)
        optimizer.values = {parameter: old}
        if optimizer.step().changes:
            self.takes(module, old, "optimizer", False)

    @rule(module=codes, wrong=st.sampled_from(["def g(x):\n    pass\n", "def f(", 5, "\ud800"]))
    def a_text_is_refused(self, module, wrong):
        before = module.f.parameter._cell().now
        with pytest.raises(tg.Rejected):
            module.f.parameter.assign(wrong)
        assert module.f.parameter._cell().now is before

    @rule(module=codes)
    def somebody_reads_and_trusts(self, module):
        module.f.parameter.trust()
        self.known[id(module)] = replace(self.known[id(module)], trusted=True)

    @rule(module=codes, other=codes)
    def one_takes_the_code_of_another(self, module, other):
        there = self.known[id(other)]
        module.f.parameter.assign(other.f.parameter)
        self.takes(module, there.text, there.origin, there.trusted)

    @rule(module=codes, target=leaves)
    def a_leaf_is_read(self, module):
        return module.f.parameter._leaf(), self.known[id(module)]

    @rule(module=codes, leaf=leaves)
    def one_takes_what_a_leaf_held(self, module, leaf):
        node, then = leaf
        module.f.parameter.assign(node)
        self.takes(module, then.text, then.origin, then.trusted)

    # Copies and files

    @rule(module=codes, target=codes)
    def a_deep_copy(self, module):
        if len(self.held) > 4:
            return multiple()
        return self.new(copy.deepcopy(module), replace(self.known[id(module)], version=0))

    @rule(module=codes, target=states)
    def a_state(self, module):
        return module.state_dict(), self.known[id(module)]

    @rule(module=codes, state=states, copied=st.sampled_from(["", "deep", "plain", "json"]))
    def a_state_comes_back(self, module, state, copied):
        held, then = state
        if copied in ("plain", "json"):
            held = dict(held) if copied == "plain" else json.loads(json.dumps(held))
            then = replace(then, origin="person", trusted=False)
        module.load_state_dict(copy.deepcopy(held) if copied == "deep" else held)
        self.takes(module, then.text, then.origin, then.trusted or self.has(module, then.text))

    @rule(module=codes, state=states, trust=st.booleans())
    def a_state_with_another_text(self, module, state, trust):
        new = self.fresh()
        held = StateDict({**state[0], "f": new}, state[0].written)
        module.load_state_dict(held, trust=trust)
        self.takes(module, new, "person", trust)

    @rule(module=codes, target=files)
    def a_file(self, module):
        path = self.path(".json")
        module.save(path)
        return path, self.known[id(module)]

    @rule(module=codes, file=files, trust=st.booleans())
    def a_file_is_loaded(self, module, file, trust):
        path, then = file
        module.load(path, trust=trust)
        trusted = (then.trusted and trust) or self.has(module, then.text)
        self.takes(module, then.text, then.origin, trusted)

    @rule(module=codes, target=saved)
    def a_checkpoint(self, module):
        path = checkpoint.save(self.path(""), step=1, parameters=module, random_state=False)
        return path, self.known[id(module)]

    @rule(module=codes, kept=saved, trust=st.booleans())
    def a_checkpoint_is_restored(self, module, kept, trust):
        path, then = kept
        checkpoint.load(path, parameters=module, trust=trust)
        trusted = (then.trusted and trust) or self.has(module, then.text)
        self.takes(module, then.text, then.origin, trusted)

    @rule(module=codes)
    def an_export(self, module):
        known, thing = self.known[id(module)], module if self.kind is OfMethods else module.f
        if not known.trusted:
            with pytest.raises(tg.ParameterError, match="nobody has trusted"):
                tg.export(thing)
            return
        names: dict[str, Any] = {}
        exec(tg.export(thing), names)
        plain = names["OfMethods"]().f if self.kind is OfMethods else names["f"]
        assert plain(1) == [self.tag(known.text), 1, True]

    # Running

    @rule(module=codes, same=st.booleans())
    def a_candidate_is_tried(self, module, same):
        known = self.known[id(module)]
        new = known.text if same else self.fresh()
        with tg.Overlay({module.f.parameter: new}):
            trusted = same and known.trusted
            self.runs(module, Known(new, known.origin if same else "optimizer", trusted))

    @rule(module=codes)
    def a_call(self, module):
        self.runs(module, self.known[id(module)])

    def tag(self, text):
        return "first" if text == self.first else text.partition("'")[2].partition("'")[0]

    def runs(self, module, known):
        result = module.f(1)
        assert result.data == [self.tag(known.text), 1, known.trusted]
        leaf = next(n for n in result.parents if n.parameter is not None)
        assert (leaf.info["origin"], leaf.info["trusted"]) == (known.origin, known.trusted)

    @invariant()
    def all_is_as_it_is_known(self):
        for module in getattr(self, "held", ()):
            now = module.f.parameter._cell().now
            facts = Known(now.data, now.origin, now.trusted, now.version)
            assert facts == self.known[id(module)]


Trust.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    phases=(Phase.explicit, Phase.generate),  # to make a failure smaller takes minutes
)
TestTrust = Trust.TestCase


@pytest.mark.parametrize("kind", [OfFunctions, OfMethods])
def test_a_copy_of_code_that_nobody_trusted_did_not_begin_with_it(kind, tmp_path):
    module = kind()
    module.f.parameter.assign(text(kind, "theirs"), origin="optimizer")
    twin = copy.deepcopy(module)
    assert twin.f.parameter.initial == kind().f.parameter.data
    twin.save(tmp_path / "twin.json")
    path = checkpoint.save(tmp_path, step=1, parameters=twin, random_state=False)
    for load in (
        lambda: twin.load(tmp_path / "twin.json"),
        lambda: checkpoint.load(path, parameters=twin),
        lambda: twin.load_state_dict(dict(twin.state_dict())),
    ):
        load()
        assert twin.f(1).data == ["theirs", 1, False]


def test_a_forked_process_trusts_no_more():
    module = OfFunctions()
    module.f.parameter.assign(text(OfFunctions, "theirs"), origin="optimizer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            os._exit(0 if module.f(1).data == ["theirs", 1, False] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert module.f(1).data == ["theirs", 1, False]


def test_a_state_does_not_speak_for_a_text_that_it_did_not_hold():
    module = OfFunctions()
    forged = Value(module.f.parameter.data, 0, "person", trusted=True)
    new = text(OfFunctions, "theirs")
    module.load_state_dict(StateDict({"f": new}, {"f": forged}))
    assert module.f(1).data == ["theirs", 1, False]
    with pytest.raises(tg.ParameterError, match="nobody has trusted"):
        tg.export(module.f)


def test_the_word_of_a_checkpoint_is_not_enough(tmp_path):
    module, plain, trusting = OfFunctions(), OfFunctions(), OfFunctions()
    module.f.parameter.assign(text(OfFunctions, "theirs"), origin="optimizer")
    module.f.parameter.trust()
    path = checkpoint.save(tmp_path, step=1, parameters=module, random_state=False)
    checkpoint.load(path, parameters=plain)
    checkpoint.load(path, parameters=trusting, trust=True)
    checkpoint.load(path, parameters=module)  # it has this very text, and trusts it
    assert plain.f(1).data == ["theirs", 1, False]
    assert trusting.f(1).data == module.f(1).data == ["theirs", 1, True]


def test_trust_is_yes_or_no(tmp_path):
    module = OfFunctions()
    module.save(tmp_path / "a.json")
    path = checkpoint.save(tmp_path, step=1, parameters=module, random_state=False)
    optimizer = Given(module)
    optimizer.trust = "no"
    optimizer.values = {module.f.parameter: text(OfFunctions, "theirs")}
    for load in (
        lambda: module.load(tmp_path / "a.json", trust="no"),
        lambda: checkpoint.load(path, parameters=module, trust="no"),
        lambda: module.load_state_dict({"f": text(OfFunctions, "theirs")}, trust="no"),
        optimizer.step,
    ):
        with pytest.raises(
            (TypeError, CheckpointError), match=r"is True or False, got ('no'|.* and 'no')"
        ):
            load()
    assert module.f.parameter.version == 0


def test_values_come_back_all_or_none():
    """Though the second is refused only once the first is there."""
    first = tg.node("a", trainable=True, name="first")
    second = tg.node("b", trainable=True, name="second", constraint=lambda _: first.data == "a")

    class Both(tg.Module):
        def __init__(self):
            self.first, self.second = first, second

    both = Both()
    both.load_state_dict({"first": "new", "second": "new"})
    assert (first.data, second.data) == ("new", "new")
