"""The script of the page runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_script_of_the_page_runs_and_prints_both_diagnoses(tmp_path):
    script = re.search(r"```python\n(.*?)```", (ROOT / "docs/guides/watch.md").read_text(), re.DOTALL).group(1)
    assert len(script.splitlines()) <= 36
    (tmp_path / "train.py").write_text(script)
    process = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("activation relu") == 2
    assert "activation_frequency" in process.stdout
