"""Front-ends, heads, detectors."""
