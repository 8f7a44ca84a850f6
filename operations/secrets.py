"""`inference-server secrets`: makes the passwords by which the services know each other, once, as files.

Runs on a host where nothing is installed, as `python3 -m operations.secrets` or by its path: standard library only.
"""

import argparse
import os
import re
import sys
from pathlib import Path

if not __package__:
    # Started by its path: import from the repository and not from this folder, where `secrets` would be this very file.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from secrets import token_hex

from kit.secret_rules import secret_fault

RANDOM_BYTES = 32
RABBIT_USER = "inference"
_ADVICE = "remove the file to get a new one, or write a random one of 16 characters or more into it"


class SecretsError(Exception):
    """An existing file holds no secret, or a well-known one. The text names the file and what to do."""


def make_secrets(folder: Path) -> list[Path]:
    """Write the files that are missing, and return them. Existing files stay as they are.

    Raises `SecretsError` for an existing file that is unusable, before anything is written, and `OSError`.
    """
    faults = find_faults(folder)
    if faults:
        raise SecretsError("\n".join(f"{fault}; {_ADVICE}" for fault in faults))
    folder.mkdir(parents=True, exist_ok=True)
    # The files are bind-mounted into containers with different users, so everybody may read them. On this host the
    # folder keeps others out.
    folder.chmod(0o700)
    written = []
    for name in ("service_token", "postgres_password", "rabbit_password"):
        if not (folder / name).exists():
            # If RabbitMQ already has a password, the services get the same one.
            known = configured_password(folder / "rabbitmq.conf") if name == "rabbit_password" else None
            written.append(write_whole(folder / name, known or token_hex(RANDOM_BYTES)))
    if not (folder / "rabbitmq.conf").exists():
        password = (folder / "rabbit_password").read_text().strip()
        text = f"default_user = {RABBIT_USER}\ndefault_pass = {password}\n"
        written.append(write_whole(folder / "rabbitmq.conf", text))
    return written


def find_faults(folder: Path) -> list[str]:
    """What is wrong with the existing files, one line per file."""
    faults = []
    for name in ("service_token", "postgres_password", "rabbit_password"):
        path = folder / name
        fault = secret_fault(path.read_text().strip()) if path.exists() else None
        if fault:
            faults.append(f"{path} is {fault}")
    configuration, password = folder / "rabbitmq.conf", folder / "rabbit_password"
    if configuration.exists():
        configured = configured_password(configuration)
        fault = secret_fault(configured or "")
        if fault:
            faults.append(f"default_pass in {configuration} is {fault}")
        elif password.exists() and password.read_text().strip() != configured:
            faults.append(f"default_pass in {configuration} is not what {password} holds")
    return faults


def keep_secret(path: Path, given: "str | None", *, owner: int) -> bool:
    """Write what was given; without it keep what the file holds, or write a new secret. Returns whether it changed.

    The file is for `owner` alone. Only a secret that a service would refuse is replaced by a new one.
    """
    held = path.read_text().strip() if path.exists() else ""
    secret = given or (token_hex(RANDOM_BYTES) if secret_fault(held) else held)
    if secret != held:
        write_whole(path, secret, owner=owner)
    return secret != held


def configured_password(configuration: Path) -> "str | None":
    """RabbitMQ's password in its configuration file, if there is one."""
    if not configuration.exists():
        return None
    match = re.search(r"^\s*default_pass\s*=\s*(\S*)\s*$", configuration.read_text(), re.MULTILINE)
    return match[1] if match else None


def write_whole(path: Path, text: str, *, owner: "int | None" = None) -> Path:
    """Write the file whole or not at all: a secret that a crash cut short would be refused from then on.

    With an owner it is for that user alone; otherwise everybody may read it.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
        if owner is None:
            os.fchmod(descriptor, 0o444)
        else:
            os.fchown(descriptor, owner, owner)
    partial.rename(path)
    return path


def report(folder: Path) -> int:
    """Make the missing files and print their names. Returns the exit code: 2 for a file that must not be used."""
    try:
        written = make_secrets(folder)
    except (SecretsError, OSError) as error:
        print(f"secrets: {error}", file=sys.stderr)  # noqa: T201
        return 2
    for path in written:
        print(f"wrote {path}")  # noqa: T201
    return 0


def main() -> int:
    """Run with the `--dir` of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("secrets"), help="where the files are kept")
    return report(parser.parse_args().dir)


if __name__ == "__main__":
    sys.exit(main())
