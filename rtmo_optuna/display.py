"""What others wrote, as it may be shown: database URLs without their passwords, names without control characters."""

import re
from urllib.parse import unquote

_HIDDEN = "***"
# What SQLAlchemy takes for user and password, up to the last @, since a password may hold one that is not escaped; also
# where some of :// is missing.
_PASSWORD = re.compile(r"^(\w[\w+.-]*://|(?!\w[\w+.-]*://)(?:\w[\w+.-]*:?/{0,3})?)([^:/]*):(.+)@", re.DOTALL)
_SECRET = re.compile(r"(?i)([?&][^=&]*(?:password|passwd|pwd|passphrase|secret|token|key)=)([^&]+)")
# Control characters but tabs and line ends, what turns the direction of writing, and halves of a character.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def without_password(storage: str) -> str:
    """Return a database URL, or what was meant to be one, that may be shown."""
    hidden = _PASSWORD.sub(lambda found: f"{found[1]}{found[2]}:{_HIDDEN}@", storage)
    return _SECRET.sub(lambda found: found[1] + _HIDDEN, hidden)


def without_secrets(text: str, storage: str) -> str:
    """Return `text`, in which a library may tell parts of the database URL `storage`, without passwords.

    What follows an @ that is not escaped in a password, the library takes for the host.
    """
    found = [match[3] for match in _PASSWORD.finditer(storage)] + [match[2] for match in _SECRET.finditer(storage)]
    parts = [part for secret in found for part in (secret, *secret.split("@")) if part]
    told = {form for part in parts for form in (part, unquote(part))}
    for secret in sorted(told, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, text)
    return text.replace(storage, without_password(storage))


def fenced(text: str, language: str = "") -> str:
    """Return `text` as a block of Markdown that shows it as it is, whatever fences are in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def visible(text: str) -> str:
    r"""Return `text` with every character that a terminal would obey, or that hides others, as `\x1b` and the like."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
