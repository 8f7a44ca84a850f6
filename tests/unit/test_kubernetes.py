"""What applying the overlays of deploy/kubernetes would create: valid, complete, and true to the services' settings."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from grpc_gateway.settings import GatewaySettings
from job_consumer.engines.docker.filter.settings import EngineFilterSettings
from job_consumer.settings import JobConsumerSettings
from kit.settings import Settings
from private_api.settings import PrivateApiSettings
from public_api.settings import PublicApiSettings
from tests.unit.manifests import KUBERNETES, NAME, Rendered, Resource, containers, copy_manifests, kubectl, render

REPOSITORY = Path(__file__).parents[2]
ROUTES = REPOSITORY / "traefik/configuration/dynamic/routes.toml"
GUIDE = REPOSITORY / "docs/operations/kubernetes.md"
OVERLAYS = ["cpu", "gpu"]
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()

SETTINGS: dict[str, type[Settings]] = {
    "private-api": PrivateApiSettings,
    "public-api": PublicApiSettings,
    "grpc-gateway": GatewaySettings,
    "job-consumer": JobConsumerSettings,
    "engine-filter": EngineFilterSettings,
}
LIBRARY_VARIABLES = {"DOCKER_HOST"}
"""Which libraries of ours read themselves."""
FOREIGN_VARIABLES = {
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE", "PGDATA"},
    "rabbitmq": set(),
}
FOREIGN_IMAGES = {"postgres": "postgres:17", "rabbitmq": "rabbitmq:4-management"}
MADE_BY_THE_OPERATOR = {"public-api": "inference-server-tls", "grpc-gateway": "inference-server-grpc-tls"}
DOORS = {"public-api": "inference.example.org", "grpc-gateway": "grpc.inference.example.org"}
FREE_PORTS = (32768, 60999)
"""Of which Linux, and so the Engine, takes one for a port that is to be published."""
OUTSIDE_NAMESPACES = {"kube-system", "ingress-nginx"}
FOUND_OUT_BY_THE_GPU_SCRIPT = {"GPU_UUID"}


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files as an operator has them."""
    return copy_manifests(tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, manifests: Path) -> Rendered:
    return render(manifests / "overlays" / request.param)


def secret_sources(pod: Resource) -> Iterator[tuple[Resource, str]]:
    """Each volume that comes of a Secret, and the Secret's name."""
    for volume in pod["volumes"]:
        if "secret" in volume:
            yield volume, volume["secret"]["secretName"]
        for source in volume.get("projected", {}).get("sources", []):
            yield volume, source["secret"]["name"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_resource_satisfies_the_schema(rendered: Rendered, version: str) -> None:
    for resource in rendered:
        kubernetes_validate.validate(resource, version, strict=True)


def test_no_two_resources_have_one_name(rendered: Rendered) -> None:
    names = [(resource["kind"], resource["metadata"]["name"]) for resource in rendered]
    assert len(names) == len(set(names))


def test_every_file_belongs_to_an_overlay() -> None:
    reached: set[Path] = set()

    def visit(folder: Path) -> None:
        reached.add(folder / "kustomization.yaml")
        rules = yaml.safe_load((folder / "kustomization.yaml").read_text())
        for name in rules["resources"]:
            path = (folder / name).resolve()
            visit(path) if path.is_dir() else reached.add(path)
        reached.update(folder / name for rule in rules.get("configMapGenerator", []) for name in rule["envs"])

    for overlay in OVERLAYS:
        visit(KUBERNETES / "overlays" / overlay)
    own = {path for path in KUBERNETES.rglob("*") if path.suffix in (".yaml", ".env") and path.parts[-2] != "site"}
    assert own == reached


def test_what_a_pod_names_is_there(rendered: Rendered) -> None:
    claims = {claim["metadata"]["name"] for claim in rendered.of_kind("PersistentVolumeClaim")}
    for resource in rendered:
        templates = resource["spec"].get("volumeClaimTemplates", []) if resource["kind"] == "StatefulSet" else []
        own_claims = {template["metadata"]["name"] for template in templates}
        for container in containers(resource):
            pod = resource["spec"]["template"]["spec"]
            rendered.variables(container)
            volumes = {volume["name"] for volume in pod["volumes"]} | own_claims
            mounts = {mount["name"] for each in containers(resource) for mount in each["volumeMounts"]}
            assert mounts == volumes
            named = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
            assert named <= claims
            assert not any("secretKeyRef" in variable.get("valueFrom", {}) for variable in container.get("env", []))
            for volume, secret in secret_sources(pod):
                keys = rendered.get("Secret", secret)["data"]
                for mount in container["volumeMounts"]:
                    if mount["name"] == volume["name"] and "subPath" in mount:
                        assert mount["subPath"] in keys


def test_every_secret_variable_names_a_mounted_key(rendered: Rendered) -> None:
    for service, pod, container in rendered.workloads():
        named = {value for name, value in rendered.variables(container).items() if is_secret_file(name)}
        keys = [
            key
            for volume, secret in secret_sources(pod)
            for key in rendered.get("Secret", secret)["data"]
            if volume["name"] == "secrets"
        ]
        if service != "rabbitmq":
            (folder,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "secrets")
            assert named == {f"{folder}/{key}" for key in keys}


def test_only_what_migrates_knows_the_owner_of_the_tables(rendered: Rendered) -> None:
    pod, private_api = next((pod, each) for name, pod, each in rendered.workloads() if name == "private-api")
    (migrate,) = pod["initContainers"]
    (owner,) = (volume["name"] for volume, secret in secret_sources(pod) if secret == "postgres-password")
    mounts = [{mount["name"]: mount["mountPath"] for mount in each["volumeMounts"]} for each in (migrate, private_api)]
    assert owner in mounts[0]
    assert owner not in mounts[1]
    (command, login) = (migrate["command"], f"{mounts[0]['login']}/database_url")
    assert command == ["inference-server", "migrate", "--login", login]
    assert rendered.variables(private_api)["DATABASE_URL_FILE"] == f"{mounts[1]['login']}/database_url" == login
    password = rendered.variables(migrate)["POSTGRES_PASSWORD_FILE"]
    assert password == f"{mounts[0][owner]}/postgres_password"
    assert migrate["image"] == private_api["image"]
    assert migrate["securityContext"] == private_api["securityContext"]
    assert set(migrate["resources"]) == {"limits", "requests"}


def is_secret_file(variable: str) -> bool:
    return variable.endswith(("_PASSWORD_FILE", "_TOKEN_FILE"))


def test_every_secret_is_used_and_ignored_by_git(rendered: Rendered) -> None:
    used = {secret for _, pod, _ in rendered.workloads() for _, secret in secret_sources(pod)}
    assert used == {secret["metadata"]["name"] for secret in rendered.of_kind("Secret")}
    base = yaml.safe_load((KUBERNETES / "base/kustomization.yaml").read_text())
    files = [name for rule in base["secretGenerator"] for name in rule["files"]]
    assert all(name.startswith("secrets/") for name in files)
    assert "/base/secrets/" in (KUBERNETES / ".gitignore").read_text().splitlines()


def test_settings_load_from_the_variables_and_every_variable_is_one(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "a token of more than sixteen characters")
    for service, _, container in (*rendered.workloads(), *rendered.beside()):
        variables = rendered.variables(container)
        used_inside = set(re.findall(r"\$\(([A-Z_]+)\)", str(container["env"]))) if "env" in container else set()
        used_inside |= set(re.findall(r"\$\{?([A-Z_]+)", str(container.get("args", ""))))
        if service in FOREIGN_VARIABLES:
            assert set(variables) <= FOREIGN_VARIABLES[service], service
            continue
        fields = SETTINGS[service].model_fields
        secrets = {name.upper() for name, field in fields.items() if "SecretStr" in str(field.annotation)}
        known = {name.upper() for name in fields} - secrets | {f"{name}_FILE" for name in secrets}
        variables = {name: value for name, value in variables.items() if name not in LIBRARY_VARIABLES}
        assert set(variables) - used_inside <= known, service
        expanded = {name: re.sub(r"\$\([A-Z_]+\)", "node", value) for name, value in variables.items()}
        settings = SETTINGS[service].load(expanded)
        assert all(getattr(settings, name[:-5].lower()) for name in variables if is_secret_file(name))


def test_every_setting_has_its_variable(rendered: Rendered) -> None:
    for service, _, container in (*rendered.workloads(), *rendered.beside()):
        if service in SETTINGS:
            fields = SETTINGS[service].model_fields.items()
            plain = {name.upper() for name, field in fields if "SecretStr" not in str(field.annotation)}
            # The Engine sees the work directory under the same path, so no volume is named; nothing fails on purpose;
            # the sockets are where the manifest mounts them.
            unset = plain - set(rendered.variables(container))
            assert (
                unset <= {"WORK_VOLUME", "FAIL_AT", "ENGINE_SOCKET", "FILTER_SOCKET"} | FOUND_OUT_BY_THE_GPU_SCRIPT
            ), service


def test_ports_are_the_settings_ports_everywhere(rendered: Rendered) -> None:
    private, public = PrivateApiSettings.model_fields, PublicApiSettings.model_fields
    expected = {
        "private-api": private["private_api_port"].default,
        "public-api": public["public_api_port"].default,
        "grpc-gateway": GatewaySettings.model_fields["grpc_port"].default,
        "postgres": private["postgres_port"].default,
        "rabbitmq": private["rabbit_port"].default,
    }
    control = GatewaySettings.model_fields["grpc_control_port"].default
    for service, _, container in rendered.workloads():
        ports = [port["containerPort"] for port in container.get("ports", [])]
        further = [control] if service == "grpc-gateway" else []
        assert ports == ([expected[service], *further] if service in expected else [])
        variables = rendered.variables(container)
        if service in ("private-api", "public-api"):
            assert variables[f"{service.upper().replace('-', '_')}_PORT"] == str(expected[service])
            probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
            assert {probe["port"] for probe in probes} == {container["ports"][0]["name"]}
            assert (probes[0]["path"], probes[2]["path"]) == ("/readyz", "/healthz")
        if service == "grpc-gateway":
            assert variables["GRPC_PORT"] == str(expected[service])
            assert variables["GRPC_CONTROL_PORT"] == str(control)
        for variable in ("POSTGRES_HOSTNAME", "RABBIT_HOSTNAME"):
            if service in SETTINGS and variable in variables:
                host = variables[variable]
                assert int(variables[variable.replace("HOSTNAME", "PORT")]) == expected[host]
        if "PRIVATE_API_URL" in variables:
            assert variables["PRIVATE_API_URL"] == f"http://private-api:{expected['private-api']}"
    named = {service: container["ports"] for service, _, container in rendered.workloads() if service in expected}
    for service in rendered.of_kind("Service"):
        own = [(port["containerPort"], port["name"]) for port in named[service["metadata"]["name"]]]
        assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == own


def test_selectors_match_exactly_their_own_pods(rendered: Rendered) -> None:
    for resource in rendered.of_kind("Deployment", "StatefulSet", "DaemonSet"):
        labels = resource["spec"]["template"]["metadata"]["labels"]
        assert rendered.pods(resource["spec"]["selector"]["matchLabels"]) == [labels[NAME]]
    for service in rendered.of_kind("Service"):
        assert rendered.pods(service["spec"]["selector"]) == [service["metadata"]["name"]]
    for budget in rendered.of_kind("PodDisruptionBudget"):
        assert rendered.pods(budget["spec"]["selector"]["matchLabels"]) == [budget["metadata"]["name"]]


def test_traffic_flows_only_along_the_walk_of_a_task(rendered: Rendered) -> None:
    policies = rendered.of_kind("NetworkPolicy")
    denial = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert denial in [policy["spec"] for policy in policies]
    let_in: set[tuple[str, str, int]] = set()
    let_out: set[tuple[str, str, int]] = set()
    for policy in policies:
        own = policy["spec"]["podSelector"].get("matchLabels")
        for rule, direction, allowed in (("ingress", "from", let_in), ("egress", "to", let_out)):
            for entry in policy["spec"].get(rule, []):
                assert rule.capitalize() in policy["spec"]["policyTypes"]
                peers = {name for peer in entry[direction] for name in _peers(rendered, peer)}
                selves = set(rendered.pods(own)) if own else {"*"}
                assert peers
                assert selves
                pairs = ((peer, self) if rule == "ingress" else (self, peer) for peer in peers for self in selves)
                allowed.update((*pair, port["port"]) for pair in pairs for port in entry["ports"])
    inside = {
        ("public-api", "private-api", 8001),
        ("grpc-gateway", "private-api", 8001),
        ("job-consumer", "private-api", 8001),
        ("job-consumer", "rabbitmq", 5672),
        ("private-api", "rabbitmq", 5672),
        ("private-api", "postgres", 5432),
    }
    doors = {("public-api", 8000), ("grpc-gateway", 9000), ("grpc-gateway", 9001)}
    assert let_in == inside | {("namespace ingress-nginx", *door) for door in doors}
    hosts = {(service, "nodes", FREE_PORTS[0]) for service in ("grpc-gateway", "job-consumer")}
    assert let_out == inside | hosts | {("*", "namespace kube-system", 53)}
    ranges = [port for policy in policies for entry in policy["spec"].get("egress", []) for port in entry["ports"]]
    ranges = [port for port in ranges if "endPort" in port]
    assert ranges == [{"protocol": "TCP", "port": FREE_PORTS[0], "endPort": FREE_PORTS[1]}] * len(hosts)


def _peers(rendered: Rendered, peer: Resource) -> list[str]:
    if "ipBlock" in peer:
        return ["nodes"]
    if "namespaceSelector" in peer:
        namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        assert namespace in OUTSIDE_NAMESPACES
        return [f"namespace {namespace}"]
    return rendered.pods(peer["podSelector"]["matchLabels"])


@pytest.mark.parametrize("door", DOORS)
def test_each_ingress_leads_to_its_door_with_tls_and_never_repeats_a_request(rendered: Rendered, door: str) -> None:
    ingress = rendered.get("Ingress", door)
    spec, annotations = ingress["spec"], ingress["metadata"]["annotations"]
    (rule,), (tls,) = spec["rules"], spec["tls"]
    path = rule["http"]["paths"][0]
    assert (path["path"], path["pathType"]) == ("/", "Prefix")
    backend = path["backend"]["service"]
    ports = rendered.get("Service", backend["name"])["spec"]["ports"]
    assert backend["name"] == door
    assert backend["port"]["name"] in [port["name"] for port in ports]
    assert tls["hosts"] == [rule["host"]] == [DOORS[door]]
    assert tls["secretName"] == MADE_BY_THE_OPERATOR[door]
    prefix = "nginx.ingress.kubernetes.io/"
    assert all(name.startswith(prefix) for name in annotations)
    assert annotations[f"{prefix}proxy-body-size"] == "0"
    assert annotations[f"{prefix}proxy-next-upstream"] == "off"
    assert not any("custom-http-errors" in name for name in annotations)
    if door == "public-api":
        assert annotations[f"{prefix}proxy-request-buffering"] == "off"
    else:
        assert annotations[f"{prefix}backend-protocol"] == "GRPC"
        assert {port.get("appProtocol") for port in ports} == {"kubernetes.io/h2c"}


@pytest.mark.parametrize(
    ("path", "port"),
    [
        *(
            (path, "grpc-control")
            for path in (
                "/grpc.health.v1.Health/Watch",
                "/ray.serve.RayServeAPIService/Healthz",
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                "/inference.GRPCInferenceService/ServerLive",
                "/inference.GRPCInferenceService/ServerReady",
                "/inference.GRPCInferenceService/ModelReady",
                "/inference.GRPCInferenceService/ServerMetadata",
                "/inference.GRPCInferenceService/RepositoryIndex",
            )
        ),
        ("/inference.GRPCInferenceService/ModelInfer", "grpc"),
        ("/inference.GRPCInferenceService/ServerReadyOrNot", "grpc"),
        ("/tensorflow.serving.PredictionService/Predict", "grpc"),
        ("/service1/Predict", "grpc"),
    ],
)
def test_control_calls_go_to_their_own_process_as_they_do_in_compose(rendered: Rendered, path: str, port: str) -> None:
    (rule,) = rendered.get("Ingress", "grpc-gateway")["spec"]["rules"]

    def matches(entry: Resource) -> bool:
        wanted = entry["path"].rstrip("/")
        return path == wanted or (entry["pathType"] == "Prefix" and path.startswith(f"{wanted}/"))

    longest = max(filter(matches, rule["http"]["paths"]), key=lambda entry: len(entry["path"]))
    assert longest["backend"]["service"] == {"name": "grpc-gateway", "port": {"name": port}}
    traefik = tomllib.loads(re.sub(r"\{\{.*?\}\}", "x", ROUTES.read_text()))
    (regexp,) = re.findall(r"PathRegexp\(`(.*?)`\)", traefik["http"]["routers"]["grpc-control"]["rule"])
    assert bool(re.search(regexp, path)) is (port == "grpc-control")


def test_the_gateway_stops_within_its_pods_grace_and_knows_the_same_policy_as_the_public_api(
    rendered: Rendered,
) -> None:
    (pod, container) = next((pod, each) for name, pod, each in rendered.workloads() if name == "grpc-gateway")
    variables = rendered.variables(container)
    (_, pause_s) = container["lifecycle"]["preStop"]["exec"]["command"]
    drain_s = GatewaySettings.load(
        {**variables, "SERVICE_TOKEN_FILE": "", "SERVICE_TOKEN": "0123456789abcdef"}
    ).grpc_drain
    assert int(pause_s) + drain_s.total_seconds() < pod["terminationGracePeriodSeconds"]
    assert int(variables["GRPC_WORKERS"]) <= int(container["resources"]["limits"]["cpu"])
    public = next(each for name, _, each in rendered.workloads() if name == "public-api")
    assert rendered.variables(public)["REQUIRE_API_KEY"] == variables["REQUIRE_API_KEY"]
    probe = ["python", "-m", "kit.healthcheck", f"file:{variables['ALIVE_FILE']}"]
    assert all(container[f"{name}Probe"]["exec"]["command"] == probe for name in ("startup", "readiness", "liveness"))


def test_consumers_publish_replicas_at_the_address_of_their_node(rendered: Rendered) -> None:
    for service, _, container in rendered.workloads():
        if service == "job-consumer":
            (address,) = (each for each in container["env"] if each["name"] == "REPLICA_PUBLISH_ADDRESS")
            assert address["valueFrom"] == {"fieldRef": {"fieldPath": "status.hostIP"}}


def test_images_are_ours_or_official_ones_with_a_fixed_tag(rendered: Rendered) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    for service, _, container in rendered.workloads():
        assert container["image"] == FOREIGN_IMAGES.get(service, f"inference-server:{version}")
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_every_container_has_limits_probes_and_the_least_rights(rendered: Rendered) -> None:
    for service, pod, container in (*rendered.workloads(), *rendered.beside()):
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        assert pod["automountServiceAccountToken"] is False
        # Links put variables such as PRIVATE_API_PORT=tcp://... into the environment.
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert "privileged" not in rights
        is_consumer = service in ("job-consumer", "engine-filter")
        added = {"add": ["DAC_OVERRIDE", "FOWNER"]} if service == "job-consumer" else {}
        assert rights["capabilities"] == {"drop": ["ALL"], **added}
        assert pod["securityContext"]["runAsNonRoot"] is not is_consumer
        assert (pod["securityContext"]["runAsUser"] == 0) is is_consumer
        if service in SETTINGS and not is_consumer:
            assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
        host_paths = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
        assert host_paths == ({"/var/lib/inference-server", "/var/run/docker.sock"} if is_consumer else set())
        pause = 5 if "lifecycle" in container else 0
        assert pod["terminationGracePeriodSeconds"] == (30 if service in SETTINGS else 60) + pause


def test_the_node_and_the_consumer_see_the_work_directory_under_one_path(rendered: Rendered) -> None:
    for service, pod, container in rendered.workloads():
        if service == "job-consumer":
            paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert rendered.variables(container)["WORK_DIR"] == paths["work"] == mounts["work"]
            (own,) = [beside for name, beside_pod, beside in rendered.beside() if beside_pod is pod]
            seen = {mount["name"]: mount["mountPath"] for mount in own["volumeMounts"]}
            assert seen["work"] == rendered.variables(own)["WORK_DIR"] == paths["work"]
            assert paths["docker-socket"] == seen["docker-socket"]
            # The consumer itself reaches the Engine through the filter alone.
            assert "docker-socket" not in mounts
            assert rendered.variables(container)["DOCKER_HOST"] == f"unix://{mounts['engine']}/docker.sock"
            alive = rendered.variables(container)["ALIVE_FILE"]
            probe = ["python", "-m", "kit.healthcheck", f"file:{alive}"]
            assert all(
                container[f"{name}Probe"]["exec"]["command"] == probe for name in ("startup", "readiness", "liveness")
            )


def test_each_gpu_of_a_node_has_one_consumer(manifests: Path) -> None:
    consumers = render(manifests / "overlays/gpu").of_kind("DaemonSet")
    for index, consumer in enumerate(consumers):
        pod = consumer["spec"]["template"]["spec"]
        assert consumer["metadata"]["name"] == f"job-consumer-gpu-{index}"
        assert consumer["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] == f"gpu-{index}"
        assert pod["nodeSelector"] == {"inference-server/gpu": "true"}
        if index:
            affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (term,) = affinity["nodeSelectorTerms"]
            assert term["matchExpressions"] == [
                {"key": "inference-server/gpus", "operator": "Gt", "values": [str(index)]}
            ]
    assert len(consumers) == 8


@pytest.mark.parametrize(
    ("instance", "uuids", "found"),
    [
        ("gpu-0", ["GPU-0a", "GPU-1b"], "GPU-0a"),
        ("gpu-1", ["GPU-0a", "GPU-1b"], "GPU-1b"),
        ("gpu-2", ["GPU-0a", "GPU-1b"], None),
        ("gpu-0", ["GPU-????????-????"], None),
        ("gpu-0", [], None),
    ],
)
def test_a_gpu_consumer_finds_its_gpu_or_says_that_it_is_not_there(
    manifests: Path, tmp_path: Path, instance: str, uuids: list[str], found: str | None
) -> None:
    for number, uuid in enumerate(uuids):
        folder = tmp_path / f"0000:{number:02x}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t Some GPU\nGPU UUID: \t {uuid}\nVideo BIOS: \t 92.00\n")
    (_, container) = containers(render(manifests / "consumers/gpu/one-gpu")[0])
    script = container["args"][0].replace("/proc/driver/nvidia/gpus", str(tmp_path))
    assert "exec python -m job_consumer" in script
    script = script.replace("exec python -m job_consumer", 'echo "$GPU_UUID"')
    run = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"INSTANCE": instance, "NODE_NAME": "node-a", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if found:
        assert (run.returncode, run.stdout.strip()) == (0, found)
    else:
        assert run.returncode == 2
        assert f"node node-a: its driver gives no UUID of GPU {instance[-1]}" in run.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The overlay of one installation, as the guide has it."""
    folder = copy_manifests(tmp_path) / "site"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(guide_file("kustomization.yaml"))
    return folder


def guide_file(name: str) -> str:
    pattern = rf"```yaml\n# deploy/kubernetes/site/{re.escape(name)}\n(.*?)```"
    (text,) = re.findall(pattern, GUIDE.read_text(), re.DOTALL)
    return str(text)


def guide_pieces(key: str) -> list[str]:
    """The entries that the guide adds to lists of the overlay, by their first key."""
    return re.findall(rf"```yaml\n(  - {key}: .*?)```", GUIDE.read_text(), re.DOTALL)


def render_valid(folder: Path) -> Rendered:
    rendered = render(folder)
    for resource in rendered:
        kubernetes_validate.validate(resource, NEWEST, strict=True)
    return rendered


def test_the_overlay_of_one_installation_in_the_guide_is_valid(site: Path) -> None:
    rendered = render_valid(site)
    hosts = {ingress["spec"]["rules"][0]["host"] for ingress in rendered.of_kind("Ingress")}
    assert hosts == {host.replace("example.org", "example.com") for host in DOORS.values()}
    assert "example.org" not in str([ingress["spec"] for ingress in rendered.of_kind("Ingress")])
    # By another name than the Ingress's, the door answers nobody.
    (door,) = (rendered.variables(container) for name, _, container in rendered.workloads() if name == "public-api")
    assert door["PROXY_DOMAIN"] in hosts
    ours = [container for service, _, container in rendered.workloads() if service in SETTINGS]
    assert all("/" in container["image"] for container in ours)


def test_what_the_guide_adds_for_replicas_names_their_network_and_lets_pods_out_to_the_nodes_alone(site: Path) -> None:
    (patches,) = (patch for patch in guide_pieces("target") if "ipBlock" in patch)
    (literals,) = guide_pieces("name")
    overlay = guide_file("kustomization.yaml").replace("configMapGenerator:\n", f"configMapGenerator:\n{literals}")
    (site / "kustomization.yaml").write_text(overlay + patches)
    rendered = render_valid(site)
    variables = [rendered.variables(each) for name, _, each in rendered.workloads() if name == "job-consumer"]
    (network,) = {each["REPLICA_NETWORK"] for each in variables}
    assert re.search(rf"docker network create [^`]*? {network}$", GUIDE.read_text(), re.MULTILINE)
    for door in ("grpc-gateway", "job-consumer"):
        egress = rendered.get("NetworkPolicy", door)["spec"]["egress"]
        (nodes,) = (rule["to"] for rule in egress if "ipBlock" in str(rule))
        assert nodes == [{"ipBlock": {"cidr": "192.168.10.0/24"}}]


def test_the_volume_for_backups_in_the_guide_is_mounted_where_its_commands_write(site: Path) -> None:
    (site / "backup.yaml").write_text(guide_file("backup.yaml"))
    text = GUIDE.read_text()
    (resources,) = re.findall(r"`resources`, `(\[.+?\])`", text)
    (patch,) = (patch for patch in guide_pieces("target") if "/backup" in patch)
    overlay = guide_file("kustomization.yaml") + patch
    (site / "kustomization.yaml").write_text(re.sub(r"^resources: .*$", f"resources: {resources}", overlay, flags=re.M))
    rendered = render_valid(site)
    (pod, container) = next((pod, container) for name, pod, container in rendered.workloads() if name == "private-api")
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "backup")
    claims = [claim["metadata"]["name"] for claim in rendered.of_kind("PersistentVolumeClaim")]
    assert volume["persistentVolumeClaim"]["claimName"] in claims
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "backup")
    written = re.findall(r"inference-server (?:backup|restore) \"?(/\S+)/", text)
    assert written == [mount["mountPath"]] * 2


def test_the_patch_for_a_restore_in_the_guide_makes_the_private_api_wait_unprobed(site: Path, tmp_path: Path) -> None:
    (patch,) = re.findall(r"patch deployment private-api --type json -p '(\[.*?\])'", GUIDE.read_text(), re.DOTALL)
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump(render(site).get("Deployment", "private-api")))
    options = ("--local", "--filename", str(path), "--type", "json", "--output", "yaml")
    patched = yaml.safe_load(kubectl("patch", *options, "--patch", patch))
    kubernetes_validate.validate(patched, NEWEST, strict=True)
    (container,) = patched["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sleep", "infinity"]
    assert not [name for name in container if name.endswith("Probe")]
