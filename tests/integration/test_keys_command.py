"""`inference-server keys` and `models`, and `infer list`, as processes of their own."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import Unauthenticated
from contract.queries import ModelRegistration
from contract.quotas import Quota
from private_api.archives import ArchiveStore
from private_api.keys import check_key, list_keys
from private_api.models import register_model, show_model
from tests.commands import run_command
from tests.databases import opened
from tests.integration.public_door import PLAIN, serve_door
from tests.running_api import RunningApi
from tests.zips import make_zip


def run(*command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    names = ("DATABASE_URL", "POSTGRES_HOSTNAME", "POSTGRES_PASSWORD", "NO_COLOR", "COLUMNS")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    return run_command(
        *command, env={**inherited, "NO_COLOR": "1", "COLUMNS": "200", **(environment or {})}, timeout=60
    )


def keys(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As it runs in the private API's container."""
    return run("operations", "keys", *arguments, environment={"DATABASE_URL": url})


def test_a_key_is_made_listed_and_revoked(database_url: str) -> None:
    made = keys(database_url, "create", "--owner", "ada", "--scope", "submit", "--scope", "models", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    key_id = key.split("_")[1]
    listed = keys(database_url, "list").stdout
    with opened(database_url) as database:
        assert check_key(database, key) == Caller("ada", frozenset({Scope.SUBMIT, Scope.MODELS}))
        revoked = keys(database_url, "revoke", key_id)
        with pytest.raises(Unauthenticated, match="revoked"):
            check_key(database, key)
    assert "not shown again" in made.stderr
    assert all(word in listed for word in (key_id, "ada", "models submit", "valid"))
    assert key.split("_")[2] not in listed
    assert (revoked.returncode, revoked.stdout) == (0, "")
    assert "revoked" in keys(database_url, "list").stdout


def test_a_key_is_made_with_limits_of_its_own_which_its_successor_has_too(database_url: str) -> None:
    limits = ("--quota", "queued=10", "--quota", "stored=50GiB", "--quota", "running=off")
    made = keys(database_url, "create", "--owner", "ada", "--scope", "submit", *limits)
    assert made.returncode == 0, made.stderr
    successor = keys(database_url, "rotate", made.stdout.split("_")[1]).stdout
    own = {Quota.QUEUED: 10, Quota.RUNNING: None, Quota.STORED: 50 * 1024**3}
    with opened(database_url) as database:
        assert [check_key(database, key.strip()).quotas for key in (made.stdout, successor)] == [own, own]
    assert keys(database_url, "list").stdout.count("queued=10 running=off stored=50.0GiB") == 2


def test_a_key_is_replaced_and_those_of_an_owner_are_listed(database_url: str) -> None:
    old = keys(database_url, "create", "--owner", "host-a", "--scope", "consume").stdout.strip()
    keys(database_url, "create", "--owner", "bob", "--scope", "submit")
    rotated = keys(database_url, "rotate", old.split("_")[1], "--overlap", "7d")
    assert rotated.returncode == 0, rotated.stderr
    assert "ends in 7d" in rotated.stderr
    with opened(database_url) as database:
        for key in (old, rotated.stdout.strip()):
            assert check_key(database, key) == Caller("host-a", frozenset({Scope.CONSUME}))
    listed = keys(database_url, "list", "--owner", "host-a").stdout
    assert (listed.count("host-a"), "bob" in listed) == (2, False)
    assert keys(database_url, "rotate", "0" * 16).returncode == 1
    assert keys(database_url, "rotate", old.split("_")[1], "--overlap", "soon").returncode == 2
    keys(database_url, "revoke", old.split("_")[1])
    ended = keys(database_url, "rotate", old.split("_")[1])
    assert (ended.returncode, "is revoked, so nobody uses it" in ended.stderr) == (2, True)


def test_models_that_are_nobodys_are_listed_and_given_away(database_url: str, tmp_path: Path) -> None:
    def models(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run("operations", "models", *arguments, environment={"DATABASE_URL": database_url})

    with opened(database_url) as database:
        registration = ModelRegistration(human_readable_id="seg", container_tag="seg:1")
        register_model(database, ArchiveStore(tmp_path), registration, None, ANONYMOUS)
        assert models("list").stdout.splitlines()[1].split() == ["seg", "1", "-", "everybody", "seg:1"]
        given = models("give", "seg", "ada")
        assert (given.returncode, given.stderr) == (0, "seg belongs to ada\n")
        assert models("list").stdout.splitlines()[1].split()[2] == "ada"
        ada = Caller("ada", frozenset({Scope.MODELS}))
        assert show_model(database, "seg", ada).owner == "ada"
    unknown = models("give", "lungs", "ada")
    assert unknown.returncode == 1
    assert "no model has the id 'lungs'; `inference-server models list` shows them" in unknown.stderr
    assert models("give", "seg", "no owner").returncode == 2


def test_a_standalone_servers_keys_are_in_its_data_folder(sqlite_template: Path, tmp_path: Path) -> None:
    (tmp_path / "inference.db").write_bytes(sqlite_template.read_bytes())
    at = ("--data-dir", str(tmp_path))
    made = run("operations", "keys", "create", "--owner", "ada", "--scope", "admin", *at)
    assert made.returncode == 0, made.stderr
    with opened(f"sqlite:///{tmp_path / 'inference.db'}") as database:
        assert check_key(database, made.stdout.strip()).owner == "ada"
    assert "ada" in run("operations", "keys", "list", *at).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("revoke", "0" * 16), 1, "no key has the id"),
        (("create", "--owner", "ada"), 2, "--scope"),
        (("create", "--owner", "ada", "--scope", "root"), 2, "root"),
        (("create", "--owner", "ada", "--scope", "consume", "--scope", "submit"), 2, "consume stands alone"),
        (("create", "--owner", "a b", "--scope", "submit"), 2, "an owner is"),
        (("create", "--owner", "ada", "--scope", "submit", "--expires", "soon"), 2, "a duration is"),
        (("create", "--owner", "ada", "--scope", "submit", "--expires", "0d"), 2, "must live"),
        (("list", "--data-dir", "nowhere"), 2, "no inference.db"),
        (("create", "--owner", "ada", "--scope", "submit", "--quota", "queued"), 2, "'queued' is no quota"),
        (("create", "--owner", "ada", "--scope", "submit", "--quota", "waiting=5"), 2, "'waiting=5' is no quota"),
        (("create", "--owner", "ada", "--scope", "submit", "--quota", "queued=0"), 2, "from 1 up, or off"),
        (("create", "--owner", "ada", "--scope", "submit", "--quota", "stored=much"), 2, "is not a size"),
        (("create", "--owner", "ada", "--scope", "consume", "--quota", "queued=1"), 2, "consume stands alone"),
    ],
)
def test_what_is_wrong_is_said_and_makes_no_key(
    sqlite_url: str, arguments: tuple[str, ...], code: int, says: str
) -> None:
    answer = keys(sqlite_url, *arguments)
    assert (answer.returncode, answer.stdout) == (code, "")
    assert says in answer.stderr
    assert "Traceback" not in answer.stderr
    with opened(sqlite_url) as database:
        assert list_keys(database) == []


def test_an_unreachable_database_and_missing_settings_are_told() -> None:
    away = keys("postgresql+psycopg2://nobody:hidden@127.0.0.1:1/nothing", "list")
    unset = run("operations", "keys", "list")
    assert (away.returncode, unset.returncode) == (2, 2)
    assert "cannot be reached" in away.stderr
    assert "hidden" not in away.stderr
    assert "POSTGRES_PASSWORD" in unset.stderr
    assert "--data-dir" in unset.stderr


def test_infer_lists_the_tasks_of_its_key(private_api: RunningApi) -> None:
    key = keys(private_api.database_url, "create", "--owner", "ada", "--scope", "admin").stdout.strip()
    with serve_door(private_api.url, require_key=True) as url:
        with httpx.Client(base_url=url, headers={"X-API-Key": key}, **PLAIN) as http:
            http.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
            zip_file = {"zip_file": make_zip()}
            uids = [http.post("/api/tasks/?human_readable_id=echo", files=zip_file).json() for _ in range(2)]
        listed = run("inference_client", "--server", url, "--key", key, "list", "--json")
        without = run("inference_client", "--server", url, "list")
    assert listed.returncode == 0, listed.stderr
    assert [task["uid"] for task in json.loads(listed.stdout)] == uids[::-1]
    assert without.returncode != 0
    assert "wants a key" in without.stderr


def say_welcome(url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run("operations", "welcome", environment={"DATABASE_URL": url, **variables})


def test_the_first_admin_key_is_shown_once_where_keys_are_required(database_url: str) -> None:
    opened_door = say_welcome(database_url, HTTPS_PORT="8443", PROXY_DOMAIN="inference.example.org")
    assert opened_door.stdout.splitlines() == [
        "InferenceServer is ready at https://inference.example.org:8443; docs at https://inference.example.org:8443/docs",
        "Live calls over gRPC are taken at grpc.inference.example.org:8443",
        "Anybody who reaches it may use it; REQUIRE_API_KEY=1 in .env requires keys.",
    ], opened_door.stderr
    # A key of a consumer's host opens no door.
    keys(database_url, "create", "--owner", "host-a", "--scope", "consume")
    first = say_welcome(database_url, REQUIRE_API_KEY="1").stdout.splitlines()
    assert first[0] == "InferenceServer is ready at https://localhost; docs at https://localhost/docs"
    with opened(database_url) as database:
        assert check_key(database, first[-1]) == Caller("admin", frozenset({Scope.ADMIN}))
    again = say_welcome(database_url, REQUIRE_API_KEY="1").stdout
    assert again.endswith("Keys are required; `inference-server keys create` makes more of them.\n")
    assert say_welcome(database_url, REQUIRE_API_KEY="no").stdout.endswith("requires keys.\n")


def test_a_port_may_follow_an_address_of_the_host(database_url: str) -> None:
    assert "at https://localhost:8443;" in say_welcome(database_url, HTTPS_PORT="127.0.0.1:8443").stdout
    faulty = say_welcome(database_url, HTTPS_PORT="https")
    assert (faulty.returncode, faulty.stdout) == (2, "")
    assert faulty.stderr.startswith("inference-server: HTTPS_PORT: ")
