"""A headless Chromium, driven over the WebDriver protocol with nothing but Python's own library."""

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {
    "Home": "\ue011",
    "End": "\ue010",
    "Left": "\ue012",
    "Up": "\ue013",
    "Right": "\ue014",
    "Down": "\ue015",
    "Escape": "\ue00c",
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Space": " ",
}


class Browser:
    def __init__(self, chromium, driver):
        self.folder = tempfile.mkdtemp(prefix="browser")
        self.driver = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.http = self.session = None
        try:
            self.http = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=60)
            self.session = self.open_session(chromium)
        except BaseException:
            self.close()
            raise

    def port(self):
        for line in self.driver.stdout:
            found = re.search(r"successfully on port (\d+)", line)
            if found:
                return int(found.group(1))
        raise RuntimeError("the driver ended before it said its port")

    def open_session(self, chromium):
        args = [
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            "--no-first-run",
            "--disable-background-networking",
            "--user-data-dir=" + self.folder,
            "--lang=en",
        ]
        if os.geteuid() == 0:
            args.append("--no-sandbox")
        options = {"binary": chromium, "args": args}
        logs = {"browser": "ALL", "performance": "ALL"}
        match = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": logs,
            "unhandledPromptBehavior": "ignore",
        }
        return self.call("POST", "/session", {"capabilities": {"alwaysMatch": match}})["sessionId"]

    def call(self, method, path, body=None):
        text = json.dumps(body if body is not None else {}) if method == "POST" else None
        self.http.request(method, path, text, {"Content-Type": "application/json"})
        value = json.loads(self.http.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value

    def do(self, path, body=None):
        return self.call("POST", f"/session/{self.session}/{path}", body)

    def open(self, path):
        self.do("url", {"url": "about:blank"})
        self.logs("browser"), self.logs("performance")
        self.do("url", {"url": "file://" + os.path.abspath(path)})

    def run(self, script, *args):
        return self.do("execute/sync", {"script": script, "args": list(args)})

    def find(self, selector):
        return self.do("element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.do(f"element/{self.find(selector)}/click")

    def keys(self, *names):
        steps = []
        for name in names:
            key = KEYS.get(name, name)
            steps += [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.do("actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def point(self, origin, x=0, y=0, press=False):
        """Moves the mouse to a point from an element's middle, or, with "viewport", in the window."""
        if origin != "viewport":
            origin = {ELEMENT: origin}
        steps = [
            {"type": "pointerMove", "origin": origin, "x": round(x), "y": round(y), "duration": 0}
        ]
        if press:
            steps += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse = {
            "type": "pointer",
            "id": "mouse",
            "parameters": {"pointerType": "mouse"},
            "actions": steps,
        }
        self.do("actions", {"actions": [mouse]})

    def cdp(self, command, **params):
        return self.do("goog/cdp/execute", {"cmd": command, "params": params})

    def window(self, width, height, scheme="light", motion="no-preference", scale=1):
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 500,
        )
        self.cdp(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": motion},
            ],
        )

    def logs(self, kind):
        return self.do("se/log", {"type": kind})

    def requests(self):
        """Addresses that the page asked for."""
        seen = (json.loads(entry["message"])["message"] for entry in self.logs("performance"))
        return [
            m["params"]["request"]["url"]
            for m in seen
            if m["method"] == "Network.requestWillBeSent"
        ]

    def wait(self, script, seconds=20):
        end = time.monotonic() + seconds
        while not self.run("return !!(" + script + ")"):
            if time.monotonic() > end:
                raise AssertionError("in vain waited for: " + script)
            time.sleep(0.02)

    def screenshot(self, path, whole=True):
        """The window, or the whole page, however long."""
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.cdp(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=whole,
            **({"clip": clip} if whole else {}),
        )
        with open(path, "wb") as out:
            out.write(base64.b64decode(shot["data"]))

    def close(self):
        try:
            if self.session:
                self.call("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            self.driver.stdout.close()
            shutil.rmtree(self.folder, ignore_errors=True)
