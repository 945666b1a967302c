"""Marked recordings to look at and listen to: the pages of `localize`."""
