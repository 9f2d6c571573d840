"""Time and memory by line, in place and in the sandbox."""

import asyncio
import subprocess
import sys
import time
import tracemalloc

import pytest

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph import Problem, bundle, failed_node
from tracegraph.profiling import Line, Profile
from tracegraph.sandbox import Policy

PLACES = ("in place", "apart", "first text")
BODY = """
    import time
    total = 0
    for n in range(count):
        total += n
    held = _waste(300_000)
    time.sleep(0.05)
    return total
def _waste(n):
    big = list(range(n))
    return len(big)
"""


def work_of(place):
    """A function with known costs, in a place."""

    @bundle(trainable=True, profile=True, sandbox=Policy(preload=()))
    def work(count):
        import time

        total = 0
        for n in range(count):
            total += n
        held = len(list(range(300_000)))  # noqa: F841
        time.sleep(0.05)
        return total

    if place != "first text":
        work.parameter.assign(f"def work(count):{BODY}", origin="optimizer")
    if place == "in place":
        work.parameter.trust()
    return work


@pytest.mark.parametrize("place", PLACES)
def test_the_lines_are_those_that_cost(place):
    result = work_of(place)(500)
    assert result.data == sum(range(500))
    profile = result.info["profile"]
    assert isinstance(profile, Profile)
    by_text = {line.text.strip().partition("  #")[0]: line for line in profile.lines}
    assert by_text["total += n"].passes == 500
    assert by_text["for n in range(count):"].passes == 501
    assert by_text["return total"].passes == 1
    assert by_text["time.sleep(0.05)"].seconds >= 0.05
    waste = next(line for text, line in by_text.items() if "list(range(" in text)
    assert waste.bytes > 300_000 * 8
    assert by_text["total += n"].bytes < 100_000
    assert profile.seconds >= 0.05
    assert "time.sleep(0.05)  <--- " in profile.text()
    assert "MiB" in profile.text()


@pytest.mark.parametrize("place", PLACES)
def test_nothing_stays_installed(place):
    before = sys.gettrace()
    work_of(place)(5)
    assert sys.gettrace() is before
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize("place", ["in place", "apart"])
def test_a_failure_tells_what_its_lines_cost(place):
    @bundle(trainable=True, profile=True)
    def f(n):
        return n

    text = "def f(n):\n    for i in range(n):\n        last = i\n    return last / 0\n"
    f.parameter.assign(text, origin="optimizer")
    if place == "in place":
        f.parameter.trust()
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError) as caught:
        f(30)
    assert sys.gettrace() is before
    failed = failed_node(caught.value)
    feedback = failed.create_feedback("full")
    assert "return last / 0  <--- (ZeroDivisionError)" in feedback
    assert "last = 29" in feedback
    assert "time by line" in feedback
    assert "last = i  <--- " in feedback
    assert "30 passes" in feedback
    assert failed.info["profile"].lines


ROWS = (
    "[2, 1 << 200_000, 0.5, 8]", "[2, 1, 0.5, 1 << 200_000]", "[2, 1, 1e999, 8]", "[2, -1, 0.5, 8]",
    "[2, 1, float('nan'), 8]", "[2, 1]", "[[2], 1, 0.5, 8]",
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_what_code_says_of_its_lines_can_be_shown(row):
    @bundle(trainable=True, profile=True, sandbox=Policy(preload=()))
    def f(n):
        return n

    text = (
        "def f(n):\n    setattr(_meter_of_f['LineMeter'], '_tell', lambda meter: None)\n"
        f"    _report_lines([{row}, [3, 1, 0.25, 8]])\n    return n\n"
    )
    f.parameter.assign(text, origin="optimizer")
    profile = f(1).info["profile"]
    assert [line.number for line in profile.lines] == [3]
    assert "250 ms in all" in profile.text()


def test_what_ran_out_of_time_tells_where_it_went():
    @bundle(trainable=True, profile=True, sandbox=Policy(timeout=1.0, preload=()))
    def f(n):
        return n

    text = "def f(n):\n    while True:\n        n += 1\n"
    f.parameter.assign(text, origin="optimizer")
    with pytest.raises(tg.TimedOut) as caught:
        f(1)
    profile = failed_node(caught.value).info["profile"]
    assert {line.number for line in profile.lines} == {2, 3}
    assert "time by line" in failed_node(caught.value).create_feedback("full")


@pytest.mark.parametrize("place", ["in place", "apart"])
def test_methods_generators_and_async_functions(place):
    @bundle(trainable=True, profile=True)
    class Work:
        def __init__(self, n):
            self.n = n

        def run(self):
            return self._inner()

        def _inner(self):
            return sum(i for i in range(self.n))

        async def later(self, x):
            return x

        def items(self):
            yield from range(self.n)

    work = Work(20)
    Work.parameter.assign(Work.parameter.data.replace("return x", "return x + 1"),
                          origin="optimizer")  # fmt: skip
    if place == "in place":
        Work.parameter.trust()
    result = work.run()
    texts = [line.text.strip() for line in result.info["profile"].lines]
    assert "return sum(i for i in range(self.n))" in texts
    assert "return self._inner()" in texts

    async def main():
        return await work.later(1)

    assert asyncio.run(main()).data == 2
    items = list(work.items())
    assert [item.data for item in items] == list(range(20))


def test_generators_and_coroutines_in_place_behave_as_without():
    @bundle(trainable=True, profile=True)
    def echo(n):
        got = yield n
        try:
            got = yield got
        except KeyError:
            got = yield "caught"
        return got

    run = echo(1)
    assert next(run).data == 1
    assert run.send(5).data == 5
    assert run.throw(KeyError("x")).data == "caught"
    run.close()

    @bundle(trainable=True, profile=True)
    async def wait(n):
        await asyncio.sleep(0.4)
        return n

    @bundle(trainable=True, profile=True)
    async def stream(n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def main():
        first, second = await asyncio.gather(wait(1), wait(2))
        return first, second, [item.data async for item in stream(3)]

    before = sys.gettrace()
    first, second, items = asyncio.run(main())
    assert (first.data, second.data, items) == (1, 2, [0, 1, 2])
    assert sys.gettrace() is before
    sleep = next(line for line in first.info["profile"].lines if "sleep" in line.text)
    assert sleep.seconds < 0.2  # waiting is nobody's work


def test_an_optimizer_reads_the_lines():
    seen = []

    def model(prompt):
        seen.append(prompt)
        return '{"reasoning": "", "suggestion": {}}'

    work = work_of("first text")
    result = work(500)
    optimizer = OptoPrime([work], llm=model)
    optimizer.backward(result, "Too slow.")
    assert "time by line" in Problem.of({"work": work.parameter}).text()
    optimizer.step()
    assert "time.sleep(0.05)  <--- " in str(seen)


def test_the_text_is_bounded():
    lines = tuple(Line(n, "x" * 1_000, 1, 1.0, 0) for n in range(1, 1_000))
    text = Profile(lines).text()
    assert len(text.splitlines()) <= 13
    assert max(map(len, text.splitlines())) < 300


class Forger:
    """A sandbox whose code tells lies about its lines."""

    layers = {}

    def __init__(self, rows):
        self.rows = rows

    def call(self, source, entry, args=(), kwargs=None, *, host=None, fresh=True):
        host["_report_lines"](self.rows)
        return tg.sandbox.Result(value=1)

    def map(self, source, entry, many, *, host=None, fresh=False):
        return []

    def close(self):
        pass


@pytest.mark.parametrize(
    "rows", [7, None, [[1, 2]], [["a", 1, 1.0, 1]], [[99, 1, 1.0, 1]], [[1, 1, -5.0, 1]], [[]] * 9]
)
def test_lies_about_lines_are_dropped(rows):
    @bundle(trainable=True, profile=True, sandbox=Forger(rows))
    def f(x):
        return x

    f.parameter.assign("def f(x):\n    return x + 1\n", origin="optimizer")
    result = f(1)
    profile = result.info.get("profile")
    assert profile is None or profile.lines == ()


def test_without_profile_nothing_is_measured():
    @bundle(trainable=True)
    def f(x):
        time.sleep(0)
        return x

    assert "profile" not in f(1).info
    with pytest.raises(TypeError, match="trainable=True"):
        bundle(profile=True)(time.sleep)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later versions let it stand")
def test_threads_measure_beside_an_audit_hook(tmp_path):
    """CPython 3.11 refuses `sys.settrace` while a hook of another thread's call of it runs."""
    program = """
import sys, threading
import tracegraph as tg

entered, refused = threading.Event(), threading.Event()
real = sys.settrace

def settrace(function):
    try:
        return real(function)
    except RuntimeError:
        refused.set()
        raise

def hook(event, args):
    if event == "sys.settrace" and threading.current_thread().name == "first":
        entered.set()
        refused.wait(10)

@tg.bundle(trainable=True, profile=True)
def double(x):
    return x + x

results = []
first = threading.Thread(target=lambda: results.append(double(1)), name="first")
sys.addaudithook(hook)
sys.settrace = settrace
first.start()
entered.wait(10)
results.append(double(2))
first.join(30)
print(sorted(node.data for node in results), sys.gettrace(), refused.is_set())
"""
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "[2, 4] None True\n"
