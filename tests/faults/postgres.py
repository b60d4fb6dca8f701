"""A PostgreSQL server of its own, started from the programs of this machine."""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port

DEBIAN = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
PATH = os.pathsep.join([os.environ["PATH"], *DEBIAN])


class Postgres:
    """A PostgreSQL server of its own, with one empty database."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder, self.owner, self.port = folder, owner, free_port()
        self._command("initdb", "-D", folder / "data", "-U", "harness", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        self.rows("CREATE DATABASE mlflow", "postgres")

    def _command(self, program: str, *arguments: object) -> None:
        user = [] if self.owner == getpass.getuser() else ["runuser", "-u", self.owner, "--"]
        words = [*user, shutil.which(program, path=PATH), *map(str, arguments)]
        with (self.folder / "output").open("a") as output:
            subprocess.run(words, check=True, stdout=output, stderr=output, cwd="/")

    def start(self) -> None:
        """Start it and wait for it."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._command("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", "-o", options, "start")

    def kill(self) -> None:
        """End it without a checkpoint, as a crash does."""
        self._command("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")

    def uri(self, database: str = "mlflow") -> str:
        return f"postgresql://harness@127.0.0.1:{self.port}/{database}"

    def rows(self, query: str, database: str = "mlflow") -> list[tuple]:
        import psycopg

        with psycopg.connect(self.uri(database), autocommit=True) as connection:
            answer = connection.execute(query)
            return answer.fetchall() if answer.description else []

    def process(self) -> int:
        """Number of its first process."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])


def lacking() -> str:
    """The reason why this machine cannot start one; empty if it can."""
    if shutil.which("initdb", path=PATH) is None:
        return "no PostgreSQL on this machine (Debian: apt install postgresql)"
    if os.getuid() == 0 and (shutil.which("runuser") is None or "postgres:" not in Path("/etc/passwd").read_text()):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


@contextmanager
def started() -> Iterator[Postgres]:
    """A server in a folder of its own, which ends and goes with the block."""
    owner = "postgres" if os.getuid() == 0 else getpass.getuser()  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="harness-postgres-"))  # pytest's folders are closed to other users
    try:
        shutil.chown(folder, owner)
        server = Postgres(folder, owner)
        yield server
        server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
