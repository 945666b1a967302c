"""PartialSpoof: utterances with some spoofed segments, and their labels."""
