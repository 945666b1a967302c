"""The frame score file, which has a score for every frame of every utterance of a manifest: write, read, check it.

    eval.npz    utt_id      text, sorted as in the manifest        shape (utterances,)
                n_samples   int64, 16 kHz                          shape (utterances,)
                n_frames    int64                                  shape (utterances,)
                score       float32, one utterance's frames after  shape (all frames,)
                            the other
    eval.json   how they were made: polarity, frame geometry, what the frames were trained for, hashes, versions

`numpy.load("eval.npz")` reads it; nothing in it is pickled. As everywhere in spoofkit, **a higher score means more bona
fide**: class 1 of a frame head is spoofed (or injected), so the sign of its output is inverted. Frame t of an utterance
is centred on sample `first_centre + hop * t`. No torch, and no metric, here.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json

FORMAT = 1
POLARITY = "higher = more bona fide"
ARRAYS = ("utt_id", "n_samples", "n_frames", "score")
RECREATE = "recreate it with `spoofkit localize`"

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FrameScores:
    """Frame scores of U utterances with N frames in all."""

    utt_ids: tuple[str, ...]
    n_samples_U: Counts
    n_frames_U: Counts
    score_N: npt.NDArray[np.float32]
    geometry: FrameGeometry

    def utterance_of_frame(self) -> Counts:
        """Return the row of each frame's utterance, shape (N,)."""
        rows: Counts = np.repeat(np.arange(len(self.utt_ids)), self.n_frames_U)
        return rows

    def centres(self) -> Counts:
        """Return the sample of its utterance on which each frame is centred, shape (N,)."""
        first_U = np.cumsum(self.n_frames_U) - self.n_frames_U
        frame_N = np.arange(self.score_N.size) - np.repeat(first_U, self.n_frames_U)
        centres: Counts = self.geometry.first_centre + self.geometry.hop * frame_N
        return centres

    def of(self, utt_id: str) -> npt.NDArray[np.float32]:
        """Return the scores of one utterance's frames, shape (frames,)."""
        row = self.utt_ids.index(utt_id)
        end = int(self.n_frames_U[: row + 1].sum())
        return self.score_N[end - int(self.n_frames_U[row]) : end]


def record_path(path: Path) -> Path:
    """Return the path of a frame score file's record."""
    return path.with_suffix(".json")


def frames_npz(
    utt_ids: Sequence[str], n_samples: Mapping[str, int], scores: Mapping[str, npt.NDArray[np.float32]]
) -> bytes:
    """Return the bytes of a frame score file; the same scores give the same bytes.

    Args:
        utt_ids: Ids in the manifest's order.
        n_samples: Samples of each utterance.
        scores: Scores of the frames of each utterance, higher = more bona fide.
    """
    file = io.BytesIO()
    np.savez(
        file,
        utt_id=np.array(utt_ids, dtype=np.str_),
        n_samples=np.array([n_samples[utt_id] for utt_id in utt_ids], dtype=np.int64),
        n_frames=np.array([scores[utt_id].size for utt_id in utt_ids], dtype=np.int64),
        score=np.concatenate([scores[utt_id] for utt_id in utt_ids]).astype(np.float32, copy=False),
    )
    return file.getvalue()


def frames_record(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a frame score file that is written.

    Args:
        path: The file.
        known: How its scores were made, with `geometry`.
    """
    return {"format": FORMAT, "polarity": POLARITY, "frames_sha256": file_sha256(path)} | dict(known)


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a frame score file; empty if it is missing or belongs to other scores."""
    sidecar = record_path(path)
    record = read_json(sidecar) if sidecar.exists() else None
    if not isinstance(record, dict) or record.get("frames_sha256") != file_sha256(path):
        return {}
    return record


def read_frames(path: Path) -> tuple[FrameScores, dict[str, Any]]:
    """Read a frame score file and its record.

    Raises:
        SpoofkitError: one of them is missing, damaged, of another format, or does not belong to the other.
    """
    if not path.is_file():
        raise SpoofkitError(f"{path}: no such file, expected frame scores; make them with `spoofkit localize`")
    record = read_record(path)
    if record.get("format") != FORMAT or record.get("polarity") != POLARITY:
        raise SpoofkitError(
            f"{path}: found no record of format {FORMAT} that belongs to it, expected {record_path(path).name} beside "
            f"it; {RECREATE}"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if sorted(arrays.files) != sorted(ARRAYS):
                raise ValueError(f"holds {', '.join(arrays.files)}")
            utt_id, n_samples, n_frames, score = (arrays[name] for name in ARRAYS)
        geometry = FrameGeometry(**record["geometry"])
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise SpoofkitError(f"{path}: is damaged, or not a frame score file ({error}); {RECREATE}") from error
    frames = FrameScores(tuple(utt_id.tolist()), n_samples, n_frames, score, geometry)
    _check(path, frames)
    return frames, record


def geometry_record(geometry: FrameGeometry) -> dict[str, int]:
    """Return a geometry for the record."""
    return asdict(geometry)


def _check(path: Path, frames: FrameScores) -> None:
    expected = [frames.geometry.n_frames(n_samples) for n_samples in frames.n_samples_U.tolist()]
    if not (
        frames.score_N.dtype == np.float32
        and frames.n_frames_U.tolist() == expected
        and len(frames.utt_ids) == len(expected) == len(set(frames.utt_ids))
        and frames.score_N.shape == (sum(expected),)
    ):
        raise SpoofkitError(
            f"{path}: its arrays contradict each other or the frame geometry of its record, expected "
            f"{len(expected):,} utterances with {sum(expected):,} frames in all; {RECREATE}"
        )
    if not np.isfinite(frames.score_N).all():
        raise SpoofkitError(f"{path}: holds NaN or infinite scores; {RECREATE}")
