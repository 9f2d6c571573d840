"""C++ compiled on this machine and kept in the user's cache folder: `c++`, or what `CXX` names."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tracegraph.errors import MissingExtra

__all__ = ["FLAGS", "available", "built", "compiler", "folder"]

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17")
FLAGS_LINK = ("-shared", "-fPIC", "-pthread")


@cache
def compiler() -> str | None:
    """The C++ compiler's path, None where there is none."""
    return shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


def available() -> bool:
    """Whether kernels can be compiled here."""
    return compiler() is not None


@cache
def folder() -> Path:
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


def built(text: str) -> Path:
    """The shared library of a C++ text, compiled once on a machine and kept.

    Raises:
        MissingExtra: there is no compiler.
        RuntimeError: it could not compile the text.
    """
    path = compiler()
    if path is None:
        raise MissingExtra(
            "backend='native' needs a C++ compiler and found none: install one (apt install g++), "
            "name one by CXX, or use backend='foreach'"
        )
    key = hashlib.sha256("\0".join((text, *FLAGS, *FLAGS_LINK, _machine(path))).encode())
    target = folder() / f"{key.hexdigest()[:32]}.so"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix="tracegraph-build-") as work:
        file, library = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
        file.write_text(text)
        command = [path, *FLAGS, *FLAGS_LINK, str(file), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"{path} could not compile a kernel (exit {done.returncode}); use "
                f"backend='foreach'. It said: {done.stderr.strip()[:2000]}"
            )
        place = target.with_suffix(f".{os.getpid()}.tmp")
        shutil.copy(library, place)
        place.replace(target)
    return target
