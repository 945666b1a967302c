"""`serve`: its answers are the records of `spoofkit.load`, and nothing that a stranger sends ends or fools it.

One service runs in a thread of the tests; Chromium looks at its page, if there is one.
"""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, without_sums
from test_report_browser import CHROMIUM, PHONE, Tab, opened
from warm import WarmPython

import spoofkit
from spoofkit.addons.serve import run
from spoofkit.addons.serve.answers import Health, Problem, Scores, Timelines
from spoofkit.addons.serve.decoder import Decoder
from spoofkit.addons.serve.decoding import Limits
from spoofkit.addons.serve.keys import Keys
from spoofkit.addons.serve.refusals import Refused
from spoofkit.addons.serve.turns import Turns
from spoofkit.checksums import file_sha256, folder_sha256
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.models.detector import FrameClassifier, load_detector
from spoofkit.models.frame_model import write_frame_head
from spoofkit.scoring.scorer import HeadScores

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {"window": 1.0, "spoof_prior": 0.5, "abstain_cost": 0.1}
MOST_SECONDS, MOST_BYTES = 20.0, 400_000
KEY = "a-key-of-more-than-twenty-characters"


class Running:
    """A service that runs in a thread, and what it has logged."""

    def __init__(self, model: Path, options: run.ServeOptions, keys: Keys) -> None:
        self.said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "say", self.said.append)
            self.server, self.service = run.make_server(model, options, keys)
        self.listener = run.listening("127.0.0.1", 0)
        self.url = run.address(self.listener)
        self.client = httpx.Client(base_url=self.url, timeout=30, verify=False)  # to read certificates takes longest
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    def post(self, path: str = "/v1/score", **request: Any) -> httpx.Response:
        return self.client.post(path, **request)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def exchange(self, *parts: bytes, patience: float = 20.0) -> bytes:
        """What comes back for bytes that are written as they are; then the connection is left open."""
        with socket.create_connection(self.listener.getsockname(), timeout=patience) as link:
            for part in parts:
                link.sendall(part)
            return link.recv(1 << 16)

    def end(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def both_heads(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a frame head too."""
    folder = Path(shutil.copytree(model, tmp_path_factory.mktemp("both") / "model"))
    (without_sums(folder) / "frame_head").mkdir()
    torch.manual_seed(0)
    frames = FrameClassifier(load_detector(folder)[0].encoder, "linear")
    stage = {"stage": "post-training", "kept": {}, "settings": {}, "inputs": {}}
    write_frame_head(folder / "frame_head", frames, "authenticity", folder_sha256(folder / "encoder"), [stage])
    return folder


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "cal.json"
    write_calibration(path, Calibration((40.0,), -12.0, 0.5), {})
    return path


@pytest.fixture(scope="module")
def service(both_heads: Path, calibration: Path) -> Iterator[Running]:
    detector = {**OPTIONS, "calibration": calibration}
    options = run.ServeOptions(
        most_megabytes=MOST_BYTES / 1e6, most_seconds=MOST_SECONDS, upload_seconds=2.0, detector=detector
    )
    running = Running(both_heads, options, Keys([]))
    yield running
    running.end()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of several rates and lengths, one of two parties, silence, and formats of both decoders."""
    folder = tmp_path_factory.mktemp("serve")
    for seed, (name, rate) in enumerate((("a.wav", 16_000), ("b.flac", 8_000), ("c.ogg", 44_100), ("d.mp3", 16_000))):
        soundfile.write(folder / name, make_voice(seed, seed == 0, 1.2, rate), rate)
    parties = np.stack([make_voice(3, True, 1.1), make_voice(4, False, 1.1)], axis=1)
    soundfile.write(folder / "parties.flac", parties, SAMPLE_RATE)
    soundfile.write(folder / "long.wav", make_voice(5, False, 2.7), SAMPLE_RATE)
    soundfile.write(folder / "silent.wav", np.zeros(16_000), SAMPLE_RATE)
    return folder


# ---- Answers


def test_answers_are_the_records_of_the_detector(
    service: Running, both_heads: Path, calibration: Path, calls: Path
) -> None:
    detector = spoofkit.load(both_heads, calibration=calibration, **OPTIONS)
    decisions = set()
    for path in sorted(calls.iterdir()):
        for request in ({"content": path.read_bytes()}, {"files": {"file": (path.name, path.read_bytes())}}):
            answer = Scores.model_validate_json(service.post(**request).raise_for_status().content)
            assert (answer.file, answer.n_bytes) == (path.name if "files" in request else None, path.stat().st_size)
            assert answer.audio_sha256 == file_sha256(path)
            assert answer.made_with.calibration_sha256 == file_sha256(calibration)
            assert answer.made_with.model_sha256 == detector.made_with()["model_sha256"]
            expected = detector.score(path)
            assert len(answer.channels) == len(expected)
            for found, one in zip(answer.channels, expected, strict=True):
                for name in ("channel", "score", "llr", "bonafide_probability", "decision", "seconds"):
                    assert getattr(found, name) == getattr(one, name), (path, name)
                assert [window.model_dump(exclude_none=True) for window in found.windows] == [
                    window.known() for window in one.windows
                ]
                assert bool(found.error) == bool(one.error) == (one.score is None)
                assert (found.decision == "abstain") == bool(found.why_no_decision)
                decisions.add(found.decision)
    assert "abstain" in decisions
    parties = calls / "parties.flac"
    (mean,) = service.post("/v1/score?channels=mean", content=parties.read_bytes()).json()["channels"]
    assert mean["score"] == spoofkit.load(both_heads, channels="mean", window=1.0).score(parties)[0].score


def test_regions_and_frames_are_those_of_the_detector(service: Running, both_heads: Path, calls: Path) -> None:
    detector = spoofkit.load(both_heads)
    n_regions = 0
    for name in ("a.wav", "parties.flac", "long.wav"):
        response = service.post("/v1/localize", content=(calls / name).read_bytes()).raise_for_status()
        answer = Timelines.model_validate_json(response.content)
        for found, one in zip(answer.channels, detector.localize(calls / name), strict=True):
            assert (found.channel, found.seconds, found.label) == (one.channel, one.seconds, one.label)
            times = [(region.start_seconds, region.end_seconds) for region in found.regions]
            assert times == [(region.start_seconds, region.end_seconds) for region in one.regions]
            n_regions += len(times)
            assert found.frames is not None
            np.testing.assert_allclose(found.frames.score, one.frame_scores, atol=1e-4)
            grid = found.frames.first_centre_seconds + found.frames.hop_seconds * np.arange(one.frame_seconds.size)
            np.testing.assert_allclose(grid, one.frame_seconds)
            assert found.scored is not None
            assert one.scored is not None
            assert found.scored.score == one.scored.score
    assert n_regions > 0


def test_the_example_of_the_documentation_runs(
    service: Running, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs/serve.md").read_text(), re.M | re.S)
    shutil.copy(calls / "silent.wav", tmp_path / "call.wav")
    monkeypatch.chdir(tmp_path)
    exec(code.replace("http://127.0.0.1:8000", service.url), {})
    assert capsys.readouterr().out.startswith("None None abstain holds 0.00 s of signal")


# ---- Strangers


def wav_of(n_samples: int, rate: int = 2_000) -> bytes:
    n_bytes = 2 * n_samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + n_bytes, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", n_bytes)
        + bytes(n_bytes)
    )


def encoded(folder: Path, name: str, seconds: float, **how: str) -> bytes:
    """Silence, which takes hardly any bytes."""
    soundfile.write(folder / name, np.zeros(int(seconds * SAMPLE_RATE), np.int16), SAMPLE_RATE, **how)
    return (folder / name).read_bytes()


def unscaled(folder: Path) -> bytes:
    """Half a second of noise that nobody divided by 32768."""
    noise_S = np.random.default_rng(0).integers(-20_000, 20_000, SAMPLE_RATE // 2)
    soundfile.write(folder / "unscaled.wav", noise_S.astype(np.float32), SAMPLE_RATE, subtype="FLOAT")
    return (folder / "unscaled.wav").read_bytes()


OPUS = {"format": "OGG", "subtype": "OPUS"}
FORM = {"Content-Type": "multipart/form-data"}
NO_CHARSET = "multipart/form-data; boundary=x; charset=undefined"
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://%s\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile '%s'\n"
STATUS: dict[str, tuple[int, Callable[[Path], dict[str, Any]]]] = {
    "an empty body": (400, lambda _: {"content": b""}),
    "no audio": (422, lambda _: {"content": b"<html>" * 100}),
    "a playlist that points elsewhere": (422, lambda calls: {"content": PLAYLIST % bytes(calls / "a.wav")}),
    "a list that points elsewhere": (422, lambda calls: {"content": CONCAT % bytes(calls / "a.wav")}),
    "half a recording": (422, lambda calls: {"content": (calls / "b.flac").read_bytes()[:3000]}),
    "a WAV that states too much": (422, lambda _: {"content": wav_of(9000)[:5000]}),
    "floats that are integers": (422, lambda calls: {"content": unscaled(calls.parent)}),
    "too large, as stated": (413, lambda _: {"content": bytes(MOST_BYTES + 20_000)}),
    "too large, in chunks": (413, lambda _: {"content": iter([bytes(100_000)] * 5)}),
    "too large, in a form": (413, lambda _: {"files": {"file": bytes(MOST_BYTES + 1)}}),
    "too long": (413, lambda _: {"content": wav_of(41_000)}),
    "minutes of silence in FLAC": (413, lambda calls: {"content": encoded(calls.parent, "s.flac", 300)}),
    "minutes of silence in Opus": (413, lambda calls: {"content": encoded(calls.parent, "s.opus", 60, **OPUS)}),
    "a form without a file": (400, lambda _: {"data": {"file": "call.wav"}, "files": {"": ("", b"")}}),
    "a form with two files": (400, lambda _: {"files": [("file", b"a"), ("file", b"b")]}),
    "a form that is none": (400, lambda _: {"content": b"--x\r\nno", "headers": FORM}),
    "an unknown parameter": (400, lambda _: {"params": {"chanels": "mean"}, "content": b"x"}),
    "unknown channels": (400, lambda _: {"params": {"channels": "left"}, "content": b"x"}),
    "a channel that is not there": (422, lambda _: {"params": {"channels": "7"}, "content": wav_of(2000)}),
    "a page of another site": (403, lambda _: {"content": b"x", "headers": {"Origin": "http://evil.example"}}),
    "a page of no address": (403, lambda _: {"content": b"x", "headers": {"Origin": "http://["}}),
    "a form in no charset": (400, lambda _: {"content": FIELD, "headers": {"Content-Type": NO_CHARSET}}),
    "a name that leads here": (400, lambda _: {"content": b"x", "headers": {"Host": "evil.example"}}),
}  # fmt: skip


@pytest.mark.parametrize("what", STATUS)
def test_what_a_stranger_sends_has_its_status_and_the_service_lives(what: str, service: Running, calls: Path) -> None:
    status, make = STATUS[what]
    response = service.post(**make(calls))
    assert response.status_code == status, response.text
    if what != "a name that leads here":  # which starlette answers
        problem = Problem.model_validate_json(response.content)
        assert problem.status == status
        assert problem.request_id == response.headers["X-Request-ID"]
        assert "/proc/" not in problem.detail
    assert service.post(content=(calls / "a.wav").read_bytes()).status_code == 200


def test_a_gigabyte_is_refused_before_it_is_sent_and_slow_or_broken_uploads_end(service: Running) -> None:
    def head(n_bytes: int) -> bytes:
        return b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % n_bytes

    assert service.exchange(head(10**9)).startswith(b"HTTP/1.1 413")
    assert service.exchange(head(1000), b"RIFF").startswith(b"HTTP/1.1 408")
    with socket.create_connection(service.listener.getsockname()) as link:
        link.sendall(head(1000) + b"RIFF")
    assert service.exchange(b"no HTTP at all\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert service.get("/health").status_code == 200


def test_a_connection_that_asks_nothing_is_closed(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoofkit.addons.serve.connections.IDLE_SECONDS", 0.2)
    with pytest.raises((ConnectionResetError, AssertionError)):
        assert service.exchange(b"GET /health HTTP/1.1\r\nHost:")


def test_a_recording_is_decoded_again_after_its_process_was_killed(service: Running, calls: Path) -> None:
    expected = service.post(content=(calls / "a.wav").read_bytes()).json()["channels"]
    for _ in range(2):
        before = service.service.decoder.pid
        os.kill(before, signal.SIGKILL)
        assert service.post(content=(calls / "a.wav").read_bytes()).json()["channels"] == expected
        assert service.service.decoder.pid != before


def test_requests_leave_no_file_no_process_and_no_name_behind(service: Running, calls: Path) -> None:
    name = "<script>alert('Jane Doe')</script>.wav"

    def ask() -> None:
        for content in ((calls / "a.wav").read_bytes(), b"no audio"):
            service.post(files={"file": (name, content)})
        service.post(content=(calls / "a.wav").read_bytes(), headers={"X-File-Name": "Jane%20Doe.wav"})

    ask()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        ask()
    assert sorted(os.listdir("/proc/self/fd")) == before
    children = Path(f"/proc/{service.service.decoder.pid}/task/{service.service.decoder.pid}/children")
    assert not children.exists() or children.read_text() == ""
    assert service.post(files={"file": (name, (calls / "a.wav").read_bytes())}).json()["file"] == name
    assert any("/v1/score 200" in line for line in service.said)
    assert not any("Jane" in line for line in service.said)


def test_decoding_that_takes_too_long_or_too_much_memory_is_refused(calls: Path) -> None:
    soundfile.write(calls.parent / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 3_000_000), 48_000)
    for limits, fact in (
        (Limits(1e4, wall_seconds=0.005), "takes longer"),
        (Limits(1e4, memory_bytes=1_000_000), "memory|ends the process"),
    ):
        decoder = Decoder(limits, 1)
        try:
            with open(calls.parent / "noise.wav", "rb") as file, pytest.raises(Refused, match=fact) as refused:
                decoder.decode(file.fileno(), "auto")
            assert refused.value.status in (413, 422)
        finally:
            decoder.close()


# ---- Turns


def test_batches_of_two_requests_take_turns_and_who_would_wait_too_long_is_refused() -> None:
    turns = Turns(most_wait_seconds=1.0, batch_seconds=30.0)
    order: list[float] = []
    goes_on = threading.Event()

    def wait_for_another() -> None:
        while not turns._model._work_queue.qsize():
            time.sleep(0.001)

    def score(wave_BS: np.ndarray, n_samples_B: np.ndarray) -> HeadScores:
        assert goes_on.wait(60)
        order.append(float(wave_BS[0, 0]))
        if len(order) < 5:  # the one that waits has one more
            wait_for_another()
        return HeadScores(n_samples_B.astype(np.float32))

    scored = turns.through(score)

    def ask(number: int) -> None:
        with turns.admitted() as is_decoded:
            is_decoded(60.0, 0.0)
            for _ in range(3):
                scored(np.full((1, 16_000), number, np.float32), np.array([16_000]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in (1, 2)]
    threads[0].start()
    while not turns._turns or any(turn.began is None for turn in turns._turns):
        time.sleep(0.001)
    threads[1].start()
    wait_for_another()
    turns._cost = 2.0  # seconds for a second of audio: two batches wait
    with pytest.raises(Refused) as refused:
        turns.refuse_if_busy()
    assert refused.value.status == 429
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 3
    goes_on.set()
    for thread in threads:
        thread.join(20)
    assert order == [1, 2, 1, 2, 1, 2]
    turns.refuse_if_busy()
    turns.close()


def test_what_is_not_decoded_yet_counts_too_and_a_recording_waits_only_for_those_that_came_before() -> None:
    turns = Turns(most_wait_seconds=1.0, batch_seconds=30.0)
    turns._cost = 0.2  # of 4 s, which is what recordings are taken to have: 0.8 s
    with turns.admitted() as first_is_decoded, turns.admitted() as second_is_decoded:
        assert turns.wait_seconds() == pytest.approx(1.6)
        with pytest.raises(Refused), turns.admitted():
            raise AssertionError("a third would wait for 1.6 s")
        second_is_decoded(4.0, 0.0)
        first_is_decoded(20.0, 0.9)  # before it there is nobody
        with pytest.raises(Refused):  # the first was longer than it seemed
            second_is_decoded(4.0, 0.0)
    assert turns.wait_seconds() == 0
    turns.close()


# ---- Keys, start, stop


def test_keys_are_required_where_they_are_given(model: Path, calls: Path) -> None:
    running = Running(model, run.ServeOptions(), Keys([KEY, KEY[::-1]]))
    try:
        content = (calls / "a.wav").read_bytes()
        for headers, status in (
            ({}, 401),
            ({"Authorization": f"Bearer {KEY}x"}, 401),
            ({"Authorization": f"Basic {KEY}"}, 401),
            ({"Authorization": f"Bearer {KEY}"}, 200),
            ({"Authorization": f"bearer {KEY[::-1]}", "Host": "any.example"}, 200),
        ):
            assert running.post(content=content, headers=headers).status_code == status
        health = Health.model_validate_json(running.get("/health").content)
        assert (health.needs_key, health.scores, health.localizes) == (True, True, False)
        assert running.post("/v1/localize", headers={"Authorization": f"Bearer {KEY}"}).status_code == 501
        document = running.get("/openapi.json").json()
        assert [*document["paths"]] == ["/v1/score", "/health"]
        references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
        assert references <= {*document["components"]["schemas"]}
        assert "/v1/score" in running.get("/docs").text
    finally:
        running.end()


def test_it_does_not_start_where_others_reach_it_without_keys(model: Path, tmp_path: Path) -> None:
    assert "--keys" in refusal("serve", model, "--host", "0.0.0.0", "--port", 0)
    keys = tmp_path / "keys"
    for text, fact in (
        ("# none\n", "no key"),
        ("short\n", "key 1"),
        (f"{KEY}\nwith a space, and long enough\n", "key 2"),
    ):
        keys.write_text(text)
        assert fact in refusal("serve", model, "--keys", keys)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port" in refusal("serve", model, "--port", taken.getsockname()[1])
    assert "--min-region: " in refusal("serve", model, "--min-region", 0.1)  # it has no frame head


def test_sigterm_lets_the_request_at_work_end(
    model: Path, calls: Path, warm_python: WarmPython, tmp_path: Path
) -> None:
    program = [warm_python.folder / "bin/spoofkit", "serve", model, "--port", "0"]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(program, stderr=log, env=warm_python.environ)
    found = None
    while found is None:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
        found = re.search(r"on http://127.0.0.1:(\d+);", (tmp_path / "log").read_text())
    content = (calls / "a.wav").read_bytes()
    with socket.create_connection(("127.0.0.1", int(found[1])), timeout=30) as link:
        link.sendall(b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content))
        link.sendall(content[:1000])
        time.sleep(0.2)  # it is at work
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        link.sendall(content[1000:])
        assert link.recv(100).startswith(b"HTTP/1.1 200")
    assert process.wait(30) == 0


# ---- The page


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("no Chromium (sudo apt install chromium)")
    with opened(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def go(tab: Tab, url: str) -> None:
    tab.events.clear()
    tab.call("Page.navigate", url=url)
    while not tab.happened("Page.loadEventFired"):
        tab._next()


def drop(tab: Tab, *paths: Path) -> None:
    """Choose files as a person does, and wait until all have been answered."""
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    node = tab.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])
    tab.run(
        "new Promise((done) => setInterval(() => results.children.length && "
        "!results.querySelector('[aria-busy=true]') && done(), 20))"
    )


def press(tab: Tab, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)


def test_page_shows_verdicts_and_regions_and_asks_nobody_else(service: Running, tab: Tab, calls: Path) -> None:
    evil = calls.parent / "<img src=x onerror=document.title='taken'>.wav"
    shutil.copy(calls / "a.wav", evil)
    torn = calls.parent / "torn.wav"
    torn.write_text("no sound")
    go(tab, service.url)
    drop(tab, evil, calls / "parties.flac", calls / "silent.wav", torn)
    headings = tab.run("[...results.querySelectorAll('h2')].map((one) => one.textContent)")
    assert headings == [evil.name, "parties.flac", "silent.wav", "torn.wav"]
    verdicts = tab.run(
        "[...results.children].map((one) => [...one.querySelectorAll('.verdict')].map((v) => v.textContent))"
    )
    words = ("Accepted as genuine", "Rejected as spoofed", "No decision", "Not scored")
    assert [len(one) for one in verdicts] == [1, 2, 1, 1]
    assert all(verdict.endswith(words) for one in verdicts for verdict in one)
    assert verdicts[2:] == [["? No decision"], ["Not scored"]]
    texts = tab.run("[...results.children].map((one) => one.innerText)")
    assert " to be " in texts[0]
    assert "of signal" in texts[2]
    assert tab.run("[...results.children].map((one) => one.querySelectorAll('.track').length)") == [1, 2, 0, 0]
    assert tab.run("document.title") != "taken"
    for kind in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
        assert tab.happened(kind) == []
    said = [entry["entry"]["text"] for entry in tab.happened("Log.entryAdded")]
    assert [text for text in said if "422" not in text] == []  # the browser notes the file that is no audio
    asked = [request["request"]["url"] for request in tab.happened("Network.requestWillBeSent")]
    assert {url for url in asked if not url.startswith(("data:", "blob:", service.url))} == set()


def test_page_works_by_keyboard_on_a_phone_and_in_the_dark(service: Running, tab: Tab, calls: Path) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", **PHONE)
    for scheme in ("light", "dark"):
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        go(tab, service.url)
        press(tab, "Tab")
        assert tab.run("document.activeElement.id") == "files"
        drop(tab, calls / "parties.flac", calls / "long.wav")
        assert tab.run("document.documentElement.scrollWidth") <= PHONE["width"]
        colours = tab.run("['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])")
        ink, paper = (sum(map(int, colour.strip("rgb()").split(", "))) for colour in colours)
        assert (ink < paper) == (scheme == "light")
    assert "long.wav: " in tab.run("document.querySelector('[role=status]').textContent")
    named = "(one) => one.ariaLabel || one.textContent || one.labels.length"
    assert tab.run(f"[...document.querySelectorAll('button, input, select')].every({named})")
    assert tab.run("[...results.children].every((one) => document.getElementById(one.getAttribute('aria-labelledby')))")
    tab.run("clear.focus()")
    press(tab, "Enter")
    assert tab.run("results.children.length") == 0
    assert tab.run("document.activeElement.id") == "files"
    tab.call("Emulation.clearDeviceMetricsOverride")
    tab.call("Emulation.setEmulatedMedia", features=[])
