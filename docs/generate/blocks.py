"""Run the code blocks of a page, and write the outputs that the page shows: `python docs/generate/blocks.py PAGE...`.

- A block of `python` runs in the page's own folder, after those before it. If it opens with `# NAME.py` it is saved there
  instead; so is a block of `yaml` that opens with `# NAME.yaml`.
- A block of `console` runs its lines that begin with `$ `; the other lines are the output.
- A block of `text` that follows a block of `python` is its output.
- A comment `<!-- setup ... -->` is code that runs and is not shown; `<!-- not run: REASON -->` before a block skips it.
"""

import contextlib
import io
import os
import re
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
        elif language == "python":
            yield Block(code, match["output"], _execute(code, names, folder))
        elif language == "console":
            commands = [line[2:] for line in code.splitlines() if line.startswith("$ ")]
            shown = "".join(f"{line}\n" for line in code.splitlines() if not line.startswith("$ "))
            yield Block(code, shown, "".join(_call(command, folder) for command in commands))


def _execute(code: str, names: dict[str, object], folder: Path) -> str:
    before, output = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(code, "block", "exec"), names)
    finally:
        os.chdir(before)
    return output.getvalue()


def _call(command: str, folder: Path) -> str:
    """Run a command of the package; its exit code is the last line where it is not 0 and the page says `echo $?`."""
    program, _, asked = command.partition("; ")
    words = shlex.split(program, comments=True)
    assert words[0] == "harness", f"only commands of the package run: {command}"
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
