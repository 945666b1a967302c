"""The service without HTTP: from bytes that were received to an answer. Threads call it, several at a time."""

import io
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import soundfile

import spoofkit
from spoofkit.addons.serve.answers import (
    Channel,
    MadeWith,
    Scores,
    Timeline,
    Timelines,
    score_channel,
    timeline_of,
)
from spoofkit.addons.serve.decoder import Decoded, Decoder
from spoofkit.addons.serve.refusals import Refused
from spoofkit.addons.serve.turns import Turns
from spoofkit.addons.serve.uploads import Upload
from spoofkit.api.detector import LoadedDetector
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError

T = TypeVar("T", Channel, Timeline)
WARM_UP_SECONDS = 4.0
NOT_IMPLEMENTED = 501


@dataclass(frozen=True)
class Service:
    """A detector, what decodes for it, and its turns."""

    detector: LoadedDetector
    decoder: Decoder
    turns: Turns
    region_options: dict[str, Any] = field(default_factory=dict)
    """Options of `LoadedDetector.localize`."""

    def warm_up(self) -> MadeWith:
        """Score noise, so that the first request finds a model that is ready and measured.

        Returns:
            What makes its scores.

        Raises:
            SpoofkitError: the model or its options are not what was expected.
        """
        self.detector.take_turns(self.turns.through)
        noise_S = 0.1 * np.random.default_rng(0).standard_normal(int(WARM_UP_SECONDS * SAMPLE_RATE)).astype(np.float32)
        self._warm_up_decoder(noise_S)
        for _ in range(2):  # memory is laid out in the first pass, which takes longer
            self.turns.forget_cost()
            if self.detector.can_score:
                self.detector.score(noise_S, SAMPLE_RATE)
            if self.detector.can_localize:
                self.detector.localize(noise_S, SAMPLE_RATE, **self.region_options)
        known = {name: value for name, value in self.detector.made_with().items() if name != "model"}
        return MadeWith.model_validate({"spoofkit": spoofkit.__version__} | known)

    def _warm_up_decoder(self, noise_S: np.ndarray) -> None:
        file, upload = io.BytesIO(), Upload(None)
        soundfile.write(file, noise_S, SAMPLE_RATE, format="WAV")
        upload.write(file.getvalue())
        try:
            self.decoder.decode(upload.file, "mean")
        except Refused as refused:
            raise SpoofkitError(
                f"serve: the program that decodes recordings does not work ({refused.detail}); see what it said above, "
                "and try `spoofkit doctor`"
            ) from refused
        finally:
            upload.close()

    def score(self, upload: Upload, channels: str, made_with: MadeWith, request_id: str) -> Scores:
        """Score a recording, which is forgotten then.

        Args:
            upload: The recording.
            channels: Which channels are scored, as `choose_channels` takes it.
            made_with: What `warm_up` returned.
            request_id: Name of the request.

        Raises:
            Refused: see `Decoder.decode` and `Turns.admitted`.
        """
        thresholds = made_with.model_dump()

        def answer(decoded: list[Decoded]) -> list[Channel]:
            return [score_channel(self.detector, one, thresholds) for one in decoded]

        return Scores(channels=self._answer(upload, channels, answer), **_of(upload, made_with, request_id))

    def localize(self, upload: Upload, channels: str, made_with: MadeWith, request_id: str) -> Timelines:
        """Mark the regions of a recording, which is forgotten then; see `score`."""
        thresholds = made_with.model_dump()

        def answer(decoded: list[Decoded]) -> list[Timeline]:
            found = [
                (self.detector.localize(one.wave_S, SAMPLE_RATE, **self.region_options)[0], one) for one in decoded
            ]
            return [timeline_of(marked, one.channel, thresholds) for marked, one in found]

        return Timelines(channels=self._answer(upload, channels, answer), **_of(upload, made_with, request_id))

    def _answer(self, upload: Upload, channels: str, answer: Callable[[list[Decoded]], list[T]]) -> list[T]:
        with closing(upload), self.turns.admitted() as is_decoded:
            with self.decoder.place(self.turns.most_wait_seconds - (time.monotonic() - upload.came)):
                waited = time.monotonic() - upload.came
                decoded = self.decoder.decode(upload.file, channels)
            upload.close()
            is_decoded(max(one.wave_S.size for one in decoded) / SAMPLE_RATE, waited)
            return answer(decoded)

    def close(self) -> None:
        """End what decodes and what scores."""
        self.decoder.close()
        self.turns.close()


def n_decoders() -> int:
    """Return how many recordings are decoded at the same time."""
    return os.cpu_count() or 1


def _of(upload: Upload, made_with: MadeWith, request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "file": upload.name,
        "n_bytes": upload.n_bytes,
        "audio_sha256": upload.sha256,
        "made_with": made_with,
    }
