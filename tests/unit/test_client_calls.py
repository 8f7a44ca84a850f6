"""`infer call`: requests from JSON, answers as JSON lines, statuses as exit codes, by a door that describes itself."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from inference_client import cli
from inference_client.cli.exit_codes import ExitCode
from tests.labeler import Replica, add_labeler, labeler_servicer, running_replica

Infer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def servicer() -> Any:
    return labeler_servicer()


@pytest.fixture
def endpoint(servicer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Replica]:
    with running_replica(lambda server: add_labeler(server, servicer)) as replica:
        monkeypatch.setenv("INFERENCE_SERVER_GRPC", f"http://{replica.address}")
        monkeypatch.setenv("INFERENCE_SERVER_KEY", "the-key")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        yield replica


@pytest.fixture
def infer(endpoint: Replica, capfd: pytest.CaptureFixture[str]) -> Infer:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return call


def answers(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_unary_call_prints_its_answer_with_the_names_of_the_proto(infer: Infer, servicer: Any) -> None:
    code, out, err = infer("call", "m", "acme.Labeler/Label", '{"name": "cat", "pixels": "AAAA"}')
    assert (code, err) == (0, "")
    assert out == '{"label": "cat", "count": "3", "at": "1970-01-01T00:00:00Z"}\n'
    assert servicer.seen[0]["application"] == "m"
    assert servicer.seen[0]["x-api-key"] == "the-key"


def test_a_method_is_found_without_its_service_and_a_request_may_be_left_out(infer: Infer) -> None:
    code, out, _ = infer("call", "m", "Label")
    assert (code, answers(out)[0]["label"]) == (0, "")


def test_every_kind_of_stream_is_lines_in_and_lines_out(infer: Infer, tmp_path: Path) -> None:
    code, out, _ = infer("call", "m", "Explain", '{"name": "cat"}')
    assert (code, [answer["count"] for answer in answers(out)]) == (0, ["0", "1", "2"])
    lines = tmp_path / "requests.jsonl"
    lines.write_text('{"name": "a"}\n\n{"name": "b"}\n{"name": "c"}')
    code, out, _ = infer("call", "m", "Count", f"@{lines}")
    assert (code, [answer["count"] for answer in answers(out)]) == (0, ["3"])
    code, out, _ = infer("call", "m", "Chat", f"@{lines}")
    assert (code, [answer["label"] for answer in answers(out)]) == (0, ["a", "b", "c"])


def test_a_request_of_a_unary_call_may_stand_on_several_lines_of_a_file(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{\n  "name": "cat"\n}\n')
    assert answers(infer("call", "m", "Label", f"@{tmp_path / 'request.json'}")[1])[0]["label"] == "cat"


def test_a_line_longer_than_what_is_read_at_once_arrives_whole(infer: Infer, tmp_path: Path) -> None:
    pixels = base64.b64encode(b"x" * 300_000).decode()
    (tmp_path / "long.jsonl").write_text(f'{{"name": "a"}}\n{{"name": "b", "pixels": "{pixels}"}}\n')
    code, out, _ = infer("call", "m", "Count", f"@{tmp_path / 'long.jsonl'}")
    assert (code, answers(out)[0]["count"]) == (0, "2")


def test_each_answer_is_printed_when_it_comes_while_stdin_stays_open(endpoint: Replica) -> None:
    command = [sys.executable, "-m", "inference_client", "call", "m", "Chat", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for name in ("a", "b"):
            process.stdin.write(f'{{"name": "{name}"}}\n'.encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["label"] == name
        # The replica ends the stream while stdin is still open: nothing may wait for it.
        process.stdin.write(b'{"name": "enough"}\n')
        process.stdin.flush()
        assert process.wait(timeout=60) == ExitCode.REFUSED
        assert b"UNAUTHENTICATED: no more of that" in process.stderr.read()


def test_a_status_is_told_with_its_details_and_becomes_an_exit_code(infer: Infer) -> None:
    code, out, err = infer("call", "m", "Label", '{"name": "bad"}')
    assert (code, out, err) == (ExitCode.REFUSED, "", "infer: INVALID_ARGUMENT: no picture of that name\n")
    code, out, _ = infer("call", "m", "Label", '{"name": "bad"}', "--json")
    assert code == ExitCode.REFUSED
    assert json.loads(out) == {"error": "CallFailed", "code": "INVALID_ARGUMENT", "detail": "no picture of that name"}


def test_a_call_that_takes_too_long_is_not_ended(infer: Infer) -> None:
    code, _, err = infer("call", "m", "Label", '{"name": "slow"}', "--timeout", "1")
    assert code == ExitCode.NOT_ENDED
    assert "DEADLINE_EXCEEDED" in err


def test_a_method_that_is_not_there_is_not_found_and_the_others_are_named(infer: Infer) -> None:
    code, _, err = infer("call", "m", "Lable")
    assert code == ExitCode.NOT_FOUND
    assert "no method Lable; it has acme.Labeler/Chat, acme.Labeler/Count" in err
    assert infer("call", "m", "acme.Labeler/Lable")[0] == ExitCode.NOT_FOUND
    assert infer("call", "m", "acme.Nobody/Label")[0] == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("request_text", "says"),
    [
        ('{"nmae": "cat"}', 'the request is no acme.Picture: Message type "acme.Picture" has no field named "nmae"'),
        ("cat", "the request is no acme.Picture: Failed to load JSON"),
        ('{"pixels": 5}', "the request is no acme.Picture"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_its_fault(
    infer: Infer, servicer: Any, request_text: str, says: str
) -> None:
    code, out, err = infer("call", "m", "Label", request_text)
    assert (code, out) == (ExitCode.USAGE, "")
    assert says in err
    assert servicer.seen == []


def test_a_faulty_line_of_a_stream_is_named_by_its_number(
    infer: Infer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requests.jsonl").write_text('{"name": "a"}\n{"nmae": "b"}\n')
    code, _, err = infer("call", "m", "Count", f"@{tmp_path / 'requests.jsonl'}")
    assert code == ExitCode.USAGE
    assert "line 2 is no acme.Picture" in err
    assert caplog.records == []


def test_a_file_that_cannot_be_read_is_named(infer: Infer, tmp_path: Path) -> None:
    code, _, err = infer("call", "m", "Label", f"@{tmp_path / 'missing.json'}")
    assert (code, err) == (ExitCode.USAGE, f"infer: {tmp_path / 'missing.json'}: No such file or directory\n")
    (tmp_path / "latin.json").write_bytes(b'{"name": "\xe9"}')
    assert "not UTF-8" in infer("call", "m", "Label", f"@{tmp_path / 'latin.json'}")[2]


def test_metadata_travels_and_what_cannot_be_metadata_is_refused(infer: Infer, servicer: Any) -> None:
    sent = base64.b64encode(b"\x00\xff").decode()
    assert infer("call", "m", "Label", "--metadata", "request_id=7", "--metadata", f"raw-bin={sent}")[0] == 0
    assert (servicer.seen[0]["request_id"], servicer.seen[0]["raw-bin"]) == ("7", b"\x00\xff")
    for faulty in ("Key=x", "key", "grpc-timeout=1", "key=\u00e9", "raw-bin=%", "=x"):
        assert infer("call", "m", "Label", "--metadata", faulty)[0] == ExitCode.USAGE
    assert len(servicer.seen) == 1


def test_a_door_that_is_not_there_is_named(infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_SERVER_GRPC", "http://127.0.0.1:1")
    code, _, err = infer("call", "m", "Label")
    assert code == ExitCode.SERVER
    assert "UNAVAILABLE: 127.0.0.1:1 cannot be reached" in err


def test_the_files_key_goes_to_the_files_door_only(
    infer: Infer, endpoint: Replica, servicer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("INFERENCE_SERVER_KEY")
    path = tmp_path / "config" / "inference-server" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'server = "http://mine"\nkey = "secret"\ngrpc = "http://{endpoint.address}"\n')
    path.chmod(0o600)
    monkeypatch.delenv("INFERENCE_SERVER_GRPC")
    assert infer("call", "m", "Label")[0] == 0
    assert servicer.seen[0]["x-api-key"] == "secret"
    path.write_text('server = "http://mine"\nkey = "secret"\n')
    code, _, err = infer("--grpc", f"http://{endpoint.address}", "call", "m", "Label")
    assert (code, "x-api-key" in servicer.seen[1]) == (0, False)
    assert "is not sent to" in err


def test_without_grpc_it_is_said_how_to_get_it(endpoint: Replica, tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("raise ModuleNotFoundError(\"No module named 'grpc'\")")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "inference_client", "call", "m", "Label"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert "pip install 'inferenceserver-client[grpc]'" in done.stderr


def test_over_tls_the_ca_file_is_the_root_as_over_http(
    infer: Infer, servicer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    ports = []

    def add(server: grpc.aio.Server) -> None:
        add_labeler(server, servicer)
        ports.append(server.add_secure_port("127.0.0.1:0", credentials))

    with running_replica(add):
        monkeypatch.setenv("INFERENCE_SERVER_GRPC", f"localhost:{ports[0]}")
        code, _, err = infer("call", "m", "Label")
        assert code == ExitCode.SERVER
        assert "CERTIFICATE_VERIFY_FAILED" in err
        monkeypatch.setenv("INFERENCE_SERVER_CA", str(certificate))
        assert infer("call", "m", "Label")[0] == 0
    monkeypatch.setenv("INFERENCE_SERVER_CA", str(tmp_path / "missing"))
    assert infer("call", "m", "Label")[0] == ExitCode.USAGE
