"""References of reference-augmented training (head rat): which utterances may stand beside each one."""

import numpy as np

from spoofkit.data.manifest import NO_SPEAKER, Manifest
from spoofkit.errors import SpoofkitError


def bonafide_of_speakers(manifest: Manifest) -> list[np.ndarray]:
    """Return for each row of a manifest the rows of its speaker's bona fide utterances, itself among them if it is one.

    Raises:
        SpoofkitError: a row has no speaker, or a speaker no bona fide utterance.
    """
    rows_of: dict[str, list[int]] = {}
    speakers, keys = manifest.table["speaker"].to_list(), manifest.table["key"].to_list()
    for row, (speaker, key) in enumerate(zip(speakers, keys, strict=True)):
        rows_of.setdefault(speaker, [])
        if key == "bonafide":
            rows_of[speaker].append(row)
    if NO_SPEAKER in rows_of:
        raise SpoofkitError(
            f"{manifest.path}: {speakers.count(NO_SPEAKER):,} of {len(speakers):,} utterances have no speaker, whose "
            "references head rat needs in training; use a manifest with speakers, or set finetune.reference: zeros"
        )
    if without := [speaker for speaker, rows in rows_of.items() if not rows]:
        raise SpoofkitError(
            f"{manifest.path}: {len(without):,} of {len(rows_of):,} speakers have no bona fide utterance (first: "
            f"{without[0]}), expected one as a reference; remove them, or set finetune.reference: zeros"
        )
    as_arrays = {speaker: np.array(rows) for speaker, rows in rows_of.items()}
    return [as_arrays[speaker] for speaker in speakers]
