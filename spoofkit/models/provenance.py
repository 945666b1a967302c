"""Where an encoder comes from: its licence, its training data, and the evaluation sets that these include.

A table here holds the facts of common hub ids, and of files that are published elsewhere by their SHA-256: the names
and shapes of tensors never tell where they were trained. An encoder folder that spoofkit writes keeps the facts in
`provenance.json`, so that they follow the weights through conversion, post-training and fine-tuning.
"""

import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from spoofkit.corpora.sources import LIBRIVOX, ancestry
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, write_json

FILE = "provenance.json"


@dataclass(frozen=True)
class Provenance:
    """What is known of an encoder's origin; empty means unknown, never none."""

    source: str
    """Hub id or file that it was taken from."""
    licence: str
    """Licence of the weights."""
    trained_on: tuple[str, ...] = ()
    """Corpora that it was trained on."""
    notes: tuple[str, ...] = ()
    """Further facts for the user, with their source."""
    contaminates: tuple[str, ...] = ()
    """Evaluation sets that are wholly or partly in the training data, with labels."""


NOT_KNOWN = "not known"
APACHE, NC, NC_SA = "Apache-2.0", "CC BY-NC 4.0", "CC BY-NC-SA 4.0"
LIBRISPEECH, LIBRI_LIGHT, MLS = "LibriSpeech", "Libri-Light", "Multilingual LibriSpeech"
XLS_R_DATA = (MLS, "CommonVoice", "VoxLingua107", "BABEL", "VoxPopuli")
WAVLM_DATA = (LIBRI_LIGHT, "GigaSpeech", "VoxPopuli")
LIBRIVOX_NOTE = (
    "heard LibriVox recordings, which ASVspoof 5's bona fide speech was also taken from (arXiv:2502.08857): voices may "
    "overlap"
)
UNISPEECH_LICENCE = "microsoft/UniSpeech's LICENSE, says the hub's card; MIT, say unilm's code and torchaudio's copy"
# Partitions and all: the authors' protocol scripts (github.com/nii-yamagishilab/AntiDeepfake, protocols/) and the
# restriction on the cards of huggingface.co/SpeechAntiSpoofingBenchmarks/*-AntiDeepfake. Left out of training, and so
# their own test sets: ADD 2023, DEEP-VOICE, FakeOrReal, In-the-Wild, Deepfake-Eval-2024.
ANTI_DEEPFAKE_SETS = (
    "ASVspoof 2019 LA", "ASVspoof 2021 LA", "ASVspoof 2021 DF", "ASVspoof 5", "PartialSpoof", "CFAD", "CodecFake",
    "CVoiceFake", "DECRO", "DFADD", "DiffSSD", "Diffuse or Confuse", "DSD", "HABLA", "MLAAD", "SpoofCeleb", "WaveFake",
)  # fmt: skip
ANTI_DEEPFAKE_SPEECH = (
    "AISHELL-3", "CN-Celeb 2", "FLEURS", "FLEURS-R", "LibriTTS", "LibriTTS-R", "LJSpeech", MLS, "VoiceMOS", "VoxCeleb2",
)  # fmt: skip
ANTI_DEEPFAKE = Provenance(
    "nii-yamagishilab AntiDeepfake",
    NC_SA,
    (*(name for name in ANTI_DEEPFAKE_SETS if name != "PartialSpoof"), *ANTI_DEEPFAKE_SPEECH),
    (
        "post-trained with labels on 74,000 hours of genuine and spoofed speech (arXiv:2506.21090)",
        "PartialSpoof is spliced from ASVspoof 2019 LA, so it counts as seen",
    ),
    ANTI_DEEPFAKE_SETS,
)


def _self_supervised(paper: str, licence: str, *corpora: str) -> Provenance:
    """Describe a model that was trained without labels on `corpora` only."""
    overlap = (LIBRIVOX_NOTE,) if any(LIBRIVOX in ancestry(name) for name in corpora) else ()
    return Provenance("", licence, corpora, (f"pre-trained without labels (arXiv:{paper})", *overlap))


def _fine_tuned(pre_trained: Provenance, task: str, *corpora: str) -> Provenance:
    """Describe such a model that was then fine-tuned with labels for `task`."""
    how, *others = pre_trained.notes
    return replace(
        pre_trained,
        trained_on=tuple(dict.fromkeys((*pre_trained.trained_on, *corpora))),
        notes=(f"{how}, then fine-tuned with labels {task}", *others),
    )


ROBUST_DATA = (LIBRI_LIGHT, "CommonVoice", "Switchboard", "Fisher")
W2V_BERT_DATA = "4.5 million hours in 143 languages, not named"
MHUBERT_DATA = (
    "AISHELL", "AISHELL-3", "BibleTTS", "ClovaCall", "CommonVoice", "Google TTS", "IISc-MILE", "JVS", "Kokoro",
    "kosp2e", "MediaSpeech", MLS, "Samrómur", "THCHS-30", "THUYG-20", "VoxLingua107", "VoxPopuli",
)  # fmt: skip
WAV2VEC2 = _self_supervised("2006.11477", APACHE, LIBRISPEECH)
WAV2VEC2_LV60 = _self_supervised("2006.11477", APACHE, LIBRI_LIGHT)
VOXPOPULI = _self_supervised("2101.00390", NC, "VoxPopuli")
ROBUST = _self_supervised("2104.01027", APACHE, *ROBUST_DATA)
XLSR_53 = _self_supervised("2006.13979", APACHE, MLS, "CommonVoice", "BABEL")
XLS_R = _self_supervised("2111.09296", APACHE, *XLS_R_DATA)
MMS = _self_supervised("2305.13516", NC, "MMS-lab-U", *XLS_R_DATA)
HUBERT_BASE = _self_supervised("2106.07447", APACHE, LIBRISPEECH)
HUBERT_LARGE = _self_supervised("2106.07447", APACHE, LIBRI_LIGHT)
DATA2VEC_BASE = _self_supervised("2202.03555", APACHE, LIBRISPEECH)
DATA2VEC_LARGE = _self_supervised("2202.03555", APACHE, LIBRI_LIGHT)
WHISPER = Provenance(
    "",
    "Apache-2.0 on the hub, MIT at github.com/openai/whisper",
    ("web audio with transcripts, not named",),
    ("trained to transcribe (arXiv:2212.04356); whether an evaluation set was among its data cannot be told",),
)
TRANSCRIBE, PHONEMES, TRANSLATE = "to transcribe", "to write phonemes", "to translate"
# Patterns of whole hub ids, at most one of which fits: an id that was not looked up has no record. Licences are those
# of the hub's cards. First the models that were trained without labels, then those fine-tuned from them with labels.
KNOWN = (
    (r"facebook/wav2vec2-(base|large)", WAV2VEC2),
    (r"facebook/wav2vec2-large-lv60", WAV2VEC2_LV60),
    (r"facebook/wav2vec2-(base|large)-[a-z0-9_]+-voxpopuli(-v2)?", VOXPOPULI),
    (r"facebook/wav2vec2-large-robust", ROBUST),
    (r"facebook/wav2vec2-large-xlsr-53", XLSR_53),
    (r"facebook/wav2vec2-xls-r-(300m|1b|2b)", XLS_R),
    (r"facebook/mms-(300m|1b)", MMS),
    (r"facebook/hubert-base-ls960", HUBERT_BASE),
    (r"facebook/hubert-x?large-ll60k", HUBERT_LARGE),
    (r"facebook/data2vec-audio-base", DATA2VEC_BASE),
    (r"facebook/data2vec-audio-large", DATA2VEC_LARGE),
    (r"facebook/w2v-bert-2\.0", _self_supervised("2312.05187", "MIT", W2V_BERT_DATA)),
    (r"utter-project/mHuBERT-147", _self_supervised("2406.06371", NC_SA, *MHUBERT_DATA)),
    (r"microsoft/wavlm-base", _self_supervised("2110.13900", UNISPEECH_LICENCE, LIBRISPEECH)),
    (r"microsoft/wavlm-(base-plus|large)", _self_supervised("2110.13900", UNISPEECH_LICENCE, *WAVLM_DATA)),
    (r"microsoft/unispeech-sat-base", _self_supervised("2110.05752", UNISPEECH_LICENCE, LIBRISPEECH)),
    (r"microsoft/unispeech-sat-(base-plus|large)", _self_supervised("2110.05752", UNISPEECH_LICENCE, *WAVLM_DATA)),
    (r"facebook/wav2vec2-(base-100h|(base|large)-960h)", _fine_tuned(WAV2VEC2, TRANSCRIBE)),
    (r"facebook/wav2vec2-large-960h-lv60(-self)?", _fine_tuned(WAV2VEC2_LV60, TRANSCRIBE, LIBRISPEECH)),
    (r"facebook/wav2vec2-lv-60-espeak-cv-ft", _fine_tuned(WAV2VEC2_LV60, PHONEMES, "CommonVoice")),
    (r"facebook/wav2vec2-base-10k-voxpopuli-ft-[a-z]{2}", _fine_tuned(VOXPOPULI, TRANSCRIBE)),
    (r"facebook/wav2vec2-large-robust-ft-libri-960h", _fine_tuned(ROBUST, TRANSCRIBE, LIBRISPEECH)),
    (r"facebook/wav2vec2-large-robust-ft-swbd-300h", _fine_tuned(ROBUST, TRANSCRIBE, "Switchboard")),
    (r"facebook/wav2vec2-large-xlsr-53-[a-z]+", _fine_tuned(XLSR_53, TRANSCRIBE)),
    (r"facebook/wav2vec2-xlsr-53-(espeak|phon)-cv(-[a-z]+)?-ft", _fine_tuned(XLSR_53, PHONEMES)),
    (r"facebook/wav2vec2-xls-r-(300m|1b|2b)-(21-to-en|en-to-15|22-to-16)", _fine_tuned(XLS_R, TRANSLATE, "CoVoST 2")),
    (r"facebook/mms-1b-fl102", _fine_tuned(MMS, TRANSCRIBE, "FLEURS")),
    (r"facebook/mms-1b-l1107", _fine_tuned(MMS, TRANSCRIBE, "MMS-lab")),
    (r"facebook/mms-1b-all", _fine_tuned(MMS, TRANSCRIBE, "MMS-lab", "FLEURS")),
    (r"facebook/mms-lid-\d+", _fine_tuned(MMS, "to name the language spoken", "FLEURS")),
    (r"facebook/hubert-x?large-ls960-ft", _fine_tuned(HUBERT_LARGE, TRANSCRIBE, LIBRISPEECH)),
    (r"facebook/data2vec-audio-base-(10m|100h|960h)", _fine_tuned(DATA2VEC_BASE, TRANSCRIBE)),
    (r"facebook/data2vec-audio-large-(10m|100h|960h)", _fine_tuned(DATA2VEC_LARGE, TRANSCRIBE, LIBRISPEECH)),
    (r"openai/whisper-.*", WHISPER),
    (r"nii-yamagishilab/.*-anti-deepfake(-nda)?", ANTI_DEEPFAKE),
    (r"SpeechAntiSpoofingBenchmarks/.*-AntiDeepfake(-NDA)?", ANTI_DEEPFAKE),
)


AASIST = Provenance(
    "AASIST (github.com/clovaai/aasist)",
    "MIT",
    ("ASVspoof 2019 LA",),
    ("trained on the training partition only (arXiv:2110.01200)",),
)
# By SHA-256: models/weights/AASIST.pth and AASIST-L.pth of github.com/clovaai/aasist, commit a04c986 (2022-01-18),
# hashed on 2026-11-29.
PUBLISHED_FILES = {
    "51d2d9cf0738172f61e2a384ec50a54a55363240f67c971ed55a92435bc1a1c0": AASIST,
    "814331d088032bb4c3fa61cc014789eadeed464209dd094ab3a2dd6ffbdce27a": replace(
        AASIST, source="AASIST-L (github.com/clovaai/aasist)"
    ),
}


def known_provenance(hub_id: str) -> Provenance | None:
    """Return the facts of a hub id, or None if it is not in the table.

    >>> known_provenance("facebook/mms-300m").licence
    'CC BY-NC 4.0'
    """
    for pattern, provenance in KNOWN:
        if re.fullmatch(pattern, hub_id):
            return replace(provenance, source=hub_id)
    return None


def contamination_warning(provenance: Provenance | None) -> str | None:
    """Return the warning to show with an evaluation; None if no contamination is known.

    >>> contamination_warning(Provenance("x/y", "MIT", contaminates=("ASVspoof 5",)))
    'x/y was trained on ASVspoof 5: results there do not show how it does on unseen data'
    """
    if provenance is None or not provenance.contaminates:
        return None
    sets = ", ".join(provenance.contaminates)
    return f"{provenance.source} was trained on {sets}: results there do not show how it does on unseen data"


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `provenance.json` into an encoder folder that is being written."""
    write_json(folder / FILE, asdict(provenance), overwrite=True)


def read_provenance(folder: Path) -> Provenance | None:
    """Read `provenance.json`; None if the folder has none.

    Raises:
        SpoofkitError: it is not what spoofkit writes.
    """
    path = folder / FILE
    if not path.exists():
        return None
    values = read_json(path)
    names = [field.name for field in fields(Provenance)]
    if not (
        isinstance(values, dict)
        and sorted(values) == sorted(names)
        and all(isinstance(values[name], str) for name in names[:2])
        and all(isinstance(values[name], list) and all(isinstance(v, str) for v in values[name]) for name in names[2:])
    ):
        raise SpoofkitError(
            f"{path}: is no provenance record ({', '.join(names)}), expected what spoofkit writes; delete or fix it"
        )
    return Provenance(values["source"], values["licence"], *(tuple(values[name]) for name in names[2:]))
