"""Where an encoder comes from: its licence, what it was trained on, which evaluation sets it has therefore seen.

The facts of common hub ids stand in a table here; an encoder folder of ours keeps them in `provenance.json`, so that
they follow the weights through conversion, post-training and fine-tuning.
"""

import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, write_json

FILE = "provenance.json"


@dataclass(frozen=True)
class Provenance:
    """What is known of an encoder's past; empty means unknown, never none."""

    source: str
    """Hub id or file it was taken from."""
    licence: str
    """Of the weights."""
    trained_on: tuple[str, ...] = ()
    """Corpora."""
    notes: tuple[str, ...] = ()
    """What a user should know besides, with where it was published."""
    contaminates: tuple[str, ...] = ()
    """Evaluation sets that lie wholly or partly in the training data, labels included."""


LIBRISPEECH, LIBRI_LIGHT, MLS = "LibriSpeech", "Libri-Light", "Multilingual LibriSpeech"
XLS_R_DATA = (MLS, "CommonVoice", "VoxLingua107", "BABEL", "VoxPopuli")
WAVLM_DATA = (LIBRI_LIGHT, "GigaSpeech", "VoxPopuli")
LIBRIVOX_NOTE = (
    "learned, without labels, from LibriVox recordings, which ASVspoof 5's bona fide speech was also taken from "
    "(arXiv:2502.08857): voices may overlap"
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
    "CC BY-NC-SA 4.0",
    (*(name for name in ANTI_DEEPFAKE_SETS if name != "PartialSpoof"), *ANTI_DEEPFAKE_SPEECH),
    (
        "post-trained with labels on 74,000 hours of genuine and spoofed speech (arXiv:2506.21090)",
        "PartialSpoof is spliced from ASVspoof 2019 LA, so it counts as seen",
    ),
    ANTI_DEEPFAKE_SETS,
)


def _self_supervised(paper: str, licence: str, *corpora: str) -> Provenance:
    """A model that learned without labels from `corpora`."""
    overlap = (LIBRIVOX_NOTE,) if {LIBRISPEECH, LIBRI_LIGHT, MLS} & set(corpora) else ()
    return Provenance("", licence, corpora, (f"pre-trained without labels (arXiv:{paper})", *overlap))


WHISPER = Provenance(
    "",
    "Apache-2.0 on the hub, MIT at github.com/openai/whisper",
    ("web audio with transcripts, not named",),
    ("trained to transcribe (arXiv:2212.04356); whether an evaluation set was among its data cannot be told",),
)
ROBUST_DATA = (LIBRI_LIGHT, "CommonVoice", "Switchboard", "Fisher")
W2V_BERT_DATA = "4.5 million hours in 143 languages, not named"
# Patterns of hub ids; the first that fits the whole id counts. Licences are those of the hub's cards.
KNOWN = (
    (r"facebook/wav2vec2-.*voxpopuli.*", _self_supervised("2101.00390", "CC BY-NC 4.0", "VoxPopuli")),
    (r"facebook/wav2vec2-xls-r-.*", _self_supervised("2111.09296", "Apache-2.0", *XLS_R_DATA)),
    (r"facebook/wav2vec2-large-xlsr-53", _self_supervised("2006.13979", "Apache-2.0", MLS, "CommonVoice", "BABEL")),
    (r"facebook/wav2vec2-large-robust.*", _self_supervised("2104.01027", "Apache-2.0", *ROBUST_DATA)),
    (r"facebook/wav2vec2-large.*lv60.*", _self_supervised("2006.11477", "Apache-2.0", LIBRI_LIGHT)),
    (r"facebook/wav2vec2-(base|large)(-960h|-100h)?", _self_supervised("2006.11477", "Apache-2.0", LIBRISPEECH)),
    (r"facebook/mms-(300m|1b)(-.*)?", _self_supervised("2305.13516", "CC BY-NC 4.0", "MMS-lab-U", *XLS_R_DATA)),
    (r"facebook/hubert-base-.*", _self_supervised("2106.07447", "Apache-2.0", LIBRISPEECH)),
    (r"facebook/hubert-x?large-.*", _self_supervised("2106.07447", "Apache-2.0", LIBRI_LIGHT)),
    (r"facebook/data2vec-audio-base(-.*)?", _self_supervised("2202.03555", "Apache-2.0", LIBRISPEECH)),
    (r"facebook/data2vec-audio-large(-.*)?", _self_supervised("2202.03555", "Apache-2.0", LIBRI_LIGHT)),
    (r"facebook/w2v-bert-2\.0", _self_supervised("2312.05187", "MIT", W2V_BERT_DATA)),
    (r"microsoft/wavlm-base", _self_supervised("2110.13900", UNISPEECH_LICENCE, LIBRISPEECH)),
    (r"microsoft/wavlm-(base-plus|large)", _self_supervised("2110.13900", UNISPEECH_LICENCE, *WAVLM_DATA)),
    (r"microsoft/unispeech-sat-base", _self_supervised("2110.05752", UNISPEECH_LICENCE, LIBRISPEECH)),
    (r"microsoft/unispeech-sat-(base-plus|large)", _self_supervised("2110.05752", UNISPEECH_LICENCE, *WAVLM_DATA)),
    (r"openai/whisper-.*", WHISPER),
    (r"nii-yamagishilab/.*-anti-deepfake(-nda)?", ANTI_DEEPFAKE),
    (r"SpeechAntiSpoofingBenchmarks/.*-AntiDeepfake(-NDA)?", ANTI_DEEPFAKE),
)


def known_provenance(hub_id: str) -> Provenance | None:
    """Facts of a hub id, or none if it is not in the table.

    >>> known_provenance("facebook/mms-300m").licence
    'CC BY-NC 4.0'
    """
    for pattern, provenance in KNOWN:
        if re.fullmatch(pattern, hub_id):
            return replace(provenance, source=hub_id)
    return None


def contamination_warning(provenance: Provenance | None) -> str | None:
    """The sentence to show beside an evaluation; none if nothing is known against it.

    >>> contamination_warning(Provenance("x/y", "MIT", contaminates=("ASVspoof 5",)))
    'x/y was trained on ASVspoof 5: results there do not show how it does on unseen data'
    """
    if provenance is None or not provenance.contaminates:
        return None
    sets = ", ".join(provenance.contaminates)
    return f"{provenance.source} was trained on {sets}: results there do not show how it does on unseen data"


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `provenance.json` into an encoder folder that is being made."""
    write_json(folder / FILE, asdict(provenance), overwrite=True)


def read_provenance(folder: Path) -> Provenance | None:
    """Read it back; none if the folder has none.

    Raises:
        SpoofkitError: a record that is not ours.
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
            f"{path}: is no provenance record ({', '.join(names)}), expected what spoofkit writes; delete or mend it"
        )
    return Provenance(values["source"], values["licence"], *(tuple(values[name]) for name in names[2:]))
