"""Manifests, audio, mix-frame utterances, datasets."""
