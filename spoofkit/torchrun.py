"""torchrun with the exit codes of spoofkit: `python -m spoofkit.torchrun OPTIONS -m spoofkit VERB …`.

torchrun exits with 1 and a traceback, whatever its processes return. Here an interrupted run ends with their exit code
(75: the same command resumes it; 130: Ctrl-C), every other failure with 1 and their own sentence.
"""

import os
import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from spoofkit.interrupts import EXIT_CODES

PATIENCE = "180"  # seconds from a signal to a kill: for the step at work and its checkpoint
PASSED_ON = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def main() -> None:
    """Run torchrun with the command line's arguments."""
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", PATIENCE)
    try:
        run.main([f"--signals-to-handle={PASSED_ON}", *sys.argv[1:]])
    except SignalException as stop:  # it was passed on, and the processes have ended
        sys.exit(EXIT_CODES.get(signal.Signals(stop.sigval), 128 + stop.sigval))
    except ChildFailedError as error:
        # When one has stopped, torchrun ends those that are still on their way out.
        codes = {failure.exitcode for failure in error.failures.values()} - {-signal.SIGTERM}
        sys.exit(max(codes) if codes and codes <= set(EXIT_CODES.values()) else 1)


if __name__ == "__main__":
    main()
