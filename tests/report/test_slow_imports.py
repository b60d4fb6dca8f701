"""A figure that is drawn while another thread still imports a package that matplotlib looks at."""

import subprocess
import sys
from pathlib import Path

DRAWN = """
import sys, threading, time
threading.Thread(target=__import__, args=("IPython",)).start()
while "IPython" not in sys.modules:
    time.sleep(0.01)
from harness.report.svg import sheet
sheet((10.0, 10.0))
"""


def test_a_figure_waits_for_the_import_of_ipython_in_another_thread(tmp_path: Path) -> None:
    lines = ("import time", "time.sleep(3)", "version_info = (8, 30, 0)", "def get_ipython(): return None")
    (tmp_path / "IPython.py").write_text("\n".join(lines))
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}){DRAWN}"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
