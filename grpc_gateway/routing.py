"""Decides where a call goes, without any I/O.

By its prefix, else by `application`, else by the model that its message names, else to the only deployment.
"""

import hmac
import re

from contract.serving import PREFIX_PATTERN, WireProtocol
from grpc_gateway.calls import Call, Target
from grpc_gateway.deployments import Deployment
from grpc_gateway.headers import Headers
from grpc_gateway.methods import KSERVE, STATISTICS, TASKS, TENSORFLOW, Method, method_of
from grpc_gateway.refusals import (
    admin_only,
    consumers_only,
    missing_spec,
    no_default_service,
    not_populated,
    restricted,
    unknown_application,
    unknown_model,
    unknown_prefix,
    unknown_servable,
    unknown_status,
    unnamed_statistics,
)
from grpc_gateway.sequences import sequence_of
from grpc_gateway.statuses import StatusError
from grpc_gateway.table import Table
from kit.protobuf import peek, peek_text

_PREFIX = re.compile(PREFIX_PATTERN)


class Router:
    """Finds targets in the routing table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def begin(self, path: str, headers: Headers) -> Call:
        """The call at `path`; a prefix is taken off and names the deployment. Raises `StatusError`."""
        prefix, _, rest = path[1:].partition("/")
        deployment = self._table.by_prefix.get(prefix)
        if deployment is None:
            if "/" in rest:
                raise unknown_prefix(prefix) if self._table.is_populated else not_populated()
            return Call(path, headers)
        if "/" in rest:
            return Call(f"/{rest}", headers, deployment)
        service = deployment.route.serving.service
        if service is None:
            raise no_default_service(deployment.id, prefix)
        return Call(f"/{service}/{rest}", headers, deployment)

    def is_known(self, call: Call) -> bool:
        """Whether the table holds the application that the call names, if it names one."""
        application = call.headers.application
        return call.deployment is not None or not application or application in self._table.by_application

    def names_model(self, call: Call) -> bool:
        """Whether the call's first message is needed to find its target."""
        if call.deployment is not None or call.headers.application in self._table.by_application:
            return False
        method = method_of(call.path)
        return method is not None and method.name is not None

    def find(self, call: Call, message: bytes = b"") -> Target:
        """Where the call goes; `message` is its first. Raises `StatusError` if it may not, or if there is no target."""
        if not self._table.is_populated:
            raise not_populated()
        if call.path.startswith(TASKS):
            raise consumers_only()
        method = method_of(call.path)
        deployment = self.named(call)
        if deployment is None and method is not None and method.name is not None:
            deployment = self._by_model(call, method, message)
        if deployment is None:
            deployment = self._table.only
        if method is not None and method.is_admin and not (deployment and deployment.route.serving.allow_admin):
            raise admin_only(call.path)
        if deployment is None:
            service = call.path[1:].partition("/")[0]
            # A name with neither a capital nor a dot was hardly meant as a service.
            raise unknown_prefix(service) if _PREFIX.match(service) else unknown_application("")
        deployment.require_use(call.caller.owner)
        self.check_restriction(call, deployment)
        has_choice = deployment.route.serving.replicas_max > 1
        return Target(deployment, call.path, sequence_of(call.path, message) if has_choice else "")

    def known_target(self, call: Call) -> Deployment | None:
        """Where a call to a user's own service goes, as far as its path and metadata say."""
        if call.deployment is not None:
            return call.deployment
        application = call.headers.application
        return self._table.by_application.get(application) if application else self._table.only

    def named(self, call: Call) -> Deployment | None:
        """The deployment that the prefix or `application` names. Raises `StatusError` for an unknown one."""
        if call.deployment is not None:
            return call.deployment
        application = call.headers.application
        if not application:
            return None
        deployment = self._table.by_application.get(application)
        if deployment is None:
            raise unknown_application(application)
        return deployment

    def of_server(self, call: Call) -> Deployment | None:
        """The deployment that a call about a whole server means; None means all of them."""
        return self.named(call) or self._table.only

    def by_model(self, call: Call, name: str) -> Deployment | None:
        """The deployment for a call that names a model."""
        return self.named(call) or self._table.by_model.get(name) or self._only_of(name)

    def check_restriction(self, call: Call, deployment: Deployment | None) -> None:
        """Raises `StatusError` if the call needs one of the deployment's restricted keys and lacks it."""
        if deployment is None or not deployment.restrictions:
            return
        method = method_of(call.path)
        key = deployment.restrictions.get(method.category) if method and method.category else None
        if key is None:
            return
        header = f"triton-grpc-protocol-{key.key}"
        if not hmac.compare_digest(call.headers.get(header).encode(), key.value.encode()):
            raise restricted(header)

    def _by_model(self, call: Call, method: Method, message: bytes) -> Deployment | None:
        """The deployment of the model in the message; None if it names none and need not. Raises `StatusError`."""
        assert method.name is not None  # noqa: S101 - the caller asked
        name = peek_text(message, method.name)
        if not name and call.path == STATISTICS:
            return self._only_of_kserve()
        if not name and method.is_admin:
            # Trace settings without a model are those of a whole server, like the log's.
            return None
        deployment = self._table.by_model.get(name) or self._only_of(name)
        if deployment is not None:
            return deployment
        raise _unknown(call.path, method, name, message)

    def _only_of_kserve(self) -> Deployment:
        """Whose statistics are meant if no model is named. Raises `StatusError` unless exactly one can be meant."""
        everyone = self._table.deployments.values()
        speaking = [one for one in everyone if one.route.serving.protocol is WireProtocol.KSERVE]
        if len(speaking) != 1:
            raise unnamed_statistics(sorted(one.id for one in speaking))
        return speaking[0]

    def _only_of(self, name: str) -> Deployment | None:
        """The only deployment, unless it lists its models: a name that is not in the lists is unknown."""
        only = self._table.only
        if only is None:
            return None
        serving = only.route.serving
        is_listed = bool(serving.model_names or serving.unrouted_model_names)
        return only if not is_listed or name in serving.unrouted_model_names else None


def _unknown(path: str, method: Method, name: str, message: bytes) -> StatusError:
    version = peek(message, method.version) if method.version else None
    if path.startswith(KSERVE):
        return unknown_model(name, version.decode(errors="replace") if isinstance(version, bytes) else "")
    if not name:
        return missing_spec(has_spec=method.spec is not None and peek(message, method.spec) is not None)
    if path == f"{TENSORFLOW}ModelService/GetModelStatus":
        return unknown_status(name)
    return unknown_servable(name, version if isinstance(version, int) else None)
