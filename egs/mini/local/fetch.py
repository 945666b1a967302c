"""Fetch Debian packages without root: download with our own lists, verify, unpack into the cache.

    cache/apt/         package lists and apt's own cache, while downloading
    cache/debs/        the downloaded *.deb
    cache/debs.json    {wanted: [package, …], files: {file name: SHA-256}}; exists only once all are downloaded
    cache/unpacked/    the packages unpacked, as under /

Nothing is installed and no maintainer script runs. apt verifies what it downloads against the signed lists; the
hashes recorded here verify the cache again before every use, and a filled cache needs no network.
human.py and attacks.py name the packages.
"""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from tqdm import tqdm

from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json, write_json, write_text

# The loader and C library of the machine must serve what we unpack; a second C library in one process crashes.
NEVER_FETCHED = ("libc6", "libc-bin")
POLL_SECONDS = 0.25
NOT_UNPACKED = ("png", "svg", "jpg", "dat")
ELSEWHERE = "or build on a machine with Debian 12/13 or Ubuntu, or pass --speech DIR --without-debian to build without"


def fetch_packages(cache: Path, wanted: list[str]) -> Path:
    """Make sure that the wanted packages and the libraries they need are unpacked in the cache.

    Args:
        cache: Folder for downloads; kept between builds.
        wanted: Debian package names.

    Returns:
        Folder that holds the unpacked files as under `/`.

    Raises:
        SpoofkitError: no apt, no network, a package that this release does not have, a damaged cache.
    """
    wanted = sorted(wanted)
    record = cache / "debs.json"
    files = _recorded(record, wanted) if record.exists() else None
    if files is None:
        files = _download(cache, wanted)
        write_json(record, {"wanted": wanted, "files": files}, overwrite=True)
        shutil.rmtree(cache / "apt")  # 140 MB of lists that are of no use to a filled cache
    return _unpack(cache, files)


def _recorded(record: Path, wanted: list[str]) -> dict[str, str] | None:
    """Return the recorded files if they serve `wanted`; none if other packages are wanted now."""
    content = read_json(record)
    if not set(wanted) <= set(content["wanted"]):
        return None
    for name, sha256 in content["files"].items():
        path = record.parent / "debs" / name
        if not path.is_file() or file_sha256(path) != sha256:
            return None  # fetched again, which says so with its progress bar
    return dict(content["files"])


def _download(cache: Path, wanted: list[str]) -> dict[str, str]:
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise SpoofkitError(
                f"{tool}: not found, so the Debian packages of the mini corpus cannot be downloaded; {ELSEWHERE}"
            )
    apt_options = _apt_folders(cache / "apt")
    trouble = _update(apt_options)
    _check_all_known(_known(apt_options, wanted), wanted, trouble)
    # What the wanted packages need and this machine lacks; programs such as alsa-utils are not needed to synthesize.
    resolved = _run(
        ["apt-get", *apt_options, "install", "--print-uris", "-qq", "--no-install-recommends", *wanted],
        "the packages' libraries cannot be resolved",
    )
    needed = [line.split()[1].split("_")[0] for line in resolved.splitlines() if line.startswith("'")]
    libraries = [name for name in needed if name.startswith("lib") and name not in NEVER_FETCHED]
    names = sorted({*wanted, *libraries})
    known = _known(apt_options, names)
    _check_all_known(known, names, trouble)

    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if _deb_of(debs, name, known[name]) is None]
    if missing:
        n_bytes = sum(int(known[name]["Size"]) for name in missing)
        _download_with_progress(apt_options, debs, missing, n_bytes)
    files = {}
    for name in names:
        path = _deb_of(debs, name, known[name])
        if path is None:
            raise SpoofkitError(
                f"{debs}: the package {name} did not arrive whole (expected SHA-256 {known[name]['SHA256']}); run again"
            )
        files[path.name] = known[name]["SHA256"]
    return files


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}  # messages are read here


def _apt_folders(apt: Path) -> list[str]:
    """Return options that give apt lists and a cache of its own, so that it needs neither root nor system lists."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    return [
        "-o", f"Dir::State::Lists={(apt / 'lists').resolve()}",
        "-o", f"Dir::Cache={(apt / 'cache').resolve()}",
        "-o", "Dir::State::status=/var/lib/dpkg/status",
        "-o", "APT::Sandbox::User=",
        "-o", "Acquire::Retries=3",
    ]  # fmt: skip


def _update(apt_options: list[str]) -> str:
    """Fetch the package lists; return apt's first complaint.

    A complaint is not yet an error: it may be about a third party's list. It is reported if a package is missing.
    """
    done = subprocess.run(["apt-get", *apt_options, "-q", "update"], capture_output=True, text=True, env=_environment())
    complaints = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith(("E:", "W:", "Err:"))]
    return complaints[0] if complaints else ""


def _run(command: list[str], what: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=_environment())
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise SpoofkitError(f"{what} ({command[0]}: {reason[0]}); check the network and run again, {ELSEWHERE}")
    return done.stdout


def _known(apt_options: list[str], names: list[str]) -> dict[str, dict[str, str]]:
    """Look packages up in the lists and return {name: its fields}; unknown names are skipped."""
    command = ["apt-cache", *apt_options, "show", "--no-all-versions", *names]
    # apt-cache fails if one name is unknown; the caller finds out which one.
    shown = subprocess.run(command, capture_output=True, text=True, env=_environment()).stdout
    known = {}
    for stanza in shown.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if {"Package", "Size", "SHA256", "Version"} <= fields.keys():
            known[fields["Package"]] = fields
    return known


def _check_all_known(known: dict[str, dict[str, str]], names: list[str], trouble: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        reason = f"apt says: {trouble}" if trouble else "on Ubuntu they are in universe"
        raise SpoofkitError(
            f"this system's package sources have no {', '.join(unknown)} ({reason}); "
            f"enable the source or check the network, {ELSEWHERE}"
        )


def _deb_of(debs: Path, name: str, fields: dict[str, str]) -> Path | None:
    """Find the complete file of a package in this version among the downloaded ones."""
    for path in sorted(debs.glob(f"{name}_*.deb")):
        if path.stat().st_size == int(fields["Size"]) and file_sha256(path) == fields["SHA256"]:
            return path
    return None


def _download_with_progress(apt_options: list[str], debs: Path, names: list[str], n_bytes: int) -> None:
    """Download packages into `debs`; apt resumes partial downloads."""
    command = ["apt-get", *apt_options, "-q", "download", *names]
    before = _folder_bytes(debs)
    with tqdm(total=n_bytes, desc="Debian packages", unit="B", unit_scale=True) as bar:
        process = subprocess.Popen(
            command, cwd=debs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_environment()
        )
        try:
            while process.poll() is None:
                bar.update(max(0, min(_folder_bytes(debs) - before, n_bytes) - bar.n))
                time.sleep(POLL_SECONDS)
            bar.update(max(0, n_bytes - bar.n) if process.returncode == 0 else 0)
        finally:
            process.terminate()
    assert process.stderr is not None
    errors = [line for line in process.stderr.read().splitlines() if line.startswith("E:")]
    if process.returncode:
        reason = errors[0] if errors else f"exit code {process.returncode}"
        raise SpoofkitError(
            f"downloading {len(names)} Debian packages failed ({reason}); run again to resume, {ELSEWHERE}"
        )


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # apt renames while we look
            continue
    return total


def _unpack(cache: Path, files: dict[str, str]) -> Path:
    """Unpack the recorded packages once; the stamp is written last, so a half-unpacked folder is unpacked again."""
    root = cache / "unpacked"
    stamp = cache / "root.stamp"
    expected = hashlib.sha256("".join(sorted(files.values())).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == expected and root.is_dir():
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in tqdm(sorted(files), desc="unpacking", unit="package"):
        _unpack_one(cache / "debs" / name, root)
    write_text(stamp, expected, overwrite=True)
    return root


def _unpack_one(deb: Path, root: Path) -> None:
    """Unpack one package without its pictures, which are two thirds of the stamps."""
    excluded = [f"--exclude=*.{suffix}" for suffix in NOT_UNPACKED]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as source:
        tar = subprocess.run(
            ["tar", "-x", "--no-same-owner", "-f", "-", "-C", str(root), *excluded],
            stdin=source.stdout,
            capture_output=True,
        )
        assert source.stderr is not None
        complaint = source.stderr.read() + tar.stderr
    if source.returncode or tar.returncode:
        reason = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise SpoofkitError(
            f"{deb}: cannot be unpacked ({reason[0]}); free some disk space, or remove the file, and run again"
        )
