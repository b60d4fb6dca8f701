"""Run the code blocks of a page, and write the outputs that the page shows: `python docs/generate/blocks.py PAGE...`.

- A block of `python` runs in the page's own folder, after those before it. If it opens with `# NAME.py` it is saved there
  instead; so is a block of `yaml` that opens with `# NAME.yaml`.
- A block of `console` runs its lines that begin with `$ `, which are commands of the package or `python NAME.py`; the other
  lines are the output.
- A block of `diff` that opens with `--- NAME.py` changes that file; each hunk must fit one place of it.
- A block of `text` that follows a block of `python` is its output.
- A comment `<!-- setup ... -->` is code that runs and is not shown; `<!-- not run: REASON -->` before a block skips it.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PART = re.compile(
    r"<!-- setup\n(?P<setup>.*?)-->|(?P<skip><!-- not run: [^\n]*-->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?:\n+```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)")


@dataclass
class Block:
    """A block that ran: the output that the page shows, None if it shows none, and the one that it printed."""

    code: str
    shown: str | None
    printed: str


def run_page(page: Path, folder: Path) -> Iterator[Block]:
    """Run the blocks of a page in a folder, in order."""
    names: dict[str, object] = {"__name__": "__main__"}
    for match in PART.finditer(page.read_text()):
        code, language = match["code"] or "", match["language"]
        if match["setup"]:
            _execute(match["setup"], names, folder)
        elif match["skip"]:
            continue
        elif language in ("python", "yaml") and (name := re.match(r"# ([\w-]+\.(?:py|yaml))\n", code)):
            (folder / name[1]).write_text(code)
        elif language == "diff" and (name := re.match(r"--- ([\w-]+\.py)\n", code)):
            _change(folder / name[1], code)
        elif language == "python":
            yield Block(code, match["output"], _execute(code, names, folder))
        elif language == "console":
            commands = [line[2:] for line in code.splitlines() if line.startswith("$ ")]
            shown = "".join(f"{line}\n" for line in code.splitlines() if not line.startswith("$ "))
            yield Block(code, shown, "".join(_call(command, folder) for command in commands))


def _execute(code: str, names: dict[str, object], folder: Path) -> str:
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "block", "exec"), names)
    return output.getvalue()


def _run_script(arguments: list[str], folder: Path) -> str:
    """Run a script in this process, where torch is loaded already; return what it writes to stdout and stderr."""
    output, before = io.StringIO(), sys.argv
    sys.argv = arguments
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        sys.argv = before
    return output.getvalue()


def _change(path: Path, diff: str) -> None:
    text = path.read_text()
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if not line.startswith("+"))
        new = "".join(line[1:] for line in lines if not line.startswith("-"))
        assert text.count(old) == 1, f"a hunk must fit one place of {path.name}: {hunk}"
        text = text.replace(old, new)
    path.write_text(text)


def _call(command: str, folder: Path) -> str:
    """Run a script, or a command of the package.

    Its exit code is the last line where it is not 0 and the page says `echo $?`.
    """
    program, _, asked = command.partition("; ")
    words = shlex.split(program, comments=True)
    if words[0] == "python":
        return _run_script(words[1:], folder)
    assert words[0] == "harness", f"only commands of the package and scripts run: {command}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout + (f"{done.returncode}\n" if asked == "echo $?" else "")


def difference(shown: str, printed: str) -> str:
    """Return "" if two outputs agree in words, and in numbers to 2 %; a line of `...` stands for any lines.

    >>> difference("R2 0.500\\n...\\nend", "R2 0.501\\nmore\\nend"), difference("dead", "alive")
    ('', "expected 'dead', got 'alive'")
    """
    parts = re.split(r"^ *\.\.\.\n?", shown.strip(), flags=re.MULTILINE)
    rest = " ".join(printed.split())
    for index, part in enumerate(parts):
        words = " ".join(part.split())
        pattern = r"\s*".join(_pattern(token) for token in re.split(r"(?=\s)", words)) if words else ""
        match = re.match(pattern, rest) if index == 0 else re.search(pattern, rest)
        if match is None or not _close(words, match[0]):
            return f"expected {words!r}, got {rest[:400]!r}"
        rest = rest[match.end() :]
    return f"expected no more, got {rest!r}" if rest.strip() and len(parts) == 1 else ""


def _pattern(token: str) -> str:
    pieces, position = [], 0
    for number in NUMBER.finditer(token):
        pieces += [re.escape(token[position : number.start()]), r"-?\d+(?:\.\d+)?(?:e-?\d+)?"]
        position = number.end()
    return "".join([*pieces, re.escape(token[position:])])


def _close(first: str, second: str) -> bool:
    pairs = zip(NUMBER.findall(first), NUMBER.findall(second), strict=False)
    return all(abs(float(a) - float(b)) <= max(0.02 * abs(float(a)), 0.0021) for a, b in pairs)


def refresh(page: Path) -> None:
    """Replace the outputs of `text` blocks on a page by those that its blocks print now."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = list(run_page(page, Path(folder)))
    text = page.read_text()
    for block in blocks:
        old = f"```python\n{block.code}```\n\n```text\n{block.shown}```"
        if block.shown is not None and old in text and difference(block.shown, block.printed):
            text = text.replace(old, f"```python\n{block.code}```\n\n```text\n{block.printed}```")
    page.write_text(text)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        refresh(Path(argument))
