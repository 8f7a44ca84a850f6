"""`inference-server secrets`: the passwords by which the services know each other, made once, as files.

Runs on a host where nothing is installed, as `python3 -m operations.secrets` or by its path: standard library only.
"""

import argparse
import os
import re
import sys
from pathlib import Path

if not __package__:
    # Started by its path: the repository takes the place of this folder, where `secrets` would be this very file.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from secrets import token_hex

from contract.secret_rules import secret_fault

RANDOM_BYTES = 32
RABBIT_USER = "inference"
_ADVICE = "remove the file to get a new one, or write a random one of 16 characters or more into it"


class SecretsError(Exception):
    """A file that is there holds no secret, or one that everybody knows. The text names the file and what to do."""


def make_secrets(folder: Path) -> list[Path]:
    """Write the files that are missing and return them; those that are there stay as they are.

    Raises `SecretsError` for one that is there and unusable, before anything is written, and `OSError`.
    """
    faults = find_faults(folder)
    if faults:
        raise SecretsError("\n".join(f"{fault}; {_ADVICE}" for fault in faults))
    folder.mkdir(parents=True, exist_ok=True)
    # The files are bind-mounted into containers whose users differ, and everybody may read them there. On this host the
    # folder keeps everybody else out.
    folder.chmod(0o700)
    written = []
    for name in ("service_token", "postgres_password", "rabbit_password"):
        if not (folder / name).exists():
            # Where RabbitMQ already knows its password, the services are given that one.
            known = _configured_password(folder / "rabbitmq.conf") if name == "rabbit_password" else None
            written.append(_write(folder / name, known or token_hex(RANDOM_BYTES)))
    if not (folder / "rabbitmq.conf").exists():
        password = (folder / "rabbit_password").read_text().strip()
        text = f"default_user = {RABBIT_USER}\ndefault_pass = {password}\n"
        written.append(_write(folder / "rabbitmq.conf", text))
    return written


def find_faults(folder: Path) -> list[str]:
    """What is wrong with the files that are there, one line per file."""
    faults = []
    for name in ("service_token", "postgres_password", "rabbit_password"):
        path = folder / name
        fault = secret_fault(path.read_text().strip()) if path.exists() else None
        if fault:
            faults.append(f"{path} is {fault}")
    configuration, password = folder / "rabbitmq.conf", folder / "rabbit_password"
    if configuration.exists():
        configured = _configured_password(configuration)
        fault = secret_fault(configured or "")
        if fault:
            faults.append(f"default_pass in {configuration} is {fault}")
        elif password.exists() and password.read_text().strip() != configured:
            faults.append(f"default_pass in {configuration} is not what {password} holds")
    return faults


def _configured_password(configuration: Path) -> "str | None":
    if not configuration.exists():
        return None
    match = re.search(r"^\s*default_pass\s*=\s*(\S*)\s*$", configuration.read_text(), re.MULTILINE)
    return match[1] if match else None


def _write(path: Path, text: str) -> Path:
    """Whole or not at all: a file that a crash cut short would be refused for ever after."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o444)
    partial.rename(path)
    return path


def report(folder: Path) -> int:
    """Make what is missing and say so. Returns the exit code: 2 for a file that must not be used."""
    try:
        written = make_secrets(folder)
    except (SecretsError, OSError) as error:
        print(f"secrets: {error}", file=sys.stderr)  # noqa: T201
        return 2
    for path in written:
        print(f"wrote {path}")  # noqa: T201
    return 0


def main() -> int:
    """Take `--dir` from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("secrets"), help="where the files are kept")
    return report(parser.parse_args().dir)


if __name__ == "__main__":
    sys.exit(main())
