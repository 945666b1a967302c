"""The two exceptions that the command line turns into a message."""


class SpoofkitError(Exception):
    """A user's mistake or a failed check, described in one sentence.

    The sentence says where, what was found, what was expected and how to fix it. The command line prints it
    without a traceback and exits with code 1; every other exception is a defect of spoofkit and keeps its traceback.
    """


class Interrupted(Exception):
    """A signal stopped a verb; the sentence says what to run next.

    `exit_code` is 130 for Ctrl-C. For a scheduler's SIGTERM or SIGUSR1 it is 75 (EX_TEMPFAIL) if work is saved and the
    same command resumes it, else 128 and the number of the signal.
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
