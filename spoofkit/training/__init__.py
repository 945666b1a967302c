"""One loop, two stages."""
