"""The report in a real browser: headless Chromium, asked over its DevTools pipe. Skipped where there is none."""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from spoofkit.data.manifest import read_manifest
from spoofkit.evaluation.measuring import EvaluationOptions
from spoofkit.evaluation.report import evaluate
from spoofkit.evaluation.scores import write_scores

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_SECONDS = 60
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (sudo apt install chromium)")


class Tab:
    """One tab: calls to it, and the events that came in meanwhile."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.to_browser, self.from_browser = to_browser, from_browser
        self.number, self.session, self.rest, self.events = 0, None, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not self.happened("Page.loadEventFired"):
            self._next()

    def run(self, expression: str) -> object:
        """The value of JavaScript, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def happened(self, method: str) -> list[dict]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def _next(self) -> dict:
        end = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.from_browser], [], [], max(0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            block = os.read(self.from_browser, 1 << 20)
            assert block, "Chromium has ended"
            self.rest += block
        message, _, self.rest = self.rest.partition(b"\0")
        event = json.loads(message)
        self.events.append(event)
        return event


@contextmanager
def opened(profile: Path) -> Iterator[Tab]:
    """A tab of a fresh browser."""
    (read_commands, to_browser), (from_browser, write_answers) = os.pipe(), os.pipe()
    # Chromium reads commands from descriptor 3 and answers on 4.
    command = [
        "bash", "-c", f'exec "$@" 3<&{read_commands} 4>&{write_answers}', "bash", CHROMIUM, "--headless",
        "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-sync", "--mute-audio", f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    browser = subprocess.Popen(
        command, pass_fds=(read_commands, write_answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for descriptor in (read_commands, write_answers):
        os.close(descriptor)
    try:
        yield Tab(to_browser, from_browser)
    finally:
        for descriptor in (to_browser, from_browser):
            os.close(descriptor)
        browser.terminate()
        browser.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def page(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two systems on the miniature corpus."""
    folder = tmp_path_factory.mktemp("report")
    ids = read_manifest(manifests / "eval.tsv").table["utt_id"].to_list()
    for name, seed in (("ours", 0), ("theirs", 1)):
        write_scores(folder / name / "eval.tsv", ids, np.random.default_rng(seed).normal(0, 2, len(ids)))
    wanted = EvaluationOptions(by=("gender",), n_replicates=0, against=(str(folder / "theirs/eval.tsv"),), n_examples=3)
    evaluate(folder / "ours/eval.tsv", manifests / "eval.tsv", folder / "results", options=wanted)
    return folder / "results/report.html"


@pytest.fixture(scope="module")
def tab(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened(tmp_path_factory.mktemp("profile")) as tab:
        tab.open(page)
        yield tab


def test_page_opens_without_an_error_and_asks_for_nothing(tab: Tab, page: Path) -> None:
    tab.open(page)
    assert tab.run("document.querySelectorAll('th button').length") > 0  # so the one script was let run
    assert tab.happened("Runtime.exceptionThrown") == []
    assert tab.happened("Runtime.consoleAPICalled") == []
    assert [entry["entry"]["text"] for entry in tab.happened("Log.entryAdded")] == []
    asked = [request["request"]["url"] for request in tab.happened("Network.requestWillBeSent")]
    assert page.as_uri() in asked
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}


def test_a_script_that_is_not_the_pages_own_does_not_run(tab: Tab, page: Path) -> None:
    foreign = page.with_name("foreign.html")
    foreign.write_text(page.read_text().replace("</body>", "<script>document.title = 'taken'</script></body>"))
    tab.open(foreign)
    assert tab.run("document.title") != "taken"
    tab.open(page)


def test_every_worst_error_can_be_heard_and_seen(tab: Tab) -> None:
    loaded = """Promise.all([...document.querySelectorAll("audio")].map((player) => new Promise((done) => {
        const say = () => done([player.controls, player.duration, player.error && player.error.code]);
        player.readyState >= 1 || player.error ? say() : (player.onloadedmetadata = player.onerror = say);
    })))"""
    players = tab.run(loaded)
    assert len(players) == 6
    for controls, duration, error in players:
        assert (controls, error) == (True, None)
        assert 0.8 <= duration <= 1.6
    sizes = tab.run("[...document.images].map((image) => [image.complete, image.naturalWidth, image.naturalHeight])")
    assert len(sizes) == 6
    assert all(complete and width > 40 and height == 128 for complete, width, height in sizes)


def test_tables_sort_by_click_and_by_key_and_the_pooled_row_stays_last(tab: Tab, page: Path) -> None:
    tab.open(page)
    column = """(() => { const table = document.querySelector("[aria-label='Metrics of each codec'] table");
        const place = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === "EER, %");
        const head = table.tHead.rows[0].cells[place];
        return { head, values: () => [...table.rows].slice(1).map((row) => row.cells[place].textContent) }; })()"""
    tab.run(f"window.column = {column}; undefined")
    before = tab.run("column.values()")
    pooled = before[-1]

    def number(text: str) -> float:
        return float(text.strip("()"))  # in parentheses: few trials

    tab.run("column.head.querySelector('button').click()")
    assert tab.run("column.head.getAttribute('aria-sort')") == "ascending"
    assert tab.run("column.values()") == [*sorted(before[:-1], key=number), pooled]
    tab.run("column.head.querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    assert tab.run("column.head.getAttribute('aria-sort')") == "descending"
    assert tab.run("column.values()") == [*sorted(before[:-1], key=number, reverse=True), pooled]
    tab.run("column.head.parentNode.cells[0].querySelector('button').click()")
    assert tab.run("document.querySelectorAll('[aria-sort]').length") == 1
    assert tab.run("column.values()") == before


def test_rows_of_names_sort_as_names_and_empty_cells_go_last(tab: Tab, page: Path) -> None:
    tab.open(page)
    rows = '["A10", "3,000"], ["A9", ""], ["A2", "400"]'
    made = f"[{rows}].map((row) => `<tr><th>${{row[0]}}</th><td>${{row[1]}}</td></tr>`).join('')"
    tab.run(f"window.t = document.querySelector('table.sortable'); t.tBodies[0].innerHTML = {made}; undefined")
    names = "[...t.tBodies[0].rows].map((row) => row.cells[0].textContent)"
    for place, expected in ((0, ["A2", "A9", "A10"]), (1, ["A2", "A10", "A9"]), (1, ["A10", "A2", "A9"])):
        tab.run(f"t.tHead.rows[0].cells[{place}].querySelector('button').click()")
        assert tab.run(names) == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_no_wider_than_a_phone_and_follows_the_colour_scheme(tab: Tab, page: Path, scheme: str) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", **PHONE)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.open(page)
    assert tab.run("innerWidth") == PHONE["width"]
    assert tab.run("document.documentElement.scrollWidth") <= PHONE["width"]
    colours = tab.run("['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])")
    ink, paper = (sum(map(int, colour.strip("rgb()").split(", "))) for colour in colours)
    assert (ink < paper) == (scheme == "light")
    assert abs(ink - paper) > 3 * 128
    tab.call("Emulation.clearDeviceMetricsOverride")
    tab.call("Emulation.setEmulatedMedia", features=[])


def test_print_shows_what_is_folded_on_the_screen_and_no_players(tab: Tab, page: Path) -> None:
    tab.open(page)
    folded = "[...document.querySelectorAll('details table')].map((table) => table.checkVisibility())"
    assert set(tab.run(folded)) == {False}
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run("[...document.querySelectorAll('audio')].every((player) => player.offsetHeight === 0)") is True
    assert set(tab.run(folded)) == {True}
    tab.call("Emulation.setEmulatedMedia", media="")
    assert len(tab.call("Page.printToPDF", printBackground=False)["data"]) > 10_000
