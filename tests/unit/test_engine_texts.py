"""What is told of the Docker Engine's own words: sentences of ours, and to the operator's log the words themselves."""

import pytest
from docker.errors import APIError
from requests.exceptions import ConnectionError as RequestsConnectionError

from contract.statuses import Reason
from job_consumer.engines import EngineError, EngineUnavailable, ImageNotFound
from job_consumer.engines.docker.errors import engine_errors, start_error
from job_consumer.engines.docker.pull_faults import PullFault, judge_pull
from job_consumer.output.failures import ModelFailed

HTTPS = 'Get "https://10.0.0.5:22/v2/": '


@pytest.mark.parametrize(
    ("said", "fault", "why"),
    [
        ("manifest for x:1 not found: manifest unknown: manifest unknown", PullFault.ABSENT, "no such tag"),
        ("name unknown: repository name not known to registry", PullFault.ABSENT, "no such image"),
        (
            "pull access denied for x, repository does not exist or may require 'docker login'",
            PullFault.ABSENT,
            "wants a login",
        ),
        ("Head https://r/v2/x/manifests/1: no basic auth credentials", PullFault.ABSENT, "wants a login"),
        ("errors:\ndenied: requested access\nunauthorized: authentication required\n", PullFault.ABSENT, "login"),
        ("no matching manifest for linux/arm64 in the manifest list entries", PullFault.ABSENT, "CPU"),
        ("invalid reference format: repository name must be lowercase", PullFault.ABSENT, "not the name of an image"),
        ("toomanyrequests: access denied: You have reached your pull rate limit", PullFault.OURS, "no more requests"),
        (
            "unexpected status from HEAD request to https://r/v2/x/manifests/1: 503 Service Unavailable",
            PullFault.OURS,
            "in trouble",
        ),
        ("received unexpected HTTP status: 504 Gateway Timeout", PullFault.OURS, "in trouble"),
        ("failed to register layer: no space left on device", PullFault.OURS, "disk"),
        ("something new", PullFault.OURS, "log"),
    ],
)
def test_what_a_registry_says_of_an_image_is_told_in_words_of_ours(said: str, fault: PullFault, why: str) -> None:
    judged, told = judge_pull(said)
    assert judged is fault
    assert why in told


@pytest.mark.parametrize(
    "said",
    [
        HTTPS + "dial tcp 10.0.0.5:22: connect: connection refused",
        HTTPS + "dial tcp 10.0.0.5:22: i/o timeout",
        HTTPS + "dial tcp 10.0.0.5:22: connect: no route to host",
        HTTPS + "dial tcp: lookup r on 127.0.0.53:53: no such host",
        HTTPS + "net/http: TLS handshake timeout",
        HTTPS + "context deadline exceeded",
        HTTPS + "EOF",
        HTTPS + "http: server gave HTTP response to HTTPS client",
        HTTPS + 'net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-OpenSSH_9.2"',
        HTTPS + "tls: first record does not look like a TLS handshake",
        HTTPS + "remote error: tls: internal error",
        HTTPS + "x509: certificate signed by unknown authority",
    ],
)
def test_what_listens_at_an_address_that_is_no_registry_is_not_told(said: str) -> None:
    assert judge_pull(said) == (PullFault.UNREACHABLE, "no registry could be reached")


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', EngineUnavailable, "nvidia-ctk"),
        # Up to version 20.10, and since.
        ("Unknown runtime specified runsc", EngineUnavailable, "no runtime runsc: add it to"),
        ("unknown or invalid runtime name: runsc", EngineUnavailable, "no runtime runsc: add it to"),
        ("No such image: lab/secret:1", ImageNotFound, "not on this host any more"),
        (
            'OCI runtime create failed: exec: "foo": executable file not found in $PATH',
            ImageNotFound,
            "cannot be executed: foo is not in the image, or not on its PATH",
        ),
        ('runc create failed: exec: "/opt/run": permission denied', ImageNotFound, "/opt/run is not executable"),
        ("no command specified", ImageNotFound, "cannot be executed: it names none"),
        ("No command specified", ImageNotFound, "cannot be executed: it names none"),
        (
            "unable to find user nobody-knows-me: no matching entries in passwd file",
            ImageNotFound,
            "it has no user nobody-knows-me",
        ),
        ("standard_init_linux.go:228: exec user process caused: exec format error", ImageNotFound, "kind of CPU"),
        ('exec: "docker-init": executable file not found in $PATH', EngineUnavailable, "refused to start"),
        ("failed to mount local volume: no such file or directory: /srv/host", EngineUnavailable, "refused to start"),
    ],
)
def test_a_failed_start_is_blamed_on_the_image_only_where_it_is_its_fault(
    said: str, kind: type[EngineError], told: str
) -> None:
    error = start_error(APIError("refused", explanation=said))
    assert type(error) is kind
    assert told in error.detail
    assert said not in error.detail
    if kind is ImageNotFound:
        assert said in str(error)


def test_container_ids_are_told_to_nobody() -> None:
    error = start_error(APIError("refused", explanation=f"container {'ab' * 32} is odd"))
    assert str(error).endswith("container is odd")


@pytest.mark.parametrize(
    "raised",
    [
        APIError("refused", explanation="dial tcp 10.0.0.5:22: connection refused"),
        RequestsConnectionError("/run/secret.sock: connection refused"),
    ],
)
def test_an_error_of_any_call_keeps_its_words_for_the_log(raised: Exception) -> None:
    with pytest.raises(EngineUnavailable) as caught, engine_errors():
        raise raised
    assert "connection refused" in str(caught.value)
    assert "connection refused" not in caught.value.detail
    assert "Docker Engine" in caught.value.detail


def test_a_failure_of_the_model_is_logged_with_the_words_and_told_without() -> None:
    error = ImageNotFound("the image is away", "dial tcp 10.0.0.5:22")
    failed = ModelFailed(Reason.IMAGE_NOT_FOUND, error.detail, said=str(error))
    assert str(failed) == "image_not_found: the image is away: dial tcp 10.0.0.5:22"
    assert failed.detail == "the image is away"
