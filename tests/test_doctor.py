"""spoofkit doctor: what is healthy is said to be so, what is broken is named with the way to fix it."""

import configparser
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from spoofkit import doctor, doctor_machine
from spoofkit.doctor_machine import Check


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    """All checks on this machine."""
    return doctor.run_checks()


@pytest.fixture
def broken_torchaudio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torchaudio as its newest wheel behaves beside a CPU torch: installed, but its library does not load."""
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file')\n")
    info = tmp_path / "torchaudio-2.11.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    yield
    sys.modules.pop("torchaudio", None)


def test_every_dependency_of_setup_cfg_is_found_and_imports() -> None:
    # Not what the installed metadata say, which are those of the last installation.
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(Path(__file__).parent.parent / "setup.cfg")
    requirements = [Requirement(line) for line in setup["options"]["install_requires"].split("\n") if line]
    assert {"torch", "pillow", "pyyaml"} <= {requirement.name for requirement in requirements}
    for requirement in requirements:
        check = doctor.check_dependency(requirement.name, str(requirement.specifier))
        assert check.ok is True, check


def test_the_machine_and_the_optional_packages_are_checked(checks: list[Check]) -> None:
    names = {check.name.lower() for check in checks}
    assert names >= {"python", "torchaudio", "cpu", "cpu bf16", "gpu", "flac", "decoders"}
    assert names >= {"resampling", "figures", "transformers models", "shared memory", "disk here", "disk for weights"}
    assert not names & {"pytest", "ruff"}  # extras are no condition for being healthy


def test_names_are_unique_and_whatever_is_not_good_has_advice(checks: list[Check]) -> None:
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.found for check in checks)
    assert all(bool(check.advice) == (check.ok is not True) for check in checks)


def test_environment_that_runs_the_tests_imports_and_decodes(checks: list[Check]) -> None:
    by_name = {check.name: check for check in checks}
    for name in ("python", "torch", "transformers", "transformers models", "flac", "decoders", "resampling", "figures"):
        assert by_name[name].ok is True, by_name[name]
    assert by_name["transformers models"].found.startswith("Wav2Vec2Model, ")


def test_json_form_is_plain_and_says_whether_all_is_well() -> None:
    good, warning = Check("a", True, "here"), Check("b", None, "little", "get more")
    failed = Check("c", False, "gone", "get it")
    assert json.loads(json.dumps(doctor.as_json([good, warning]))) == {
        "healthy": True,
        "checks": [
            {"name": "a", "ok": True, "found": "here", "advice": ""},
            {"name": "b", "ok": None, "found": "little", "advice": "get more"},
        ],
    }
    assert doctor.as_json([good, warning, failed])["healthy"] is False


def test_table_goes_to_stdout_with_advice_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.print_checks([Check("a [x]", True, "1.0 [red]"), Check("b", None, "w", "do"), Check("c", False, "f", "fix")])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "1.0 [red]" in captured.out  # no markup
    assert "-> do" in captured.out
    assert "FAILED" in captured.out
    assert captured.out.splitlines()[-1] == "3 checks: 1 failed, 1 warnings"


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 9, 18), False), ((3, 10, 0), True), ((3, 13, 9), True), ((3, 14, 0), None)]
)
def test_python_outside_the_range_is_refused_below_and_a_warning_above(
    version: tuple[int, ...], ok: bool | None
) -> None:
    assert doctor.check_python(version).ok is ok


def test_missing_package_is_told_with_the_command_that_installs_it() -> None:
    check = doctor.check_dependency("no-such-package", ">=1,<2")
    assert (check.ok, check.found, check.advice) == (False, "not installed", "pip install 'no-such-package>=1,<2'")


def test_version_outside_the_range_fails() -> None:
    check = doctor.check_dependency("numpy", ">=999")
    assert check.ok is False
    assert check.found.endswith("but >=999 is expected")


def test_package_that_is_installed_but_does_not_import_fails(broken_torchaudio: None) -> None:
    check = doctor.check_dependency("torchaudio", ">=2")
    assert check.ok is False
    assert "does not import: libc10_cuda.so" in check.found


def test_broken_torchaudio_is_named_with_its_remedy(broken_torchaudio: None) -> None:
    check = doctor.check_torchaudio()
    assert check.ok is False
    assert check.found.startswith("2.11.0 ")
    assert "libc10_cuda.so" in check.found
    assert "pip uninstall torchaudio" in check.advice


def test_ranges_come_from_the_one_place_where_they_stand() -> None:
    assert doctor.read_requirements()["torch"] in (">=2.10,<2.14", "<2.14,>=2.10")


@pytest.mark.parametrize(
    ("flags", "words"), [({"avx512_bf16"}, "in hardware"), ({"amx_bf16"}, "in hardware"), ({"avx2"}, "60 times slower")]
)
def test_bf16_on_a_cpu_without_it_is_called_slow(flags: set[str], words: str) -> None:
    assert words in doctor_machine.check_cpu_bf16(frozenset(flags)).found


def test_more_threads_than_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    check = doctor_machine.check_cpu()
    assert check.ok is None
    assert "OMP_NUM_THREADS" in check.advice


def test_missing_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DECODERS", ("opus", "no_such_codec"))
    check = doctor.check_decoders()
    assert check.ok is False
    assert "no_such_codec" in check.found
    assert "opus" not in check.found


def test_little_disk_is_a_warning_and_hardly_any_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_machine.check_disk("disk", tmp_path / "not" / "yet", advised_bytes=1 << 62).ok is None
    monkeypatch.setattr(doctor_machine, "LEAST_DISK_BYTES", 1 << 62)
    assert doctor_machine.check_disk("disk", tmp_path, advised_bytes=1).ok is False


def test_small_shared_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_machine.check_shared_memory(tmp_path / "absent").ok is (None if sys.platform == "linux" else True)
    monkeypatch.setattr(doctor_machine, "ADVISED_SHM_BYTES", 1 << 62)
    assert doctor_machine.check_shared_memory(tmp_path).ok is None


def test_check_that_raises_is_a_failed_check_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_flac() -> Check:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(doctor, "check_flac", check_flac)
    (flac,) = [check for check in doctor.run_checks() if check.name == "flac"]
    assert flac.ok is False
    assert flac.found == "the check itself failed: RuntimeError: first line"
