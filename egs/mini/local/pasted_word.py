#!/usr/bin/env python3
"""Paste a synthetic word into a human sentence, and look whether the post-trained frames find it.

    python local/pasted_word.py exp/mixframe_seed0 data/eval.tsv -o exp/pasted_word

Sentence and word are of eval: neither voice nor synthesizer was trained on. They are drawn from a seed, whatever the
model says of them. Threshold and smoothing are those of the held-out mixes of dev. Beside the one sentence, to be seen
and heard (OUT/timeline.html, OUT/pasted_word.png), 49 more are drawn the same way and counted; and, in the same places,
a word of another human voice, and nothing at all: what is marked there says what the model goes by.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
from pasted_picture import draw_pasted
from words import find_places, find_words

from spoofkit.config import load_config
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import Manifest, read_keyed_manifest, write_manifest
from spoofkit.data.mixdraw import made_from
from spoofkit.data.mixframe import Mix, MixList, Region, splice
from spoofkit.data.mixlist import write_mix_list
from spoofkit.data.segments import segment_table, write_segments
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, read_json, write_json
from spoofkit.localisation.frame_scores import FrameScores, read_frames
from spoofkit.localisation.known import Known, compare_known
from spoofkit.localisation.localize import localize
from spoofkit.localisation.metrics import make_timeline
from spoofkit.localisation.recordings import RegionOptions, localize_recordings
from spoofkit.localisation.regions import CALLED, Rule, find_regions, make_rule, smooth, smooth_frames
from spoofkit.localisation.segment_report import evaluate_segments, measure

LEAST_SENTENCE_SECONDS, MARGIN_SECONDS = 2.0, 0.2
FOUND_SHARE = 0.5
"""A word is found if at least this share of it is marked."""
KINDS = ("synthetic", "human", "untouched")
"""What stands where the word is: a synthetic word, a word of another human voice, the sentence itself."""

MEANING = {
    "region": "The frames learnt to find what is pasted, human or synthetic: a mark says that a stretch does not "
    "belong where it is, not that it is synthetic.",
    "authenticity": "The frames learnt to find what is synthetic.",
}
"""What a mark says, by mix.frame_target."""


@dataclass(frozen=True)
class Paste:
    """A place in a human sentence, and what is pasted there; positions count samples of their own utterance."""

    sentence: str
    start: int
    n_samples: int
    synthetic: tuple[str, int]
    """Utterance and first sample of the synthetic word."""
    human: tuple[str, int]
    """The same of a stretch of another human voice, of the same length."""


def draw_pastes(manifest: Manifest, tiers: list[str], number: int, seed: int) -> list[Paste]:
    """Draw pastes into different sentences; the first ones do not depend on their number.

    Args:
        manifest: The set; only utterances without a codec are used.
        tiers: Values of the column `attack_tag` whose synthesizers speak the words.
        number: How many.
        seed: Seed of all draws.

    Raises:
        SpoofkitError: the set has too few fitting utterances.
    """
    plain = manifest.table.filter(pl.col("codec") == "-")
    if "attack_tag" not in plain.columns:
        raise SpoofkitError(f"{manifest.path}: has no column attack_tag, expected one; prepare the set again")
    humans = plain.filter(pl.col("key") == "bonafide")
    sentences = humans.filter(pl.col("n_samples") >= LEAST_SENTENCE_SECONDS * SAMPLE_RATE)
    spoken = plain.filter((pl.col("key") == "spoof") & pl.col("attack_tag").is_in(tiers))
    rng, pastes = np.random.default_rng(seed), []
    for row in rng.permutation(sentences.height).tolist() if spoken.height else ():
        sentence = sentences.row(row, named=True)
        others = humans.filter(pl.col("speaker") != sentence["speaker"])
        if (paste := _draw_one(rng, manifest, sentence, spoken, others)) is not None:
            pastes.append(paste)
        if len(pastes) == number:
            return pastes
    raise SpoofkitError(
        f"{manifest.path}: {len(pastes)} of {sentences.height} sentences of at least {LEAST_SENTENCE_SECONDS:g} s have "
        f"a place for one of {spoken.height} utterances with attack_tag {' or '.join(tiers)}, expected {number}; give "
        "a smaller --number, or other --tiers"
    )


def _draw_one(
    rng: np.random.Generator, manifest: Manifest, sentence: dict[str, Any], spoken: pl.DataFrame, others: pl.DataFrame
) -> Paste | None:
    """Draw a word, a place for it, and a human stretch of its length; None if one of them does not fit."""
    if not others.height:
        return None
    word, other = (table.row(int(rng.integers(table.height)), named=True) for table in (spoken, others))
    words = find_words(manifest.read_audio(word["path"]))
    if not words:
        return None
    start, end = words[rng.integers(len(words))]
    margin = round(MARGIN_SECONDS * SAMPLE_RATE)
    places = find_places(manifest.read_audio(sentence["path"]), end - start, margin)
    human_starts = find_places(manifest.read_audio(other["path"]), end - start)
    if not places or not human_starts:
        return None
    place, human_start = (int(starts[rng.integers(len(starts))]) for starts in (places, human_starts))
    return Paste(
        sentence["utt_id"], place, end - start, (word["utt_id"], start), (other["utt_id"], human_start)
    )  # fmt: skip


def make_mixes(pastes: list[Paste], lengths: Mapping[str, int]) -> tuple[Mix, ...]:
    """Make mixes of whole sentences, with synthetic and with human words; `mix_id` says which is which."""
    mixes = []
    for kind in KINDS[:2]:
        for number, paste in enumerate(pastes):
            injector, first = getattr(paste, kind)
            region = Region(paste.start, first, paste.n_samples)
            n_samples = lengths[paste.sentence]
            mixes.append(Mix(mix_id(kind, number), paste.sentence, injector, 0, n_samples, (region,)))
    return tuple(mixes)


def mix_id(kind: str, number: int) -> str:
    """Return the id of a paste in the mix list and in the frame scores."""
    return f"{kind}_{number:04d}"


def score_all(
    experiment: Path, manifest: Manifest, dev: Path, pastes: list[Paste], out: Path, seed: int, overwrite: bool
) -> dict[str, Path]:
    """Fit the threshold on the held-out mixes of dev, score the frames of all pastes; return the frame score files."""
    posttrain = experiment / "posttrain"
    again: dict[str, Any] = {"device": "auto", "workers": 0, "overwrite": overwrite, "reuse": True}
    files = {name: out / "frames" / f"{name}.npz" for name in ("pasted", "untouched", "dev")}
    # Joined as the paper does, which is the default; whole sentences, so there is no length of a crop.
    record = made_from(load_config(None), manifest, held_out=True)
    record |= {"seed": seed, "n_mixes": 2 * len(pastes), "crop_samples": None, "pasted": list(KINDS[:2])}
    mix_list = MixList(make_mixes(pastes, manifest.lengths()), record)
    write_mix_list(out / "pasted.mix.tsv", mix_list, overwrite=True)
    _run(localize(posttrain, manifest.path, files["pasted"], mix_path=out / "pasted.mix.tsv", **again))
    of_sentences = manifest.table.filter(pl.col("utt_id").is_in([paste.sentence for paste in pastes]))
    write_manifest(
        out / "untouched.tsv", manifest.root, of_sentences, partial="sentences of pasted_word.py",
        downmix=manifest.downmix, overwrite=True,
    )  # fmt: skip
    _run(localize(posttrain, out / "untouched.tsv", files["untouched"], **again))
    _run(localize(posttrain, dev, files["dev"], mix_path=posttrain / "mix_dev.tsv", **again))
    segments = files["dev"].with_suffix(".segments.tsv")
    evaluate_segments(files["dev"], segments, out / "dev", smoothing="fit", overwrite=overwrite, reuse=True)
    return files


def _run(lines: Any) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def judge(frames: FrameScores, utt_id: str, paste: Paste, rule: Rule) -> tuple[Known, int]:
    """Return how much is marked of the place of a paste, and elsewhere; and the number of marked regions."""
    n_samples = int(frames.n_samples_U[frames.utt_ids.index(utt_id)])
    score_T = smooth(frames.of(utt_id), rule.smooth_seconds, frames.geometry.hop)
    regions = find_regions(score_T, n_samples, frames.geometry, rule)
    return compare_known(np.array([[paste.start, paste.start + paste.n_samples]]), regions, n_samples), len(regions)


def count_all(files: Mapping[str, Path], pastes: list[Paste], rule: Rule) -> dict[str, Any]:
    """Count the pastes that are found, by kind, and what is marked where nothing was pasted."""
    counts: dict[str, Any] = {"n": len(pastes), "found_share": FOUND_SHARE}
    for kind in KINDS:
        frames, _ = read_frames(files["untouched" if kind == "untouched" else "pasted"])
        ids = [paste.sentence if kind == "untouched" else mix_id(kind, n) for n, paste in enumerate(pastes)]
        judged = [judge(frames, utt_id, paste, rule) for utt_id, paste in zip(ids, pastes, strict=True)]
        elsewhere = sum(known.elsewhere_seconds for known, _ in judged)
        counts[kind] = {
            "found": sum(known.regions[0].marked_share >= FOUND_SHARE for known, _ in judged),
            "marked_elsewhere_percent": 100 * sum(known.marked_elsewhere_seconds for known, _ in judged) / elsewhere,
        }
        if kind != "untouched":
            counts[kind]["range_eer_percent"] = range_eer_percent(frames, dict(zip(ids, pastes, strict=True)), rule)
    seconds = int(frames.n_samples_U.sum()) / SAMPLE_RATE  # of the last kind: of the untouched sentences
    counts["untouched"] |= {"seconds": seconds, "regions_per_second": sum(n for _, n in judged) / seconds}
    return counts


def range_eer_percent(frames: FrameScores, places: Mapping[str, Paste], rule: Rule) -> float:
    """Compute the range-based EER of the frames of pastes, by the ids that they have in the frame scores."""
    rows = [row for row, utt_id in enumerate(frames.utt_ids) if utt_id in places]
    own = [frames.utt_ids[row] for row in rows]
    chosen = FrameScores(
        tuple(own), frames.n_samples_U[rows], frames.n_frames_U[rows],
        np.concatenate([frames.of(utt_id) for utt_id in own]), frames.geometry,
    )  # fmt: skip
    regions = [np.array([[places[one].start, places[one].start + places[one].n_samples]]) for one in own]
    timeline = make_timeline(chosen.n_samples_U, regions)
    return float(measure(smooth_frames(chosen, rule.smooth_seconds), timeline)["range_eer_percent"])


def mark_one(
    experiment: Path, manifest: Manifest, paste: Paste, out: Path, note: str, overwrite: bool
) -> dict[str, dict[str, Any]]:
    """Write the first paste and its sentence as audio, and mark both; return what `localize` wrote about each."""
    paths = dict(manifest.table.select("utt_id", "path").iter_rows())
    mix, _ = make_mixes([paste], manifest.lengths())
    waves = {
        "pasted": splice(mix, lambda utt_id, *where: manifest.read_audio(paths[utt_id], *where), load_config(None).mix),
        "untouched": manifest.read_audio(paths[paste.sentence]),
    }
    for name, wave_S in waves.items():
        with atomic_path(out / f"{name}.wav", overwrite=True) as temporary:
            soundfile.write(temporary, np.clip(wave_S, -1, 1), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    known = out / "known.segments.tsv"
    place = (paste.start, paste.start + paste.n_samples)
    write_segments(known, segment_table({"pasted": [place], "untouched": []}), overwrite=True)
    lines = localize_recordings(
        experiment / "posttrain",
        [out / f"{name}.wav" for name in waves],
        out,
        RegionOptions(None, out / "dev" / "segments.json", None, None),
        channels="auto",
        calibration=None,
        known=known,
        note=note,
        device="auto",
        overwrite=overwrite,
        reuse=True,
    )
    _run(lines)
    return {name: read_json(out / f"{name}.json") for name in waves}


def describe(manifest: Manifest, paste: Paste, one: dict[str, Any], counts: dict[str, Any], target: str) -> list[str]:
    """Say in three sentences what became of the first paste and of all, and what that means."""
    rows = {row["utt_id"]: row for row in manifest.table.iter_rows(named=True)}
    sentence, word = rows[paste.sentence], rows[paste.synthetic[0]]
    synthetic, human, untouched = (counts[kind] for kind in KINDS)
    return [
        f"A word of {paste.n_samples / SAMPLE_RATE:.2f} s of {word['utt_id']} ({word['attack']}, "
        f"{word['attack_tag']}), pasted into the human sentence {sentence['utt_id']} ({sentence['speaker']}), is "
        f"{'found' if one['found'] else 'not found'}: {100 * one['marked_share']:.0f} % of it is marked, and "
        f"{one['marked_elsewhere_seconds']:.2f} of {one['elsewhere_seconds']:.2f} s elsewhere.",
        f"Of {counts['n']} words pasted the same way {synthetic['found']} are found (at least half marked); in the "
        f"same places {human['found']} words of another human voice, and {untouched['found']} where nothing is pasted. "
        f"Untouched sentences have {untouched['regions_per_second']:.2f} false regions a second.",
        MEANING[target],
    ]


def run(experiment: Path, manifest_path: Path, dev: Path, out: Path, arguments: argparse.Namespace) -> list[str]:
    """Draw, score, count, mark and draw the picture; return what is to be said.

    Raises:
        SpoofkitError: the set has too few fitting utterances, there is no finished post-training, or an output of other
            inputs exists.
    """
    manifest = read_keyed_manifest(manifest_path)
    pastes = draw_pastes(manifest, arguments.tiers, arguments.number, arguments.seed)
    files = score_all(experiment, manifest, dev, pastes, out, arguments.seed, arguments.overwrite)
    frames, record = read_frames(files["pasted"])
    model = {name: record[name] for name in ("model_sha256", "frame_target")}
    rule = make_rule(None, out / "dev" / "segments.json", None, None, model)
    counts = count_all(files, pastes, rule)
    first = pastes[0]
    known, _ = judge(frames, mix_id("synthetic", 0), first, rule)
    one = {
        "sentence": first.sentence,
        "word_of": first.synthetic[0],
        "word_starts_seconds": first.synthetic[1] / SAMPLE_RATE,
        **{name: value for name, value in known.record().items() if name != "regions"},
        **known.record()["regions"][0],
        "found": known.regions[0].marked_share >= FOUND_SHARE,
        "range_eer_percent": range_eer_percent(frames, {mix_id("synthetic", 0): first}, rule),
    }
    said = describe(manifest, first, one, counts, model["frame_target"])
    marked = mark_one(experiment, manifest, first, out, " ".join(said), arguments.overwrite)
    result = {"seed": arguments.seed, "tiers": arguments.tiers, **rule.record(), **model}
    result |= {"one": one, "all": counts, "said": said}
    write_json(out / "pasted_word.json", result, overwrite=True)
    titles = ("with a synthetic word: " + ("found" if one["found"] else "not found"), "the same sentence, untouched")
    with atomic_path(out / "pasted_word.png", overwrite=True) as temporary:
        temporary.write_bytes(draw_pasted(out, marked, titles, rule, CALLED[model["frame_target"]], said[1]))
    return said


def main() -> None:
    """Read the command line and run; an error is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("experiment", type=Path, help="folder of an experiment with a finished posttrain/")
    parser.add_argument("manifest", type=Path, help="the eval manifest")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the outputs")
    parser.add_argument("--dev", type=Path, help="manifest of posttrain/mix_dev.tsv. Default: dev.tsv beside MANIFEST")
    parser.add_argument("--tiers", nargs="+", default=["near", "mid"], help="attack_tag of the words' synthesizers")
    parser.add_argument("--number", type=int, default=50, help="how many sentences are counted (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="do it again, even if it is up to date")
    arguments = parser.parse_args()
    dev = arguments.dev or arguments.manifest.with_name("dev.tsv")
    try:
        said = run(arguments.experiment, arguments.manifest, dev, arguments.out, arguments)
    except SpoofkitError as error:
        sys.exit(f"pasted_word: error: {error}")
    print("\n".join(said))
    print(f"see and hear it: {(arguments.out / 'timeline.html').resolve()}")


if __name__ == "__main__":
    main()
