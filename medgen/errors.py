"""Errors that medgen raises on purpose: each says what was wrong, where, and what to do."""


class MedgenError(Exception):
    """Base of all deliberate errors; the message is one line fit for a terminal."""

    exit_code = 1


class BadInput(MedgenError):
    """The user's input cannot be used (exit code 2); nothing has been written."""

    exit_code = 2


class Cancelled(MedgenError):
    """A run was told to stop by its caller; what is done so far is kept, and it can be resumed."""
