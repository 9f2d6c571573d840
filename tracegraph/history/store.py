"""One SQLite file that keeps runs: its tables, its versions, and how it is opened.

Large texts are kept once, compressed, under the hash of what they say. A file of another program,
of a later version, or a damaged one is refused with the reason and left as it is.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tracegraph.errors import HistoryError, NoSuchRun
from tracegraph.warning import warn

__all__ = [
    "DIRECTORY",
    "FILE",
    "MIGRATIONS",
    "HistoryWarning",
    "collect_garbage",
    "keep_bytes",
    "keep_text",
    "kept_bytes",
    "kept_text",
    "open_store",
    "store_path",
    "transaction",
]  # fmt: skip

DIRECTORY: Final = ".tracegraph"
FILE: Final = "history.sqlite"
_APPLICATION: Final = 0x7472_6763  # "trgc", in the header of the file
_BUSY_MS: Final = 10_000
_NETWORK: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "fuse.sshfs")
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE blobs (
            sha BLOB PRIMARY KEY, codec TEXT NOT NULL, bytes BLOB NOT NULL)""",
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, created REAL NOT NULL,
            ended REAL, status TEXT NOT NULL, error TEXT, host TEXT, pid INTEGER,
            about BLOB REFERENCES blobs(sha))""",
        "CREATE INDEX runs_by_name ON runs(name)",
        """CREATE TABLE steps (
            run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, number INTEGER NOT NULL,
            started REAL NOT NULL, seconds REAL, status TEXT NOT NULL, optimizer TEXT, note TEXT,
            score REAL, changes INTEGER, rejections INTEGER, calls INTEGER, tokens_in INTEGER,
            tokens_out INTEGER, cost REAL, nodes INTEGER,
            details BLOB REFERENCES blobs(sha), graph BLOB REFERENCES blobs(sha),
            shown BLOB REFERENCES blobs(sha), PRIMARY KEY (run, number)) WITHOUT ROWID""",
        """CREATE TABLE params (
            run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, name TEXT NOT NULL,
            step INTEGER NOT NULL, kind TEXT NOT NULL, version INTEGER, origin TEXT,
            trusted INTEGER, codec TEXT NOT NULL, value BLOB REFERENCES blobs(sha),
            PRIMARY KEY (run, name, step)) WITHOUT ROWID""",
        """CREATE TABLE candidates (
            run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, id TEXT NOT NULL,
            parents TEXT NOT NULL, step INTEGER, time REAL NOT NULL, score REAL, status TEXT,
            details BLOB REFERENCES blobs(sha), PRIMARY KEY (run, id)) WITHOUT ROWID""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
            step INTEGER, time REAL NOT NULL, kind TEXT NOT NULL, facts TEXT NOT NULL)""",
        "CREATE INDEX events_by_run ON events(run)",
        """CREATE TABLE facts (
            space TEXT NOT NULL, key TEXT NOT NULL, time REAL NOT NULL,
            value BLOB NOT NULL REFERENCES blobs(sha), PRIMARY KEY (space, key)) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE replies (
            id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
            step INTEGER NOT NULL, time REAL NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
            tokens_in INTEGER, tokens_out INTEGER, cost REAL,
            request BLOB NOT NULL REFERENCES blobs(sha), reply BLOB NOT NULL REFERENCES blobs(sha))""",
        "CREATE INDEX replies_by_run ON replies(run)",
    ),
    ("ALTER TABLE steps ADD COLUMN spent BLOB REFERENCES blobs(sha)",),
)
"""The statements that bring a file from each schema version to the next."""

_REFERENCES = (
    ("runs", "about"), ("steps", "details"), ("steps", "graph"), ("steps", "shown"), ("steps", "spent"),
    ("params", "value"), ("candidates", "details"), ("facts", "value"), ("replies", "request"),
    ("replies", "reply"),
)  # fmt: skip


class HistoryWarning(UserWarning):
    """Something of a run could not be kept; the run itself goes on."""


def store_path(store: str | Path | None = None) -> Path:
    """The file that `store` means: a file, or a directory that holds or shall hold one.

    >>> store_path().as_posix(), store_path("runs.sqlite").as_posix()
    ('.tracegraph/history.sqlite', 'runs.sqlite')
    """
    path = Path(DIRECTORY if store is None else store).expanduser()
    if path.suffix in (".sqlite", ".db"):
        return path
    if path.name != DIRECTORY and (path / DIRECTORY).is_dir():
        path = path / DIRECTORY
    return path / FILE


def open_store(
    path: Path,
    *,
    writing: bool = True,
    warn: Callable[[str], object] | None = None,
    threads: bool = False,
) -> sqlite3.Connection:
    """A connection to the history at `path`; made where there is none and `writing` is true.

    `warn` is told where the file has to be slower than it should; by default a `HistoryWarning`.
    With `threads` several threads may use the connection, one at a time.

    Raises:
        HistoryError: it belongs to another program or to a later version, or does not exist.
        sqlite3.Error: it cannot be opened, is locked, or is damaged.
    """
    if writing:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=_BUSY_MS / 1000, check_same_thread=not threads
        )
    else:
        if not path.is_file():
            raise NoSuchRun(
                f"there is no history at {path}; runs are kept by `with tracegraph.run(name):`, or "
                f"where a directory {DIRECTORY} exists"
            )
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{_mode(path)}", uri=True, isolation_level=None,
            timeout=_BUSY_MS / 1000,
        )  # fmt: skip
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        version = _version(connection, path)
        if writing:
            _set_journal(connection, path, warn or _warn)
            if version < len(MIGRATIONS):
                _migrate(connection, path)
        elif not version:
            raise HistoryError(f"{path} holds no history: it is empty")
        elif version < len(MIGRATIONS):
            if not _writable(path):
                raise HistoryError(
                    f"{path} has schema version {version} and this tracegraph reads "
                    f"{len(MIGRATIONS)}, and it cannot be brought up to date where it cannot be "
                    "written: copy it, with the directory tensors beside it, to where it can"
                )
            _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _mode(path: Path) -> str:
    """How to open a file for reading: one in use shares memory with its writers, beside it."""
    if _writable(path):
        return "mode=rw"
    log = path.with_name(path.name + "-wal")
    return "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    # Another process may make the file meanwhile, at one stroke: what it writes last is read last.
    tables = connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != _APPLICATION:
        if application or version or tables:
            raise HistoryError(
                f"{path} is a database of another program, not a history; nothing was written to it"
            )
        return 0
    if version > len(MIGRATIONS):
        raise HistoryError(
            f"{path} has schema version {version}, and this tracegraph knows {len(MIGRATIONS)}: it "
            "was written by a later one; update tracegraph, or use another directory"
        )
    return version


def _warn(message: str) -> None:
    warn(message, HistoryWarning)


def _set_journal(connection: sqlite3.Connection, path: Path, warn: Callable[[str], object]) -> None:
    system = _file_system(path)
    wanted = "DELETE" if system in _NETWORK else "WAL"
    got = _journal(connection, wanted)
    if got.upper() != "WAL":
        warn(
            f"{path} is kept without a write-ahead log ({system or 'its disk'} has none): writing is "
            "slower and readers wait; a local disk is better"
        )
    connection.execute(f"PRAGMA synchronous={'NORMAL' if got.upper() == 'WAL' else 'FULL'}")


def _journal(connection: sqlite3.Connection, wanted: str) -> str:
    """Set the journal, once: while another process sets it, SQLite refuses and does not wait."""
    until = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            now = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
            if now.upper() == wanted:
                return now
            return str(connection.execute(f"PRAGMA journal_mode={wanted}").fetchone()[0])
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`, where the system tells (Linux)."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    folder = f"{path.absolute().parent}/"
    mounts = [line.split(" ")[1:3] for line in lines]
    behind = [(m, kind) for m, kind in mounts if folder.startswith(m.rstrip("/") + "/")]
    return max(behind, key=lambda found: len(found[0]), default=("", ""))[1]


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        for statements in MIGRATIONS[_version(connection, path) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that happens in the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def keep_bytes(connection: sqlite3.Connection, data: bytes) -> bytes:
    """Keep `data`, once however often it comes; gives its hash."""
    sha = hashlib.sha256(data).digest()
    if connection.execute("SELECT 1 FROM blobs WHERE sha=?", (sha,)).fetchone() is None:
        small = zlib.compress(data, 1) if len(data) > 100 else data
        codec, held = ("zlib", small) if len(small) < len(data) else ("raw", data)
        connection.execute("INSERT INTO blobs VALUES (?, ?, ?)", (sha, codec, held))
    return sha


def keep_text(connection: sqlite3.Connection, text: str) -> bytes:
    """Keep a text, see `keep_bytes`; lone surrogates are kept too."""
    return keep_bytes(connection, text.encode("utf-8", "surrogatepass"))


def kept_bytes(connection: sqlite3.Connection, sha: bytes | None) -> bytes | None:
    """What was kept under a hash.

    Raises:
        HistoryError: it is missing or damaged.
    """
    if sha is None:
        return None
    found = connection.execute("SELECT codec, bytes FROM blobs WHERE sha=?", (sha,)).fetchone()
    try:
        data = zlib.decompress(found[1]) if found and found[0] == "zlib" else found and found[1]
    except zlib.error:
        data = None
    if data is None or hashlib.sha256(data).digest() != sha:
        raise HistoryError(f"the history is damaged: {sha.hex()[:12]} is missing or changed")
    return bytes(data)


def kept_text(connection: sqlite3.Connection, sha: bytes | None) -> str | None:
    """The text that was kept under a hash."""
    data = kept_bytes(connection, sha)
    return None if data is None else data.decode("utf-8", "surrogatepass")


def collect_garbage(connection: sqlite3.Connection) -> int:
    """Delete what nothing refers to any more; gives how many texts that were."""
    used = " UNION ALL ".join(
        f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL" for table, column in _REFERENCES
    )
    connection.execute("PRAGMA foreign_keys=OFF")  # else every deletion searches every table
    try:
        with transaction(connection):
            gone = connection.execute(f"DELETE FROM blobs WHERE sha NOT IN ({used})").rowcount
    finally:
        connection.execute("PRAGMA foreign_keys=ON")
    return int(gone)
