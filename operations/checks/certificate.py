"""Checks the certificate that Traefik shows, with `openssl`, which is needed to make one anyway."""

import re
import ssl
import subprocess
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from operations.findings import Finding, ok, problem, warning

WARN_BELOW_S = 14 * 24 * 3600
_DAY_S = 24 * 3600
_NAME = "certificate"


@dataclass(frozen=True)
class Certificate:
    """What decides whether clients accept a certificate. Times are seconds since the epoch."""

    begins_s: float
    ends_s: float
    names: tuple[str, ...]


def check_given_certificate(folder: Path, domain: str) -> Finding:
    """Check the operator's own certificate in `folder`; without one Compose makes one."""
    if not any((folder / name).exists() for name in ("server.crt", "server.key")):
        return ok(_NAME, f"none in {folder}: Compose makes a self-signed one")
    return check_certificate(folder, domain)


def check_certificate(folder: Path, domain: str) -> Finding:
    """Check certificate and key in `folder`, for clients that call the server `domain`."""
    certificate, key = folder / "server.crt", folder / "server.key"
    make = f"put yours there, or make one with {folder}/generate_self_signed_certs {domain or 'DOMAIN'}"
    for path in (certificate, key):
        if not path.exists():
            return problem(_NAME, f"there is no {path}", make)
    try:
        # Traefik cannot use an encrypted key. Without a password here OpenSSL would ask the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "none")
    except PermissionError:
        return warning(_NAME, f"you may not read {certificate} or {key}", "run this as their owner")
    except ssl.SSLError as error:
        return problem(
            _NAME, f"{key} does not belong to {certificate}, or one of them is not a PEM file: {error.reason}", make
        )
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-startdate", "-enddate", "-ext", "subjectAltName"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return warning(_NAME, f"{certificate} cannot be read without openssl 1.1.1 or newer", "install openssl")
    return judge_certificate(parse_certificate(printed), domain, time.time(), make)


def parse_certificate(printed: str) -> Certificate:
    """Parse what `openssl x509` prints for `-startdate -enddate -ext subjectAltName`."""
    times = dict(re.findall(r"^(notBefore|notAfter)=(.+)$", printed, re.MULTILINE))
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", printed)
    return Certificate(
        begins_s=ssl.cert_time_to_seconds(times["notBefore"]),
        ends_s=ssl.cert_time_to_seconds(times["notAfter"]),
        names=tuple(names),
    )


def judge_certificate(certificate: Certificate, domain: str, now_s: float, make: str) -> Finding:
    """The finding about a certificate at a moment."""
    names = ", ".join(certificate.names) or "no name"
    if certificate.ends_s <= now_s:
        return problem(_NAME, f"expired {(now_s - certificate.ends_s) / _DAY_S:.0f} days ago", make)
    if certificate.begins_s > now_s:
        return problem(_NAME, "not valid yet", "check this host's clock; if it is right, " + make)
    if not any(covers(name, domain) for name in certificate.names):
        return problem(_NAME, f"for {names}, and not for PROXY_DOMAIN={domain}", make)
    if not is_address(domain) and not any(covers(name, f"grpc.{domain}") for name in certificate.names):
        return warning(_NAME, f"for {names}, and not for grpc.{domain}", "gRPC clients need that name: " + make)
    found = f"for {names}, valid for {(certificate.ends_s - now_s) / _DAY_S:.0f} days"
    return warning(_NAME, found, "renew it: " + make) if certificate.ends_s - now_s < WARN_BELOW_S else ok(_NAME, found)


def is_address(domain: str) -> bool:
    """Whether clients reach the server by an IP address."""
    try:
        ip_address(domain)
    except ValueError:
        return False
    return True


def covers(name: str, domain: str) -> bool:
    """Whether a name of a certificate covers a domain. A star covers one label, the first, and of no address."""
    if is_address(domain):
        return is_address(name) and ip_address(name) == ip_address(domain)
    name, domain = name.lower(), domain.lower()
    return name == domain or (name.startswith("*.") and domain.partition(".")[2] == name[2:] != "")
