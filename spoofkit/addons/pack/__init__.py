"""Packing a set into a few large files that are read without decoding, for storage that is slow with small ones."""
