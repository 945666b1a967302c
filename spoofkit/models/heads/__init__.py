"""Heads by name. One module per architecture; each cites its paper and states its number of parameters."""

from spoofkit.models.heads.aasist import AasistHead, RawAasistHead, RawAasistLightHead
from spoofkit.models.heads.attentive import AttentiveHead
from spoofkit.models.heads.base import UtteranceHead
from spoofkit.models.heads.ecapa import EcapaHead
from spoofkit.models.heads.frame import FrameHead
from spoofkit.models.heads.lstm import LstmHead
from spoofkit.models.heads.mean import MeanHead
from spoofkit.models.heads.mhfa import MhfaHead
from spoofkit.models.heads.nes2net import Nes2NetHead
from spoofkit.models.heads.rat import RatHead
from spoofkit.models.heads.rawnet2 import RawNet2Asvspoof5Head, RawNet2Head
from spoofkit.models.heads.sls import SlsHead

__all__ = ["UTTERANCE_HEADS", "FrameHead", "UtteranceHead"]

UTTERANCE_HEADS: dict[str, type[UtteranceHead]] = {
    "mean": MeanHead,
    "attentive": AttentiveHead,
    "lstm": LstmHead,
    "sls": SlsHead,
    "mhfa": MhfaHead,
    "nes2net": Nes2NetHead,
    "ecapa": EcapaHead,
    "rat": RatHead,
    "aasist": AasistHead,
    "raw_aasist": RawAasistHead,
    "raw_aasist_l": RawAasistLightHead,
    "rawnet2": RawNet2Head,
    "rawnet2_asvspoof5": RawNet2Asvspoof5Head,
}
