"""The one exception type that a wrong input raises, and what others say in a line."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what was wanted, what came, and where.

    The command line prints the message as one line and exits with code 2; from Python it is an ordinary
    `ValueError`.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
