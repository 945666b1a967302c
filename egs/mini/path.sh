# Sourced by run.sh: puts spoofkit on the path; makes .venv in the clone at the first call (see tools/setup.sh).
# The extra "mini" brings the synthesizers that make the corpus.
SPOOFKIT_EXTRAS=mini . ../../tools/activate.sh
