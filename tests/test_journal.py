"""Journals: cut or flipped anywhere they give the lines before that and nothing else; one process writes one."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from spoofkit.errors import SpoofkitError
from spoofkit.journal import Contents, encode, open_journal, parse, read_journal

HEADER = {"format": 1, "of": "näme"}
LINES = [{"batch": 0, "scores": {"a": -1.25}}, ["b", 3, 0.1], {"batch": 2}]
WHOLE = [encode(value) for value in (HEADER, *LINES)]
DATA = b"".join(WHOLE)


def resumed(path: Path, *, resumes: bool = True) -> list[object]:
    """The lines with which a journal is opened; it is then completed."""
    with open_journal(path, HEADER, lambda found: resumes and found.header == HEADER) as journal:
        journal.append(*LINES[len(journal.lines) :])
        return journal.lines


def test_a_line_is_a_checksum_and_json_as_ever() -> None:
    assert encode({"a": 1.5}) == b'555954df {"a":1.5}\n'
    assert parse(b'86f2c39a {"part": "1/1"}\nf53cc93f {"batch": 0}\n').lines == [{"batch": 0}]  # blanks: version 0.1


@pytest.mark.parametrize("tail", [b"", bytes(9), b"\n", b"00000000\n", b"00000000 \n", bytes(9) + WHOLE[3]])
def test_a_journal_cut_at_any_byte_is_whole_up_to_its_last_whole_line(tail: bytes) -> None:
    ends = [sum(map(len, WHOLE[:n])) for n in range(1, len(WHOLE) + 1)]
    for cut in range(len(DATA)):
        data = DATA[:cut] + tail
        n_whole = sum(data.startswith(DATA[:end]) for end in ends)
        assert parse(data) == Contents(
            HEADER if n_whole else {},
            LINES[: max(0, n_whole - 1)],
            len(b"".join(WHOLE[:n_whole])),
            data == b"".join(WHOLE[:n_whole]),
        )


@pytest.mark.parametrize("cut", [0, 1, len(WHOLE[0]), len(DATA) - 1, len(DATA)])
def test_a_journal_is_resumed_after_its_last_whole_line(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "new/a.jsonl"
    assert resumed(path) == []
    assert path.read_bytes() == DATA
    for tail in (b"", bytes(9) + WHOLE[3]):
        path.write_bytes(DATA[:cut] + tail)
        before = read_journal(path).lines
        assert resumed(path) == before
        assert path.read_bytes() == DATA


def test_any_flipped_bit_is_seen_and_costs_only_what_follows() -> None:
    for index in range(len(DATA)):
        bad = bytearray(DATA)
        bad[index] ^= 1 << index % 8
        found = parse(bytes(bad))
        n_before = DATA[:index].count(b"\n")
        assert not found.is_whole
        assert [found.header, *found.lines][:n_before] == [HEADER, *LINES][:n_before]
        assert len(found.lines) == max(0, n_before - 1)


def test_what_is_not_resumed_is_replaced_and_a_refusal_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for other in (encode({"of": "other"}) + WHOLE[1], encode([1]) + WHOLE[1], encode(3), b"a table\n"):
        path.write_bytes(other)
        assert resumed(path) == []
        assert path.read_bytes() == DATA
    assert resumed(path, resumes=False) == []
    path.write_bytes(DATA + b"torn")

    def refuse(found: Contents) -> bool:
        raise SpoofkitError(f"made from {found.header}")

    with pytest.raises(SpoofkitError, match="made from"), open_journal(path, {}, refuse):
        pass
    assert path.read_bytes() == DATA + b"torn"


OTHER = """
import sys
from pathlib import Path
from spoofkit.journal import open_journal
with open_journal(Path(sys.argv[1]), {"of": "me"}, lambda found: False):
    pass
"""


def test_two_processes_do_not_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    command = [sys.executable, "-c", OTHER, path]
    with open_journal(path, HEADER, lambda found: True) as journal:
        other = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert other.returncode == 1
        assert f"SpoofkitError: {path}: another process is writing" in other.stderr
        journal.append(*LINES)
    assert path.read_bytes() == DATA
    assert subprocess.run(command, capture_output=True, timeout=100).returncode == 0


def test_where_there_are_no_locks_a_file_keeps_others_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", without_locks)
    path = tmp_path / "a.jsonl"
    owner = tmp_path / "a.jsonl_owner"
    assert resumed(path) == []
    assert not owner.exists()
    owner.write_text("elsewhere, process 1, since then\n")
    with pytest.raises(SpoofkitError, match="elsewhere, process 1"):
        resumed(path)
    assert path.read_bytes() == DATA
