"""Cases that misbehave: what their code does, and where. A run of each ends by itself, without a traceback of the harness."""

from dataclasses import dataclass

CASE = """
import ctypes, multiprocessing, os, signal, sys, threading, time, torch, warnings
from torch import nn
import harness

calls = [0]
{top}

def build():
    {model}
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    {data}
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch, scale=1.0):
    calls[0] += 1
    late = calls[0] > 5  # in training, not in the first look
    {loss}
    return {{"reconstruction": scale * ((model(batch) - batch) ** 2).mean()}}

case = harness.Case(build, data, losses, "2", numbers={{"scale": 1.0}})
"""
FILE = """
name: disturbed
case: own.py
factors: {activation: [relu, leaky_relu]}
seeds: 2
train: {epochs: 2, batch_size: 16}
"""


@dataclass(frozen=True)
class Misbehavior:
    """What a case's code does.

    Args:
        code: of the case, by place.
        exit_codes: of `harness run` that are right.
        options: of `harness run`.
    """

    code: dict[str, str]
    exit_codes: tuple[int, ...]
    options: tuple[str, ...] = ()


def at(place: str, code: str, *exit_codes: int, options: tuple[str, ...] = ()) -> Misbehavior:
    return Misbehavior({place: code}, exit_codes, options)


def written(misbehavior: Misbehavior) -> str:
    """The file of the case."""
    return CASE.format(**{**dict.fromkeys(("top", "model", "data", "loss"), "pass"), **misbehavior.code})


CRASH = "ctypes.string_at(0)"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
MISBEHAVIORS = {
    "nothing": at("loss", "pass", 0),
    "import: sys.exit(0)": at("top", "sys.exit(0)", 2),
    "import: sys.exit('text')": at("top", "sys.exit('text')", 2),
    "import: os._exit(0)": at("top", "os._exit(0)", 2),
    "import: os.abort()": at("top", "os.abort()", 2),
    "import: a crash": at("top", CRASH, 2),
    "import: KeyboardInterrupt": at("top", "raise KeyboardInterrupt", 2),
    "import: GeneratorExit": at("top", "raise GeneratorExit", 2),
    "import: a syntax error": at("top", "def", 2),
    "import: no such module": at("top", "import a_module_of_mine", 2),
    "import: endless recursion": at("top", "f = lambda: f()\nf()", 2),
    "import: prints": at("top", "print('hello')", 0),
    "import: descriptor 1": at("top", r"os.write(1, b'hello\n')", 0),
    "import: descriptor 1, here": at("top", r"os.write(1, b'hello\n')", 0, options=("--workers", "0")),
    "import: a child that prints": at("top", "os.system('echo hello')", 0),
    "import: a child that prints, here": at("top", "os.system('echo hello')", 0, options=("--workers", "0")),
    "import: closes stdout": at("top", "sys.stdout.close()", 0, 2),
    "import: a thread": at("top", "threading.Thread(target=time.sleep, args=(3600,)).start()", 0),
    "import: a thread, here": at(
        "top", "threading.Thread(target=time.sleep, args=(3600,)).start()", 0, options=("--workers", "0")
    ),
    "import: os.chdir": at("top", "os.chdir('/')", 0),
    "import: os.chdir, here": at("top", "os.chdir('/')", 0, options=("--workers", "0")),
    "import: float64": at("top", "torch.set_default_dtype(torch.float64)", 0),
    "import: ignores SIGTERM": at("top", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0),
    "import: warnings are errors": at("top", "warnings.simplefilter('error')", 0, 2, 3),
    "import: no environment": at("top", "os.environ.clear()", 0),
    "import: no path": at("top", "sys.path.clear()", 0, 2, 3),
    "import: input()": at("top", "input()", 2),
    "model: sys.exit(0)": at("model", "sys.exit(0)", 2),
    "model: a crash": at("model", CRASH, 2),
    "model: None": at("model", "return None", 2),
    "data: os._exit(3)": at("data", "os._exit(3)", 2),
    "data: no rows": at("data", "return torch.zeros(0, 6)", 2),
    "data: not a number": at("data", "return torch.full((40, 6), torch.nan)", 0, 2, 3),
    "loss: os.abort() at the first look": at("loss", "os.abort()", 2),
    "loss: sys.exit(0)": at("loss", "late and sys.exit(0)", 3),
    "loss: os._exit(0)": at("loss", "late and os._exit(0)", 3),
    "loss: os.abort()": at("loss", "late and os.abort()", 3),
    "loss: a crash": at("loss", f"late and {CRASH}", 3),
    "loss: SIGKILL": at("loss", f"late and {KILLED}", 3),
    "loss: KeyboardInterrupt": at("loss", "\n    if late: raise KeyboardInterrupt", 3),
    "loss: MemoryError": at("loss", "\n    if late: raise MemoryError", 3),
    "loss: endless recursion": at("loss", "late and losses(model, batch)", 3),
    "loss: never returns": at("loss", "late and time.sleep(3600)", 3, options=("--timeout", "4")),
    "loss: forks once": at("loss", "calls[0] == 5 and os.fork()", 0),
    "loss: a message of 100 KB": at("loss", "\n    if late: raise ValueError('x' * 100_000)", 3),
    "loss: half of a surrogate pair": at("loss", r"if late: raise ValueError('\ud800')", 3),
    "loss: a name of 5,000 characters": at(
        "loss", "return {'reconstruction': ((model(batch) - batch) ** 2).mean(), 'x' * 5000: model(batch).mean()}", 0
    ),
    "loss: None": at("loss", "return None", 2),
    "loss: not a number": at("loss", "scale = torch.nan", 0),
    "loss: float64": at("loss", "torch.set_default_dtype(torch.float64)", 0),
    "loss: os.chdir": at("loss", "os.chdir('/')", 0),
    "loss: descriptor 1": at("loss", r"os.write(1, b'{}\n')", 0),
    "loss: input()": at("loss", "late and input()", 3),
    "loss: no gradients": at("loss", "late and torch.set_grad_enabled(False)", 0, 3),
    "loss: a pool of processes": at("loss", "\n    if late: multiprocessing.Pool(1).map(abs, [1])", 0, 3),
    "loss: removes the results": at(
        "loss", "\n    if late: import shutil; shutil.rmtree('mlruns/results', ignore_errors=True)", 0, 3
    ),
}
