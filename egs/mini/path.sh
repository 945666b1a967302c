# Sourced by run.sh: puts spoofkit on the path; makes .venv in the clone at the first call (see tools/setup.sh).
# Stage 0 needs the extra "mini": the synthesizers that make the corpus.
if ((${stage:-0} == 0)); then SPOOFKIT_EXTRAS=mini; fi
. ../../tools/activate.sh
