"""What goes wrong with keeping is said once, and the run goes on."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from tracegraph.again import REPLAY
from tracegraph.errors import HistoryError
from tracegraph.history import Facts, HistoryWarning, State, store, writer
from tracegraph.history.facts import forget_states
from tracegraph.history.spans import spans_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(store, "_BUSY_MS", 50)
    monkeypatch.setattr(writer, "_AGAIN", 0.02)
    monkeypatch.setattr(writer, "_PATIENCE", 0.2)
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(elsewhere))


def keep(folder: Path, steps: int = 3) -> tuple[tg.run, list[str]]:
    """Keep a run of some steps; gives it and what was warned."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with tg.run("faulty", store=folder) as run:
            for number in range(1, steps + 1):
                run.step(tg.node(number) + 1, score=number)
        assert all(w.category is HistoryWarning for w in said), [str(w.message) for w in said]
    return run, [str(w.message) for w in said]


def numbers(run: Any) -> list[int]:
    return [step.number for step in tg.History(run.path).run("faulty").steps]


def test_a_truncated_file_is_left_alone_and_another_one_begun(tmp_path: Path) -> None:
    keep(tmp_path)
    path = tmp_path / "history.sqlite"
    path.write_bytes(path.read_bytes()[:5_000])
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="damaged"):
        tg.History(tmp_path).run()
    run, said = keep(tmp_path)
    assert len(said) == 1
    assert "cannot be used" in said[0]
    assert str(run.path) in said[0]
    assert path.read_bytes() == before
    assert numbers(run) == [1, 2, 3]


@pytest.mark.parametrize(
    "content", [b"not a database " * 100, b"SQLite format 3\x00" + b"\xff" * 500]
)
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="damaged"):
        tg.History(tmp_path)
    run, said = keep(tmp_path)
    assert len(said) == 1
    assert path.read_bytes() == content
    assert numbers(run) == [1, 2, 3]


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (a)")
    connection.close()
    with pytest.raises(HistoryError, match="another program"):
        tg.History(tmp_path)
    run, said = keep(tmp_path)
    assert "another program" in said[0]
    assert numbers(run) == [1, 2, 3]


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    keep(tmp_path)
    connection = sqlite3.connect(tmp_path / "history.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(HistoryError, match=r"version 99.*update tracegraph"):
        tg.History(tmp_path)
    run, said = keep(tmp_path)
    assert "version 99" in said[0]
    assert numbers(run) == [1, 2, 3]


def test_an_old_file_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = keep(tmp_path)
    further = (*store.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN extra TEXT DEFAULT 'new'",))
    monkeypatch.setattr(store, "MIGRATIONS", further)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_writable", lambda path: False)
        with pytest.raises(HistoryError, match=r"schema version \d and this tracegraph reads"):
            tg.History(tmp_path)
    assert numbers(first) == [1, 2, 3]
    keep(tmp_path)
    assert numbers(first) == [1, 2, 3]
    connection = sqlite3.connect(tmp_path / "history.sqlite")
    assert connection.execute("SELECT extra FROM runs").fetchall() == [("new",)] * 2
    connection.close()


def test_a_file_of_version_1_is_read_and_written_on(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    dump = (Path(__file__).parent / "files" / "version1.sql").read_text(encoding="utf-8")
    connection = sqlite3.connect(path)
    connection.executescript(dump)
    connection.close()
    old = tg.History(tmp_path).run("of version 1")
    assert [(s.score, s.note) for s in old.steps] == [(0.25, ""), (0.5, "by hand")]
    assert old.details(1)["reasoning"] == "It was long."
    assert [v.value for v in old.versions("prompt")] == ["Say hello.", "Say hi."]
    assert [n.op for n in old.graph(1).nodes] == [None, "upper", None, "add"]
    assert old.events[0].facts == {"size": 12}
    assert (old.candidates[0].id, old.candidates[0].parents) == ("c1", ("c0",))
    assert old.replies == []
    with Facts("cache", tmp_path) as facts:
        assert facts["a"] == {"score": 0.5}
    assert State("loop", tmp_path).load() == {"position": 3}
    run, said = keep(tmp_path)
    assert (said, run.path) == ([], path)
    assert len(tg.History(tmp_path).runs()) == 2
    fresh, migrated = (store.open_store(p) for p in (tmp_path / "fresh.sqlite", path))
    tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
    assert migrated.execute(tables).fetchall() == fresh.execute(tables).fetchall()
    fresh.close()
    migrated.close()


def test_a_file_of_version_2_has_no_times_of_nodes_and_is_written_on(tmp_path: Path) -> None:
    dump = (Path(__file__).parent / "files" / "version2.sql").read_text(encoding="utf-8")
    connection = sqlite3.connect(tmp_path / "history.sqlite")
    connection.executescript(dump)
    connection.close()
    old = tg.History(tmp_path).run("of version 2")
    assert [(n.label, n.seconds, n.began, n.cost) for n in old.graph(1).nodes] == [
        ("prompt", None, None, None), ("shout", None, None, None),
    ]  # fmt: skip
    assert [c.id for c in old.candidates] == ["a", "b"]
    with tg.run("new", store=tmp_path) as run:
        run.step(tg.bundle(len)("abc"))
    assert tg.History(tmp_path).run("new").graph(1).nodes[-1].seconds is not None
    tg.History(tmp_path).prune([old])
    assert tg.History(tmp_path).run("new").graph(1).nodes[-1].seconds is not None


def test_a_clock_that_goes_back_puts_nothing_out_of_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(2_000_000_000, 0, -10_000))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    ids = [f"c{number}" for number in range(12)]
    with tg.run("back", store=tmp_path) as run:
        for id in ids:
            run.candidate(id)
            run.step(tg.bundle(len)(id), seconds=0.0)
    kept = tg.History(tmp_path).run("back")
    assert [c.id for c in kept.candidates] == ids
    times = [kept.created, *(s.started for s in kept.steps), kept.ended]
    assert times == sorted(times)
    assert 0 <= kept.summary["seconds"] < 1
    spans = list(spans_of(kept))
    assert all(span.began <= span.ended for span in spans)


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)
    broken = (*store.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN extra TEXT", "CREATE NONSENSE"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "MIGRATIONS", broken)
        with pytest.raises(sqlite3.OperationalError):
            store.open_store(tmp_path / "history.sqlite")
    connection = sqlite3.connect(tmp_path / "history.sqlite")
    names = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
    connection.close()
    assert "extra" not in names
    assert tg.History(tmp_path).run().name == "faulty"


def test_a_place_that_cannot_be_written_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run, said = keep(tmp_path / "file")
    assert run.path.parent.parent == tmp_path / "temporary"
    assert str(run.path) in said[-1]
    assert numbers(run) == [1, 2, 3]


def test_a_locked_file_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    keep(tmp_path)
    lock = sqlite3.connect(tmp_path / "history.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with tg.run("locked", store=tmp_path) as run:
            started = time.perf_counter()
            for number in range(20):
                run.step(score=number)
            assert time.perf_counter() - started < 20 * 0.2  # it does not wait for each
            time.sleep(0.3)
            run.step(score=20)
            lock.execute("ROLLBACK")
            lock.close()
    assert sum("locked" in str(w.message) for w in said) == 1
    assert len(tg.History(tmp_path).run("locked").steps) == 21


def test_a_full_disk_is_waited_for_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)
    full = threading.Event()
    full.set()
    opened = store.open_store

    def limited(path: Path, **options: Any) -> sqlite3.Connection:
        connection = opened(path, **options)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

        def lift(*_: Any) -> None:
            if not full.is_set():
                connection.execute("PRAGMA max_page_count=1000000")

        monkeypatch.setattr(writer, "transaction", _before(lift))
        return connection

    monkeypatch.setattr(writer, "open_store", limited)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with tg.run("full", store=tmp_path) as run:
            for number in range(30):
                run.step(tg.node("x" * 150 + str(number)) + str(number) * 2_000, score=number)
            full.clear()
    assert sum("full" in str(w.message) for w in said) == 1
    assert len(tg.History(tmp_path).run("full").steps) == 30


def _before(lift: Any) -> Any:
    def begun(connection: sqlite3.Connection) -> Any:
        lift()
        return store.transaction(connection)

    return begun


def test_a_value_that_cannot_be_kept_is_shown(tmp_path: Path) -> None:
    class Strange:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    with tg.run("strange", store=tmp_path) as run:
        run.step(tg.node(Strange(), name="strange"))
        run.step(tg.node("\ud800 lone \x00", name="text") + "!", feedback="\udfff")
    kept = tg.History(tmp_path).run()
    assert "Strange" in kept.graph(1).nodes[0].value
    assert "lone" in kept.graph(2).nodes[0].value


def test_a_record_that_cannot_be_written_leaves_the_others(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with tg.run("odd", store=tmp_path) as run:
            run.step(score=1)
            run.candidate("c", score=2**70)
            run.step(score=2)
    assert [str(w.message)[:27] for w in said] == ["a record could not be kept:"]
    assert [s.score for s in tg.History(tmp_path).run().steps] == [1.0, 2.0]


def test_a_graph_of_many_nodes_is_cut(tmp_path: Path) -> None:
    node = tg.node(0)
    for _ in range(6_000):
        node = node + 1
    with tg.run("long", store=tmp_path) as run:
        run.step(node)
    graph = tg.History(tmp_path).run().graph(1)
    assert graph.cut
    assert len(graph) == 5_000
    assert graph.nodes[graph.outputs[0]].value == "6000"


def test_a_forked_child_leaves_the_run_alone(tmp_path: Path) -> None:
    program = f"""
import os, tracegraph as tg
with tg.run("parent", store={str(tmp_path)!r}) as run:
    run.step(score=1)
    run.flush()
    if os.fork() == 0:
        run.step(score=99)
        run.close()
        raise SystemExit(0)
    os.wait()
    run.step(score=2)
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, check=True, timeout=60
    )
    assert [s.score for s in tg.History(tmp_path).run("parent").steps] == [1.0, 2.0]


def test_two_processes_write_and_a_third_reads(tmp_path: Path) -> None:
    program = f"""
import sys, time, tracegraph as tg
text = tg.node("v0", trainable=True, name="text")
with tg.run(sys.argv[1], store={str(tmp_path)!r}) as run:
    for number in range(1, 151):
        text.assign(f"v{{number}}")
        run.step(text + "!", score=number)
        time.sleep(0.01)  # or a reader on a busy machine sees nothing between start and end
"""
    names = ("one", "two")
    writers = [
        subprocess.Popen([sys.executable, "-c", program, name], cwd=ROOT, stderr=subprocess.PIPE)
        for name in names
    ]
    seen: list[int] = []
    try:
        while any(process.poll() is None for process in writers):
            try:
                runs = tg.History(tmp_path).runs()
            except HistoryError as error:
                if "there is no history" in str(error) or "is empty" in str(error):
                    continue
                raise
            for run in runs:
                scores = [step.score for step in run.steps]
                assert scores == [float(n) for n in range(1, len(scores) + 1)]
                seen.append(len(scores))
        said = [process.communicate(timeout=60)[1] for process in writers]
    finally:
        for process in writers:
            process.kill()
            process.wait()
    assert said == [b"", b""]
    assert any(0 < n < 150 for n in seen)
    history = tg.History(tmp_path)
    assert [len(history.run(name).steps) for name in names] == [150, 150]
    assert history.run("one").parameters(77)["text"].value == "v77"


NAMES = [
    "é" * 300,
    "日本語",
    "مرحبا",
    "a\nb\x1b[31m",
    "\ud800 lone",
    "../../x",
    "'; DROP TABLE runs; --",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_sorts_are_kept(tmp_path: Path, name: str) -> None:
    prompt = tg.node("x", trainable=True, name=name)
    with tg.run(name, store=tmp_path) as run:
        run.step(prompt + "!", note=name, parameters={name: prompt})
        run.log(name, said=name)
        run.candidate(name, status=name)
        run.candidate(name + "2", parents=[name])
    kept = tg.History(tmp_path).run()
    told = name.replace("\ud800", "\\ud800")
    assert (kept.name, kept.steps[0].note, kept.events[0].kind) == (told, told, told)
    assert kept.candidates[1].parents == (kept.candidates[0].id,) == (told,)
    assert told in kept.parameters()
    listed = subprocess.run(
        [sys.executable, "-c", "from tracegraph.cli import main; main()", "runs", "list", "--store",
         str(tmp_path)],
        cwd=ROOT, capture_output=True, check=False,
        env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert b"\x1b" not in listed.stdout


def test_a_store_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    run, said = keep(tmp_path / "link")
    assert (said, numbers(run)) == ([], [1, 2, 3])
    (tmp_path / "link.sqlite").symlink_to(real / "history.sqlite")
    keep(tmp_path / "link.sqlite")
    assert len(tg.History(real).runs()) == 2


def test_a_file_that_is_deleted_in_use_is_begun_again(tmp_path: Path) -> None:
    def kept_and_deleted() -> None:
        with tg.run("deleted", store=tmp_path / "runs") as run:
            run.step(score=1)
            run.flush()
            shutil.rmtree(tmp_path / "runs")
            run.step(score=2)
            run.step(score=3)

    with pytest.warns(HistoryWarning, match="was deleted or replaced"):
        kept_and_deleted()
    kept = tg.History(tmp_path / "runs").run("deleted")
    assert [step.score for step in kept.steps] == [2, 3]
    assert kept.status == "done"


def test_a_limit_on_the_size_of_files_does_not_end_the_run(tmp_path: Path) -> None:
    code = """
import os, resource, sys, warnings
import tracegraph as tg
from tracegraph.history import writer
writer._AGAIN = 0.02
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with tg.run("limited", store=sys.argv[1]) as run:
        for number in range(30):
            value = tg.node(os.urandom(4_000).hex()) + str(number)
            run.step(value, feedback=os.urandom(5_000).hex(), score=number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*(w.message for w in said), sep="\\n")
"""
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT,
        timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "cannot be written" in told.stdout
    assert "lost" not in told.stdout
    assert [s.score for s in tg.History(tmp_path).run("limited").steps] == [*range(30)]


def test_a_replay_leaves_nothing_of_its_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = tmp_path / "tape.jsonl"
    names = ("one", "another")
    for replayed in (False, True):
        if replayed:
            before = {path.name for path in (tmp_path / "store").iterdir()}
            monkeypatch.setenv(REPLAY, str(tape))
        for name in names:
            state = State(name, tmp_path / "store")
            with state.hold():
                state.save(1)
                state.folder().mkdir()
                (state.folder() / "tensors").write_text("x")
    monkeypatch.delenv(REPLAY)
    forget_states(tmp_path / "store", tape)
    assert {path.name for path in (tmp_path / "store").iterdir()} == before
    assert [State(name, tmp_path / "store").load() for name in names] == [1, 1]
