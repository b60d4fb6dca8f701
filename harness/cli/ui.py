"""`harness ui`: MLflow's UI on the experiment's store."""

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from harness.credentials import HIDDEN, masked, without_secrets, without_user
from harness.errors import HarnessError
from harness.execution.worker_environment import without_empty_places


def ui(
    experiment: Annotated[str, typer.Argument(help="An experiment's YAML file or name, whose runs are linked.")] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store; default mlruns/mlflow.db.")] = None,
) -> None:
    """Serve the MLflow UI on localhost and print its URLs."""
    from harness.tracking import is_server, local_store, store_uri

    uri = store_uri(_with_password(tracking_uri), Path.cwd())
    store = local_store(uri)
    if store is not None and not store.exists():
        raise HarnessError(f"{store}: no MLflow store yet; `harness run FILE.yaml` creates one")
    if is_server(uri):
        _show_pages(uri, experiment, without_user(masked(uri)).rstrip("/"))
        return
    _check_port(port)
    _show_pages(uri, experiment, f"http://127.0.0.1:{port}")
    print("Ctrl-C ends it.", flush=True)
    raise typer.Exit(_serve(uri, port))


def _with_password(tracking_uri: str | None) -> str | None:
    """Return the address with its password where `harness run` printed it masked: from the environment or the terminal."""
    variable = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking_uri is None or HIDDEN not in tracking_uri:
        return tracking_uri
    if masked(variable) == tracking_uri:
        return variable
    if sys.stdin is None or not sys.stdin.isatty():
        raise HarnessError(
            f"--tracking-uri {tracking_uri}: expected a password, got {HIDDEN}; set MLFLOW_TRACKING_URI to the address "
            "with its password and leave the option out"
        )
    from getpass import getpass

    password = quote(getpass("Password of the store: "), safe="")
    return tracking_uri.replace(HIDDEN, password, 1)


def _show_pages(uri: str, experiment: str, address: str) -> None:
    for view, page in _pages(uri, experiment).items():
        print(f"{view:<23} {address}/{page}")


def _pages(uri: str, experiment: str) -> dict[str, str]:
    """Map labels to pages: the experiment's runs (MLflow would open an empty page of traces), and its stored views."""
    from harness.tracking import stored_experiments

    experiments = {name: (number, views) for name, number, views in stored_experiments(uri)}
    name = _name(experiment) if experiment else next(iter(experiments), "")
    if experiment and name not in experiments:
        names = ", ".join(experiments) or "none"
        raise HarnessError(f"{masked(uri)}: no experiment is called {name!r}. Known: {names}")
    if name not in experiments:
        return {"MLflow UI:": ""}
    number, views = experiments[name]
    runs = f"#/experiments/{number}/runs?workflowType=machine_learning"
    by_view = {f"MLflow UI, by {view}:": view for view in views}
    view_pages = {text: f"{runs}&compareRunsMode=CHART&viewStateShareKey={view}" for text, view in by_view.items()}
    return {**view_pages, "MLflow UI, all runs:": runs}


def _name(experiment: str) -> str:
    if not experiment.endswith((".yaml", ".yml")):
        return experiment
    from harness.grid import load_experiment

    return load_experiment(experiment).name


def _check_port(port: int) -> None:
    import socket

    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise HarnessError(f"--port {port}: expected a free port; it is in use, so choose another one")


def server_command(port: int) -> list[str]:
    """Return the command that starts MLflow's server on localhost; it contains no store, since `ps` shows it to everybody."""
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--workers", "1"]


def server_environment(uri: str) -> dict[str, str]:
    """Return environment variables of MLflow's server: the store, and no imports from the working directory."""
    from harness.tracking import mlflow_address

    return without_empty_places(
        {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_BACKEND_STORE_URI": mlflow_address(uri),
            "PYTHONSAFEPATH": "1",
            # uvicorn puts this folder first, by default the working directory
            "UVICORN_APP_DIR": os.environ.get("UVICORN_APP_DIR", sysconfig.get_path("stdlib")),
        }
    )


def _serve(uri: str, port: int) -> int:
    hides = masked(uri) != uri
    server = subprocess.Popen(
        server_command(port),
        env=server_environment(uri),
        text=True,
        stdout=subprocess.PIPE if hides else None,
        stderr=subprocess.STDOUT if hides else None,
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for line in server.stdout or ():
            print(without_secrets(line, uri), end="", file=sys.stderr, flush=True)
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait(timeout=10)
        return 0
