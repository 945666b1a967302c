"""Speaker verification that also faces spoofs (track 2 of ASVspoof 5)."""
