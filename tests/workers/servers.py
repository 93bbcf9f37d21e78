"""Storages for several processes, with the servers that they need."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


@dataclass
class Server:
    """A storage for several processes, and how its server is killed and started again; a file has none."""

    place: str

    def kill(self) -> None:
        """Kill the server without warning, and start it again."""

    def stop(self) -> None:
        """Kill the server."""

    def close(self) -> None:
        """Stop for good, and remove what is left."""
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail(f"no server listens on port {port} after {PATIENCE:g} s")


# PostgreSQL -----------------------------------------------------------------------------------------------


def _program(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name) or next((str(p / name) for p in places if (p / name).exists()), None)


class PostgreSQL(Server):
    """A PostgreSQL server in a folder of its own.

    It is no folder of pytest's: these are closed to other users whenever another session begins.
    """

    def __init__(self) -> None:
        if _program("initdb") is None or _program("pg_ctl") is None:
            pytest.skip("PostgreSQL is not installed")
        if importlib.util.find_spec("psycopg2") is None:
            pytest.skip("psycopg2 is not installed")
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None and self._user not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("needs a user postgres, because root may not run the server")
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._data, self._port = self._folder / "data", free_port()
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "-D", str(self._data), "-U", "optuna", "-A", "trust", "--no-sync")
        self._start()
        super().__init__(f"postgresql+psycopg2://optuna@127.0.0.1:{self._port}/postgres")

    def _run(self, name: str, *arguments: str) -> None:
        program = _program(name)
        assert program is not None
        done = subprocess.run(
            [program, *arguments], user=self._user, cwd="/", capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def _start(self) -> None:
        options = f"-p {self._port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-l", log, "-o", options, "-w", "start")

    def kill(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)


# gRPC -----------------------------------------------------------------------------------------------------

_PROXY = """
import sys
from optuna.storages import run_grpc_proxy_server
from tests.workers.worker import storage_of
run_grpc_proxy_server(storage_of(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


class Proxy(Server):
    """Optuna's gRPC proxy in front of an SQLite file."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("grpc") is None:
            pytest.skip("grpcio is not installed")
        folder.mkdir(parents=True)
        self._behind, self._port = f"sqlite:///{folder}/study.db", free_port()
        self._start()
        super().__init__(f"grpc:{self._port}")

    def _start(self) -> None:
        command = [sys.executable, "-c", _PROXY, self._behind, str(self._port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_for(self._port)

    def kill(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def served(kind: str, folder: Path) -> Iterator[Server]:
    """A storage of one kind: journal, sqlite, postgresql or grpc."""
    server = {
        "journal": lambda: Server(f"journal:{folder}/study.log"),
        "sqlite": lambda: Server(f"sqlite:///{folder}/study.db"),
        "postgresql": PostgreSQL,
        "grpc": lambda: Proxy(folder / kind),
    }[kind]()
    try:
        yield server
    finally:
        server.close()
