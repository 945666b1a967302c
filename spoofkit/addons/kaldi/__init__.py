"""Kaldi data directories, in and out."""
