"""The one exception type that a wrong input raises."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what was wanted, what came, and where.

    The command line prints the message as one line and exits with code 2; from Python it is an ordinary
    `ValueError`.
    """
