"""A frame head for a finished model: which models can have one, and the folder of a model with both heads."""

import shutil
from pathlib import Path

from spoofkit.checksums import folder_sha256
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder
from spoofkit.models.detector import FRAME_HEAD, FrameClassifier, load_detector
from spoofkit.models.frame_model import write_frame_head
from spoofkit.models.sinc_encoder import SincEncoder
from spoofkit.stages import Stage


def check_onto(folder: Path, onto: Path) -> None:
    """Refuse a model that no frame head fits, or that would be thrown away by starting over.

    Args:
        folder: The experiment in which the frame head is trained.
        onto: The model folder.

    Raises:
        SpoofkitError: see `load_detector`; or it lies inside `folder`, has a frame head already, has frames that are no
            stretches of time, or is not given whole utterances.
    """
    detector, record = load_detector(onto)
    if folder.resolve() in (onto.resolve(), *onto.resolve().parents):
        raise SpoofkitError(
            f"{folder}: holds the model {onto} itself, expected a folder for the training of the frame head; name "
            "another one"
        )
    if (onto / FRAME_HEAD).exists():
        raise SpoofkitError(f"{onto}: has a frame head already, expected a model without; name the one it was made of")
    if isinstance(detector.encoder, SincEncoder):
        raise SpoofkitError(
            f"{onto}: its front-end {detector.encoder.name} gives a frame a sample, expected an encoder with frames of "
            "some 20 ms; name another model"
        )
    policy = record.get("input_policy", "whole")
    if policy != "whole":
        raise SpoofkitError(
            f"{onto}: is given {policy} of an utterance, expected a model that is given all of it, as a timeline has "
            "to be; name another model"
        )


def save_onto(out: Path, onto: Path, classifier: FrameClassifier, target: str, stage: Stage) -> None:
    """Write a copy of the model, to the byte, with the frame head in it.

    Args:
        out: The model folder to write.
        onto: The model.
        classifier: The frame classifier, trained on the model's encoder.
        target: What its frames were trained for.
        stage: How it was trained; its `inputs` have the hash of the `model` on which training began.

    Raises:
        SpoofkitError: the model is no longer the one of the beginning.
    """
    with atomic_folder(out) as temporary:
        if not onto.is_dir() or folder_sha256(onto) != stage["inputs"]["model"]:
            raise SpoofkitError(
                f"{onto}: was changed while its frame head was trained, expected the model of the beginning; put that "
                "back, and the same command resumes from its last checkpoint"
            )
        shutil.copytree(onto, temporary, dirs_exist_ok=True)
        (temporary / FRAME_HEAD).mkdir()
        stages = [*classifier.encoder.stages, stage]
        encoder_sha256 = folder_sha256(temporary / "encoder")
        write_frame_head(temporary / FRAME_HEAD, classifier, target, encoder_sha256, stages)
