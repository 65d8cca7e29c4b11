"""A headless Chromium, driven through ChromeDriver's WebDriver protocol with the standard library alone."""

import base64
import io
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


class Browser:
    """One window. Use as a context manager; the profile lies in `folder` and starts empty."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([DRIVER, f"--port={port}"], **quiet)
        self.base = f"http://127.0.0.1:{port}"
        self._wait(lambda: self._ask("GET", "/status")["ready"], 30, "ChromeDriver to start")
        options = {"binary": CHROMIUM, "args": [*_ARGUMENTS, f"--user-data-dir={folder}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self.process.terminate()
            self.process.wait()
            raise
        self.base += f"/session/{session}"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self._ask("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait(20)

    def _ask(self, method, path, body=None):
        content = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, content, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(error.read().decode()[:2000]) from None

    @staticmethod
    def _wait(true, seconds, what):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if true():
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"waited {seconds} s for {what}")

    def open(self, path):
        """Open a page from disk and wait until its scripts have run."""
        self._ask("POST", "/url", {"url": f"file://{path}"})
        self.until("return document.readyState === 'complete'")

    def run(self, script, *arguments):
        """The value that a script returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script, seconds=40):
        """Wait until a script returns something true."""
        self._wait(lambda: self.run(script), seconds, script)

    def command(self, name, **parameters):
        """A command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def look(self, width=1280, height=900, dark=False):
        """Size of the window's content, and light or dark."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                     mobile=False)  # fmt: skip
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.command("Emulation.setEmulatedMedia", features=scheme)

    def picture(self, selector=None):
        """What is seen of the window, or of one element: uint8 [H, W, 3]."""
        path = "/screenshot"
        if selector is not None:
            found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
            path = f"/element/{next(iter(found.values()))}/screenshot"
        content = base64.b64decode(self._ask("GET", path))
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))

    def type(self, selector, text):
        """Focus an element and type; keys of https://www.w3.org/TR/webdriver/#keyboard-actions."""
        self.run("document.querySelector(arguments[0]).focus()", selector)
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": keys}]})

    def drag(self, selector, across):
        """Press the mouse in the middle of an element, move it so many pixels to the right, release it."""
        box = "const r = document.querySelector(arguments[0]).getBoundingClientRect();"
        x, y = self.run(f"{box} return [r.x + r.width / 2, r.y + r.height / 2].map(Math.round)", selector)
        moves = [
            {"type": "pointerMove", "x": x + across * i // 5, "y": y, "duration": 50} for i in range(1, 6)
        ]
        actions = [{"type": "pointerMove", "x": x, "y": y}, {"type": "pointerDown", "button": 0}, *moves]
        actions.append({"type": "pointerUp", "button": 0})
        self._ask("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})

    def complaints(self):
        """Warnings and errors of the console since the last call.

        Not those on speed: of the software renderer, and of plotly's own canvas.
        """
        lines = self._ask("POST", "/se/log", {"type": "browser"})
        kept = [line["message"] for line in lines if line["level"] in ("WARNING", "SEVERE")]
        harmless = ("GPU stall", "swiftshader", "SwiftShader", "willReadFrequently")
        return [text for text in kept if not any(word in text for word in harmless)]
