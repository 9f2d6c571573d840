"""Save parameters, optimizers and random state in a directory, and go on from it exactly.

A checkpoint is a directory of files that a person can read: JSON, safetensors, and ``.py`` for code,
with a manifest of their hashes. It is written under another name and renamed when it is whole, so a
killed process leaves a whole checkpoint or none. Nothing is pickled. What was changed, cut off, or
written by another program is refused with the reason, and then nothing is restored.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import re
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracegraph.cell import Origin
from tracegraph.errors import CheckpointError, HistoryError
from tracegraph.events import observe
from tracegraph.history.store import HistoryWarning
from tracegraph.history.tensors import tensor_bytes, tensors_in
from tracegraph.history.values import pack, unpack
from tracegraph.kinds import is_array, is_tensor, show
from tracegraph.module import is_trusted, named_parameters
from tracegraph.parameter import Parameter, assign_all
from tracegraph.warning import warn

__all__ = ["Checkpoint", "checkpoints", "load", "random_state_now", "save", "set_random_state"]

_MANIFEST = "MANIFEST.json"
_FORMAT = "tracegraph checkpoint"
_VERSION = 1
_NAME = re.compile(r"step-(\d{8,})")
_STALE = 3_600.0  # seconds after which what a killed save left is deleted


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was restored; `data` is what was given to `save`."""

    path: Path
    step: int
    data: Any


def save(
    directory: str | Path,
    *,
    step: int,
    parameters: Any = None,
    optimizers: Any = None,
    data: Any = None,
    random_state: bool = True,
    keep: int | None = None,
) -> Path:
    """Write the checkpoint of a step; gives its directory.

    Args:
        directory: where the checkpoints of this run lie.
        step: its number; a checkpoint of that step is replaced.
        parameters: a module, or what `tracegraph.module.named_parameters` takes.
        optimizers: one with ``state_dict``, or a mapping of them by name.
        data: anything else that is needed to go on, such as the position in the data: texts,
            numbers, lists, dicts, arrays, tensors.
        random_state: whether the random state of Python, numpy and torch is saved.
        keep: how many checkpoints stay; older ones are deleted. All by default.

    Raises:
        CheckpointError: something cannot be written and read back; says what. Nothing is written.
        OSError: the disk refuses. Nothing is written.
    """
    if not isinstance(step, int) or step < 0:
        raise CheckpointError(f"step counts from 0, got {show(step, 40)}")
    if keep is not None and keep < 1:
        raise CheckpointError(f"keep is how many checkpoints stay, at least 1, got {keep!r}")
    files = _files(parameters, optimizers, data, random_state)
    manifest = _manifest(step, files)
    home = Path(directory)
    home.mkdir(parents=True, exist_ok=True)
    _sweep(home)
    target = home / f"step-{step:08d}"
    partial = home / f".new-{target.name}-{uuid.uuid4().hex[:8]}"
    try:
        for name, content in {**files, _MANIFEST: manifest}.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content)
        for folder in [*{(partial / name).parent for name in files}, partial]:
            _sync(folder)
        if target.exists():
            _discard(target)
        partial.rename(target)
        _sync(home)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if keep is not None:
        for old in checkpoints(home)[:-keep]:
            _discard(old)
    observe("checkpoint", path=str(target.absolute()), step=step)
    return target


def load(
    path: str | Path,
    *,
    parameters: Any = None,
    optimizers: Any = None,
    random_state: bool = True,
    trust: bool = False,
) -> Checkpoint:
    """Restore a checkpoint, all or nothing; from a directory of several, the latest whole one.

    Tensors and arrays keep their identity: the saved numbers are written into them. A refused
    later checkpoint is said as a `HistoryWarning` when an earlier one is restored. Code that this program
    does not hold itself runs isolated, whoever the checkpoint says wrote it.

    Args:
        path: a checkpoint, or the directory in which they lie.
        parameters: as given to `save`; must have the same names and kinds.
        optimizers: as given to `save`; they take their state by ``load_state_dict``.
        random_state: whether the saved random state is restored.
        trust: let code run as it was allowed to when it was saved; for files that nobody else can write.

    Raises:
        CheckpointError: there is none, or it is damaged, changed, or of another program, version or
            set of parameters. Nothing has changed.
        Rejected: a parameter does not take a saved value. Nothing has changed.
    """
    place = Path(path)
    found = [place] if _NAME.fullmatch(place.name) else checkpoints(place)[::-1]
    refused: list[str] = []
    for candidate in found:
        try:
            step, files = _verified(candidate)
        except CheckpointError as error:
            if len(found) == 1:
                raise
            refused.append(str(error))
            continue
        for reason in refused:
            warn(f"{reason}; an earlier one is used", HistoryWarning)
        data = _restore(files, parameters, optimizers, random_state, trust)
        return Checkpoint(candidate, step, data)
    raise CheckpointError(
        "; ".join(refused)
        if refused
        else f"there is no checkpoint in {place}; write one with save()"
    )


def checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in a directory, the earliest step first; whole or not."""
    home = Path(directory)
    if not home.is_dir():
        return []
    found = [(m, path) for path in home.iterdir() if (m := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda f: int(f[0].group(1)))]


# Writing


def _files(parameters: Any, optimizers: Any, data: Any, random_state: bool) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    tensors: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    try:
        parts["parameters"] = {
            name: _parameter(name, p, tensors, files) for name, p in _named(parameters).items()
        }
        parts["optimizers"] = {
            name: pack(_state_dict(name, o), tensors, path=f"optimizers[{name!r}]")
            for name, o in _optimizers(optimizers).items()
        }
        parts["random"] = pack(random_state_now(), tensors, path="random") if random_state else None
        parts["data"] = pack(data, tensors, path="data")
        if tensors:
            files["tensors.safetensors"] = tensor_bytes(tensors)
    except HistoryError as error:
        raise CheckpointError(f"no checkpoint was written: {error}") from error
    for name, part in parts.items():
        files[f"{name}.json"] = json.dumps(part, indent=1).encode("utf-8")
    return files


def _parameter(
    name: str, parameter: Parameter[Any], tensors: dict[str, Any], files: dict[str, bytes]
) -> dict[str, Any]:
    now = parameter._cell().now
    about: dict[str, Any] = {
        "kind": parameter.kind.name, "origin": now.origin, "trusted": now.trusted,
    }  # fmt: skip
    if parameter.kind.name == "code":
        file = f"code/{len(files):03d}-{re.sub(r'[^A-Za-z0-9_]+', '_', name)[:60]}.py"
        files[file] = now.data.encode("utf-8", "surrogatepass")
        return {**about, "file": file}
    return {**about, "value": pack(now.data, tensors, path=name)}


def _manifest(step: int, files: Mapping[str, bytes]) -> bytes:
    versions = {"python": platform.python_version()}
    for name in ("tracegraph", "torch", "numpy"):
        if name in sys.modules:
            versions[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    body: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "step": step,
        "created": time.time(),
        "versions": versions,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
    }
    body["sha256"] = _hash_of(body)
    return json.dumps(body, indent=1).encode("utf-8")


def _hash_of(body: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in body.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows keeps no directories open
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    """Delete a checkpoint; it stops being one before the first of its files is gone."""
    trash = path.with_name(f".old-{path.name}-{uuid.uuid4().hex[:8]}")
    path.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def _sweep(home: Path) -> None:
    """Delete what killed saves left."""
    for path in home.iterdir():
        if path.name.startswith((".new-step-", ".old-step-")):
            with suppress(OSError):
                if path.name.startswith(".old-") or time.time() - path.stat().st_mtime > _STALE:
                    shutil.rmtree(path, ignore_errors=True)


# Reading


def _verified(path: Path) -> tuple[int, dict[str, bytes | Path]]:
    """The step and the files of a checkpoint that is whole; tensors stay on disk."""
    try:
        body = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is no checkpoint: it has no {_MANIFEST}") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path / _MANIFEST} cannot be read: {error}") from error
    if not isinstance(body, dict) or body.get("format") != _FORMAT:
        raise CheckpointError(f"{path} was not written by tracegraph: {show(body, 80)}")
    if body.get("version") != _VERSION:
        raise CheckpointError(
            f"{path} has format version {body.get('version')!r} and this tracegraph reads "
            f"{_VERSION}; load it with the tracegraph that wrote it ({body.get('versions')})"
        )
    if body.get("sha256") != _hash_of(body):
        raise CheckpointError(f"{path / _MANIFEST} was changed after it was written")
    files: dict[str, bytes | Path] = {}
    for name, about in body["files"].items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise CheckpointError(f"{path} names the file {name!r}, which lies outside it")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise CheckpointError(
                f"{file} was changed or cut off: {len(content):,} bytes of {about['bytes']:,}, and "
                "another hash"
            )
        files[name] = file if name.endswith(".safetensors") else content
    return int(body["step"]), files


def _restore(files: Mapping[str, bytes | Path], *what: Any) -> Any:
    try:
        return _restored(files, *what)
    except (HistoryError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the checkpoint cannot be restored: {error!s}") from error


def _restored(
    files: Mapping[str, bytes | Path],
    parameters: Any,
    optimizers: Any,
    random_state: bool,
    trust: bool,
) -> Any:
    file = files.get("tensors.safetensors")
    tensors = tensors_in(file) if isinstance(file, Path) else {}
    own, saved = _named(parameters), _read(files, "parameters.json")
    steppers, states = _optimizers(optimizers), _read(files, "optimizers.json")
    if parameters is not None:
        _fit("parameters", own, saved)
    if optimizers is not None:
        _fit("optimizers", steppers, states)
    values = {
        name: p.check(_value(name, p, saved[name], files, tensors)) for name, p in own.items()
    }
    packed = _read(files, "random.json")
    chance = unpack(packed, tensors) if random_state and packed is not None else None
    data = unpack(_read(files, "data.json"), tensors)
    unpacked = {name: unpack(states[name], tensors) for name in steppers}
    facts = {name: _written(p, values[name], saved[name], trust) for name, p in own.items()}
    _load_states(steppers, unpacked)
    assign_all([(p, _in_place(p, values[name]), *facts[name]) for name, p in own.items()])
    for parameter in own.values():
        parameter.zero_feedback()
    if chance is not None:
        set_random_state(chance)
    return data


def _load_states(steppers: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Give every optimizer its state; if one refuses, those before it get their own back."""
    done: list[tuple[Any, Any]] = []
    try:
        for name, optimizer in steppers.items():
            before: dict[str, Any] = {}
            kept = pack(_state_dict(name, optimizer), before)
            done.append((optimizer, unpack(kept, before)))
            optimizer.load_state_dict(states[name])
    except BaseException:
        for optimizer, state in reversed(done):
            optimizer.load_state_dict(state)
        raise


def _read(files: Mapping[str, bytes | Path], name: str) -> Any:
    content = files.get(name)
    if not isinstance(content, bytes):
        raise CheckpointError(f"the checkpoint has no {name}")
    return json.loads(content)


def _fit(what: str, own: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    missing, unknown = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"the checkpoint has other {what}: "
            + "; ".join(
                f"it {word} {', '.join(map(repr, names[:10]))}"
                for word, names in (("lacks", missing), ("also has", unknown))
                if names
            )
        )


def _value(
    name: str, parameter: Parameter[Any], about: Any, files: Mapping[str, Any], tensors: Any
) -> Any:
    if about["kind"] != parameter.kind.name:
        raise CheckpointError(
            f"{name} is of kind {parameter.kind.name} here and {about['kind']} in the checkpoint"
        )
    if "file" in about:
        return files[about["file"]].decode("utf-8", "surrogatepass")
    return unpack(about["value"], tensors, parameter._data)


def _in_place(parameter: Parameter[Any], value: Any) -> Any:
    """What the parameter is to hold: the tensor or array that it holds, with the numbers of `value`."""
    held: Any = parameter._data
    if is_tensor(held):
        held.detach().copy_(value.detach())
        return held
    if is_array(held) and held.flags.writeable:
        held[...] = value
        return held
    return value


def _written(
    parameter: Parameter[Any], value: Any, about: Mapping[str, Any], trust: bool
) -> tuple[Origin, bool]:
    """Who wrote a value, and whether it is trusted."""
    allowed = is_trusted(parameter, value, said=bool(about["trusted"]), trust=trust)
    return ("optimizer" if about["origin"] == "optimizer" else "person"), allowed


# What is saved


def _named(holder: Any) -> dict[str, Parameter[Any]]:
    if holder is None:
        return {}
    found = named_parameters(holder)
    if not found:
        raise CheckpointError(f"{show(holder, 80)} holds no parameters to save or restore")
    return found


def _optimizers(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else {"optimizer": given}


def _state_dict(name: str, optimizer: Any) -> Any:
    if not hasattr(optimizer, "state_dict") or not hasattr(optimizer, "load_state_dict"):
        raise CheckpointError(
            f"the optimizer {name!r} ({type(optimizer).__name__}) has no state_dict() and "
            "load_state_dict(): leave it out, and save what it needs as data="
        )
    return optimizer.state_dict()


def random_state_now() -> dict[str, Any]:
    """The state of the global generators of Python and, where they are loaded, numpy and torch."""
    state: dict[str, Any] = {"python": random.getstate()}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        state["numpy"] = (name, keys.tolist(), *rest)  # JSON: safetensors may not be installed
    if torch is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = list(torch.cuda.get_rng_state_all())
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on with what `random_state_now` gave."""
    random.setstate(state["python"])
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and "numpy" in state:
        numpy.random.set_state(state["numpy"])
    if torch is not None and "torch" in state:
        torch.set_rng_state(state["torch"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
