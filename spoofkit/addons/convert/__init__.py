"""Converting published checkpoints of other formats to folders that spoofkit and transformers read."""
