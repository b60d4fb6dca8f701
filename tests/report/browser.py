"""A page in headless Chromium, spoken to over a pipe: what it logs, what it asks the network for, how wide it is."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import LONGEST

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)


class Browser:
    """One Chromium with one page.

    Args:
        commands, events: file descriptors of the browser's pipe; messages end in a zero byte.
    """

    def __init__(self, commands: int, events: int) -> None:
        self._commands, self._events, self._count, self._rest = commands, events, 0, b""
        self._session: str | None = None
        self.seen: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, page: Path, width: int, dark: bool = False, media: str = "screen", height: int = 1000) -> None:
        """Show a file in a window of so many CSS pixels."""
        self.seen.clear()
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._ask("Page.navigate", url=page.resolve().as_uri())
        self._until("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to in the page."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def messages(self) -> list[str]:
        """What the page wrote to the console, violations of its content policy included."""
        logged = [each["params"]["entry"]["text"] for each in self.seen if each["method"] == "Log.entryAdded"]
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return logged + [json.dumps(each["params"]) for each in self.seen if each["method"] in kinds]

    def requests(self) -> list[str]:
        """What the page asked for, the page itself included; data in the page is no request."""
        sent = [each["params"]["request"]["url"] for each in self.seen if each["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def screenshot(self, path: Path) -> Path:
        """The whole page as a picture."""
        found = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """The page as it prints."""
        path.write_bytes(base64.b64decode(self._ask("Page.printToPDF", printBackground=False)["data"]))
        return path

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        return self._until(self._count)

    def _until(self, wanted: int | str) -> dict[str, Any]:
        """Read on until the answer to a request, or an event of a name; what comes in between is kept."""
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            message = self._read(deadline)
            if message.get("id") == wanted:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            if "method" in message:
                self.seen.append(message)
                if message["method"] == wanted:
                    return message
        raise TimeoutError(f"the browser did not say {wanted} within {LONGEST:.0f} s")

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._events], [], [], max(0.0, deadline - time.monotonic()))
            content = os.read(self._events, 1 << 16) if ready else b""
            if not content:
                raise TimeoutError("the browser fell silent")
            self._rest += content
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that ends with the block. It reads commands from descriptor 3 and writes to descriptor 4."""
    assert EXECUTABLE is not None
    theirs_in, commands = os.pipe()
    events, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        line = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        arguments = ["bash", "-c", line, EXECUTABLE, *QUIET, f"--user-data-dir={profile}"]
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(arguments, pass_fds=(theirs_in, theirs_out), **silent)
        for mine in (theirs_in, theirs_out):
            os.close(mine)
        try:
            yield Browser(commands, events)
        finally:
            for mine in (commands, events):
                os.close(mine)
            process.terminate()
            process.wait(timeout=LONGEST)
