"""The parts of `benchmarks/gpu.sh`: what works on a GPU, and how fast."""
