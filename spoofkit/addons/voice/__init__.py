"""Voice activity: how much speech recordings hold, for `score --min-speech`."""
