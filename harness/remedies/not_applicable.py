"""Error of a remedy that does not apply."""

from harness.errors import HarnessError


class RemedyNotApplicable(HarnessError):
    """A remedy cannot be applied to a case; the message is the reason."""
