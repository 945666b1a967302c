"""Texts for the synthesizers: Tux Paint's captions, which the volunteers also read, or a list of our own.

A caption (a stamp) belongs to one set in all its languages. With `--speech` there are no captions; simple English
and Italian sentences are generated instead.
"""

import re
import unicodedata
import zlib
from pathlib import Path

import numpy as np

from spoofkit.errors import SpoofkitError

Texts = dict[tuple[str, str], list[str]]
"""(set, language) -> sentences."""

LANGUAGES = (
    *("en", "fr", "es", "ro", "ru", "cs", "bg", "lt"),  # of train
    *("ca", "be", "uk", "hu", "fi"),  # of dev
    *("it", "el", "da", "nl", "de", "sl", "pt"),  # of eval
)
# Shares of the stamps, so that each set has several hundred sentences in each language.
SET_OF_REMAINDER = ("train", "train", "dev", "eval", "eval")

_ENGLISH = tuple(
    tuple(part.split(" | "))
    for part in (
        "the old captain | my younger sister | a tired doctor | the gardener | our neighbour | the first visitor",
        "carried | looked for | painted | remembered | found | borrowed | wanted to sell | talked about | repaired",
        "the wooden boat | seven green apples | a letter from home | the broken window | an old clock | two books",
        "before the rain came | on the way to the station | in the middle of the night | behind the yellow house",
        "and smiled | near the river | without saying a word | early in the morning | for the third time | last summer",
    )
)
_ITALIAN = tuple(
    tuple(part.split(" | "))
    for part in (
        "il vecchio capitano | mia sorella | il medico | la maestra | il nostro vicino | un piccolo cane | la signora",
        "porta | guarda | compra | dimentica | trova | vende | cerca | ripara",
        "la barca di legno | sette mele verdi | una lettera | la finestra rotta | un orologio caro | il pane caldo",
        "prima della pioggia | vicino al fiume | di notte | dietro la casa gialla | alla fine della strada",
        "e sorride | senza dire una parola | la mattina presto | per la terza volta | con un amico",
    )
)


def captions(root: Path) -> Texts:
    """Read Tux Paint's captions: one .txt per stamp, English first, then `language.utf8=…` lines."""
    stamps = root / "usr/share/tuxpaint/stamps"
    texts: Texts = {}
    for path in sorted(stamps.glob("**/*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if not lines:
            continue
        stamp = str(path.relative_to(stamps))
        set_name = SET_OF_REMAINDER[zlib.crc32(stamp.encode()) % len(SET_OF_REMAINDER)]
        translations = dict(line.split(".utf8=", 1) for line in lines[1:] if ".utf8=" in line)
        for language in LANGUAGES:
            text = clean(lines[0] if language == "en" else translations.get(language, ""))
            if len(text) >= 8:
                texts.setdefault((set_name, language), []).append(text)
    texts = {key: sorted(set(sentences)) for key, sentences in texts.items()}
    if len(texts) < 3 * len(LANGUAGES):
        raise SpoofkitError(
            f"{stamps}: holds no captions in {', '.join(LANGUAGES)}; fetch the packages again into an empty cache"
        )
    return texts


def made_up_sentences(seed: int) -> Texts:
    """Generate English and Italian sentences; the sets share words but no sentence."""
    texts: Texts = {}
    for language, parts in (("en", _ENGLISH), ("it", _ITALIAN)):
        rng = np.random.default_rng([seed, zlib.crc32(language.encode())])
        numbers = rng.permutation(int(np.prod([len(part) for part in parts])))[:2000]
        sentences = [" ".join(_pick(parts, int(number))) for number in numbers]
        for place, sentence in enumerate(sentences):
            texts.setdefault((SET_OF_REMAINDER[place % len(SET_OF_REMAINDER)], language), []).append(sentence)
    return texts


def _pick(parts: tuple[tuple[str, ...], ...], number: int) -> list[str]:
    words = []
    for part in parts:
        number, place = divmod(number, len(part))
        words.append(part[place])
    return words


def clean(text: str) -> str:
    """Keep only letters, digits, spaces, commas and apostrophes, which every synthesizer reads without quoting."""
    text = text.replace("’", "'").replace("\u00ad", "")
    text = re.sub(r"\(.*?\)", " ", text)
    text = re.sub(r"[^\w ,']", " ", text).replace("_", " ")
    return re.sub(r"\s+", " ", text).strip(" ,'")


def ascii_only(text: str) -> str:
    """Remove accents, since festival and flite read ASCII."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", folded).strip()


def draw(sentences: list[str], n_characters: int, rng: np.random.Generator) -> str:
    """Draw sentences until they have at least the given number of characters."""
    text = ""
    while len(text) < n_characters:
        text = f"{text} {sentences[int(rng.integers(len(sentences)))]}".strip()
    return text
