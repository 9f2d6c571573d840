"""A checkpoint comes back bit by bit, whole or not at all."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy
import pytest
import torch
from pydantic import Field

import optimizers
import tracegraph as tg
from optimizers import Evolve
from tests.optimizers.numeric.family import FAMILY, named
from tracegraph.errors import CheckpointError
from tracegraph.history import HistoryWarning
from tracegraph.history.checkpoint import checkpoints, load, save

ROOT = Path(__file__).resolve().parents[2]


SMALL = Annotated[float, Field(le=0.1)]


@tg.bundle(trainable=True)
def double(x: int) -> int:
    """Twice x."""
    return x * 2


def made() -> dict[str, Any]:
    return {
        "prompt": tg.node("Say “hello”.\n\x00", trainable=True, name="prompt"),
        "rate": tg.node(0.1 + 0.2, trainable=True, name="rate"),
        "flag": tg.node(True, trainable=True, name="flag"),
        "tools": tg.node(["a", ("b", 2)], trainable=True, name="tools"),
        "weight": tg.node(torch.randn(3, 4), trainable=True, name="weight"),
        "half": tg.node(torch.randn(5).bfloat16(), trainable=True, name="half"),
        "array": tg.node(numpy.random.randn(2, 2).astype(">f4"), trainable=True, name="array"),
        "code": double.parameter,
    }


def bits(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().contiguous().view(torch.uint8).tolist()
    return value.tobytes() if isinstance(value, numpy.ndarray) else (type(value), value)


def test_parameters_come_back_bit_by_bit(tmp_path: Path) -> None:
    old, new = made(), made()
    before = {name: bits(p._data) for name, p in old.items()}
    held = {name: new[name]._data for name in ("weight", "half", "array")}
    path = save(tmp_path, step=3, parameters=old, data={"epoch": 2, "order": numpy.arange(3)})
    assert path.name == "step-00000003"
    new["prompt"].assign("other")
    back = load(tmp_path, parameters=new)
    assert {name: bits(p._data) for name, p in new.items()} == before
    assert all(new[name]._data is value for name, value in held.items())
    assert (back.step, back.data["epoch"], back.data["order"].tolist()) == (3, 2, [0, 1, 2])
    assert (path / "code").is_dir()
    assert b"def double" in next((path / "code").iterdir()).read_bytes()


def test_who_wrote_a_value_and_whether_it_is_trusted_come_back(tmp_path: Path) -> None:
    code = double.parameter
    assert code is not None
    other = tg.node("x", trainable=True, name="other")
    other.assign("y", origin="optimizer")
    save(tmp_path, step=0, parameters=[other])
    other.assign("z")
    load(tmp_path, parameters=[other])
    assert (other.data, other.origin, other.trusted) == ("y", "optimizer", False)


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD, torch.optim.LBFGS])
def test_training_goes_on_as_if_nothing_had_stopped(tmp_path: Path, make: Any) -> None:
    def start() -> tuple[torch.Tensor, Any]:
        torch.manual_seed(0)
        weight = torch.randn(4, requires_grad=True)
        extra = {"momentum": 0.9} if make is torch.optim.SGD else {}
        return weight, make([weight], lr=0.1, **extra)

    def steps(weight: torch.Tensor, optimizer: Any, count: int) -> None:
        for _ in range(count):
            noise = (
                torch.randn(4) * random.random() + torch.from_numpy(numpy.random.randn(4)).float()
            )

            def closure(noise: torch.Tensor = noise) -> torch.Tensor:
                optimizer.zero_grad()
                loss = ((weight - noise) ** 2).sum()
                loss.backward()
                return loss

            optimizer.step(closure)

    weight, optimizer = start()
    steps(weight, optimizer, 3)
    save(
        tmp_path,
        step=3,
        parameters=[tg.node(weight, trainable=True, name="w")],
        optimizers=optimizer,
    )
    steps(weight, optimizer, 3)
    again, other = start()
    random.seed(99)
    load(tmp_path, parameters=[tg.node(again, trainable=True, name="w")], optimizers=other)
    steps(again, other, 3)
    assert bits(again) == bits(weight)


MATRIX = ["COSMOS", "FRUGAL", "SOAP", "Adafactor", "DCTAdamW", "Fira", "GaLore", "Muon",
          "NaturalGaLore", "ScheduleFreeAdamW", "Shampoo"]  # fmt: skip


@pytest.mark.parametrize("name", [row.name for row in FAMILY] + MATRIX)
def test_every_numeric_optimizer_goes_on_bit_by_bit(tmp_path: Path, name: str) -> None:
    make = getattr(optimizers, name) if name in MATRIX else named(name)

    def start() -> tuple[torch.Tensor, Any]:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(6, 4, generator=generator).requires_grad_()
        return weight, make([weight], lr=0.01)

    def steps(weight: torch.Tensor, optimizer: Any, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            ((weight - torch.randn(6, 4)) ** 2).sum().backward()
            optimizer.step()

    torch.manual_seed(1)
    weight, optimizer = start()
    steps(weight, optimizer, 5)
    parameter = tg.node(weight, trainable=True, name="w")
    save(tmp_path, step=5, parameters=[parameter], optimizers=optimizer)
    steps(weight, optimizer, 8)
    again, other = start()
    load(tmp_path, parameters=[tg.node(again, trainable=True, name="w")], optimizers=other)
    steps(again, other, 8)
    assert bits(again) == bits(weight)


def test_a_search_goes_on_as_if_nothing_had_stopped(tmp_path: Path) -> None:
    def steps(x: Any, optimizer: Any, count: int) -> list[float]:
        seen = []
        for _ in range(count):
            y = -(x - 0.3) * (x - 0.3)
            optimizer.backward(y, float(y.data))
            optimizer.step()
            seen.append(x.data)
        return seen

    x = tg.node(0.5, trainable=True, name="x")
    optimizer = Evolve([x], seed=3)
    steps(x, optimizer, 7)
    save(tmp_path, step=7, parameters=[x], optimizers={"search": optimizer})
    expected = steps(x, optimizer, 10)
    y = tg.node(0.5, trainable=True, name="x")
    other = Evolve([y], seed=3)
    load(tmp_path, parameters=[y], optimizers={"search": other})
    assert steps(y, other, 10) == expected


def _cut(path: Path) -> None:
    file = path / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _changed(path: Path) -> None:
    file = path / "parameters.json"
    file.write_text(file.read_text().replace("hello", "jello"))


def _rehashed(path: Path) -> None:
    file = path / "MANIFEST.json"
    file.write_text(file.read_text().replace('"step": 1', '"step": 2'))


def _foreign(path: Path) -> None:
    (path / "MANIFEST.json").write_text('{"format": "another"}')


def _version(path: Path) -> None:
    file = path / "MANIFEST.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut, "tensors.safetensors was changed or cut off"),
        (_changed, "parameters.json was changed"),
        (_rehashed, "MANIFEST.json was changed"),
        (_foreign, "not written by tracegraph"),
        (_version, "format version 99"),
        (lambda p: (p / "MANIFEST.json").unlink(), "is no checkpoint"),
        (lambda p: (p / "MANIFEST.json").write_bytes(b"\xff{"), "cannot be read"),
        (lambda p: (p / "random.json").unlink(), "random.json cannot be read"),
    ],
)
def test_what_is_damaged_is_refused_and_changes_nothing(
    tmp_path: Path, damage: Any, says: str
) -> None:
    own = made()
    path = save(tmp_path, step=1, parameters=own)
    damage(path)
    own["prompt"].assign("mine")
    before = {name: bits(p._data) for name, p in own.items()}
    chance = random.getstate()
    with pytest.raises(CheckpointError, match=says):
        load(path, parameters=own)
    assert {name: bits(p._data) for name, p in own.items()} == before
    assert random.getstate() == chance


def test_a_file_outside_the_checkpoint_is_refused(tmp_path: Path) -> None:
    import hashlib

    path = save(tmp_path / "run", step=1, parameters=made())
    (tmp_path / "run" / "outside").write_bytes(b"{}")
    file = path / "MANIFEST.json"
    body = json.loads(file.read_text())
    del body["sha256"]
    body["files"]["../outside"] = {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    text = json.dumps(body, sort_keys=True)
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match="outside"):
        load(path)


def test_an_earlier_checkpoint_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    own = made()
    save(tmp_path, step=1, parameters=own)
    own["prompt"].assign("later")
    _cut(save(tmp_path, step=2, parameters=own))
    with pytest.warns(HistoryWarning, match="an earlier one is used"):
        assert load(tmp_path, parameters=own).step == 1
    assert own["prompt"].data.startswith("Say")


def test_a_refused_state_changes_nothing(tmp_path: Path) -> None:
    x = tg.node(0.5, trainable=True, name="x")
    save(
        tmp_path,
        step=1,
        parameters={"x": x},
        optimizers={"a": Evolve([x], seed=1), "b": Evolve([x], seed=2)},
    )
    x.assign(0.9)
    first, second = Evolve([x], seed=1), Evolve([x], seed=5)
    before = first.state_dict()
    with pytest.raises(tg.OptimizerError):
        load(tmp_path, parameters={"x": x}, optimizers={"a": first, "b": second})
    assert (x.data, first.state_dict()) == (0.9, before)
    with pytest.raises(CheckpointError, match="other parameters: it lacks 'y'; it also has 'x'"):
        load(tmp_path, parameters={"y": tg.node(1.0, trainable=True)})
    with pytest.raises(CheckpointError, match="other optimizers"):
        load(tmp_path, optimizers={"a": first})
    with pytest.raises(CheckpointError, match="kind text here and number"):
        load(tmp_path, parameters={"x": tg.node("1", trainable=True)})
    with pytest.raises(tg.Rejected):
        load(tmp_path, parameters={"x": tg.node(0.0, trainable=True, constraint=SMALL)})


@pytest.mark.parametrize("data", [object(), {"a": [len]}, numpy.array([object()])])
def test_what_cannot_be_written_back_is_refused_before_anything_is_written(
    tmp_path: Path, data: Any
) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint was written: data"):
        save(tmp_path / "run", step=1, data=data)
    assert not (tmp_path / "run").exists()


def test_pruning_keeps_the_latest(tmp_path: Path) -> None:
    for step in range(5):
        save(tmp_path, step=step, keep=2, data=step)
    save(tmp_path, step=4, keep=2, data="again")
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]
    assert load(tmp_path).data == "again"
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load(tmp_path / "nowhere")


def test_nothing_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path, step=1, parameters=made(), data={"x": torch.ones(2)})
    endings = {file.suffix for file in path.rglob("*") if file.is_file()}
    assert endings == {".json", ".safetensors", ".py"}


KILLED = """
import os, sys, random, numpy
from tracegraph.history.checkpoint import checkpoints, load, save
import tracegraph as tg
last = 0
for number in range(int(sys.argv[2])):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        step = number * 1000
        while True:
            step += 1
            save(sys.argv[1], step=step, data={"step": step, "a": numpy.full(2000, step)}, keep=2)
            os.write(writer, step.to_bytes(4, "little"))
    os.close(writer)
    import time, signal
    time.sleep(random.Random(number).random() * 0.06)
    os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
    said = b""
    while part := os.read(reader, 65536): said += part
    os.close(reader)
    if said:
        last = int.from_bytes(said[-4:], "little")
    if not last: continue
    found = load(sys.argv[1])
    assert found.step >= last and found.data["step"] == found.step, (found.step, last)
    assert (found.data["a"] == found.step).all()
    for path in checkpoints(sys.argv[1]): load(path)  # those that were being deleted, too
print("whole")
"""


def killed(folder: Path, times: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(folder), str(times)],
        cwd=ROOT, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("whole\n", "")
    left = [path.name for path in folder.iterdir() if path.name.startswith(".old")]
    assert len(left) <= 1  # of the last kill; the next save deletes it


def test_a_killed_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    killed(tmp_path, 20)


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_three_hundred_killed_saves(tmp_path: Path) -> None:
    killed(tmp_path, 300)


def test_words_alone_need_no_safetensors(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["safetensors"] = None  # as where it is not installed
import numpy, tracegraph as tg
from tracegraph.history import checkpoint
prompt = tg.node("kind", trainable=True, name="prompt")
numpy.random.seed(5)
checkpoint.save({str(tmp_path)!r}, step=1, parameters=[prompt])
drawn = numpy.random.rand()
prompt.assign("worse")
checkpoint.load({str(tmp_path)!r}, parameters=[prompt])
assert (prompt.data, numpy.random.rand()) == ("kind", drawn)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
