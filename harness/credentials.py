"""Masking of passwords and tokens in the address of a store."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
PARTS = re.compile(r"(?s)(?P<scheme>[A-Za-z][\w+.-]*)://(?P<location>.*)")
ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://\S+")
SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|auth|credential|signature|\bsig\b|odbc_connect", re.IGNORECASE)
VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def masked(uri: str) -> str:
    """Mask the password of an address, and passwords, tokens and keys in its query.

    >>> masked("postgresql://ann:hunter2@host/db?sslmode=require&password=hunter2")
    'postgresql://ann:***@host/db?sslmode=require&password=***'
    >>> masked("https://host:5000/#/experiments/1"), masked("sqlite:////home/ann@work/mlflow.db")
    ('https://host:5000/#/experiments/1', 'sqlite:////home/ann@work/mlflow.db')
    """
    text = uri
    for start, end in reversed(list(_secret_spans(uri))):
        text = text[:start] + HIDDEN + text[end:]
    return text


def without_user(uri: str) -> str:
    """Return a web address without its user and password.

    >>> without_user("https://ann:hunter2@host:5000/mlflow")
    'https://host:5000/mlflow'
    """
    address = PARTS.fullmatch(uri)
    if address is None:
        return uri
    end = _end_of_user(address["location"], is_web=True)
    return f"{address['scheme']}://{address['location'][end:].removeprefix('@')}"


def without_secrets(text: str, uri: str, variables: Mapping[str, str] = os.environ) -> str:
    """Mask the secrets of an address, and those in the environment, in a text.

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
    """Yield start and end of the secrets of an address, in order; empty and masked ones are skipped."""
    address = PARTS.fullmatch(uri)
    if address is None:
        return
    start, location = address.start("location"), address["location"]
    end = _end_of_user(location, is_web=address["scheme"].lower() in ("http", "https"))
    user, colon, password = location[:end].partition(":")
    if colon:
        yield from _span(start + len(user) + 1, password)
    elif end and address["scheme"].lower() in ("http", "https"):  # a token may stand alone
        yield from _span(start, user)
    for pair in re.finditer(r"(?<=[?&;#])(?P<name>[^=&;#?]+)=(?P<value>[^&;#]*)", location[end:]):
        if SECRET_NAME.search(unquote_plus(pair["name"])):
            yield from _span(start + end + pair.start("value"), pair["value"])


def _span(start: int, secret: str) -> Iterator[tuple[int, int]]:
    if secret and secret != HIDDEN:
        yield start, start + len(secret)


def _end_of_user(location: str, is_web: bool) -> int:
    """Length of `user:password` before the last `@`: an unquoted password may contain any character."""
    authority = re.split(r"[/?#]", location, maxsplit=1)[0]
    if is_web and ("@" in authority or re.fullmatch(r"(\[.*\]|[^:]*)(:\d*)?", authority)):
        return max(authority.rfind("@"), 0)
    return max(location.rfind("@"), 0) if ":" in authority or "@" in authority else 0


def _up_to_each_at(secret: str) -> list[str]:
    """Return prefixes of a secret that another parser of the address may take for the password."""
    return [secret, *(secret[: at.start()] for at in re.finditer("@", secret))]


def _spellings(secret: str) -> Iterator[str]:
    """Yield the secret verbatim, decoded, re-encoded, and quoted as in messages."""
    for plain in (secret, unquote(secret), unquote_plus(secret)):
        yield from (plain, quote(plain, safe=""), quote_plus(plain), quote(plain), json.dumps(plain)[1:-1])
        yield repr(plain)[1:-1]
