"""`infer call` through a real gateway: nothing was generated for it, the gateway's reflection says all it needs."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_client import cli
from inference_client.cli.exit_codes import ExitCode
from tests.integration.contract_harness import KEY, run_contract_gateway
from tests.integration.grpc_harness import RunningGateway, route
from tests.kserve_replica import add_kserve, kserve_servicer
from tests.labeler import add_labeler, labeler_servicer, running_replica

Infer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def servicers() -> dict[str, Any]:
    return {name: labeler_servicer(f"{name}-") for name in ("one", "two")}


@pytest.fixture
def gateway(servicers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunningGateway]:
    with (
        running_replica(lambda server: add_labeler(server, servicers["one"])) as one,
        running_replica(lambda server: add_labeler(server, servicers["two"])) as two,
        running_replica(lambda server: add_kserve(server, kserve_servicer())) as triton,
        run_contract_gateway(
            route("one", one.address),
            route("two", two.address),
            route("triton", triton.address, protocol="kserve"),
            requires_key=True,
        ) as gateway,
    ):
        monkeypatch.setenv("INFERENCE_SERVER_GRPC", f"http://127.0.0.1:{gateway.port}")
        monkeypatch.setenv("INFERENCE_SERVER_KEY", KEY)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        yield gateway


@pytest.fixture
def infer(gateway: RunningGateway, capfd: pytest.CaptureFixture[str]) -> Infer:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["call", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def answers(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_model_that_is_named_is_called_in_every_cardinality(infer, servicers, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text('{"name": "a"}\n{"name": "b"}\n')
    for model in ("one", "two"):
        assert answers(infer(model, "Label", '{"name": "x"}')[1])[0]["label"] == f"{model}-x"
        assert len(answers(infer(model, "acme.Labeler/Explain", '{"name": "x"}')[1])) == 3
        assert answers(infer(model, "Count", f"@{lines}")[1])[0]["count"] == "2"
        labels = [answer["label"] for answer in answers(infer(model, "Chat", f"@{lines}")[1])]
        assert labels == [f"{model}-a", f"{model}-b"]
        # The key is the gateway's business.
        assert all("x-api-key" not in seen for seen in servicers[model].seen)


def test_a_stream_of_kserve_needs_no_description_from_its_replica(infer, tmp_path):
    content = base64.b64encode(b"tensor").decode()
    lines = tmp_path / "lines"
    lines.write_text(
        "".join(f'{{"model_name": "triton", "id": "{each}", "raw_input_contents": ["{content}"]}}\n' for each in "12")
    )
    code, out, _ = infer("triton", "ModelStreamInfer", f"@{lines}")
    assert code == 0
    assert [answer["infer_response"]["id"] for answer in answers(out)] == ["1", "2", "last"]
    assert answers(out)[0]["infer_response"]["raw_output_contents"] == [content]


def test_an_error_comes_with_the_id_by_which_the_operator_finds_it(infer):
    code, _, err = infer("one", "Label", '{"name": "bad"}', "--metadata", "request_id=my-own")
    assert (code, err) == (
        ExitCode.REFUSED,
        "infer: INVALID_ARGUMENT: no picture of that name (request my-own)\n",
    )
    code, out, _ = infer("one", "Label", '{"name": "bad"}', "--metadata", "request_id=my-own", "--json")
    assert json.loads(out)["request_id"] == "my-own"


def test_a_model_or_method_that_is_not_there_is_not_found(infer):
    code, _, err = infer("nobody", "Label")
    assert code == ExitCode.NOT_FOUND
    assert "NOT_FOUND: Application 'nobody' not found." in err
    code, _, err = infer("one", "Lable")
    assert code == ExitCode.NOT_FOUND
    assert "it has acme.Labeler/Chat, acme.Labeler/Count, acme.Labeler/Explain, acme.Labeler/Label" in err


def test_without_a_key_where_one_is_required_nothing_is_told(infer, monkeypatch):
    monkeypatch.delenv("INFERENCE_SERVER_KEY")
    code, _, err = infer("one", "Label")
    assert code == ExitCode.REFUSED
    assert "UNAUTHENTICATED: this server wants a key" in err
