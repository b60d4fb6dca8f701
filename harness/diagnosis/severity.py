"""Severity of a finding: four words in one order, shared by diagnosis, audit and report."""

from enum import StrEnum


class Severity(StrEnum):
    """Severity of a finding; the members are in order, gravest first.

    Members:
        FAULT: the layer, the penalty or the model does not work.
        RISK: harmful for some data or some numbers.
        NOTE: information.
        UNDECIDED: a rule could not be decided.

    >>> str(Severity.RISK), sorted(["note", "fault"], key=gravity)
    ('risk', ['fault', 'note'])
    """

    FAULT = "fault"
    RISK = "risk"
    NOTE = "note"
    UNDECIDED = "undecided"


def severity_of(word: object) -> str:
    """Return the severity that a stored word names; any other word is returned unchanged.

    Results of earlier versions say `warning` where a risk is meant. A missing word is a note.

    >>> severity_of("warning"), severity_of("catastrophe"), severity_of(None)
    (<Severity.RISK: 'risk'>, 'catastrophe', <Severity.NOTE: 'note'>)
    """
    name = "note" if word is None else FORMER_WORDS.get(str(word), str(word))
    return Severity(name) if name in ORDER else name


def gravity(word: object) -> int:
    """Rank of a severity, from 0 for the gravest; words that name no severity come last.

    >>> [gravity(word) for word in ("fault", "risk", "warning", "note", "undecided", "catastrophe")]
    [0, 1, 1, 2, 3, 4]
    """
    severity = severity_of(word)
    return ORDER.index(severity) if severity in ORDER else len(ORDER)


ORDER: tuple[str, ...] = tuple(Severity)
FORMER_WORDS = {"warning": "risk"}
