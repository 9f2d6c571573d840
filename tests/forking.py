"""Programs that fork while their threads are inside the library; run by `test_forking`, each by its name."""

import os
import signal
import sys
import threading
import warnings

import tracegraph as tg
from tracegraph import cell, events, isolation, recorder
from tracegraph.history import Facts, live
from tracegraph.history.store import transaction
from tracegraph.llm import passing
from tracegraph.sandbox import Policy, Sandbox, launch

QUICK = Policy(preload=())
THREE = "def three():\n    return 3\n"


@tg.bundle
def plain(x):
    return x


@tg.bundle(trainable=True, sandbox=QUICK)
def apart(x):
    return x


@tg.bundle(trainable=True)
def seven(x):
    return 7


word = tg.node("w", trainable=True, name="word")


def forked(task):
    """What a child that runs `task` exits with; one that hangs is ended."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            os._exit(task() or 0)
        except BaseException as error:  # a child says what went wrong, and ends
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# While another thread holds a lock


def keep_a_run():
    with tg.run("r"):
        word.assign("in the run")


def time_a_call():
    with recorder.timed():
        plain(1)


def call_apart():
    assert apart(1).data == 2


def learn():
    word.assign("v")
    (word + "!").backward("better")
    assert str(word.feedback[tg.Remark]) == "better"


def locks():
    """Fork while a thread holds each of the locks, and use what it guards."""
    apart.parameter.assign("def apart(x):\n    return x + 1\n", origin="optimizer")
    os.mkdir(".tracegraph")  # so that what happens is kept by itself
    tasks = {
        events._lock: keep_a_run,
        recorder.timed._lock: time_a_call,
        live._own_lock: lambda: events.observe("something"),
        isolation._opening: call_apart,
        passing._lock: passing.playing,
        cell._changing: learn,
        launch._pairing: call_apart,
    }
    for lock, task in tasks.items():
        inside, done = threading.Event(), threading.Event()
        waits = lock not in (cell._changing, launch._pairing)  # for these a fork waits

        def hold(lock=lock, inside=inside, done=done, waits=waits):
            with lock:
                inside.set()
                if waits:
                    done.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait()
        code = forked(lambda task=task: task() and 0)
        done.set()
        thread.join()
        task()
        assert code == 0, task
    events.observe("something")


# While a child of the sandbox begins


def sockets():
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sum(os.path.islink(link) and os.readlink(link).startswith("socket:") for link in links)


def copies():
    """Fork whenever the zygote is asked for a child; the copy of the owner shall hold no socket of it."""
    before, send, seen = sockets(), launch.socket.send_fds, []

    def sending(*args):
        seen.append(forked(lambda: sockets() - before))
        return send(*args)

    launch.socket.send_fds = sending
    with Sandbox(QUICK) as box:
        assert box.call(THREE, "three").unwrap() == 3
    assert seen
    assert not any(seen), seen


# While another thread writes facts


def facts():
    """Fork in the middle of what a thread writes: the child sees what is written, and writes itself."""
    inside, done = threading.Event(), threading.Event()
    with Facts("words", "here.sqlite") as words:
        words["first"] = 1

        def write():
            with words._lock, transaction(words._connection):
                words._connection.execute("DELETE FROM facts")
                inside.set()
                done.wait(60)

        thread = threading.Thread(target=write)
        thread.start()
        inside.wait()
        code = forked(lambda: list(words) != ["first"])
        done.set()
        thread.join()
        assert code == 0
        assert list(words) == []

        def keep():
            words["second"] = 2

        assert forked(keep) == 0
        words["third"] = 3
        assert list(words) == ["second", "third"]


# While threads do everything


def everything():
    """Fork at any moment while threads record, assign, walk, compile and open children."""
    sys.setswitchinterval(1e-6)
    warnings.simplefilter("ignore")  # of feedback that came too late
    stop, box = threading.Event(), Sandbox(QUICK)
    texts = [f"def seven(x):\n    return {n}\n" for n in range(50)]

    def work():
        n = 0
        while not stop.is_set():
            n += 1
            word.assign(str(n))
            seven.parameter.assign(texts[n % 50])
            tg.backward([(seven(word), f"remark {n}"), (word + "!", "another")])
            word.zero_feedback()

    def call():
        while not stop.is_set():
            assert box.call(THREE, "three").unwrap() == 3

    def use():
        word.zero_feedback()
        seven.parameter.assign(texts[7])
        out = seven(word)
        (word + "!").backward("from the child")
        assert out.data == 7
        assert "from the child" in str(word.feedback[tg.Remark])
        assert box.call(THREE, "three").unwrap() == 3
        box.close()

    threads = [threading.Thread(target=task) for task in (work, work, call)]
    for thread in threads:
        thread.start()
    try:
        codes = [forked(use) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert box.call(THREE, "three").unwrap() == 3
    box.close()
    assert codes == [0] * 5, codes


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    sys.stdout.write("fine")
