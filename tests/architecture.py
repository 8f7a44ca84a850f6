"""Reads a tree of our packages with `ast` and says where it breaks the rules of the architecture."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("private_api", "public_api", "grpc_gateway", "job_consumer", "inference_client")
TOOLS = ("standalone", "operations")
"""They put services together: they may import all of them, and no service imports a tool."""
PACKAGES = ("kit", "contract", *SERVICES, *TOOLS)
_SHARED = ("contract", "kit")
BELOW: dict[str, tuple[str, ...]] = (
    {"kit": (), "contract": ("kit",)} | dict.fromkeys(SERVICES, _SHARED) | {"inference_client": ()}
)
"""What each package may import of ours, beside itself."""
MAX_LINES = 300

# The rooms of a service, layer by layer from the ground up. A module imports from its own room and from the layers
# below; of two rooms side by side in one layer neither names the other.
LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "private_api": (
        (
            r"failpoints|columns|image_rules|tables|archive_rows|deployment_tables|image_tables|server_tables|audit_tables|audit(\..*)?|database|postgres|round_trips|sqlite|recent|settling|disk_space|archives|task_logs|watch|settings|migrate|roles|leases|migrations(\..*)?",
        ),
        (r"quotas(\..*)?",),
        (r"absence|models|model_owners|model_versions|keys|key_rules|soundness",),
        (r"tasks(\..*)?", r"deployments(\..*)?"),
        (r"placement(\..*)?",),
        (r"backup(\..*)?", r"loops(\..*)?", r"feed(\..*)?"),
        (r"services|uploads|lanes",),
        (r"routes(\..*)?",),
        ("app",),
        ("service",),
        ("__main__",),
    ),
    "job_consumer": (
        ("failpoints",),
        ("networks",),
        # The seam's names are classes; what follows it in lower case is an engine.
        (r"engines(?!\.[a-z])", "boot", "descriptors", "error_texts", "settings", "locks", "gpu_check"),
        (r"engines\.docker(\..*)?", r"engines\.process(\..*)?", r"output(\..*)?"),
        ("workspace", "unpack", "gpu_gate", "stages", "held", "engine_watch", "run_disk"),
        ("container_spec", "model_cache", "health", "gpu_health", "image_lookups"),
        ("hit_limits",),
        ("context", "exit_codes"),
        ("cancel_watch",),
        ("heartbeat", "bells", "reconcile"),
        ("transfer",),
        (r"model_files|image_cache",),
        (r"replicas(\..*)?",),
        # A task may run inside a replica; a replica knows of no task.
        (r"tasks(\..*)?",),
        ("worker",),
        ("service",),
        ("__main__",),
    ),
    "inference_client": (
        ("terminal_text",),
        (r"errors|statuses|units|markup",),
        (
            r"answers|schemas|serving|models|zip_names|grpc_endpoint|paths|wording",
            "docker_cli",
            "scaffold",
        ),
        (r"key_schemas|event_schemas|overview_schemas",),
        (
            r"config|config_file|submissions|quotas",
            r"pack|unpack|connection|download",
            r"readiness|waiting",
            r"live_calls",
            r"sharing|blocking",
        ),
        (r"progress|outputs",),
        (r"batches|runs",),
        ("client_base",),
        (r"deployment_calls|event_calls|key_calls|model_calls|stored_files",),
        ("client",),
        ("async_client",),
        (r"cli(\..*)?",),
        ("__main__",),
    ),
    "grpc_gateway": (
        (r"generated(\..*)?",),
        # The middle: what every call passes, whatever its protocol. One room.
        (
            r"admission|background|calls|deployments|door|handlers|headers|keys|method_types|methods|options|ports"
            r"|refusals|relay|replica_choice|replica_reflection|replicas|routing|sequences|server|settings|statuses"
            r"|table|table_sync",
        ),
        (r"protocols(\..*)?",),
        ("service",),
        (r"process(\..*)?",),
        ("__main__",),
    ),
}
KNOWS_HTTP = 6
"""The lowest layer of the private API that does; those below decide, and know nothing of it."""

ENGINES = re.compile(r"job_consumer\.engines\.[a-z]")
ENGINES_HOME = re.compile(
    r"job_consumer/(engines/|__main__\.py)|standalone/|operations/(trial/run|sweeper|checks/guard)\.py"
)
"""Where an engine is named: by itself, and by what puts a consumer together. All others know the seam."""

THREADS = re.compile(r"threading\.(Thread|Timer)|_thread(\..*)?")
THREADS_HOME = "kit/"
"""A thread is started through `kit.threads`, which supervises it."""

# Where a library may be imported. One that is not named here may be imported anywhere.
HOMES = {
    "sqlalchemy": r"private_api/",
    "alembic": r"private_api/(migrate\.py|migrations/)",
    "psycopg2": r"private_api/",
    "sqlite3": r"private_api/",
    "python_multipart": r"private_api/uploads\.py",
    "docker": r"job_consumer/engines/docker/",
    "pynvml": r"job_consumer/gpu_health\.py",
    "requests": r"job_consumer/engines/docker/",
    "pika": r"contract/broker/rabbitmq/",
    "grpc": r"grpc_gateway/|job_consumer/replicas/calls\.py|inference_client/live_calls\.py",
    "greenlet": r"inference_client/blocking\.py",
    "uvicorn": r"kit/http_(server|protocol)\.py",
    "fastapi": r"kit/http_\w+\.py|(private_api|public_api|standalone)/",
    "starlette": r"kit/http_\w+\.py|(private_api|public_api|standalone)/",
    "typer": r"(inference_client|standalone|operations)/",
    "rich": r"(inference_client|standalone|operations)/",
}
ENVIRONMENT_HOMES = {"inference_client": "inference_client/config.py"}
"""Where a package reads the environment; every other one does so through `kit/settings.py`."""

# What is handed to those who need it, by whoever builds the service; at import there must be none of it.
COLLABORATORS = re.compile(
    r"FastAPI|APIRouter|Starlette|create_\w+|sessionmaker|\w*Session|\w*Client|\w*Broker|\w*Engine|\w*Settings|load|from_env"
    r"|Database|ArchiveStore|Ballast|TaskLogs|TaskWatch|Dispatcher|Reaper|Janitor|Scaler|Loop|Scrub|Services|Worker"
    r"|Thread|ThreadPoolExecutor|Lock|RLock|Event|Condition|Semaphore|Queue|SimpleQueue|open|connect"
)


@dataclass(frozen=True)
class Module:
    """One file of the tree."""

    path: str
    """Relative to the tree's root."""
    name: str
    """Dotted."""
    source: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def find_faults(root: Path) -> list[str]:
    """Every broken rule in the packages below `root`, as `<file>:<line>: <what>`."""
    faults: list[str] = []
    for module in _modules(root):
        for rule in (_borders, _layers, _engines, _threads, _homes, _environment, _collaborators):
            faults += [f"{module.path}:{line}: {what}" for line, what in rule(module)]
        lines = module.source.count("\n")
        if lines > MAX_LINES:
            faults.append(f"{module.path}:{lines}: longer than {MAX_LINES} lines")
    return faults


def _modules(root: Path) -> Iterator[Module]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            source = path.read_text()
            # The protocol compiler's output is nobody's style; programs that the site of the documentation offers are
            # no part of the package.
            if not re.search(r"_pb2(_grpc)?$", name) and "help_files" not in path.parts:
                yield Module(relative.as_posix(), name, source, ast.parse(source))


def _imports(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, wherever in the file, and of each name taken from a package."""
    is_package = module.path.endswith("__init__.py")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = (
                module.name.split(".")[: len(module.name.split(".")) - node.level + is_package] if node.level else []
            )
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _borders(module: Module) -> Iterator[tuple[int, str]]:
    """No package imports another one but those that `BELOW` names."""
    if module.package in TOOLS:
        return
    for line, name in _imports(module):
        package = name.partition(".")[0]
        if package in PACKAGES and package not in (*BELOW[module.package], module.package):
            yield line, f"{module.package} imports {package}"


def _layers(module: Module) -> Iterator[tuple[int, str]]:
    layers = LAYERS.get(module.package)
    if layers is None or module.name == module.package:
        return
    own = _room(module.name)
    if own is None:
        yield 1, f"belongs to no layer of {module.package}; add it to LAYERS"
        return
    for line, name in _imports(module):
        room = _room(name) if name.startswith(f"{module.package}.") else None
        if room is not None and room[0] > own[0]:
            yield line, f"{module.name} imports {name}, which lies above it"
        elif room is not None and room[0] == own[0] and room != own:
            yield line, f"{module.name} imports {name}: rooms side by side do not name each other"
        if (
            module.package == "private_api"
            and own[0] < KNOWS_HTTP
            and name.partition(".")[0] in ("fastapi", "starlette")
        ):
            yield line, f"{module.name} knows of HTTP: it imports {name}"


def _room(name: str) -> tuple[int, int] | None:
    """Layer and place in it of a module's room, or of the room that a name belongs to."""
    package, _, rest = name.partition(".")
    for layer, rooms in enumerate(LAYERS[package]):
        for place, pattern in enumerate(rooms):
            if re.fullmatch(rf"(?:{pattern})(\.\w+)?", rest):
                return layer, place
    return None


def _engines(module: Module) -> Iterator[tuple[int, str]]:
    for line, name in _imports(module):
        if ENGINES.match(name) and not ENGINES_HOME.match(module.path):
            yield line, f"names the engine {name}; it knows only job_consumer.engines"


def _threads(module: Module) -> Iterator[tuple[int, str]]:
    if module.path.startswith(THREADS_HOME):
        return
    named = list(_imports(module))
    named += [(node.lineno, ast.unparse(node)) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)]
    yield from (
        (line, f"uses {name}; only kit does: take kit.threads") for line, name in named if THREADS.fullmatch(name)
    )


def _homes(module: Module) -> Iterator[tuple[int, str]]:
    for line, name in _imports(module):
        library = name.partition(".")[0]
        if library in HOMES and not re.match(HOMES[library], module.path):
            yield line, f"imports {library}, whose home is {HOMES[library]}"


def _environment(module: Module) -> Iterator[tuple[int, str]]:
    home = ENVIRONMENT_HOMES.get(module.package, "kit/settings.py")
    if module.path == home:
        return
    imported = [(line, name) for line, name in _imports(module) if name in ("os.environ", "os.getenv", "os.environb")]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb"):
            imported.append((node.lineno, ast.unparse(node)))
    yield from ((line, f"reads {name}; only {home} does") for line, name in imported)


def _collaborators(module: Module) -> Iterator[tuple[int, str]]:
    """Nothing that lives is made at import, and no function changes a module's names."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"changes the module's {', '.join(node.names)}"
    for call in _calls_at_import(module.tree):
        name = ast.unparse(call.func)
        if COLLABORATORS.fullmatch(name.rpartition(".")[2]):
            yield call.lineno, f"makes {name}() at import"


def _calls_at_import(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_main_guard(node):
            continue
        if isinstance(node, ast.Call):
            yield node
        yield from _calls_at_import(node)


def _is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
