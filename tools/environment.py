"""What tools/setup.sh asks of a Python environment. Standard library only: it runs before anything is installed.

    python tools/environment.py extras              # the extras that setup.cfg knows
    python tools/environment.py requirement torch   # the line of setup.cfg for one package
    python tools/environment.py missing dev mini    # requirements of the extras that this environment lacks
    python tools/environment.py missing --only torch
    python tools/environment.py repair              # forgets packages that an interrupted install left half-written

The requirements themselves stand in setup.cfg and nowhere else.
"""

import configparser
import csv
import re
import shutil
import site
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

SETUP_CFG = Path(__file__).resolve().parent.parent / "setup.cfg"


def read_requirements(setup_cfg: Path = SETUP_CFG) -> dict[str, list[str]]:
    """Requirements by extra; those that every installation has stand under the empty name."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(setup_cfg, encoding="utf-8")
    groups = {"": parser["options"].get("install_requires", ""), **parser["options.extras_require"]}
    return {extra: [line for line in text.splitlines() if line.strip()] for extra, text in groups.items()}


def package_name(requirement: str) -> str:
    """The distribution's name in normal form: `PyYAML>=6` -> `pyyaml`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]).lower()


def is_missing(requirement: str) -> bool:
    """Whether this environment lacks the package, or has a version outside the range."""
    try:
        found = metadata.version(package_name(requirement))
    except metadata.PackageNotFoundError:
        return True
    try:  # pip carries this library in itself, so it is there even in an empty environment
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        return False
    parsed = Requirement(requirement)
    return not parsed.specifier.contains(found, prereleases=True)


def damaged_distributions(folder: Path) -> Iterator[Path]:
    """Yield the *.dist-info folders under `folder` whose files are not all there with the size on record."""
    for info in sorted(folder.glob("*.dist-info")):
        try:
            rows = list(csv.reader((info / "RECORD").read_text(encoding="utf-8").splitlines()))
            complete = all(not size or (folder / name).stat().st_size == int(size) for name, _, size in rows)
        except (OSError, ValueError):
            complete = False
        if not complete:
            yield info


def repair(folder: Path) -> list[str]:
    """Remove the records of damaged distributions, so that pip installs them again; return their names."""
    for leftover in folder.glob("~*"):  # what pip had set aside to replace when it was interrupted
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()
    damaged = list(damaged_distributions(folder))
    for info in damaged:
        shutil.rmtree(info)
    return [package_name(info.name.split("-")[0]) for info in damaged]


def main(arguments: list[str]) -> None:
    """Answer one question on stdout, one item a line."""
    verb, *rest = arguments
    requirements = read_requirements()
    if verb == "extras":
        answer = [extra for extra in requirements if extra]
    elif verb == "requirement":
        answer = [line for line in requirements[""] if package_name(line) == rest[0]]
    elif verb == "missing" and rest[:1] == ["--only"]:
        answer = [line for line in requirements[""] if package_name(line) in rest[1:] and is_missing(line)]
    elif verb == "missing":
        answer = [line for extra in rest for line in requirements[extra] if is_missing(line)]
    elif verb == "repair":
        answer = [name for folder in site.getsitepackages() for name in repair(Path(folder))]
    else:
        sys.exit(f"{__file__}: unknown question {verb!r}; see the top of this file")
    for line in answer:
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
