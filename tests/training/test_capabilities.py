"""The third law under every instruction set of torch that the machine has, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from functions import FUNCTIONS
from lawful import ESSENTIAL, violations
from structures import STRUCTURES
from waiting import LONGEST

import harness
from harness import placement

pytestmark = pytest.mark.many

HERE, ROOT = Path(__file__).parent, Path(harness.__file__).parent.parent
CAPABILITIES = ("default", "avx2", "avx512")


def offered() -> list[str]:
    """The instruction sets that this processor has, least first; torch itself does not look before it uses one."""
    has = {"avx2": torch.cpu._is_avx2_supported(), "avx512": torch.cpu._is_avx512_supported()}
    return [name for name in CAPABILITIES if has.get(name, True)]


def checked(capability: str, script: str, *arguments: str) -> dict[str, list[str]]:
    """What breaks the law under an instruction set, by case."""
    if capability not in offered():
        pytest.skip(f"this processor has no {capability}")
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE))),
    }
    command = [sys.executable, "-W", "ignore", str(HERE / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE, timeout=LONGEST)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert answer["capability"].lower() == capability
    return answer["violations"]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_member_has_the_same_bits_in_any_stack_under_every_instruction_set(capability):
    assert checked(capability, "lawful.py") == {name: [] for name in ESSENTIAL}


@pytest.mark.evidence
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_structure_has_the_same_bits_in_stacks_of_many_sizes(capability):
    assert checked(capability, "lawful.py", "--sizes", "8,16,24,40,64", *STRUCTURES) == {
        name: [] for name in STRUCTURES
    }


@pytest.mark.evidence
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_function_and_its_gradients_have_the_same_bits_in_stacks_of_many_sizes(capability):
    assert checked(capability, "functions.py") == {name: [] for name in FUNCTIONS}


def test_the_check_finds_a_law_that_is_broken(monkeypatch):
    case, inputs = STRUCTURES["decorrelated"]()
    assert violations(case, inputs, (8,)) == []
    monkeypatch.setattr(placement, "_own_way", lambda operation: None)
    broken = violations(case, inputs, (8,))
    assert any(line.startswith("total of step") for line in broken)
