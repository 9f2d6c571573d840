"""Ambient policy: per thread and task, nested, restored whatever happens."""

import asyncio
import contextlib
import contextvars
import gc
import os
import sys
import threading
import time
import weakref

import pytest

import tracegraph as tg
from tracegraph import node, recording, scope, stop_tracing
from tracegraph.recorder import current
from tracegraph.source import Source


def test_stop_tracing_nests():
    with stop_tracing():
        with stop_tracing():
            assert (node(1) + 1).is_leaf
        assert (node(1) + 1).is_leaf
        with recording():
            assert (node(1) + 1).op == "add"
        assert (node(1) + 1).is_leaf
    assert (node(1) + 1).op == "add"
    assert current() is None


def test_one_object_entered_twice_and_shared():
    quiet = stop_tracing()
    with quiet:
        with quiet:
            assert (node(1) + 1).is_leaf
        assert (node(1) + 1).is_leaf
    assert not (node(1) + 1).is_leaf


def test_an_exception_restores():
    with pytest.raises(KeyError), stop_tracing():
        raise KeyError
    assert current() is None


def test_without_tracing_values_stay_right_and_nothing_is_kept():
    prompt = node("a", trainable=True)

    @tg.bundle
    def call(x):
        return x + prompt.data

    with stop_tracing():
        results = [
            node(1) + 1, 1 + node(1), -node(1), node("a").upper(), node([1])[0], call(node("x")),
            *node([1, 2]), prompt + "b", tg.eq(node(1), 1), node([node(1)]),
        ]  # fmt: skip
        for r in results:
            assert isinstance(r, tg.Node)
            assert not r.inputs, r
        assert call("x").data == "xa"
        with pytest.raises(ZeroDivisionError) as caught:
            node(1) / 0
        failed = tg.failed_node(caught.value)
        assert failed is None or not failed.inputs


def test_a_bundle_inside_stop_tracing_inside_a_bundle():
    prompt = node("a", trainable=True)

    @tg.bundle
    def call(x):
        with stop_tracing():
            y = prompt + "b"
        return f"{x}{y}"

    result = call("x")
    assert result.data == "xab"


def test_another_thread_keeps_recording():
    ready, done = threading.Event(), threading.Event()
    made = []

    def other():
        ready.wait(5)
        made.append(node(1) + 1)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with stop_tracing():
        ready.set()
        assert done.wait(5)
    thread.join()
    assert made[0].op == "add"


def test_tasks_keep_their_own():
    async def quiet():
        with stop_tracing():
            await asyncio.sleep(0.001)
            return node(1) + 1

    async def loud():
        await asyncio.sleep(0)
        return node(1) + 1

    async def main():
        return await asyncio.gather(quiet(), loud(), quiet(), loud())

    a, b, c, d = asyncio.run(main())
    assert [n.op for n in (a, b, c, d)] == [None, "add", None, "add"]


def test_a_context_copied_inside_keeps_the_policy():
    with stop_tracing():
        context = contextvars.copy_context()
    assert context.run(lambda: (node(1) + 1).op) is None
    assert (node(1) + 1).op == "add"


def test_observers_see_every_recorded_node_once():
    seen = []
    prompt = node("a", trainable=True)

    @tg.bundle
    def call(x):
        (node(5) + 1)
        return x

    with recording(observers=[seen.append]):
        x = node(1) + 1
        y = call(x)
        z = y.__class__
        with pytest.raises(ZeroDivisionError) as caught:
            x / 0
        w = prompt + "b"
        with stop_tracing():
            node(1) + 1
    assert z is tg.Node
    assert [n.op for n in seen] == ["add", "call", "divide", "add"]
    assert seen[0] is x
    assert seen[1] is y
    assert seen[2] is tg.failed_node(caught.value)
    assert seen[3] is w


def test_observers_nest_and_may_raise():
    outer, inner = [], []
    with recording(observers=[outer.append]):
        with recording(observers=[inner.append]):
            node(1) + 1
        node(1) + 1
    assert (len(outer), len(inner)) == (2, 1)

    def bad(made):
        raise KeyError("observer")

    with pytest.raises(KeyError, match="observer"), recording(observers=[bad]):
        node(1) + 1
    assert current() is None


def test_an_observer_that_records_does_not_loop_for_ever():
    depth = []

    def look(made):
        if len(depth) < 50:
            depth.append(made)
            made.data

    with recording(observers=[look]):
        node(1) + 1
    assert len(depth) == 1


def test_a_horizon_bounds_memory():
    refs = []
    with recording(horizon=10):
        x = node(0, trainable=True, name="start")
        for _ in range(100):
            x = x + 1
            refs.append(weakref.ref(x))
    gc.collect()
    alive = [r for r in refs if r() is not None]
    assert len(alive) <= 11
    assert x.data == 100
    graph = tg.Graph.of(x)
    assert len([n for n in graph if n.op]) == 10
    assert all(n.id < x.id for n in graph.nodes[:-1])


@pytest.mark.parametrize("horizon", [0, -1, 1.5, "3", True])
def test_a_wrong_horizon_is_refused(horizon):
    with pytest.raises(ValueError, match="horizon"):
        recording(horizon=horizon)


def test_scopes_nest():
    with scope("agent"):
        a = node(1, name="x")
        with scope("tool"):
            b = a + 1
        c = a + 1
    d = a + 1
    assert a.name.startswith("agent/x:")
    assert b.name.startswith("agent/tool/add:")
    assert c.name.startswith("agent/add:")
    assert d.name.startswith("add:")
    assert b.py_name.isidentifier()


def test_as_a_decorator_or_reused_across_threads():
    quiet = stop_tracing()
    results = []

    def work():
        with quiet:
            results.append((node(1) + 1).op)
        results.append((node(1) + 1).op)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(map(str, results)) == ["None"] * 8 + ["add"] * 8


def test_sixteen_threads_keep_their_graphs_apart():
    barrier = threading.Barrier(16)
    outputs: dict[int, tuple] = {}

    @tg.bundle
    def call(x, items):
        return x + sum(items)

    def work(i):
        source = node(i, trainable=True, name=f"source{i}")
        barrier.wait(10)
        x = source + 0
        for step in range(200):
            if step % 3 == 0:
                with stop_tracing():
                    node(1) + 1
            x = call(x, [source, 1]) if step % 5 == 0 else x + 1
        outputs[i] = (source, x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    graphs = {i: tg.Graph.of(x) for i, (_, x) in outputs.items()}
    assert {g.parameters[0].given_name for g in graphs.values()} == {
        f"source{i}" for i in range(16)
    }
    assert all(len(g.parameters) == 1 for g in graphs.values())
    every = [n.id for g in graphs.values() for n in g]
    assert len(every) == len(set(every))
    for i, (source, x) in outputs.items():
        assert set(x.backward(f"said {i}")) == {source}
        assert str(source.feedback[tg.Remark]) == f"said {i}"


def test_one_hundred_tasks_keep_their_graphs_apart():
    @tg.bundle
    async def call(x, items):
        await asyncio.sleep(0)
        return x + sum(items)

    @tg.bundle
    async def outer(x):
        first = await call(x, [1])
        await asyncio.sleep(0)
        return await call(first, [2])

    async def work(i):
        source = node(i, trainable=True, name=f"source{i}")
        x = source
        for _ in range(5):
            x = await call(x, [source])
            x = await outer(x)
        return source, x

    async def main():
        return await asyncio.gather(*(work(i) for i in range(100)))

    for source, x in asyncio.run(main()):
        assert tg.Graph.of(x).parameters == [source]
        assert len([n for n in tg.Graph.of(x) if n.op]) == 10


def test_a_bundle_called_from_many_threads_compiles_once_per_version_and_never_mixes():
    @tg.bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign("def f(x):\n    return x + 1")
    results = []

    def work():
        for _ in range(50):
            results.append(f(1).data)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [2] * 400


@contextlib.contextmanager
def switching_often():
    """Let threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def while_threads_call(function, change):
    """What `function` gave in four threads until `change` was through."""
    stop, given = threading.Event(), []

    def work():
        while not stop.is_set():
            given.append(function())

    threads = [threading.Thread(target=work) for _ in range(4)]
    with switching_often():
        for t in threads:
            t.start()
        try:
            change()
        finally:
            stop.set()
            for t in threads:
                t.join()
    return given


def test_code_changed_while_threads_call_it_runs_whole_versions():
    @tg.bundle(trainable=True)
    def f(x):
        return (0, 0)

    def change():
        for i in range(50):
            f.parameter.assign(f"def f(x):\n    return ({i}, {i})")

    for _ in range(5):
        assert all(a == b for a, b in while_threads_call(lambda: f(1).data, change))
        assert f(1).data == (49, 49)


def test_a_call_that_compiles_while_the_code_changes_leaves_nothing_old_behind(monkeypatch):
    @tg.bundle(trainable=True)
    def f(x):
        return 0

    replaced = Source.replaced

    def changing(self, text):
        if "1" in text and threading.current_thread() is caller:
            f.parameter.assign("def f(x):\n    return 2")
        return replaced(self, text)

    f.parameter.assign("def f(x):\n    return 1")
    caller = threading.Thread(target=lambda: first.append(f(0)))
    first = []
    monkeypatch.setattr(Source, "replaced", changing)
    caller.start()
    caller.join()
    assert first[0].data == 1
    assert first[0].inputs["__code"].data == "def f(x):\n    return 1"
    assert first[0].inputs["__code"].version == 1
    assert f(0).data == 2


def test_what_an_optimizer_writes_never_runs_in_place_while_threads_call():
    """Trust belongs to one text: the moment in which another one comes is nobody's."""
    here = os.getpid()

    @tg.bundle(trainable=True)
    def f(x):
        return ("person", 0)

    mine = f.parameter.data
    theirs = "def f(x):\n    import os\n    return ('optimizer', os.getpid())"

    def change():
        for _ in range(60):
            f.parameter.assign(theirs, origin="optimizer")
            time.sleep(0.002)
            f.parameter.assign(mine)

    calls = while_threads_call(lambda: f(1), change)
    for call in calls:
        who, where = call.data
        code = call.inputs["__code"]
        assert where != here
        assert code.info["origin"] == who
        assert code.info["trusted"] == (who == "person")
        assert ("getpid" in code.data) == (who == "optimizer")
    assert {call.data[0] for call in calls} == {"person", "optimizer"}


def test_children_of_a_frame_in_a_generator_consumed_elsewhere():
    """A generator begun in one context and finished in another resets nothing that is not its own."""

    @tg.bundle
    def count():
        yield 1
        yield 2

    it = count()
    assert next(it).data == 1
    assert contextvars.copy_context().run(next, it).data == 2
    assert current() is None


def test_an_async_generator_finished_by_another_task():
    @tg.bundle
    async def count():
        yield 1
        yield 2

    async def main():
        it = count()
        first = await anext(it)
        second = await asyncio.create_task(_next(it))
        assert (first.data, second.data) == (1, 2)
        assert current() is None

    async def _next(it):
        return await anext(it)

    asyncio.run(main())


def _is_tracing() -> bool:
    return bool((tg.node(1) + 1).inputs)


def test_a_generator_that_is_a_bundle_stops_tracing_for_itself_alone():
    quiet = stop_tracing()
    seen = []

    @tg.bundle(traceable=True)
    def count():
        with quiet:
            for number in range(3):
                seen.append(_is_tracing())
                yield number
        seen.append(_is_tracing())
        yield 3

    for _ in count():
        assert _is_tracing()
    assert seen == [False, False, False, True]

    for end in (list, lambda it: it.close()):
        it = count()
        with quiet:
            next(it)
            assert not _is_tracing()
            end(it)
            assert not _is_tracing()
        assert _is_tracing()
        assert current() is None


def test_an_async_generator_that_is_a_bundle_stops_tracing_for_itself_alone():
    seen = []

    @tg.bundle(traceable=True)
    async def count():
        with stop_tracing():
            for number in range(3):
                await asyncio.sleep(0)
                seen.append(_is_tracing())
                yield number

    async def main():
        async for _ in count():
            assert _is_tracing()
        it = count()
        await anext(it)
        await it.aclose()
        assert _is_tracing()
        assert current() is None

    asyncio.run(main())
    assert seen == [False, False, False, False]


def _quiet(change):
    with change:
        yield
        yield


def test_blocks_may_end_in_another_order_than_they_began():
    outer, inner = _quiet(stop_tracing()), _quiet(scope("a"))
    next(outer)
    next(inner)
    assert tg.node(1, name="x").name.startswith("a/x")
    outer.close()
    assert _is_tracing()
    assert tg.node(1, name="x").name.startswith("a/x")
    inner.close()
    assert current() is None


def test_a_block_that_ends_in_another_context_changes_nothing_there():
    begun = _quiet(stop_tracing())
    contextvars.copy_context().run(next, begun)
    begun.close()
    assert current() is None

    async def main():
        async def quiet():
            with stop_tracing():
                yield
                yield

        it = quiet()

        async def first():
            await anext(it)

        await asyncio.create_task(first())
        await it.aclose()
        assert current() is None

    asyncio.run(main())


def test_entering_often_leaves_nothing_behind():
    def once():
        with stop_tracing(), scope("a"), recording(horizon=5, observers=[print]):
            pass

    once()
    gc.collect()
    before = len(contextvars.copy_context())
    for _ in range(100):
        once()
    assert len(contextvars.copy_context()) == before
