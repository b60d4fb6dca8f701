"""Boundary to the code of a case, which may raise anything, try to end the process, or fork it."""

import os
import signal
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn

from harness.errors import missing_extra

PARSERS = ("argparse", "optparse", "click", "typer", "absl", "fire", "docopt")
HARNESS, LIBRARIES = os.path.dirname(os.path.abspath(__file__)), sysconfig.get_paths()["purelib"]
_inside = threading.local()
end_process = os._exit  # read before `refuse_os_exit` replaces it


class CaseExit(RuntimeError):
    """A case's code tried to end the process, by `sys.exit` or another exception outside `Exception`."""


@contextmanager
def guarded() -> Iterator[None]:
    """Keep a case's code from ending this process, and end processes that it forks.

    `SystemExit` and similar exceptions become a `CaseExit`, which `except Exception` catches; Ctrl-C is unchanged. A
    forked child that returns from the block ends there.

    Raises:
        CaseExit: for an exception outside `Exception`.
    """
    process, depth = os.getpid(), getattr(_inside, "depth", 0)
    _inside.depth = depth + 1
    try:
        yield
    except BaseException as error:
        if os.getpid() != process:
            _end_child(error)
        if isinstance(error, Exception) or is_interrupt(error):
            raise
        raise CaseExit(f"{_shown(error)}; {_advice(error)}") from error
    finally:
        _inside.depth = depth
    end_if_forked(process)


def end_if_forked(process: int) -> None:
    """End this process at once if it is not `process` but a child that a case's code forked."""
    if os.getpid() != process:
        end_process(0)


def refuse_os_exit() -> None:
    """Replace `os._exit`: guarded code of this process gets a `CaseExit`, its children still end.

    For a process of the harness's own, whose exit code reports success.
    """
    process = os.getpid()

    def refused(status: int) -> NoReturn:
        if os.getpid() == process and getattr(_inside, "depth", 0) > 0:
            raise CaseExit(f"os._exit({status!r}); a case must not call os._exit()")
        end_process(status)

    os._exit = refused


def failure(error: Exception) -> str:
    """Return the end of a message: how a case's code failed.

    >>> failure(ZeroDivisionError("mine"))
    'failed with ZeroDivisionError: mine'
    >>> failure(CaseExit("SystemExit(0); a case must not call sys.exit()"))
    'ended with SystemExit(0); a case must not call sys.exit()'
    """
    if isinstance(error, ModuleNotFoundError) and (missing := missing_extra(error)):
        return f"failed: {missing}"
    return f"ended with {error}" if isinstance(error, CaseExit) else f"failed with {description(error)}"


def description(error: Exception) -> str:
    """Return the type and the text of an error, and for an error without a text the line that raised it.

    >>> description(ValueError("no rows")), description(KeyError())
    ('ValueError: no rows', 'KeyError')
    """
    name, content = type(error).__name__, str(error).strip()
    if content:
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((HARNESS, LIBRARIES))] or frames
    return f"{name} in line {own[-1].lineno} of {os.path.basename(own[-1].filename)}: {own[-1].line}" if own else name


def is_interrupt(error: BaseException) -> bool:
    """Return True for a Ctrl-C of the user, False for a `KeyboardInterrupt` that a case raises by itself.

    A Ctrl-C reaches only the main thread. If a handler of the harness, or no handler, receives it, the exception is never
    a plain `KeyboardInterrupt`.
    """
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    ours = handler is signal.SIG_IGN or getattr(handler, "__module__", "").startswith("harness.")
    return not ours or type(error) is not KeyboardInterrupt


def _end_child(error: BaseException) -> NoReturn:
    """End a forked child with the exit code that Python would give it."""
    if isinstance(error, SystemExit):
        end_process(error.code if isinstance(error.code, int) else int(error.code is not None))
    end_process(1)


def _shown(error: BaseException) -> str:
    content = repr(error.code) if isinstance(error, SystemExit) else str(error)
    return f"{type(error).__name__}({content})"


def _advice(error: BaseException) -> str:
    if not isinstance(error, SystemExit):
        return "a case may raise an Exception, but not end its process"
    parser = next((name for name in _modules(error.__traceback__) if name in PARSERS), None)
    if parser is None:
        return "a case must not call sys.exit(), exit() or quit()"
    return f"it reads the command line with {parser}, but the command line belongs to harness"


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    """Yield the top-level module of each frame of a traceback."""
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        traceback = traceback.tb_next
