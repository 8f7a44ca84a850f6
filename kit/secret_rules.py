"""What a secret must look like, for services at their start and for the command that makes the files.

Standard library only, because secrets are made on hosts where nothing is installed yet.
"""

import re

MIN_LENGTH = 16
_MIN_DISTINCT = 5
_WELL_KNOWN = frozenset(
    {
        "admin",
        "administrator",
        "changeit",
        "changeme",
        "default",
        "dummy",
        "example",
        "guest",
        "inference",
        "inferenceserver",
        "letmein",
        "mypassword",
        "mysecret",
        "mysecretpassword",
        "none",
        "null",
        "pass",
        "passwd",
        "password",
        "placeholder",
        "postgres",
        "postgrespassword",
        "postgresql",
        "qwerty",
        "rabbit",
        "rabbitmq",
        "rabbitmqpassword",
        "replaceme",
        "root",
        "secret",
        "secretpassword",
        "servicetoken",
        "supersecret",
        "supersecretpassword",
        "test",
        "testing",
        "todo",
        "token",
        "user",
        "yourpassword",
        "yoursecret",
        "yourtoken",
    }
)


def secret_fault(text: str) -> str | None:
    """What is wrong with a secret, to follow `it is`, or None. The text never contains the secret."""
    if not text.strip():
        return "empty"
    if is_well_known(text):
        return "a well-known default"
    if len(text) < MIN_LENGTH:
        return f"shorter than {MIN_LENGTH} characters"
    return None


def is_well_known(text: str) -> bool:
    """Whether anybody would guess it: a common word, doubled or with numbers around it, or few distinct characters."""
    word = re.sub(r"[^a-z]", "", text.lower())
    doubled = re.fullmatch(r"(.+?)\1+", word)
    return len(set(text)) < _MIN_DISTINCT or bool({word, doubled[1] if doubled else word} & _WELL_KNOWN)
