"""Clients of elastic distributed inference on the whole Compose stack: in plain text as they are, and through TLS."""

import json
import queue
import threading
from typing import Any

import grpc
import pytest

from contract.tokens import Claims, sign_token, stream_key
from tests.grpc import lines
from tests.grpc.stack import EXAMPLES, HOSTS, SOON_S, Stack, serving_of
from tests.zips import make_zip

CODE = grpc.StatusCode
SLOW_KERNEL = b"""
import time
from redhareapi import Kernel

class Slow(Kernel):
    def on_kernel_start(self, kernel_context):
        pass

    def on_task_invoke(self, task_context):
        batch = []
        while task_context is not None:
            batch.append(task_context)
            task_context = task_context.next()
        if batch[0].get_input_data() == "hold":
            time.sleep(6)
        for task in batch:
            task.set_output_data(f"{task.get_input_data()} of {len(batch)}")

    def on_kernel_shutdown(self):
        pass

Slow().run()
"""
"""While it is held up by one request, the next ones gather for one call."""


def test_the_client_of_streams_takes_the_address_that_it_is_given(stack: Stack) -> None:
    assert stack.stream() == lines.REDHARE["redhare_stream.py"]


@HOSTS
def test_streams_of_a_kernel_pass_through_tls(stack: Stack, host: str) -> None:
    with stack.grpc.channel() as channel:
        token = authenticate(channel, model_name="text-figures", userpasswd=stack.userpasswd).token
    assert stack.run("redhare_stream.py", host, {"STREAM_TOKEN": token}) == lines.REDHARE["redhare_stream.py"]


def authenticate(channel: grpc.Channel, **attributes: str) -> Any:
    import stream_pb2
    import stream_pb2_grpc

    request = stream_pb2.AuthRequest(attributes=attributes)
    return stream_pb2_grpc.InferenceStub(channel).auth(request, timeout=SOON_S)


def test_a_password_in_several_lines_and_a_token_open_streams(stack: Stack, channel: grpc.Channel) -> None:
    assert stack.userpasswd.count("\n") == 2
    given = authenticate(channel, model_name="text-figures", userpasswd=stack.userpasswd)
    assert given.url == stack.stream_url
    assert authenticate(channel, model_name="text-figures", token=given.token).token == given.token
    assert authenticate(channel, model_name="text-figures", token=stack.key).token
    # Nobody needs a key here, so any name and password will do.
    assert authenticate(channel, model_name="text-figures", userpasswd="bm9ib2R5OnNlY3JldA==").token


@pytest.mark.parametrize("what", ["forged", "expired", "of-another-model-later", "data"])
def test_a_stream_without_its_token_ends_while_the_client_goes_on(
    stack: Stack, channel: grpc.Channel, what: str
) -> None:
    import stream_pb2
    import stream_pb2_grpc

    token = authenticate(channel, model_name="text-figures").token
    other = authenticate(channel, model_name="app1").token
    key = stream_key(stack.service_token, "text-figures")
    messages = {
        "forged": [stream_pb2.Request(token=token[:-8] + token[-8:].swapcase())],
        "expired": [stream_pb2.Request(token=sign_token(key, Claims("text-figures", None, 1)))],
        "of-another-model-later": [stream_pb2.Request(token=token), stream_pb2.Request(token=other)],
        "data": [stream_pb2.Request(data=b"{}")],
    }[what]
    sent: queue.Queue[Any] = queue.Queue()
    for message in messages:
        sent.put(message)
    call = stream_pb2_grpc.InferenceStub(channel).stream_infer(iter(sent.get, None))
    ended = threading.Event()
    if not call.add_callback(ended.set):
        ended.set()
    assert ended.wait(SOON_S), "the end of the stream was held back"
    assert call.code() is CODE.UNAUTHENTICATED, call.details()
    sent.put(None)


def test_a_batch_of_eight_returns_eight(stack: Stack) -> None:
    import stream_pb2
    import stream_pb2_grpc

    serving = serving_of(EXAMPLES / "grpc" / "kernel")
    with (
        stack.deployed("redhare", serving, make_zip({"kernel.py": SLOW_KERNEL})) as slow,
        stack.grpc.channel() as channel,
    ):
        token = authenticate(channel, model_name=slow).token
        texts = [b"hold", *(f"{number}".encode() for number in range(8))]
        requests = [stream_pb2.Request(token=token), *(stream_pb2.Request(data=text) for text in texts)]
        answers = stream_pb2_grpc.InferenceStub(channel).stream_infer(iter(requests), timeout=60)
        told = [answer.data.decode() for answer in answers]
    assert [text.split()[0] for text in told] == [text.decode() for text in texts]
    # Those that came with the first one were led through in its call.
    together = int(told[0].split()[-1])
    assert told[together:] == [f"{number} of {9 - together}" for number in range(together - 1, 8)]


def test_a_task_of_a_deployed_kernel_runs_in_its_replica(stack: Stack) -> None:
    (replica,) = stack.grpc.replicas("text-figures")
    uid = stack.grpc.door.submit("text-figures", {"one.json": b'{"key": 1, "data": "a bcd"}'})
    answer = json.loads(stack.grpc.door.result(uid)["one.json"])
    assert answer == {"key": 1, "data": {"words": 2, "mean_length": 2.0}, "batch": 1}
    assert stack.ran_in(uid) == replica["uid"]
