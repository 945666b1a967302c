"""Checks of a manifest before it is used: is it complete, what does it share, what gives the class away."""
