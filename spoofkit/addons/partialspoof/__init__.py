"""PartialSpoof: utterances in which some segments are spoofed, and labels of where."""
