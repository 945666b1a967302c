"""Verdicts in words: how likely a recording is genuine, and why there is no decision.

The words for probabilities are those of the IPCC (Mastrandrea et al., Guidance Note on Consistent Treatment of
Uncertainties, 2010, table 1), which readers of several languages were found to understand alike if the figure stands
beside them.
"""

from collections.abc import Mapping
from typing import Any

from spoofkit.scoring.decisions import ABSTAIN
from spoofkit.scoring.scored import ScoredRecording

LIKELIHOOD = ((0.99, "virtually certain"), (0.90, "very likely"), (0.66, "likely"), (0.33, "about as likely as not"))
"""Words for probabilities from a number on; a smaller one is said of the contrary."""


def percent(probability: float) -> str:
    """Write a probability in percent, never as certain.

    >>> percent(0.99996), percent(0.5), percent(0.123), percent(0.00001)
    ('more than 99.9 %', '50 %', '12.3 %', 'less than 0.1 %')
    """
    if probability > 0.999:
        return "more than 99.9 %"
    return "less than 0.1 %" if probability < 0.001 else f"{100 * probability:.3g} %"


def probability_words(one: ScoredRecording) -> str:
    """Say how likely a recording is genuine; empty if it has no probability.

    >>> probability_words(ScoredRecording("a.wav", score=3.0, bonafide_probability=0.97, spoof_prior=0.05))
    'very likely to be genuine: 97 %, if 5 % of all recordings are spoofed'
    """
    if one.bonafide_probability is None or one.spoof_prior is None:
        return ""
    likely, what = one.bonafide_probability, "genuine"
    if likely < LIKELIHOOD[-1][0]:
        likely, what = 1 - likely, "spoofed"
    word = next(word for least, word in LIKELIHOOD if likely >= least)
    return f"{word} to be {what}: {percent(likely)}, if {100 * one.spoof_prior:.3g} % of all recordings are spoofed"


def why_no_decision(one: ScoredRecording, thresholds: Mapping[str, Any]) -> str:
    """Say why there is no decision on a recording; empty if there is one.

    Args:
        one: The recording.
        thresholds: `accept_from` and `reject_below`, if anything is decided.
    """
    if one.error:
        return one.error
    if one.decision is None:
        return "nothing is decided without a calibration or a threshold: compare the score with others of this model"
    if one.decision != ABSTAIN:
        return ""
    accept, reject = thresholds["accept_from"], thresholds["reject_below"]
    value, name = (one.score, "score") if one.llr is None else (one.llr, "log-likelihood ratio")
    if value is not None and reject <= value < accept:
        return f"its {name} {value:.4g} lies between {reject:.4g} (below, it is rejected) and {accept:.4g} (accepted)"
    return "; ".join(one.remarks)
