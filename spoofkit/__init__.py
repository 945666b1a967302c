"""spoofkit: mix-frame post-training of speech foundation models for speech deepfake detection."""

__version__ = "0.1.0"
