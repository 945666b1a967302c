"""The Containerfile: its lines run in a fresh Debian, its user is not root, its health check sees an ill service."""

import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from spoofkit.models.detector import Detector, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import EncoderSettings

ROOT = Path(__file__).resolve().parents[1]
SUITE = "bookworm"
PORT = "8000"


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each line, continued lines joined."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def health_check() -> list[str]:
    (line,) = [arguments for name, arguments in instructions() if name == "HEALTHCHECK"]
    command: list[str] = json.loads(line.partition(" CMD ")[2])
    return command


def test_the_image_runs_as_a_user_who_is_not_root_and_serves_on_the_port_that_is_checked() -> None:
    last = dict(instructions())
    assert int(last["USER"]) > 0
    assert f":{PORT}/health" in " ".join(health_check())
    assert last["EXPOSE"] == PORT
    command = json.loads(last["CMD"])
    assert command[command.index("--port") + 1] == PORT
    assert "--keys" in command  # others can reach it


@pytest.mark.parametrize(("status", "is_well"), [(200, True), (503, False), (None, False)])
def test_the_health_check_fails_unless_the_service_answers_that_it_is_well(status: int | None, is_well: bool) -> None:
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status or 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if status is None:
        server.shutdown()
        server.server_close()
    python, *rest = health_check()
    assert python == "python"
    command = [word.replace(f":{PORT}", f":{server.server_port}") for word in rest]
    done = subprocess.run([sys.executable, *command], capture_output=True)
    server.shutdown()
    server.server_close()
    assert (done.returncode == 0) == is_well
    assert asked == ([] if status is None else ["/health"])


# ---- In a fresh Debian


class Stage:
    """A stage of the build: a tree of files, in which lines run as in a container."""

    def __init__(self, tree: Path) -> None:
        self.tree, self.environment = tree, {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        # The certificates that this machine trusts, such as that of a proxy; those of Debian are not touched.
        if bundle := ssl.get_default_verify_paths().cafile:
            shutil.copy(bundle, tree / "usr/local/share/trusted_here.crt")

    def run(self, line: str, user: str = "0") -> str:
        """Run a line of shell, with the package indices that pip uses on this machine; they cannot be written."""
        mounts = ["mount -t proc proc $TREE/proc"]
        for path in pip_folders():
            mounts.append(
                f"P={shlex.quote(str(path))} && mkdir -p $TREE$P && mount --bind $P $TREE$P && "
                "mount -o remount,bind,ro $TREE$P"
            )
        chroot = shutil.which("chroot") or "chroot"  # the image's PATH may lack its folder
        inside = shlex.join([chroot, f"--userspec={user}", str(self.tree), "/bin/sh", "-ec", line])
        script = " && ".join(mounts) + f" && exec {inside}"
        named = {name: value for name, value in os.environ.items() if re.match("(PIP|SSL|UV)_|.*_proxy$", name)}
        if (self.tree / "usr/local/share/trusted_here.crt").exists():
            named |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), "/usr/local/share/trusted_here.crt")
        environment = {
            **named,
            **self.environment,
            "TREE": str(self.tree),
            "HOME": "/home/spoofkit" if int(user) else "/root",
        }
        done = subprocess.run(
            ["unshare", "-m", "sh", "-ec", script], env=environment, capture_output=True, text=True, cwd="/"
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


def pip_folders() -> list[Path]:
    """Folders of this machine in which pip finds its settings and packages; those of certificates are Debian's own."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    indices = [Path(name).parent for name in re.findall(r"file://(/[\w./-]+)", listed)]  # the files lie beside `simple`
    named = [Path(name) for name in re.findall(r"/[\w./-]+", listed)]
    found = [path if path.is_dir() else path.parent for path in (Path("/etc/xdg/pip"), *indices, *named)]
    return [path for path in dict.fromkeys(found) if path.is_dir() and not path.is_relative_to("/etc/ssl")]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A fresh tree of the Debian that the Containerfile names."""
    debootstrap = shutil.which("debootstrap")
    if os.geteuid() != 0 or debootstrap is None or shutil.which("unshare") is None:
        pytest.skip("needs root, debootstrap (sudo apt install debootstrap) and unshare")
    sources = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True).stdout
    mirror = next(iter(sources.split()), "")
    done = subprocess.run(
        [debootstrap, "--variant=minbase", SUITE, tmp_path / "fresh", *([mirror] if mirror else [])],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no fresh Debian to be had: {done.stderr.strip()[-200:] or done.stdout.strip()[-200:]}")
    return tmp_path / "fresh"


@pytest.mark.release  # fetches Debian and all packages
def test_every_line_runs_in_a_fresh_debian_and_gives_a_program_that_knows_its_commit(
    fresh: Path, tmp_path: Path
) -> None:
    assert {arguments.split()[0] for name, arguments in instructions() if name == "FROM"} == {f"debian:{SUITE}-slim"}
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
    commit = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    stages: dict[str, Stage] = {}
    stage, user = Stage(fresh), "0"
    for name, arguments in instructions():
        if name == "FROM":
            called = arguments.partition(" AS ")[2] or "last"
            subprocess.run(["cp", "-a", fresh, tmp_path / called], check=True)
            stage = stages[called] = Stage(tmp_path / called)
        elif name in ("ENV", "ARG"):
            key, _, value = arguments.partition("=")
            stage.environment[key] = value
        elif name == "COPY":
            *options, source, target = arguments.split()
            home = stages[options[0].partition("=")[2]].tree if options else clone
            (stage.tree / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", home / source.lstrip("/"), stage.tree / target.lstrip("/")], check=True)
        elif name == "RUN":
            stage.run(arguments)
        elif name == "USER":
            user = arguments
    version = stage.run("cd /home/spoofkit && spoofkit --version && id -u && ! test -w /opt/spoofkit/.venv", user)
    assert version.split()[2:] == ["(commit", f"{commit})", user]
    assert not (stage.tree / "opt/spoofkit/spoofkit").exists()
    assert not (stage.tree / "usr/bin/git").exists()
    assert "torch" in stage.run("cd /home/spoofkit && spoofkit doctor", user)
    # The service answers the health check; on another port than that of the file, which may be taken here.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    detector = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none")), "mean")
    save_detector(stage.tree / "model", detector, {"settings": None})
    (stage.tree / "keys").write_text("k" * 43 + "\n")
    last = dict(instructions())
    serve = shlex.join([*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])]).replace(PORT, port)
    check = shlex.join(health_check()).replace(PORT, port)
    stage.run(f"{serve} & for second in $(seq 60); do sleep 1; if {check}; then kill $!; exit; fi; done; false", user)
