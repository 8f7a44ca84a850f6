"""What calls are routed by: the gateways' table, and the routes of the express lane for Traefik."""

import hashlib
import json
from typing import Any

from sqlalchemy import select

from contract.access import Scope
from contract.deployments import Backend, ReplicaStatus, Route, RoutingTable
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow
from private_api.deployments.read import judge, live_replicas, summary_of
from private_api.deployments.rows import serving_of
from private_api.keys import ended_keys, keys_that_may
from private_api.model_owners import users_of
from private_api.tables import ModelRow

_ENTRY_POINT = "https"
"""The name that traefik/configuration gives it."""


def read_table(database: Database) -> RoutingTable:
    """Every deployment with its ready replicas, and the keys that ended of late.

    Equal content has an equal `etag`, whichever process reads it.
    """
    statement = select(DeploymentRow).join(DeploymentRow.model).order_by(ModelRow.human_readable_id)
    with database.read() as session:
        routes = []
        rows, now = session.scalars(statement).all(), database.now(session)
        may_call = keys_that_may(session, Scope.SUBMIT, {row.key_id for row in rows if row.key_id}, now)
        for row in rows:
            live = live_replicas(session, row.id)
            status, cause = judge(row, live)
            routes.append(
                Route(
                    human_readable_id=row.model.human_readable_id,
                    model_version=row.model_version.number,
                    owner=row.owner,
                    serving=serving_of(row),
                    status=status,
                    # Gateways tell it to every caller.
                    detail=summary_of(cause),
                    backends=[
                        Backend(uid=replica.uid, address=replica.address)
                        for replica in live
                        if replica.status == ReplicaStatus.READY and replica.address
                    ],
                    users=users_of(row.model),
                    may_call=row.key_id is None or row.key_id in may_call,
                )
            )
        ended = ended_keys(session, now)
    content = json.dumps([[route.model_dump(mode="json") for route in routes], ended], sort_keys=True)
    return RoutingTable(etag=hashlib.sha256(content.encode()).hexdigest(), routes=routes, ended_keys=ended)


def render_express_routes(table: RoutingTable, domain: str) -> dict[str, Any]:
    """Traefik's dynamic configuration of the express lane, which leads from a name in the TLS handshake to a replica.

    A deployment without a ready replica, or for certain owners only, has no route. Without any route the answer is
    empty: Traefik refuses empty maps inside.
    """
    express = {
        f"express-{route.human_readable_id}": (
            f"{route.human_readable_id}.grpc.{domain}",
            [{"address": backend.address} for backend in route.backends],
        )
        for route in table.routes
        # Nobody asks for a key there.
        if route.serving.express and route.backends and route.users is None
    }
    if not express:
        return {}
    return {
        "tcp": {
            "routers": {
                name: {
                    "entryPoints": [_ENTRY_POINT],
                    "rule": f"HostSNI(`{host}`)",
                    "service": name,
                    "tls": {"options": "express"},
                }
                for name, (host, _) in express.items()
            },
            "services": {name: {"loadBalancer": {"servers": servers}} for name, (_, servers) in express.items()},
        },
        "tls": {"options": {"express": {"minVersion": "VersionTLS12", "alpnProtocols": ["h2"]}}},
    }
