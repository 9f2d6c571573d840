"""A rule run on the CPU by a C++ kernel written from its body, over a table of pointers.

One pass over memory whatever the rule, one call for all tensors, no copies and no flat buffer: the
user's tensors stay where they are. The kernel is compiled once per rule and dtype (about a second)
and kept in the user's cache folder. Needs a C++ compiler: `c++`, or what `CXX` names.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from array import array
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.executors.batch import Addresses, Batch, Executor
from optimizers.numeric.executors.cpp import CTYPE, source
from optimizers.numeric.executors.glance import entry, item, reader
from optimizers.numeric.members import in_memory
from optimizers.numeric.rules.rule import Rule
from tracegraph.errors import MissingExtra

__all__ = ["Native", "available"]

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17")
FLAGS_LINK = ("-shared", "-fPIC", "-pthread")
SMALL = 1 << 16  # elements that are not worth a second thread
_ANYWHERE = ("fp32", "bf16")  # codecs that do not go by where an element stands


@cache
def compiler() -> str | None:
    """The C++ compiler's path, None where there is none."""
    return shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


def available() -> bool:
    """Whether kernels can be compiled here."""
    return compiler() is not None


@cache
def _folder() -> Path:
    """Where compiled kernels are kept: a folder that nobody but the user can write to."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "tracegraph" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = folder.stat()
        if held.st_uid == os.getuid() and not held.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="tracegraph-kernels-"))


@cache
def _machine(path: str) -> str:
    """The compiler and the processor, which a kept kernel depends on."""
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    native = subprocess.run(
        [path, "-march=native", "-E", "-dM", "-x", "c++", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return version + native


def _compiled(text: str) -> Path:
    path = compiler()
    if path is None:
        raise MissingExtra(
            "backend='native' needs a C++ compiler and found none: install one (apt install g++), "
            "name one by CXX, or use backend='foreach'"
        )
    key = hashlib.sha256("\0".join((text, *FLAGS, *FLAGS_LINK, _machine(path))).encode())
    target = _folder() / f"{key.hexdigest()[:32]}.so"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix="tracegraph-build-") as work:
        file, built = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
        file.write_text(text)
        command = [path, *FLAGS, *FLAGS_LINK, str(file), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"{path} could not compile a kernel (exit {done.returncode}); use "
                f"backend='foreach'. It said: {done.stderr.strip()[:2000]}"
            )
        place = target.with_suffix(f".{os.getpid()}.tmp")
        shutil.copy(built, place)
        place.replace(target)
    return target


class _Kernel:
    """The compiled functions of one rule: `step`; `glance` and `kept`, which need Python's lock."""

    def __init__(self, path: Path) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self.step = ctypes.CDLL(str(path)).step
        self.step.argtypes = [pointer, pointer, number, pointer, ctypes.c_uint64, number]
        self.step.restype = None
        locked, lists = ctypes.PyDLL(str(path)), [ctypes.py_object] * 2
        self.glance, self.kept = locked.glance, locked.kept
        self.glance.argtypes = [pointer, pointer, *lists, pointer, pointer, number]
        self.kept.argtypes = [pointer, pointer, pointer, *lists, pointer, pointer, number, number]
        self.glance.restype = self.kept.restype = number


@lru_cache(maxsize=256)
def _kernel(
    rule: Rule, scalars: int, p: torch.dtype, states: tuple[torch.dtype, ...], codec: str
) -> _Kernel:
    return _Kernel(_compiled(source(rule, scalars, p, states, codec)))


def _answer(question: Any, *about: Any) -> bool:
    """What `glance` or `kept` answers; a tensor without memory is none that was there."""
    try:
        return bool(question(*about) == 1)
    except (RuntimeError, BufferError, TypeError, ValueError):
        return False


class Table(Addresses):
    """Addresses as a kernel reads them: a column per tensor, rows of parameters, gradients, states."""

    __slots__ = ("kernel", "lone", "pointers", "sizes")

    def __init__(self, kernel: _Kernel, columns: list[list[Tensor]]) -> None:
        params, grads, *states = ([x.data_ptr() for x in column] for column in columns)
        numel = [p.numel() for p in columns[0]]
        super().__init__(params, numel, [at for column in states for at in column])
        self.kernel = kernel
        self.pointers = array("q", [*params, *grads, *self.states])
        self.sizes = array("q", numel)
        self.lone = [i for i, n in enumerate(numel) if n == 1]

    @override
    def hold(self, params: list[Tensor], grads: list[Tensor]) -> bool:
        count, read = len(params), reader()
        if any(grads[i].is_neg() for i in self.lone):  # no larger one is both that and contiguous
            return False
        if not in_memory(grads):
            return False
        if read is None:
            if not super().hold(params, grads):
                return False
            self.pointers[count : 2 * count] = array("q", map(Tensor.data_ptr, grads))
            return True
        pointers, sizes = _address(self.pointers), _address(self.sizes)
        return _answer(self.kernel.glance, read, item(), params, grads, pointers, sizes, count)

    @override
    def watch(
        self, dicts: list[dict[str, Any]], names: list[str], columns: list[list[Tensor]]
    ) -> Callable[[], bool]:
        if reader() is None:
            return super().watch(dicts, names, columns)
        held = array("q", [id(x) for column in columns for x in column])
        lies = array("q", [x.data_ptr() for column in columns for x in column])
        numbers = len(names), len(dicts)

        def same() -> bool:
            ask = self.kernel.kept, reader(), item(), entry()
            return _answer(*ask, dicts, names, _address(held), _address(lies), *numbers)

        return same

    def run(self, scalars: tuple[float, ...], scale: float, seed: int) -> None:
        """Do the step for all tensors."""
        h = array("d", (*scalars, scale))
        threads = 1 if self.elements <= SMALL else torch.get_num_threads()
        pointers, sizes = _address(self.pointers), _address(self.sizes)
        self.kernel.step(pointers, sizes, len(self.sizes), _address(h), seed, threads)


def _address(values: array[Any]) -> int:
    return values.buffer_info()[0]


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


class Native(Executor):
    """One compiled pass for all tensors, on the processor."""

    name: ClassVar[str] = "native"

    def takes(self, batch: Batch) -> bool:
        """CPU tensors of float32, float64 or bfloat16 that fill their memory.

        Codecs that go by an element's place want them contiguous.
        """
        if not batch.params or isinstance(batch.addresses, Table):
            return True
        p = batch.params[0]
        if p.device.type != "cpu" or p.dtype not in CTYPE:
            return False
        if batch.codec.name in _ANYWHERE:
            return all(map(_dense, batch.params))
        parts = (part for state in batch.states for part in state)
        return all(x.is_contiguous() for column in (batch.params, *parts) for x in column)

    @override
    def run(self, batch: Batch) -> None:
        params = batch.params
        if not params:
            return
        if isinstance(batch.addresses, Table):  # it has looked at these gradients already
            batch.addresses.run(batch.scalars, batch.scale, batch.seed)
            return
        copies: list[tuple[Tensor, Tensor]] = []
        placed = batch.codec.name not in _ANYWHERE
        columns = [params, _laid_like(params, batch.grads, params[0].dtype)]
        for state in batch.states:
            for part in state:
                laid = part if placed else _laid_like(params, part, part[0].dtype)
                copies += [(a, b) for a, b in zip(part, laid, strict=True) if a is not b]
                columns.append(laid)
        dtypes = tuple(state[0][0].dtype for state in batch.states)
        kernel = _kernel(batch.rule, len(batch.scalars), params[0].dtype, dtypes, batch.codec.name)
        table = Table(kernel, columns)
        table.run(batch.scalars, batch.scale, batch.seed)
        if not copies:
            batch.addresses = table
        for held, laid_out in copies:
            held.copy_(laid_out)


def _laid_like(params: list[Tensor], column: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """`column` with every tensor laid out in memory as its parameter is, in `dtype`."""
    alike = {x.dtype for x in column} == {dtype} and not any(map(Tensor.is_neg, column))
    if alike and all(map(Tensor.is_contiguous, [*column, *params])):
        return column
    return [
        x
        if x.stride() == p.stride() and x.dtype == dtype and not x.is_neg()
        else torch.empty_strided(p.shape, p.stride(), dtype=dtype).copy_(x)
        for p, x in zip(params, column, strict=True)
    ]
