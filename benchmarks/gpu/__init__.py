"""What works on a GPU, and how fast: the parts of `benchmarks/gpu.sh`."""
