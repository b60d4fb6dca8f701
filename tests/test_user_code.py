"""A case's code ends no process of ours, neither by an exception nor by a fork."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.cli.signals import Interrupted, kill_now
from harness.user_code import CaseExit, description, failure, guarded


class Ends(BaseException):
    """Nobody who catches `Exception` catches this."""


@pytest.fixture
def answers_to_ctrl_c(request):
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SystemExit(0), r"SystemExit\(0\); a case must not call sys.exit\(\), exit\(\) or quit\(\)"),
        (SystemExit("no data"), r"SystemExit\('no data'\); a case must not call sys.exit"),
        (Ends("enough"), r"Ends\(enough\); a case may raise an Exception"),
        (GeneratorExit(), r"GeneratorExit\(\); a case may raise an Exception"),
    ],
)
def test_what_ends_a_process_becomes_an_exception_that_says_so(error, sentence):
    with pytest.raises(CaseExit, match=sentence) as caught, guarded():
        raise error
    assert caught.value.__cause__ is error
    assert failure(caught.value) == f"ended with {caught.value}"


def test_exit_and_quit_are_no_other():
    for ends in ("exit(0)", "quit()"):
        code = f"from harness.user_code import *\ntry:\n with guarded(): {ends}\nexcept CaseExit as e: print(e)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=surroundings())
        assert "must not call sys.exit(), exit() or quit()" in done.stdout


def test_a_command_line_that_is_read_is_named():
    import argparse

    parser = argparse.ArgumentParser(prog="mine")
    parser.add_argument("--data", required=True)
    with pytest.raises(CaseExit, match=r"SystemExit\(2\); it reads the command line with argparse"), guarded():
        parser.parse_args([])


def test_an_exception_is_nobody_elses_business():
    with pytest.raises(ZeroDivisionError), guarded():
        raise ZeroDivisionError
    with guarded():
        value = 1
    assert value == 1


@pytest.mark.parametrize(
    "answers_to_ctrl_c", [signal.default_int_handler], indirect=True
)  # a job in the background has none
def test_a_ctrl_c_stays_what_it_is(answers_to_ctrl_c):
    with pytest.raises(KeyboardInterrupt), guarded():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("answers_to_ctrl_c", [signal.SIG_IGN, kill_now], indirect=True)
def test_where_ctrl_c_does_something_else_a_keyboard_interrupt_is_the_cases(answers_to_ctrl_c):
    with pytest.raises(CaseExit, match="KeyboardInterrupt"), guarded():
        raise KeyboardInterrupt
    with pytest.raises(Interrupted), guarded():
        raise Interrupted(signal.SIGINT)


def test_in_a_thread_nothing_is_a_ctrl_c():
    caught = []

    def work():
        try:
            with guarded():
                raise KeyboardInterrupt
        except CaseExit as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("child", "status"),
    [("pass", 0), ("raise ValueError", 1), ("raise SystemExit(3)", 3), ("raise SystemExit", 0), ("exit('no')", 1)],
)
def test_a_forked_child_ends_where_it_would_come_back(child, status):
    code = f"""
import os
from harness.user_code import guarded
try:
    with guarded():
        child = os.fork()
        if not child:
            {child}
    print("out", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
except BaseException:
    print("out", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=surroundings())
    assert done.stdout == f"out {status}\n", done.stderr


def test_where_it_is_refused_os_exit_ends_the_children_of_a_case_alone():
    code = """
import os
from harness.user_code import CaseExit, guarded, refuse_os_exit
refuse_os_exit()
try:
    with guarded():
        child = os.fork()
        if not child:
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
except CaseExit as error:
    print(error, flush=True)
os._exit(5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=surroundings())
    assert done.stdout.splitlines() == ["7", "os._exit(0); a case must not call os._exit()"]
    assert done.returncode == 5


def surroundings():
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def test_an_exception_without_a_text_is_named_with_the_line_that_raised_it():
    def refuse(rows):
        if rows != 50:
            raise AssertionError

    with pytest.raises(AssertionError) as caught:
        refuse(64)
    line = refuse.__code__.co_firstlineno + 2
    assert (
        failure(caught.value) == f"failed with AssertionError in line {line} of test_user_code.py: raise AssertionError"
    )
    assert description(AssertionError("64 rows")) == "AssertionError: 64 rows"
