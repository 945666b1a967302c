"""Find where in an utterance it is spoofed: frame scores, regions, and how well both agree with the truth."""
