"""The card of a model on the hub: README.md, made from the records of the model and of an evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from spoofkit.models.names import HUB
from spoofkit.models.provenance import NOT_KNOWN, Provenance, contamination_warning
from spoofkit.stages import Stage, describe_stages

FIGURES = (
    ("EER in %", "eer_official_percent", "{:.2f}"),
    ("minDCF", "min_dcf", "{:.4f}"),
    ("actDCF", "act_dcf", "{:.4f}"),
    ("Cllr in bits", "cllr_bits", "{:.4f}"),
)
LIMITS = (
    "A score says how much a recording resembles the training data of each class. It is no proof that a recording is "
    "genuine or spoofed, and should not be the only ground of a decision about a person.",
    "Spoofing methods, languages, codecs and rooms that the training data lack may be scored wrongly, with great "
    "confidence.",
    "Scores are not calibrated: fit a calibration on recordings like yours (`spoofkit calibrate`) before you use a "
    "threshold.",
)


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of."""

    repository: str
    """`OWNER/MODEL`."""
    licence: str
    """Identifier of the hub."""
    model: Mapping[str, Any] | None
    """model.json; None of an encoder."""
    config: Mapping[str, Any]
    """config.json of the encoder."""
    stages: Sequence[Stage]
    provenance: Provenance | None
    base: Mapping[str, Any] | None
    """base.json, if the encoder is stored as adapters."""
    sha256: str
    """Hash of the folder."""
    results: Mapping[str, Any] | None
    """eval.json."""


def make_card(facts: CardFacts) -> str:
    """Write a card."""
    parts = [_metadata(facts), f"# {facts.repository.partition('/')[2]}", *_what(facts), *_training(facts)]
    parts += [*_results(facts.results), *_origin(facts), *_limits(facts)]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> str:
    base = base_model(facts)
    values = {
        "license": facts.licence,
        "library_name": "spoofkit",
        "tags": ["speech-deepfake-detection", "anti-spoofing", "spoofkit"],
        **({"pipeline_tag": "audio-classification"} if facts.model is not None else {}),
        **({"base_model": base} if base else {}),
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def base_model(facts: CardFacts) -> str:
    """Return the hub id of the weights that the model was trained from; empty if it is not known."""
    name = str(facts.base.get("name") or "") if facts.base else facts.provenance.source if facts.provenance else ""
    name = name.removeprefix(HUB).partition("@")[0]
    return name if name.count("/") == 1 and not name.startswith(("/", ".")) and " " not in name else ""


def _what(facts: CardFacts) -> Iterator[str]:
    family = facts.config.get("model_type", "sinc filters")
    if facts.model is None:
        yield f"An encoder of speech ({family}), for detectors of spoofed speech, by spoofkit."
        yield f"## Use\n\n    spoofkit finetune EXP --encoder {HUB}{facts.repository} …"
        return
    yield (
        f"A detector of spoofed speech by spoofkit: encoder {family}, head {facts.model.get('head')} on layers "
        f"{facts.model.get('layers')}. Higher scores are more likely bona fide."
    )
    yield f"## Use\n\n    spoofkit score {HUB}{facts.repository} call.wav"
    yield f"Input policy: {facts.model.get('input_policy', 'whole')}. Model hash: `{facts.sha256}`."
    if facts.base:
        yield (
            f"Only adapters are stored here. Their base is {facts.base['name']} (revision {facts.base['revision']}, "
            f"SHA-256 of its tensors `{facts.base['sha256']}`), which is fetched and verified."
        )


def _training(facts: CardFacts) -> Iterator[str]:
    yield "## Training"
    yield "\n".join(f"* {name}: {words}" for name, words in describe_stages(facts.stages))
    for stage in facts.stages:
        if settings := stage.get("settings"):
            text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
            yield f"Settings of {stage['stage']}:\n\n```yaml\n{text}```"


def _results(results: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Results"
    if results is None:
        yield "None were given."
        return
    made_with = results["made_with"]
    yield (
        f"On {made_with['set']}: {results['n_trials']:,} trials, {results['n_bonafide']:,} bona fide and "
        f"{results['n_spoof']:,} spoofed; scored {made_with.get('scored') or 'at an unknown time'}, spoofkit "
        f"{made_with['spoofkit']}."
    )
    intervals = results.get("intervals") or {}
    rows = [(name, form.format(results[key]), _interval(intervals.get(key), form)) for name, key, form in FIGURES]
    yield _table(("figure", "value", "95 % interval"), rows)
    if "left_out" in intervals:
        yield f"No intervals: {intervals['left_out']}"
    elif intervals:
        yield f"Intervals: bootstrap over {intervals['n_clusters']} × {intervals['resampled']}."
    by_attack = [
        (row["attack"], f"{row['n_spoof']:,}", f"{row['eer_official_percent']:.2f}") for row in results["by_attack"]
    ]
    if len(by_attack) > 1:
        yield _table(("attack", "trials", "EER in %"), by_attack)
    if caveats := [*filter(None, [results.get("partial")]), *results.get("warnings", [])]:
        yield "\n".join(f"* {caveat}" for caveat in caveats)


def _interval(found: Any, form: str) -> str:
    return f"{form.format(found[0])} to {form.format(found[1])}" if isinstance(found, (list, tuple)) else "-"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _origin(facts: CardFacts) -> Iterator[str]:
    yield "## Licence and origin"
    provenance = facts.provenance
    if provenance is None:
        yield f"Licence: {facts.licence}. Published weights that it was trained from: none are recorded."
        return
    yield (
        f"Licence: {facts.licence}. The weights were trained from {provenance.source} (licence: {provenance.licence}; "
        f"trained on {', '.join(provenance.trained_on) or NOT_KNOWN})."
    )
    if provenance.notes:
        yield "\n".join(f"* {note}" for note in provenance.notes)


def _limits(facts: CardFacts) -> Iterator[str]:
    yield "## Intended use and limits"
    yield "Research on spoofed speech, and a first look at recordings by people who know these limits."
    warning = contamination_warning(facts.provenance)
    yield "\n".join(f"* {limit}" for limit in (*LIMITS, *([f"{warning}."] if warning else ())))
