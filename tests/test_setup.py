"""tools/setup.sh and its helpers, in a copy of the tree with a pip that installs nothing but records what it was asked.

Whether real packages install is for a fresh clone to show (CONTRIBUTING says how); here stands what setup.sh decides.
"""

import configparser
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent

# Stands in for pip: writes its arguments to a log and "installs" an empty package.
FAKE_PIP = r"""
import os, pathlib, signal, sys
site = pathlib.Path(__file__).parent.parent
words = [word for word in sys.argv[1:] if word not in ("--disable-pip-version-check", "--no-input", "--no-compile")]
if words == ["--version"]:
    sys.exit()
with open(os.environ["FAKE_PIP_LOG"], "a") as log:
    print(*words, file=log)
if os.environ.get("FAKE_PIP_REFUSES", "nothing") in " ".join(words):
    sys.exit("ERROR: this is what pip says when it fails")
for name in ("torch", *["spoofkit"] * ("--editable" in words)):
    (site / f"{name}.py").write_text("")
    if os.environ.get("FAKE_PIP_DIES", "nothing") in " ".join(words):
        os.kill(os.getppid(), signal.SIGKILL)
"""

# Stands in for python3: `-m venv` makes an environment at once, without pip but with the stand-in.
FAKE_PYTHON = """#!/bin/bash
if [[ "$*" == "-m venv "* ]]; then
  "{python}" -m venv --without-pip "${{@: -1}}" || exit 1
  mkdir -p "${{@: -1}}/{site}/pip"
  cp "{pip}" "${{@: -1}}/{site}/pip/__main__.py"
  exit
fi
exec "{python}" "$@"
"""


class Clone:
    """A copy of what setup.sh needs, and an environment for it that holds no trace of the tests' own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.venv = self.root / ".venv"
        self.stamp = self.venv / "spoofkit-setup.stamp"
        self.pip_log = folder / "pip.log"
        shutil.copytree(ROOT / "tools", self.root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        (folder / "pip.py").write_text(FAKE_PIP)
        site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        stand_in = FAKE_PYTHON.format(python=sys.executable, pip=folder / "pip.py", site=site)
        python = script(folder / "python3", stand_in)
        hidden = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH")
        self.environ = {k: v for k, v in os.environ.items() if k not in hidden and not k.startswith("SPOOFKIT_")}
        self.environ |= {"FAKE_PIP_LOG": str(self.pip_log), "SPOOFKIT_PYTHON": str(python), "SPOOFKIT_TORCH": "cpu"}

    def setup(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.bash(f'"{self.root}/tools/setup.sh" "$@"', *arguments, **environ)

    def bash(self, code: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", code, "bash", *arguments]
        environment = self.environ | environ
        return subprocess.run(command, env=environment, cwd=self.root, capture_output=True, text=True, timeout=60)

    def pip_calls(self) -> list[str]:
        """What pip was asked since the last time."""
        calls = self.pip_log.read_text().splitlines() if self.pip_log.exists() else []
        self.pip_log.unlink(missing_ok=True)
        return calls

    @property
    def site(self) -> Path:
        (found,) = self.venv.glob("lib/python3.*/site-packages")
        return found


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture(scope="module")
def environment() -> ModuleType:
    """tools/environment.py, which is no package module."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project_files() -> list[Path]:
    """What git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# ---- Making, keeping and completing .venv

ALL = ["install torch==2.13.0+cpu", "install --editable ."]


def test_fresh_clone_gets_torch_first_and_a_second_call_installs_nothing(clone: Clone) -> None:
    done = clone.setup()
    assert (done.returncode, done.stdout) == (0, f"{clone.venv}\n"), done.stderr
    assert clone.pip_calls() == ALL
    done = clone.setup("--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{clone.venv}\n", "")
    assert "nothing to do" in clone.setup().stderr
    assert clone.pip_calls() == []


def test_extras_add_up_over_calls_and_changed_requirements_are_installed(clone: Clone) -> None:
    clone.setup("--extras", "mini")
    clone.pip_calls()
    clone.setup("--extras=dev")
    for asked in ("dev", "mini", "mini,dev", ""):
        clone.setup("--extras", asked)
    assert clone.pip_calls() == ["install --editable .[dev,mini]"]
    with open(clone.root / "setup.cfg", "a") as handle:
        handle.write("# another line\n")
    clone.setup()
    assert clone.pip_calls() == ["install --editable .[dev,mini]"]


def test_pythonpath_of_the_user_does_not_leak_in(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('noise of another project')\n")
    done = clone.setup(PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"{clone.venv}\n"), done.stderr


def test_after_a_failure_the_log_is_shown_and_the_next_call_continues(clone: Clone) -> None:
    for asked, wanted in (([], ALL), (["--extras", "dev"], ["install --editable .[dev]"])):
        done = clone.setup(*asked, FAKE_PIP_REFUSES="--editable")
        assert (done.returncode, done.stdout) == (1, "")
        assert "  | ERROR: this is what pip says when it fails" in done.stderr
        assert clone.pip_calls() == wanted
        assert clone.setup(*asked).returncode == 0
        assert clone.pip_calls() == wanted[-1:]  # torch is there already


@pytest.mark.parametrize("during", ["torch==", "--editable", "[dev]"])
def test_what_an_interrupt_left_is_made_again(clone: Clone, during: str) -> None:
    if during == "[dev]":
        clone.setup()
    assert clone.setup("--extras=dev", FAKE_PIP_DIES=during).returncode == -signal.SIGKILL
    clone.pip_calls()
    (clone.site / "half_written.py").touch()
    assert clone.setup().returncode == 0
    assert clone.pip_calls() == ALL
    assert not (clone.site / "half_written.py").exists()


def test_an_environment_that_was_moved_or_whose_python_was_exchanged_is_made_again(clone: Clone) -> None:
    clone.setup()
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    clone.venv = clone.root / ".venv"
    clone.stamp = clone.venv / clone.stamp.name
    for _ in range(2):
        clone.pip_calls()
        (clone.site / "from_the_old_place").touch()
        assert clone.setup().returncode == 0
        assert not (clone.site / "from_the_old_place").exists()
        assert clone.pip_calls() == ALL
        clone.stamp.write_text(re.sub(r"python 3\.\d+", "python 3.9", clone.stamp.read_text()))


def test_two_calls_at_once_install_once(clone: Clone) -> None:
    done = clone.bash("tools/setup.sh & tools/setup.sh; wait $!")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{clone.venv}\n" * 2
    assert clone.pip_calls() == ALL


@pytest.mark.parametrize(
    "what", ["a folder", "a link", "a link to another clone's", "by hand and moved", "by hand and of another Python"]
)
def test_environment_that_setup_did_not_make_is_refused_by_name_and_not_changed(
    clone: Clone, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "theirs/.venv" if "link" in what else clone.venv
    folder.mkdir(parents=True)
    (folder / "work of hours").write_text("kept nowhere else")
    if "clone" in what:
        (folder / clone.stamp.name).write_text(f"root {folder.parent}\npython 3.11\n")
        (folder / "spoofkit-setup.made").touch()
    elif "by hand" in what:  # an older version used such ones and left its stamp there
        root = "/elsewhere" if "moved" in what else clone.root
        (folder / clone.stamp.name).write_text(f"root {root}\npython 3.9\n")
    if "link" in what:
        clone.venv.parent.mkdir(exist_ok=True)
        clone.venv.symlink_to(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    done = clone.setup()
    assert (done.returncode, done.stdout) == (1, "")
    assert str(clone.venv) in done.stderr
    assert "link" not in what or str(folder) in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.name != "setup.lock"} == before
    assert clone.pip_calls() == []


# ---- Which torch


def test_where_there_is_no_cpu_build_the_default_one_is_announced_loudly(clone: Clone) -> None:
    done = clone.setup(FAKE_PIP_REFUSES="install torch==")  # and the stand-in's uv installs no program
    assert done.returncode == 0, done.stderr
    assert "NO CPU BUILD OF TORCH AVAILABLE: the default build follows" in done.stderr
    assert clone.pip_calls() == ["install torch==2.13.0+cpu", "install uv", "install --editable ."]


def test_default_build_replaces_the_cpu_build_when_asked(clone: Clone) -> None:
    clone.setup()
    clone.pip_calls()
    clone.setup(SPOOFKIT_TORCH="default")
    assert clone.pip_calls() == ["install --editable ."]
    clone.setup(SPOOFKIT_TORCH="")  # keeps what was chosen: a login node without GPU must not undo it
    assert clone.pip_calls() == []
    assert clone.setup(SPOOFKIT_TORCH="gpu").returncode == 1


def test_pinned_cpu_build_lies_in_the_range_of_setup_cfg(environment: ModuleType) -> None:
    from packaging.requirements import Requirement

    (wanted,) = [line for line in environment.read_requirements()[""] if line.startswith("torch")]
    (pinned,) = re.findall(r"^TORCH_CPU='torch==(.*?)'", (ROOT / "tools/setup.sh").read_text(), re.MULTILINE)
    assert pinned.endswith("+cpu")
    assert Requirement(wanted).specifier.contains(pinned)


# ---- Which Python


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ({"python3": "3.11", "python3.13": "3.13"}, "3.11"),
        ({"python3": "3.14", "python3.10": "3.10", "python3.12": "3.12"}, "3.12"),
        ({}, ""),
    ],
)
def test_python3_is_taken_if_in_range_else_the_newest_that_is(
    clone: Clone, tmp_path: Path, versions: dict[str, str], chosen: str
) -> None:
    # Each can do nothing but tell its version (else 3.9), so that the call ends early; only the choice is looked at.
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.10"):
        answer = (
            f'case "$*" in *version_info*) echo {versions.get(name, "3.9")};; *environment.py*) ;; *) exit 1;; esac'
        )
        script(tmp_path / "bin" / name, f"#!/bin/sh\n{answer}\n")
    done = clone.setup("--quiet", SPOOFKIT_PYTHON="", PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert done.returncode == 1
    assert f"(Python {chosen})" in done.stderr if chosen else "is 3.9, but spoofkit needs 3.10 to 3.13" in done.stderr
    assert not clone.stamp.exists()


@pytest.mark.parametrize(("answer", "found"), [("echo 3.9", "3.9"), ("echo 3.14", "3.14"), ("exit 1", "no Python")])
def test_chosen_python_that_is_none_in_range_is_refused(clone: Clone, tmp_path: Path, answer: str, found: str) -> None:
    python = script(tmp_path / "old", f"#!/bin/sh\n{answer}\n")
    done = clone.setup(SPOOFKIT_PYTHON=str(python))
    assert done.returncode == 1
    assert f"{python} is {found}" in done.stderr
    assert "3.10 to 3.13" in done.stderr


# ---- An environment that is active already


@pytest.fixture
def active(tmp_path: Path) -> Path:
    """An environment with spoofkit somewhere else."""
    folder = tmp_path / "active"
    (folder / "site" / "spoofkit").mkdir(parents=True)
    (folder / "site" / "spoofkit" / "__init__.py").touch()
    script(folder / "bin" / "python", f'#!/bin/sh\nPYTHONPATH="{folder}/site" exec "{sys.executable}" -S "$@"\n')
    script(folder / "bin" / "spoofkit", "#!/bin/sh\necho the active one\n")
    return folder


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_active_environment_with_spoofkit_is_used_and_nothing_installed(
    clone: Clone, active: Path, variable: str
) -> None:
    done = clone.setup(**{variable: str(active)})
    assert (done.returncode, done.stdout) == (0, f"{active}\n"), done.stderr
    assert clone.pip_calls() == []
    assert not clone.venv.exists()


def test_active_environment_whose_spoofkit_is_elsewhere_is_named(clone: Clone, active: Path) -> None:
    done = clone.setup("--quiet", VIRTUAL_ENV=str(active))
    assert f"its spoofkit is {active}/site/spoofkit, not this clone's" in done.stderr


def test_active_environment_that_lacks_an_extra_is_refused_not_changed(clone: Clone, active: Path) -> None:
    done = clone.setup("--extras", "dev", VIRTUAL_ENV=str(active))
    assert done.returncode == 1
    assert re.search(rf"the active environment {re.escape(str(active))} lacks .*\bhypothesis\b", done.stderr)
    assert f"pip install -e '{clone.root}[dev]'" in done.stderr
    assert clone.pip_calls() == []


def test_active_environment_without_spoofkit_is_left_alone(clone: Clone, active: Path) -> None:
    shutil.rmtree(active / "site")
    done = clone.setup(VIRTUAL_ENV=str(active))
    assert (done.returncode, done.stdout) == (0, f"{clone.venv}\n"), done.stderr


def test_own_environment_being_active_is_still_completed(clone: Clone) -> None:
    clone.setup()
    script(clone.venv / "bin" / "spoofkit", "#!/bin/sh\n")
    clone.pip_calls()
    clone.setup("--extras", "dev", VIRTUAL_ENV=str(clone.venv))
    assert clone.pip_calls() == ["install --editable .[dev]"]


def test_own_environment_that_is_active_and_incomplete_is_made_again_with_a_python_from_elsewhere(clone: Clone) -> None:
    clone.setup()
    clone.stamp.unlink()
    path = os.pathsep.join((str(clone.venv / "bin"), str(clone.root.parent), clone.environ["PATH"]))
    done = clone.setup(VIRTUAL_ENV=str(clone.venv), PATH=path, SPOOFKIT_PYTHON="python3")
    assert (done.returncode, done.stdout) == (0, f"{clone.venv}\n"), done.stderr
    assert (clone.venv / "bin/python").exists()


# ---- Wrong usage


def test_unknown_extra_is_refused_with_the_known_ones(clone: Clone) -> None:
    done = clone.setup("--extras", "dev,devel")
    assert done.returncode == 1
    assert "--extras devel is unknown; setup.cfg has: dev" in done.stderr
    assert clone.pip_calls() == []


@pytest.mark.parametrize("arguments", [["--extra", "dev"], ["dev"], ["--extras"]])
def test_wrong_arguments_are_refused(clone: Clone, arguments: list[str]) -> None:
    done = clone.setup(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("tools/setup.sh: ")


# ---- activate.sh and test.sh


def test_activate_puts_the_environment_first_on_the_path(clone: Clone, active: Path) -> None:
    code = "set -euo pipefail; . tools/activate.sh; spoofkit; echo $PATH; . tools/activate.sh; echo $PATH"
    done = clone.bash(code, "--not", "--for", "--activate", CONDA_PREFIX=str(active))
    first, path, path_again = done.stdout.splitlines()
    assert first == "the active one"
    assert path.startswith(f"{active}/bin:")
    assert path_again == path


def test_activate_sets_up_with_the_extras_it_is_given(clone: Clone) -> None:
    done = clone.bash(
        "set -euo pipefail; SPOOFKIT_EXTRAS=dev . tools/activate.sh; command -v python; echo $VIRTUAL_ENV"
    )
    assert done.stdout.splitlines() == [f"{clone.venv}/bin/python", str(clone.venv)]
    assert clone.pip_calls()[-1] == "install --editable .[dev]"


def test_activate_stops_the_recipe_if_the_setup_fails(clone: Clone) -> None:
    done = clone.bash("set -euo pipefail; . tools/activate.sh; echo went on", SPOOFKIT_PYTHON="no-such-python")
    assert done.returncode == 1
    assert done.stdout == ""


@pytest.mark.parametrize("broken", ["ruff check", "ruff format", "mypy", "pytest", ""])
def test_test_sh_runs_every_check_and_fails_if_one_does(clone: Clone, active: Path, broken: str) -> None:
    answer = f'case "$*" in *"-m {broken or "nothing"}"*) exit 3;; *"-m "*) echo "$*";; *) exit 0;; esac'
    script(active / "bin" / "python", f"#!/bin/sh\n{answer}\n")
    done = clone.bash("tools/test.sh -k 'two words'", VIRTUAL_ENV=str(active))
    assert done.returncode == (1 if broken else 0), done.stderr
    ran = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("-m ")]
    assert ran == [name.split()[0] for name in ("ruff check", "ruff format", "mypy", "pytest") if name != broken]
    if broken:
        assert done.stderr.splitlines()[-1] == f"tools/test.sh: failed: {broken}"
    if broken != "pytest":
        assert done.stdout.splitlines()[-1].endswith("-k two words")


# ---- tools/environment.py


def test_requirements_are_read_as_setuptools_reads_them(environment: ModuleType) -> None:
    requirements = environment.read_requirements()
    assert requirements[""][0] == "torch>=2.10,<2.14"
    assert "transformers>=5,<6" in requirements[""]
    assert not [line for lines in requirements.values() for line in lines if line.startswith("#")]
    assert {"dev", "torchaudio", "mini"} <= requirements.keys()


def test_missing_means_absent_or_out_of_range(environment: ModuleType) -> None:
    pytest.importorskip("pip")  # which brings the parser of version ranges
    assert not environment.is_missing("numpy>=1.26")
    assert environment.is_missing("numpy>=999")
    assert environment.is_missing("no-such-package-anywhere")


# ---- The tree


def test_every_shell_script_parses() -> None:
    scripts = [path for path in project_files() if path.suffix == ".sh" or path == ROOT / ".ci" / "run"]
    assert ROOT / "tools" / "setup.sh" in scripts
    for path in scripts:
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["tools/setup.sh", "tools/test.sh", ".ci/run"])
def test_commands_are_executable(name: str) -> None:
    assert (ROOT / name).stat().st_mode & stat.S_IXUSR


def test_no_file_names_a_package_registry_or_a_place_on_one_machine() -> None:
    # Where packages come from is the business of the user's pip and apt.
    hosts = [
        "pypi" + r"\.org",
        "python" + r"hosted\.",
        "debian" + r"\.org/debian",
        "npmjs" + r"\.",
        "pytorch" + r"\.org/whl",
    ]
    places = [r"(?<![\w.}\])])/" + folder + "/" for folder in ("root", "work")]
    forbidden = re.compile("|".join(hosts + places))
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in forbidden.finditer(text)]
    assert found == []


def test_ci_runs_the_tests_command_and_nothing_else() -> None:
    commands = [
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert commands == ['exec tools/test.sh "$@"']


def test_console_script_and_version_are_declared() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    assert parser["options.entry_points"]["console_scripts"].strip() == "spoofkit = spoofkit.cli.main:main"
    assert parser["metadata"]["version"] == "attr: spoofkit.__version__"
