"""Where server, key and CA come from, and that a key goes nowhere it does not belong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_client.config import DEFAULT_SERVER, load_config
from inference_client.errors import UnusableInput
from inference_client.units import format_duration, format_size, parse_duration, parse_size


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def store(environment: dict[str, str], text: str, mode: int = 0o600) -> Path:
    path = Path(environment["XDG_CONFIG_HOME"]) / "inference-server" / "config.toml"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_anything_the_server_of_this_machine_is_meant(environment: dict[str, str]) -> None:
    config = load_config(environment)
    assert (config.server, config.key, config.ca, config.warnings) == (DEFAULT_SERVER, None, None, ())


def test_flags_win_over_the_environment_which_wins_over_the_file(environment: dict[str, str]) -> None:
    store(environment, 'server = "http://file"\nkey = "file-key"\nca = "/file/ca.pem"\n')
    assert load_config(environment).server == "http://file"
    assert load_config(environment).key == "file-key"
    assert load_config(environment).ca == Path("/file/ca.pem")
    environment |= {"INFERENCE_SERVER_KEY": "env-key", "INFERENCE_SERVER_CA": "/env/ca.pem"}
    assert load_config(environment).key == "env-key"
    assert load_config(environment, key="flag-key").key == "flag-key"
    assert load_config(environment).ca == Path("/env/ca.pem")
    environment["INFERENCE_SERVER_URL"] = "http://env"
    assert load_config(environment).server == "http://env"
    assert load_config(environment, server="http://flag").server == "http://flag"


def test_an_empty_variable_is_an_unset_one(environment: dict[str, str]) -> None:
    environment |= {"INFERENCE_SERVER_URL": "", "INFERENCE_SERVER_KEY": ""}
    config = load_config(environment)
    assert (config.server, config.key) == (DEFAULT_SERVER, None)


def test_the_files_key_is_not_sent_to_another_server(environment: dict[str, str]) -> None:
    store(environment, 'server = "https://mine"\nkey = "secret"\n')
    config = load_config(environment, server="https://other")
    assert config.key is None
    assert "is not sent to https://other" in config.warnings[0]
    assert "secret" not in config.warnings[0]


def test_a_file_with_a_key_alone_serves_any_server(environment: dict[str, str]) -> None:
    store(environment, 'key = "secret"\n')
    assert load_config(environment, server="https://other").key == "secret"


def test_a_key_that_others_can_read_is_warned_of(environment: dict[str, str]) -> None:
    path = store(environment, 'key = "secret"\n', mode=0o644)
    assert load_config(environment).warnings == (f"other users can read the key in {path}; run: chmod 600 {path}",)


def test_a_readable_file_without_a_key_is_fine(environment: dict[str, str]) -> None:
    store(environment, 'server = "http://file"\n', mode=0o644)
    assert load_config(environment).warnings == ()


@pytest.mark.parametrize("text", ["key = secret-without-quotes", 'sever = "http://typo"', "key = 5"])
def test_a_wrong_file_is_refused_without_showing_a_key(environment: dict[str, str], text: str) -> None:
    path = store(environment, text)
    with pytest.raises(UnusableInput) as caught:
        load_config(environment)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_relative_config_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store({"XDG_CONFIG_HOME": str(tmp_path)}, 'server = "http://wrong"\n')
    assert load_config({"XDG_CONFIG_HOME": "."}).server == DEFAULT_SERVER


def test_the_key_is_not_in_the_configs_repr(environment: dict[str, str]) -> None:
    assert "secret" not in repr(load_config(environment, key="secret"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("7d", 604800)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 2**20), ("512MiB", 2**29), ("1.5GiB", 3 * 2**29), ("4GB", 4 * 10**9), ("4 gib", 2**32), ("7B", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "h", "-1", "2 hours", "1.5h", "٣"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UnusableInput, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "GiB", "-1", "4XB", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UnusableInput, match="is not a size"):
        parse_size(text)


@given(st.integers(0, 10**9))
def test_every_written_duration_is_within_its_smaller_unit(seconds: int) -> None:
    written = format_duration(seconds).replace(" ", "")
    slack = {"s": 1, "m": 60, "h": 3600}[written[-1]]
    assert 0 <= seconds - parse_duration(written) < slack


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")])
def test_sizes_are_written(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("server", "target", "uses_tls"),
    [
        ("https://inference.example.org", "grpc.inference.example.org:443", True),
        ("https://inference.example.org:8443/", "grpc.inference.example.org:8443", True),
        ("https://10.0.0.1", "10.0.0.1:443", True),
        ("http://127.0.0.1:8000", "127.0.0.1:9000", False),
        ("http://[::1]:8000", "[::1]:9000", False),
    ],
)
def test_the_grpc_door_is_beside_the_server_unless_somebody_says_otherwise(
    environment: dict[str, str], server: str, target: str, uses_tls: bool
) -> None:
    endpoint = load_config(environment, server=server).grpc_endpoint()
    assert (endpoint.target, endpoint.uses_tls) == (target, uses_tls)
    environment["INFERENCE_SERVER_GRPC"] = "http://elsewhere:5"
    assert load_config(environment, server=server).grpc_endpoint().target == "elsewhere:5"
    endpoint = load_config(environment, server=server, grpc="elsewhere").grpc_endpoint()
    assert (endpoint.target, endpoint.uses_tls) == ("elsewhere:443", True)


@pytest.mark.parametrize("text", ["ftp://x", "http://", "host:port", "https://host/path", "https://user@host"])
def test_what_is_no_door_is_refused(environment: dict[str, str], text: str) -> None:
    with pytest.raises(UnusableInput, match="not a gRPC door"):
        load_config(environment, grpc=text).grpc_endpoint()


def test_the_files_door_is_that_of_the_files_server(environment: dict[str, str]) -> None:
    store(environment, 'server = "https://mine"\ngrpc = "https://door"\nkey = "secret"\n')
    assert load_config(environment).grpc_endpoint().target == "door:443"
    assert load_config(environment).grpc_key == "secret"
    assert load_config(environment, server="https://other").grpc_endpoint().target == "grpc.other:443"
    assert load_config(environment, grpc="https://another").grpc_key is None
    assert load_config(environment, grpc="https://another").key == "secret"
    assert load_config(environment, grpc="https://another", key="flag").grpc_key == "flag"
