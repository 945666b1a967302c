"""The one exception that means: a mistake the user can mend."""


class SpoofkitError(Exception):
    """A user's mistake or a failed check, told in one sentence.

    The sentence says where, what was found, what was expected and how to mend it. The command line prints it
    without a traceback and exits with code 1; every other exception is a defect of spoofkit and keeps its traceback.
    """
