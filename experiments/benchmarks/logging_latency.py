"""Members logged per second to an MLflow server, against the latency of the network.

    python experiments/benchmarks/logging_latency.py --members 60 --milliseconds 0 30 300
    python experiments/benchmarks/logging_latency.py --uri http://server:5000

Without an address, PostgreSQL and an MLflow server on it are started here, and their processor time is printed too: on a
machine that does other work it says more than the rate. The members have the data set and the metrics of a run of 30 epochs
and 30 units. A TCP proxy on this machine delays every byte by half of the round trip, and a new connection by a whole one.
Each latency gets an experiment of its own on the server.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from harness.results import MemberRecord
from harness.tracking import Tracker, run_context
from harness.tracking.concurrency import SIDE_BY_SIDE

ROOT = Path(__file__).parents[2]
UNITS, EPOCHS = 30, 30
MANIFEST = {
    "inputs": {"data": "0f" * 32, "train_rows": 800, "evaluation_rows": 200, "features": [100], "dtype": "float32"},
    "experiment": {"case": "forum", "data": "patches"},
    "command": "harness run measured.yaml",
}
USED = {"case": "forum", "data": "patches", "epochs": EPOCHS, "batch_size": 64, "learning_rate": 0.01}


@contextmanager
def delayed(host: str, port: int, seconds: float) -> Iterator[int]:
    """Forward TCP connections with a delay.

    Args:
        host, port: destination of the connections.
        seconds: of a round trip.

    Yields:
        The port of the proxy.
    """
    loop, ports = asyncio.new_event_loop(), list[int]()
    listening = threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        listening.set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)  # of the handshake
        try:
            there = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        with suppress(asyncio.CancelledError):
            await asyncio.gather(_late(reader, there[1], seconds / 2), _late(there[0], writer, seconds / 2))

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop)
    listening.wait()
    try:
        yield ports[0]
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _cancel_tasks() -> None:
    """End the connections of this loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Forward one direction; what arrives while an earlier part waits is not delayed by it."""
    parts: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def receive() -> None:
        content = b"-"
        while content:
            try:
                content = await reader.read(2**16)
            except OSError:
                content = b""
            parts.put_nowait((time.monotonic() + seconds, content))

    receiving = asyncio.ensure_future(receive())
    while (part := await parts.get())[1]:
        await asyncio.sleep(max(0.0, part[0] - time.monotonic()))
        with suppress(OSError):
            writer.write(part[1])
            await writer.drain()
    await receiving
    writer.close()


def members(count: int) -> list[MemberRecord]:
    """Members with the histories of a run."""
    epochs = range(EPOCHS + 1)
    units = [[0.5 + 0.01 * unit for unit in range(UNITS)] for _ in epochs]
    history = {name: [1.0 / (1 + epoch) for epoch in epochs] for name in ("loss/total", "loss/kl", "r2", "live_units")}
    steps = {"step": [float(100 * epoch) for epoch in epochs], "epoch": [float(epoch) for epoch in epochs]}
    measures = ("activation_frequency", "mutual_information", "entropy_bits")
    return [
        MemberRecord(
            key=uuid.uuid4().hex,
            variant=f"penalty=kl{index % 5}",
            levels={"penalty": f"kl{index % 5}", "rho": 0.05},
            seed=index // 5,
            verdict="healthy",
            units=UNITS,
            live_units=UNITS,
            losses={"total": 0.5, "kl": 0.1},
            history={**steps, **history},
            unit_history=dict.fromkeys(measures, units),
            seconds=1.0,
            logged_at=int(time.time() * 1000),
        )
        for index in range(count)
    ]


def rate(uri: str, count: int, folder: Path, requests: int) -> tuple[float, float]:
    """Return members logged per second beside the training, and seconds that the end of the run takes."""
    tracker = Tracker(uri, folder, run_context(MANIFEST, USED))
    name, records = f"latency-{uuid.uuid4().hex[:8]}", members(count)
    tracker._requests = requests
    tracker.begin(name)
    started = time.perf_counter()
    for start in range(0, count, 2 * requests):
        tracker.log(name, records[start : start + 2 * requests])
    logged = time.perf_counter()
    tracker.project(name, records, note="measured", parameters={"members": count})
    assert tracker.confirmed(name, records) == count
    return count / (logged - started), time.perf_counter() - logged


@contextmanager
def team_server() -> Iterator[tuple[str, Callable[[], float]]]:
    """Start PostgreSQL and an MLflow server on it.

    Yields:
        The server's address, and a function that returns the processor seconds of both.
    """
    sys.path += [str(ROOT / "tests" / folder) for folder in ("faults", "shared")]
    from postgres import started
    from servers import Server

    from harness.tracking import create_store, store_uri

    with started() as database, tempfile.TemporaryDirectory() as folder:
        create_store(store_uri(f"sqlite:///{folder}/mlflow.db", Path(folder)))
        server = Server(Path(folder) / "server", Path(folder) / "mlflow.db")
        server.backend = database.uri().replace("postgresql://", "postgresql+psycopg://")
        server.start()
        try:
            yield server.uri, lambda: processor_seconds([server.process.pid, database.process()])
        finally:
            server.kill()


def processor_seconds(roots: Sequence[int]) -> float:
    """Return the processor time of processes and their descendants, also of those that ended."""
    fields = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    ticks, open_processes = 0, list(roots)
    while open_processes:
        process = open_processes.pop()
        ticks += sum(map(int, fields[process][11:15])) if process in fields else 0
        open_processes += [child for child, row in fields.items() if int(row[1]) == process]
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(uri: str, arguments: argparse.Namespace, server_seconds: Callable[[], float] = lambda: 0.0) -> None:
    """Print a line for each latency."""
    address = urlsplit(uri)
    for milliseconds in arguments.milliseconds:
        with (
            tempfile.TemporaryDirectory() as folder,
            delayed(address.hostname or "127.0.0.1", address.port or 80, milliseconds / 1000) as port,
        ):
            before = server_seconds(), time.process_time()
            per_second, end = rate(f"http://127.0.0.1:{port}", arguments.members, Path(folder), arguments.requests)
            server, client = server_seconds() - before[0], time.process_time() - before[1]
        cost = f"processor: server {server:.1f} s, client and proxy {client:.1f} s"
        print(f"{milliseconds:g} ms: {per_second:.2f} members/s, the end of the run {end:.1f} s; {cost}", flush=True)


def main() -> None:
    """Measure a given server, or one that is started here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uri", help="of a server; by default one is started")
    parser.add_argument("--members", type=int, default=60)
    parser.add_argument("--requests", type=int, default=SIDE_BY_SIDE, help="side by side; 1: one after the other")
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[0, 30, 300])
    arguments = parser.parse_args()
    if arguments.uri:
        measure(arguments.uri, arguments)
        return
    with team_server() as (uri, server_seconds):
        measure(uri, arguments, server_seconds)


if __name__ == "__main__":
    main()
