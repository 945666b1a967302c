"""Miniatures of released corpora: folders, names and columns as released, a few seconds of synthetic voices inside."""

from pathlib import Path

import numpy as np
import soundfile
from conftest import make_voice

from spoofkit.data.audio import SAMPLE_RATE

SETS_2019 = {
    "train": ("ASVspoof2019.LA.cm.train.trn.txt", "LA_T", ("A01", "A02", "A03", "A04", "A05", "A06"), 16),
    "dev": ("ASVspoof2019.LA.cm.dev.trl.txt", "LA_D", ("A01", "A02", "A03", "A04", "A05", "A06"), 10),
    "eval": ("ASVspoof2019.LA.cm.eval.trl.txt", "LA_E", ("A07", "A09", "A10", "A13", "A16", "A17", "A19"), 14),
}
SUBSETS = ("eval", "eval", "eval", "progress", "hidden")  # of every two trials, bona fide and spoof, in turn
CODECS_LA = ("none", "alaw", "pstn", "g722", "ulaw", "gsm", "opus")
CODECS_DF = (
    "nocodec", "low_mp3", "high_mp3", "low_m4a", "high_m4a", "low_ogg", "high_ogg", "mp3m4a", "oggm4a",
)  # fmt: skip
# What the columns SOURCE, ATTACK, VOCODER, TASK, TEAM, GENDER_PAIR, LANGUAGE of a spoofed trial say together.
SPOOFS_DF = (
    ("asvspoof", "A14", "traditional_vocoder", "-", "-", "-", "-"),
    ("vcc2020", "Task1-team20", "neural_vocoder_nonautoregressive", "Task1", "team20", "FF", "E"),
    ("vcc2018", "SPO-B01", "traditional_vocoder", "SPO", "B01", "-", "-"),
    ("asvspoof", "A10", "neural_vocoder_autoregressive", "-", "-", "-", "-"),
    ("vcc2020", "Task2-team12", "unknown", "Task2", "team12", "FF", "G"),
    ("asvspoof", "A16", "waveform_concatenation", "-", "-", "-", "-"),
)


def make_asvspoof2019(folder: Path) -> Path:
    """Write ASVspoof 2019 LA, the folder `LA` of LA.zip: three lists, 16, 10 and 14 utterances."""
    (folder / "ASVspoof2019_LA_cm_protocols").mkdir(parents=True)
    for set_number, (name, (list_name, prefix, attacks, n_utterances)) in enumerate(SETS_2019.items()):
        ids = _ids(prefix, n_utterances, seed=set_number)
        lines = []
        for index, utt_id in enumerate(ids):
            is_bonafide = index % 2 == 0
            attack, key = ("-", "bonafide") if is_bonafide else (attacks[index // 2 % len(attacks)], "spoof")
            lines.append(f"LA_{10 * set_number + index // 2 % 4:04d} {utt_id} - {attack} {key}")
        _write_list(folder / "ASVspoof2019_LA_cm_protocols" / list_name, lines)
        _write_audio(folder / f"ASVspoof2019_LA_{name}" / "flac", ids, seed=100 * set_number)
    return folder


def make_asvspoof2021_la(folder: Path) -> Path:
    """Write ASVspoof 2021 LA, audio and keys unpacked into one folder: 20 trials, 12 of them of the subset `eval`.

    The organisers' ASV scores and their keys are there too: bona fide speech as target and as nontarget.
    """
    ids, lines = _ids("LA_E", 20, seed=3), []
    asv_keys, asv_scores = [], []
    for index, utt_id in enumerate(ids):
        codec, subset = CODECS_LA[index // 2 % len(CODECS_LA)], SUBSETS[index // 2 % len(SUBSETS)]
        attack, key = ("bonafide", "bonafide") if index % 2 == 0 else (f"A{7 + index // 2:02d}", "spoof")
        trans = {"none": "loc_tx", "pstn": "mad_tx"}.get(codec, "ita_tx" if index % 4 else "sin_tx")
        trim = "only_speech" if subset == "hidden" else "notrim"
        lines.append(f"LA_{index // 2 % 4:04d} {utt_id} {codec} {trans} {attack} {key} {trim} {subset}")
        for place, kind in enumerate(("target", "nontarget") if key == "bonafide" else ("spoof",)):
            names = f"LA_{place:04d}-{codec}-{trans} {utt_id}-{codec}-{trans}"
            asv_keys.append(f"{names} {codec} {trans} {attack} {kind} {trim} {subset}")
            asv_scores.append(f"{names} {3 * (kind != 'nontarget') + 7 * index % 5}")
    _write_list(folder / "keys/LA/ASV/trial_metadata.txt", asv_keys)
    _write_list(folder / "keys/LA/ASV/ASVTorch_Kaldi/score.txt", asv_scores)
    _write_2021(folder, "LA", ids, lines, seed=300)
    return folder


def make_asvspoof2021_df(folder: Path) -> Path:
    """Write ASVspoof 2021 DF, audio and keys unpacked into one folder: 20 trials, 12 of them of the subset `eval`."""
    ids, lines = _ids("DF_E", 20, seed=4), []
    for index, utt_id in enumerate(ids):
        codec, subset = CODECS_DF[index // 2 % len(CODECS_DF)], SUBSETS[index // 2 % len(SUBSETS)]
        source, attack, vocoder, *others = SPOOFS_DF[index // 2 % len(SPOOFS_DF)]
        key = "spoof"
        if index % 2 == 0:
            attack, key, vocoder, others = "-", "bonafide", "bonafide", ["-"] * 4
        trim = "trim" if subset == "hidden" else "notrim"
        speaker = {"asvspoof": "LA_", "vcc2018": "VCC2TM", "vcc2020": "TEF"}[source] + str(index // 2 % 4)
        fields = (speaker, utt_id, codec, source, attack, key, trim, subset, vocoder, *others)
        lines.append(" ".join(fields))
    _write_2021(folder, "DF", ids, lines, seed=400)
    return folder


def _ids(prefix: str, n_utterances: int, seed: int) -> list[str]:
    """Seven digits in no order, as released."""
    numbers = np.random.default_rng(seed).choice(np.arange(1_000_000, 9_999_999), n_utterances, replace=False)
    return [f"{prefix}_{number}" for number in numbers]


def _write_2021(folder: Path, track: str, ids: list[str], lines: list[str], seed: int) -> None:
    _write_list(folder / "keys" / track / "CM" / "trial_metadata.txt", lines)
    _write_list(folder / f"ASVspoof2021_{track}_eval" / f"ASVspoof2021.{track}.cm.eval.trl.txt", ids)
    _write_audio(folder / f"ASVspoof2021_{track}_eval" / "flac", ids, seed)


def _write_list(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _write_audio(folder: Path, ids: list[str], seed: int) -> None:
    """FLAC files, bona fide and spoof in turn, of other lengths each."""
    folder.mkdir(parents=True)
    seconds = np.random.default_rng(seed).uniform(0.8, 1.6, len(ids))
    for index, utt_id in enumerate(ids):
        wave = make_voice(seed + index, index % 2 == 0, seconds[index])
        soundfile.write(folder / f"{utt_id}.flac", wave, SAMPLE_RATE)
