# Sourced by run.sh: puts spoofkit on PATH; the first call creates .venv in the clone (see tools/setup.sh).
. ../../tools/activate.sh
