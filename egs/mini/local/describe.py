"""ORIGIN.tsv and README.txt of a corpus: the source and licence of each speaker, attack and codec."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attacks import Attack
from compress import EVAL_CODECS
from human import Speech
from plan import BONAFIDE, PlannedFile

from spoofkit.files import write_text

README = """\
The mini corpus of spoofkit, laid out as ASVspoof 5 (track 1) is released.

ASVspoof5.train.tsv, ASVspoof5.dev.track_1.tsv, ASVspoof5.eval.track_1.tsv
    ten columns separated by spaces, no header:
    SPEAKER FILE GENDER CODEC CODEC_Q CODEC_SEED ATTACK_TAG ATTACK_LABEL KEY TMP
flac_T, flac_D, flac_E_eval
    16 kHz mono 16-bit FLAC
ORIGIN.tsv
    what each speaker, attack and codec is, and its licence
cues.tsv
    the EER of trivial predictors: what can be told without listening
complete.json
    the settings; it exists only when everything else is complete

It is not ASVspoof 5, and results on it say nothing about results there. Human speakers, sentences, synthetic voices and
attacks are disjoint between the three sets; codecs are in eval only, for a quarter of both classes. Every file of both
classes went through the same steps (high-pass, trimming, cut, low-pass, level, noise, fades, G.722 or Vorbis).
A spoofed file's speaker is the human whose speech was copied, or a synthetic voice with an id of its own. The gender of
Tux Paint's volunteers and of --speech voices is estimated from their pitch. CODEC_SEED names the utterance before
coding, which is not part of the corpus.

Settings: {settings}
Attacks: {attacks}

The audio belongs to those whom ORIGIN.tsv names, under the licences given there; pass it on under those only.
"""


def write_origin(
    path: Path, files: Sequence[PlannedFile], speeches: Sequence[Speech], attacks: Sequence[Attack]
) -> None:
    """Write one row per speaker, attack and codec: kind, id, set, n_files, description, origin and licence."""
    rows = [("kind", "id", "set", "n_files", "gender", "languages", "description", "origin")]
    by_voice: dict[tuple[str, str], list[PlannedFile]] = {}
    for file in files:
        by_voice.setdefault((file.set_name, file.voice), []).append(file)
    origins = {speech.voice.name: speech.voice.origin for speech in speeches}
    origins |= {voice.name: attack.origin for attack in attacks for voice in attack.voices}
    for (set_name, voice), spoken in sorted(by_voice.items(), key=lambda pair: pair[1][0].speaker):
        languages = ",".join(sorted({file.language for file in spoken} - {""})) or "-"
        rows.append(
            (
                "speaker",
                spoken[0].speaker,
                set_name,
                str(len(spoken)),
                spoken[0].gender,
                languages,
                voice,
                origins[voice],
            )
        )
    n_of_group = Counter((file.set_name, file.group) for file in files)
    for set_name in ("train", "dev", "eval"):
        rows.append(
            (
                "key",
                BONAFIDE,
                set_name,
                str(n_of_group[set_name, BONAFIDE]),
                "-",
                "-",
                "human speech",
                "see the speakers",
            )
        )
    for attack in attacks:
        for set_name, label in attack.labels.items():
            n_files = str(n_of_group[set_name, label])
            told = f"{attack.tier}: {attack.description}"
            rows.append(("attack", label, set_name, n_files, "-", "-", told, attack.origin))
    n_of_codec = Counter(file.codec for file in files)
    for codec in EVAL_CODECS:
        name = f"{codec.codec}/{codec.quality}"
        rows.append(
            (
                "codec",
                name,
                "eval",
                str(n_of_codec[codec]),
                "-",
                "-",
                codec.description,
                f"FFmpeg {codec.encoder}, by PyAV",
            )
        )
    write_text(path, "".join("\t".join(row) + "\n" for row in rows), overwrite=True)


def write_readme(path: Path, settings: dict[str, Any], attacks: Sequence[Attack]) -> None:
    """Write README.txt."""
    told = ", ".join(f"{key}={value}" for key, value in settings.items())
    labels = sorted(label for attack in attacks for label in attack.labels.values())
    write_text(path, README.format(settings=told, attacks=", ".join(labels)), overwrite=True)
