"""Likelihood ratios in words, by the verbal scale of a forensic guideline.

The scale is that of the ENFSI Guideline for Evaluative Reporting in Forensic Science (European Network of Forensic
Science Institutes, 2015). It gives words for ratios from 2 on; below, the findings support neither proposition.

A ratio is stated no higher than the trials behind its calibration can support. If none of n spoofed trials scores as
high as a recording, the share of spoofs that do is still put at 1 / (n + 1), so the ratio is at most n + 1. Vergeer et
al. (Science & Justice 56, 2016) discuss where to stop extrapolating; this bound is simpler and wider than theirs.
"""

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context

SOURCE = "ENFSI Guideline for Evaluative Reporting in Forensic Science (2015)"
LEAST = 2.0
BANDS = (
    (10.0, "weak"),
    (100.0, "moderate"),
    (1_000.0, "moderately strong"),
    (10_000.0, "strong"),
    (1_000_000.0, "very strong"),
    (math.inf, "extremely strong"),
)
"""Upper end of each band, which belongs to the next, and its word."""
PROPOSITIONS = {
    "bonafide": "the speech is bona fide: a human spoke it as it is heard",
    "spoof": "the speech is spoofed: synthetic, converted or otherwise manipulated",
}
SHORT = {"bonafide": "bona fide", "spoof": "spoofed"}
HIGHEST = 700.0  # nats; beyond, a ratio is no number


@dataclass(frozen=True)
class Verdict:
    """What a likelihood ratio says."""

    favours: str | None
    """`bonafide` or `spoof`; None: neither."""
    ratio: float
    """Likelihood ratio of the proposition that it favours to the other, at least 1, as it is stated."""
    is_limited: bool
    """Whether it is stated lower than computed: the calibration has too few trials for more."""
    strength: str
    """Word of the scale; empty if it favours neither."""

    def words(self) -> str:
        """Return the verdict as a sentence."""
        if self.favours is None:
            return "The score supports neither proposition: bona fide and spoofed speech may both well have it."
        other = SHORT["spoof" if self.favours == "bonafide" else "bonafide"]
        return (
            f"The score gives {self.strength} support for {SHORT[self.favours]} speech, as opposed to {other} speech."
        )


def weigh(llr: float, n_bonafide: int | None, n_spoof: int | None) -> Verdict:
    """Say what a log-likelihood ratio means.

    Args:
        llr: Of bona fide to spoofed, in nats.
        n_bonafide: Number of bona fide trials behind the calibration; None: not known, and nothing is limited.
        n_spoof: Number of its spoofed trials.

    >>> weigh(-3.0, 300, 300).words()
    'The score gives moderate support for spoofed speech, as opposed to bona fide speech.'
    >>> weigh(9.0, 300, 300)
    Verdict(favours='bonafide', ratio=301.0, is_limited=True, strength='moderately strong')
    """
    favours, n_other = ("bonafide", n_spoof) if llr >= 0 else ("spoof", n_bonafide)
    ratio = math.exp(min(abs(llr), HIGHEST))
    most = math.inf if n_other is None else n_other + 1.0
    stated = min(ratio, most)
    if stated < LEAST:
        return Verdict(None, stated, ratio > most, "")
    return Verdict(favours, stated, ratio > most, next(word for end, word in BANDS if stated < end))


def ratio_text(ratio: float) -> str:
    """Write a ratio with two digits, since more would be a precision that it does not have.

    It is rounded down: a number never belongs to a higher band than the ratio, whose word stands beside it.

    >>> ratio_text(1.234), ratio_text(9.96), ratio_text(36.4), ratio_text(12_345), ratio_text(3e12)
    ('1.2', '9.9', '36', '12,000', '3e+12')
    """
    is_huge = ratio >= 1e9
    stated = float(Context(prec=1 if is_huge else 2, rounding=ROUND_FLOOR).create_decimal(str(float(ratio))))
    return f"{stated:.0e}" if is_huge else f"{stated:g}" if stated < 10 else f"{stated:,.0f}"


def bands() -> list[tuple[str, str]]:
    """Return the rows of the scale: ratios, and what a score of such a ratio does."""
    words = ["supports neither proposition", *(f"gives {word} support for one proposition" for _, word in BANDS)]
    return list(zip(_SPANS, words, strict=True))


def band_of(ratio: float) -> str:
    """Return the row of a ratio, as `bands` names it.

    >>> band_of(1.5), band_of(10.0), band_of(5e7)
    ('below 2', '10 to 100', '1,000,000 and more')
    """
    return _SPANS[sum(ratio >= start for start in _STARTS)]


_STARTS = (LEAST, *(end for end, _ in BANDS[:-1]))
_SPANS = (
    f"below {LEAST:g}",
    *(f"{start:,.0f} to {end:,.0f}" for start, (end, _) in zip(_STARTS[:-1], BANDS[:-1], strict=True)),
    f"{_STARTS[-1]:,.0f} and more",
)
