# Sourced by run.sh: puts spoofkit on the path; makes .venv in the clone at the first call (see tools/setup.sh).
. ../../tools/activate.sh
