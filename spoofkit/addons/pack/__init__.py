"""A set in a few large files that are read without decoding, for storage that is slow with many small ones."""
