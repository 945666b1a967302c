"""Several systems on the same trials, side by side: what they are called, and the pooled figures of each.

Whether two of them differ is another question: see `spoofkit.evaluation.compare`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.breakdown import METRICS
from spoofkit.evaluation.metrics import (
    DcfCosts,
    Scores,
    act_dcf_of_sorted,
    cllr_of_checked,
    eer_of_sorted,
    min_dcf_of_sorted,
)
from spoofkit.evaluation.rocch import min_cllr_of_sorted


def name_systems(paths: Sequence[Path]) -> list[str]:
    """Short names of score files: what their paths do not share.

    Raises:
        SpoofkitError: a file is named twice.

    >>> name_systems([Path("exp/direct/scores/eval.tsv"), Path("exp/mix/scores/eval.tsv")])
    ['direct', 'mix']
    """
    whole = [path.resolve() for path in paths]
    for place, path in enumerate(paths):
        if whole[place] in whole[:place]:
            raise SpoofkitError(
                f"--against {path}: is named twice, expected the scores of another system; leave it out"
            )
    parts = [path.with_suffix("").parts for path in whole]
    if len(set(parts)) < len(parts):  # a/eval.tsv and a/eval.txt
        parts = [path.parts for path in whole]
    if len(parts) == 1:
        return [paths[0].stem]
    start = _n_shared(parts)
    end = _n_shared([part[start:][::-1] for part in parts])
    return ["/".join(part[start : len(part) - end]) for part in parts]


def system_and_set(scores: Path, manifest: Path, corpus: str) -> tuple[str, str]:
    """What a single score file's system and set are called, from where the recipes keep scores and manifests.

    Args:
        scores: `exp/SYSTEM/scores/SET.tsv`; elsewhere the file's own name stands for the system.
        manifest: `data/SET.tsv`; elsewhere the file's own name stands for the set.
        corpus: That the manifest was made from, if it says so.

    >>> system_and_set(Path("/exp/mix/scores/la21/eval.tsv"), Path("/x/data/la21/eval.tsv"), "asvspoof2021_la")
    ('mix', 'asvspoof2021_la la21/eval')
    >>> system_and_set(Path("/tmp/a.tsv"), Path("/tmp/keys.tsv"), "")
    ('a', 'keys')
    """
    places = scores.resolve().parts
    system = scores.stem
    if "scores" in places[1:-1]:
        system = places[places[:-1].index("scores") - 1]
    names = manifest.resolve().with_suffix("").parts
    inside = names[names.index("data") + 1 :] if "data" in names[:-1] else names[-1:]
    return system, " ".join(filter(None, (corpus, "/".join(inside))))


def measure_systems(
    systems: Mapping[str, tuple[Scores, Scores]], paths: Sequence[Path], costs: DcfCosts
) -> list[dict[str, Any]]:
    """Pooled METRICS, threshold of the EER, min Cllr and counts of each system, as plain JSON values.

    Args:
        systems: Bona fide and spoof scores, sorted ascending, by name.
        paths: Their score files.
        costs: Prior and costs of the DCFs.
    """
    rows = []
    for (name, (bonafide, spoof)), path in zip(systems.items(), paths, strict=True):
        pooled = eer_of_sorted(bonafide, spoof)
        figures = (
            100 * pooled.eer,
            min_dcf_of_sorted(bonafide, spoof, costs).min_dcf,
            act_dcf_of_sorted(bonafide, spoof, costs),
            cllr_of_checked(bonafide, spoof),
        )
        counts = {"n_bonafide": bonafide.size, "n_spoof": spoof.size}
        others = {"eer_threshold": pooled.threshold, "min_cllr_bits": min_cllr_of_sorted(bonafide, spoof)}
        rows.append({"name": name, "scores": str(path), **counts, **dict(zip(METRICS, figures, strict=True)), **others})
    return rows


def _n_shared(parts: Sequence[Sequence[str]]) -> int:
    """How many first elements are the same in all, of which each keeps at least one."""
    most = min(map(len, parts)) - 1
    return next((n for n in range(most) if len({part[n] for part in parts}) > 1), most)
