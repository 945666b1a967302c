"""Published checkpoints of other formats become folders that spoofkit and transformers read."""
