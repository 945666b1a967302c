"""What tools/setup.sh asks of a Python environment. Standard library only: it runs before anything is installed.

    python tools/environment.py extras              # the extras that setup.cfg knows
    python tools/environment.py missing dev mini    # requirements of the extras that this environment lacks

The requirements themselves are in setup.cfg only.
"""

import configparser
import re
import sys
from importlib import metadata
from pathlib import Path

SETUP_CFG = Path(__file__).resolve().parent.parent / "setup.cfg"


def read_requirements(setup_cfg: Path = SETUP_CFG) -> dict[str, list[str]]:
    """Read the requirements by extra; those of every installation have the empty name."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(setup_cfg, encoding="utf-8")
    groups = {"": parser["options"].get("install_requires", ""), **parser["options.extras_require"]}
    return {extra: [line for line in text.splitlines() if line.strip()] for extra, text in groups.items()}


def is_missing(requirement: str) -> bool:
    """Return whether this environment lacks the package, or has a version outside the range."""
    try:
        found = metadata.version(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    except metadata.PackageNotFoundError:
        return True
    try:  # pip carries this library in itself, so it is there even in an empty environment
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        return False
    return not Requirement(requirement).specifier.contains(found, prereleases=True)


def main(verb: str, *extras: str) -> None:
    """Answer one question on stdout, one item per line."""
    requirements = read_requirements()
    if verb == "extras":
        answer = [extra for extra in requirements if extra]
    else:
        answer = [line for extra in extras for line in requirements[extra] if is_missing(line)]
    print(*answer, sep="\n", end="\n" * bool(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
