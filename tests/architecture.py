"""Reads a tree of our packages with `ast` and says where it breaks the rules of the architecture."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("private_api", "public_api", "grpc_gateway", "job_consumer", "inference_client")
TOOLS = ("standalone", "operations")
"""They put services together: they may import all of them, and no service imports a tool."""
PACKAGES = ("contract", *SERVICES, *TOOLS)
MAX_LINES = 300

# The layers of the private API from the bottom up: a module imports from its own layer and from those before it.
LAYERS = (
    r"private_api\.(tables|deployment_tables|database|archives|task_logs|watch|settings|migrate|backup_files|migrations\..*)",
    r"private_api\.(tasks(\..*)?|deployments(\..*)?|absence|models|keys|callers|dispatcher|reaper|janitor|backup|restore)",
    r"private_api\.(services|uploads)",
    r"private_api\.routes(\..*)?",
    r"private_api\.app",
    r"private_api\.service",
    r"private_api\.__main__",
)
RULES = 1
"""The layer that decides; it and all below know nothing of HTTP."""

# Where a library may be imported. One that is not named here may be imported anywhere.
HOMES = {
    "sqlalchemy": r"private_api/",
    "alembic": r"private_api/(migrate\.py|migrations/)",
    "psycopg2": r"private_api/",
    "sqlite3": r"private_api/",
    "python_multipart": r"private_api/uploads\.py",
    "docker": r"job_consumer/docker_\w+\.py",
    "pika": r"contract/rabbitmq_broker(\.py|/)",
    "grpc": r"grpc_gateway/|job_consumer/replica_calls\.py|inference_client/live_calls\.py",
    "uvicorn": r"contract/http_server\.py",
    "fastapi": r"contract/http_\w+\.py|(private_api|public_api|standalone)/",
    "starlette": r"contract/http_\w+\.py|(private_api|public_api|standalone)/",
    "typer": r"(inference_client|standalone|operations)/",
    "rich": r"(inference_client|standalone|operations)/",
}
ENVIRONMENT_HOME = "contract/settings.py"

# What is handed to those who need it, by whoever builds the service; at import there must be none of it.
COLLABORATORS = re.compile(
    r"FastAPI|APIRouter|Starlette|create_\w+|sessionmaker|\w*Session|\w*Client|\w*Broker|\w*Engine|\w*Settings|load|from_env"
    r"|Database|ArchiveStore|TaskLogs|TaskWatch|Dispatcher|Reaper|Janitor|Scaler|Loop|Services|Worker"
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
        for rule in (_borders, _layers, _homes, _environment, _collaborators):
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
            # The protocol compiler's output is nobody's style.
            if not re.search(r"_pb2(_grpc)?$", name):
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
    """A service imports `contract` and itself, and `contract` itself alone."""
    if module.package in TOOLS:
        return
    for line, name in _imports(module):
        package = name.partition(".")[0]
        if package in PACKAGES and package not in ("contract", module.package):
            yield line, f"{module.package} imports {package}"


def _layers(module: Module) -> Iterator[tuple[int, str]]:
    if module.package != "private_api" or module.name == "private_api":
        return
    own = _layer(module.name)
    if own is None:
        yield 1, "belongs to no layer of private_api; add it to LAYERS"
        return
    for line, name in _imports(module):
        layer = _layer(name) if name.startswith("private_api.") else None
        if layer is not None and layer > own:
            yield line, f"{module.name} imports {name}, which lies above it"
        if own <= RULES and name.partition(".")[0] in ("fastapi", "starlette"):
            yield line, f"{module.name} knows of HTTP: it imports {name}"


def _layer(name: str) -> int | None:
    """The layer of a module, or of the module that a name belongs to."""
    for layer, pattern in enumerate(LAYERS):
        if re.fullmatch(rf"{pattern}(\.\w+)?", name):
            return layer
    return None


def _homes(module: Module) -> Iterator[tuple[int, str]]:
    for line, name in _imports(module):
        library = name.partition(".")[0]
        if library in HOMES and not re.match(HOMES[library], module.path):
            yield line, f"imports {library}, whose home is {HOMES[library]}"


def _environment(module: Module) -> Iterator[tuple[int, str]]:
    if module.path == ENVIRONMENT_HOME:
        return
    imported = [(line, name) for line, name in _imports(module) if name in ("os.environ", "os.getenv", "os.environb")]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb"):
            imported.append((node.lineno, ast.unparse(node)))
    yield from ((line, f"reads {name}; only {ENVIRONMENT_HOME} does") for line, name in imported)


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
