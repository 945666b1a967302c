"""What is built and installed is what the checkout holds, and knows the commit that it was built from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools")  # which pip otherwise fetches to build
ROOT = Path(__file__).resolve().parents[1]
IDENTITY = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | IDENTITY
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def pip(*arguments: object, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


@pytest.mark.release
def test_wheel_and_sdist_hold_every_file_of_the_package_and_the_commit(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    sources = tmp_path / "sources"
    for name in files:
        if name.startswith("spoofkit/") or "/" not in name:
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes((ROOT / name).read_bytes())
    run("git", "init", "--quiet", cwd=sources)
    run("git", "add", ".", cwd=sources)
    run("git", "commit", "--quiet", "-m", "as it is", cwd=sources)
    commit = run("git", "rev-parse", "HEAD", cwd=sources)
    run(sys.executable, "setup.py", "-q", "sdist", cwd=sources)
    (sdist,) = (sources / "dist").glob("*.tar.gz")
    run("tar", "-xf", sdist, "-C", tmp_path, cwd=sources)
    # The wheel is built from the sdist, far from git.
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    pip("wheel", *offline, tmp_path / sdist.name.removesuffix(".tar.gz"), "-w", tmp_path, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    pip("install", *offline, "--target", tmp_path / "installed", wheel, cwd=tmp_path)
    installed = {path.relative_to(tmp_path / "installed").as_posix() for path in (tmp_path / "installed").rglob("*")}
    missing = {name for name in files if name.startswith("spoofkit/")} - installed
    assert not missing
    assert "spoofkit/commit.txt" in installed
    program = "import sys; sys.path.insert(0, 'installed'); from spoofkit.cli.main import main; main()"
    version = run(sys.executable, "-c", program, "--version", cwd=tmp_path)
    assert version == f"spoofkit 0.1.0 (commit {commit})"
    # An edited checkout says so.
    (sources / "spoofkit/errors.py").write_text((ROOT / "spoofkit/errors.py").read_text() + "# edited\n")
    run(sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path / "edited", cwd=sources)
    assert (tmp_path / "edited/spoofkit/commit.txt").read_text() == f"{commit}+dirty\n"
