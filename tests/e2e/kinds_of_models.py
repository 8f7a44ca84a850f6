"""Models as people write them, and what the server makes of each; the rows of docs/compatibility.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BUSYBOX, PYTHON = "busybox:1.37", "python:3.13-slim"


@dataclass(frozen=True)
class Kind:
    """A model, what it is given, and how its task ends."""

    name: str
    """As docs/compatibility.md has it."""
    script: str = ""
    """Its command, for a shell; empty where the Dockerfile has its own."""
    dockerfile: tuple[str, ...] = ()
    """Lines after FROM."""
    base: str = BUSYBOX
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the registration."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What is in the result, exactly."""
    reason: str = ""
    """Why the task fails, if it does."""
    says: tuple[str, ...] = ()
    """What stands in the status: in its warnings, its detail or the end of its log."""


COMPATIBLE = {"isolation": "compatible"}
OK = {"ok": b"ok\n"}
WRITE = "echo ok > /output/ok"


def python(code: str) -> str:
    """A command for a shell that runs this code."""
    return f"python -c '{code}'"


FINISHES = (
    Kind("runs as root by its image", "id -u > /output/uid", files={"uid": b"65532\n"}),
    Kind("has a user of its own, strict", "id -u > /output/uid", ("USER 1234:1234",), files={"uid": b"65532\n"}),
    Kind(
        "has a user of its own, compatible",
        "id -u > /output/uid",
        ("USER 1234:1234",),
        options=COMPATIBLE,
        files={"uid": b"1234\n"},
    ),
    Kind(
        "asks who it is",
        python('import getpass, os; open("/output/ok", "w").write(getpass.getuser() + os.path.expanduser("~")[:0])'),
        base=PYTHON,
        files={"ok": b"nonroot"},
    ),
    Kind("keeps a cache in its home", f"mkdir -p ~/.cache/torch && touch ~/.cache/torch/x && {WRITE}", files=OK),
    Kind("writes to /tmp", f"touch /tmp/a && {WRITE}", files=OK),
    Kind("writes beside its program, compatible", f"touch /app.pid && {WRITE}", options=COMPATIBLE, files=OK),
    Kind(
        "shares memory between processes",
        python(
            "import multiprocessing as m; p = m.Pool(2); "
            'open("/output/ok", "w").write(str(sum(p.map(abs, range(-9, 9)))))'
        ),
        base=PYTHON,
        files={"ok": b"81"},
    ),
    Kind("leaves a process behind", f"sleep 600 & {WRITE}", files=OK),
    Kind("reads its standard input", f"cat; {WRITE}", files=OK),
    Kind("has an ENTRYPOINT and a CMD", "", ('ENTRYPOINT ["/bin/sh", "-c"]', f'CMD ["{WRITE}"]'), files=OK),
    Kind("has a command in shell form", "", (f"CMD {WRITE}",), files=OK),
    Kind("counts on its working directory", "cp ok /output", ("WORKDIR /app", "RUN echo ok > ok"), files=OK),
    Kind("declares /output a volume", WRITE, ("VOLUME /output",), files=OK),
    Kind("declares another volume", f"touch /scratch/x && {WRITE}", ("VOLUME /scratch",), options=COMPATIBLE, files=OK),
    Kind("has files where its folders are mounted", WRITE, ("RUN mkdir /output && touch /output/old",), files=OK),
    Kind("has a health check and a stop signal", WRITE, ("HEALTHCHECK CMD false", "STOPSIGNAL SIGUSR1"), files=OK),
    Kind("writes bytes that are no text", f"head -c 4096 /dev/urandom; {WRITE}", files=OK),
    Kind("ends its log without a line's end", f"printf the-end; {WRITE}", files=OK, says=("the-end",)),
    Kind("writes a log in Latin-1", f"printf 'gr\\366\\337e\\n'; {WRITE}", files=OK, says=("gr",)),
    Kind("makes folders and empty files", "mkdir -p /output/a/b; : > /output/a/b/c", files={"a/b/c": b""}),
    Kind(
        "writes names with spaces, umlauts and signs", "echo ok > '/output/ä ö;&#.txt'", files={"ä ö;&#.txt": b"ok\n"}
    ),
    Kind("writes a name in Latin-1", "echo ok > /output/$(printf 'gr\\366')", files={"gr%F6": b"ok\n"}, says=("%F6",)),
    Kind("writes a name with a line's end", "echo ok > \"$(printf '/output/a\\nb')\"", files={"a%0Ab": b"ok\n"}),
    Kind(
        "writes names that differ in case", "cd /output; echo 1 > T1; echo 2 > t1", files={"T1": b"1\n", "t1": b"2\n"}
    ),
    Kind("links to a file of its output", "cd /output; echo ok > a; ln -s a b", files={"a": b"ok\n", "b": b"ok\n"}),
    Kind(
        "links to a file by its whole path",
        "cd /output; echo ok > a; ln -s /output/a b",
        files={"a": b"ok\n", "b": b"ok\n"},
    ),
    Kind("links two names to one file", "cd /output; echo ok > a; ln a b", files={"a": b"ok\n", "b": b"ok\n"}),
    Kind("links to a file of its image", f"{WRITE}; ln -s /etc/passwd /output/p", files=OK, says=("'p' was left out",)),
    Kind("leaves a FIFO behind", f"{WRITE}; mkfifo /output/p", files=OK, says=("'p' was left out: a FIFO",)),
    Kind("takes the rights of its files away", f"{WRITE}; chmod 000 /output/ok", files=OK),
    Kind("writes a file from before 1980", f"{WRITE}; touch -d '1970-01-02 00:00:00' /output/ok", files=OK),
    Kind("copes with a child that was killed", f"sh -c 'kill -9 $$'; {WRITE}", files=OK),
    Kind(
        "writes 20 000 files",
        "cd /output; mkdir d; seq 20000 | (cd d; xargs touch); ls d | wc -l > n; rm -r d",
        files={"n": b"20000\n"},
    ),
)

FAILS = (
    Kind("writes nothing", "true", reason="no_output", says=("/output",)),
    Kind(
        "fails after a part of its work",
        f"{WRITE}; echo no weights >&2; exit 3",
        reason="exit_code",
        says=("no weights",),
    ),
    Kind("writes beside its program, strict", f"touch /app.pid && {WRITE}", reason="exit_code", says=("ead-only",)),
    Kind(
        "writes to /var/tmp, strict",
        f"touch /var/tmp/a && {WRITE}",
        base=PYTHON,
        reason="exit_code",
        says=("Read-only file system",),
    ),
    Kind("needs the network", "wget -T 5 http://198.51.100.1/w.pt", reason="exit_code", says=("unreachable",)),
    Kind("crashes by a wrong access to memory", "kill -SEGV $$", reason="exit_code", says=("SIGSEGV",)),
    Kind("has a command that is not there", "", ('CMD ["/no/such"]',), reason="image_not_found", says=("/no/such",)),
    Kind(
        "has a command that may not be executed",
        "",
        ("RUN echo x > /run.sh", 'CMD ["/run.sh"]'),
        reason="image_not_found",
        says=("/run.sh",),
    ),
    Kind("has no command", "", ("CMD []", "ENTRYPOINT []"), reason="image_not_found"),
)
