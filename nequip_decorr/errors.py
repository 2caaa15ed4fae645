"""The exception for problems that a user can fix."""


class UserError(ValueError):
    """A user's input is wrong; the message says what is wrong and what to do.

    ``nequip-decorr`` prints it as one line. Any other exception is a bug, here or in
    another package, and keeps its traceback.
    """
