"""Passwords and tokens in the address of a store: never shown, in whatever text they occur."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
PARTS = re.compile(r"(?s)(?P<scheme>[A-Za-z][\w+.-]*)://(?P<place>.*)")
ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://\S+")
SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|auth|credential|signature|\bsig\b|odbc_connect", re.IGNORECASE)
VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def masked(uri: str) -> str:
    """The address with `***` in place of its password, and of what its query calls a password, a token or a key.

    >>> masked("postgresql://ann:hunter2@host/db?sslmode=require&password=hunter2")
    'postgresql://ann:***@host/db?sslmode=require&password=***'
    >>> masked("https://host:5000/#/experiments/1"), masked("sqlite:////home/ann@work/mlflow.db")
    ('https://host:5000/#/experiments/1', 'sqlite:////home/ann@work/mlflow.db')
    """
    shown = uri
    for start, end in reversed(list(_secret_spans(uri))):
        shown = shown[:start] + HIDDEN + shown[end:]
    return shown


def without_secrets(text: str, uri: str, variables: Mapping[str, str] = os.environ) -> str:
    """The text without the secrets of an address, nor those that the environment has for a store.

    >>> without_secrets("no access for 'ann' with p@ss, p%40ss", "mysql://ann:p%40ss@host/db")
    "no access for 'ann' with ***, ***"
    """
    text = ADDRESS.sub(lambda address: masked(address[0]), text.replace(uri, masked(uri)))
    secrets = [part for start, end in _secret_spans(uri) for part in _up_to_each_at(uri[start:end])]
    secrets += [variables[name] for name in VARIABLES if variables.get(name)]
    spellings = {spelling for secret in secrets for spelling in _spellings(secret) if spelling}
    if not spellings:
        return text
    longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
    return re.sub("|".join(map(re.escape, longest_first)), HIDDEN, text, flags=re.IGNORECASE)


def _secret_spans(uri: str) -> Iterator[tuple[int, int]]:
    """Where the secrets of an address begin and end, in order; none of them is empty or masked already."""
    found = PARTS.fullmatch(uri)
    if found is None:
        return
    start, place = found.start("place"), found["place"]
    end = _end_of_user(place, is_web=found["scheme"].lower() in ("http", "https"))
    user, colon, password = place[:end].partition(":")
    if colon:
        yield from _span(start + len(user) + 1, password)
    elif end and found["scheme"].lower() in ("http", "https"):  # a token may stand alone
        yield from _span(start, user)
    for pair in re.finditer(r"(?<=[?&;#])(?P<name>[^=&;#?]+)=(?P<value>[^&;#]*)", place[end:]):
        if SECRET_NAME.search(unquote_plus(pair["name"])):
            yield from _span(start + end + pair.start("value"), pair["value"])


def _span(start: int, secret: str) -> Iterator[tuple[int, int]]:
    if secret and secret != HIDDEN:
        yield start, start + len(secret)


def _end_of_user(place: str, is_web: bool) -> int:
    """The length of `user:password` before its `@`, the last one: a password that is not quoted holds any character."""
    authority = re.split(r"[/?#]", place, maxsplit=1)[0]
    if is_web and ("@" in authority or re.fullmatch(r"(\[.*\]|[^:]*)(:\d*)?", authority)):
        return max(authority.rfind("@"), 0)
    return max(place.rfind("@"), 0) if ":" in authority or "@" in authority else 0


def _up_to_each_at(secret: str) -> list[str]:
    """The parts of a secret that another reader of the address may take for the password."""
    return [secret, *(secret[: at.start()] for at in re.finditer("@", secret))]


def _spellings(secret: str) -> Iterator[str]:
    """The secret as it stands, decoded, encoded anew, and as texts quote it."""
    for plain in (secret, unquote(secret), unquote_plus(secret)):
        yield from (plain, quote(plain, safe=""), quote_plus(plain), quote(plain), json.dumps(plain)[1:-1])
        yield repr(plain)[1:-1]
