"""Record the commit in what is built, as `spoofkit/commit.txt`; all else about the build is in setup.cfg.

A wheel and an sdist hold it, so that `spoofkit --version` and the records of outputs can name it without git.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

sys.path.insert(0, str(Path(__file__).resolve().parent))

from spoofkit.machine import COMMIT_FILE, commit


def write_commit(folder: str) -> None:
    """Write the commit into a copy of the sources, which has no git; nothing if it is not known."""
    if known := commit():
        path = Path(folder, "spoofkit", COMMIT_FILE)
        path.unlink(missing_ok=True)  # in an sdist it may be a hard link to a source
        path.write_text(f"{known}\n", encoding="ascii")


class BuildWithCommit(build_py):
    """Copies the package, with the commit; an editable install copies nothing and asks git."""

    def run(self) -> None:
        """Copy the package."""
        super().run()
        if not self.editable_mode:
            write_commit(self.build_lib)


class SdistWithCommit(sdist):
    """Copies the sources, with the commit."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the sources into `base_dir`."""
        super().make_release_tree(base_dir, files)
        write_commit(base_dir)


setup(cmdclass={"build_py": BuildWithCommit, "sdist": SdistWithCommit})
