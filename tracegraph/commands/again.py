"""``tracegraph resume`` and ``tracegraph replay``: start the program of a kept run again.

A program is a person's script, and what a run keeps of it is how it was started. Where that is not
known, was on another machine, or there is nothing to go on from, the command refuses and says why.
The program's own exit code is handed on.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from tracegraph.again import REPLAY, RESUME
from tracegraph.commands.options import AsJson, RunName, Store, history
from tracegraph.commands.printing import as_json
from tracegraph.errors import HistoryError
from tracegraph.history import Facts, History, KeptRun
from tracegraph.history.facts import forget_states
from tracegraph.history.started import hash_of
from tracegraph.view.plain import one_line, plain

__all__ = ["replay", "resume"]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be started.")]
_DIFFERS = 4


class _Program(NamedTuple):
    argv: list[str]
    directory: str
    warnings: list[str]


def resume(run: RunName, dry: DryRun = False, store: Store = None, in_json: AsJson = False) -> None:
    """Start the program of a run again; ``fit(store=State(...))`` in it goes on where it stopped.

    It is started as it was, where it was, with the environment of now. A run is gone on with only
    when it kept a state or a checkpoint.
    """
    place = history(store)
    kept = place.run(run)
    if kept.status == "running":
        raise HistoryError(f"run {kept.id} ({kept.name!r}) is still running; stop it first")
    program, states = _program(kept), list(_states(place, kept))
    if not states:
        raise HistoryError(
            f"run {kept.id} ({kept.name!r}) kept nothing to go on from: give its training "
            f"fit(store=tracegraph.history.State({kept.name!r})), or save checkpoints; "
            f"`tracegraph replay {kept.id}` runs it from the beginning, with the replies of then"
        )
    _announce(kept, program, [f"goes on from {state}" for state in states], dry, in_json)
    if not dry:
        code = _run(program, {RESUME: f"{kept.id}:{kept.name}"}, in_json)
        if in_json:
            as_json({"run": kept.id, "states": states, "exit_code": code})
        raise typer.Exit(code)


def replay(run: RunName, dry: DryRun = False, store: Store = None, in_json: AsJson = False) -> None:
    """Start the program of a run again, from its beginning, with the replies that models gave then.

    Nobody is asked and nothing is paid. Ends with 4 where the program asks what it did not ask then,
    and shows how the question differs.
    """
    place = history(store)
    kept = place.run(run)
    program = _program(kept)
    replies = [reply for each in _chain(place, kept) for reply in each.replies]
    if not replies:
        raise HistoryError(
            f"run {kept.id} ({kept.name!r}) kept no replies: it asked no model by name or callable, or "
            "was kept by an earlier version"
        )
    _announce(kept, program, [f"answers with {len(replies)} kept replies"], dry, in_json)
    if dry:
        return
    from tracegraph.llm.passing import report_of

    with tempfile.TemporaryDirectory(prefix="tracegraph-replay-") as folder:
        tape = Path(folder) / "tape.jsonl"
        lines = (
            json.dumps({"key": r.key, "request": r.request, "reply": r.reply}) + "\n"
            for r in replies
        )
        tape.write_text("".join(lines), encoding="utf-8")
        code = _run(program, {REPLAY: str(tape)}, in_json)
        report = report_of(tape)
        told = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        forget_states(place.path, tape)
    asked = [json.loads(line) for line in told]
    wrong = [said for said in asked if said["found"] is None]
    used = len(asked) - len(wrong)
    facts = {
        "asked": len(asked), "answered": used, "unused": len(replies) - used,
        "first_difference": wrong[0] if wrong else None, "exit_code": code,
    }  # fmt: skip
    if in_json:
        as_json(facts)
    else:
        typer.echo(f"{used} of {len(replies)} kept replies were used, and nobody was asked")
        if wrong:
            typer.echo(f"question {wrong[0]['asked']} differs: {plain(wrong[0]['difference'])}")
    if wrong:
        raise typer.Exit(_DIFFERS)
    raise typer.Exit(code)


def _program(kept: KeptRun) -> _Program:
    """How to start it; refuses where that is not known."""
    said = kept.about.get("started") or {"unknown": "it was kept by an earlier version"}
    why = said.get("unknown")
    if why is None and kept.host != socket.gethostname():  # a stranger's file may name any program
        why = f"it ran on another machine, {kept.host}"
    if why is None and any("[secret]" in word for word in said["argv"]):
        why = "there was a secret on its command line, which is not kept"
    if why is None and not Path(said["directory"]).is_dir():
        why = f"it ran in {said['directory']}, which is gone"
    if why is None and not Path(said["argv"][0]).exists():
        why = f"it ran with {said['argv'][0]}, which is gone"
    script = said.get("script")
    if why is None and script is not None and not Path(script).exists():
        why = f"its program {script} is gone"
    if why is not None:
        raise HistoryError(
            f"how run {kept.id} ({kept.name!r}) was started is not known: {why}; start it yourself"
        )
    warnings = []
    if script is not None and hash_of(Path(script)) != said["sha256"]:
        warnings.append(f"{script} has changed since the run began")
    return _Program(list(said["argv"]), said["directory"], warnings)


def _states(place: History, kept: KeptRun) -> Iterator[str]:
    """What the run, or those that it went on with, kept to go on from, in words."""
    events = [(run, event) for run in _chain(place, kept) for event in run.events]
    for run, event in events:
        if event.kind == "state" and Path(event.facts["store"]).exists():
            with Facts("state", event.facts["store"]) as facts:
                if event.facts["name"] in facts:
                    yield f"the state {event.facts['name']!r} of run {run.id}"
    saved = [event.facts["path"] for _, event in events if event.kind == "checkpoint"]
    there = [path for path in saved if Path(path).is_dir()]
    if there:
        yield f"the checkpoint {there[-1]}"


def _chain(place: History, kept: KeptRun) -> list[KeptRun]:
    """The run, behind those that it went on with; one that was deleted ends it."""
    chain = [kept]
    known = {run.id: run for run in place.runs()}
    while (earlier := known.get(chain[0].about.get("resumes", 0))) and earlier.id < chain[0].id:
        chain.insert(0, earlier)
    return chain


def _announce(kept: KeptRun, program: _Program, facts: list[str], dry: bool, in_json: bool) -> None:
    if in_json:
        if dry:
            as_json({
                "run": kept.id, "name": kept.name, "argv": program.argv,
                "directory": program.directory, "facts": facts, "warnings": program.warnings,
            })  # fmt: skip
        return
    for warning in program.warnings:
        typer.echo(f"warning: {one_line(warning)}", err=True)
    typer.echo(f"run {kept.id} ({one_line(kept.name)}) {'; '.join(map(one_line, facts))}")
    typer.echo(f"cd {shlex.quote(program.directory)} && {shlex.join(program.argv)}")


def _run(program: _Program, variables: dict[str, str], in_json: bool) -> int:
    """Run it to its end, with this terminal; gives its exit code. JSON has the output for itself."""
    sys.stdout.flush()
    others = {name: value for name, value in os.environ.items() if name not in (REPLAY, RESUME)}
    process = subprocess.Popen(
        program.argv, cwd=program.directory, env={**others, **variables},
        stdout=sys.stderr if in_json else None,
    )  # fmt: skip
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            continue  # the program got it too, and decides
        return code if code >= 0 else 128 - code
