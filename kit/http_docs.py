"""Swagger UI from files of ours, so that `/docs` needs no outside host, and the ids of operations.

`docs_files/swagger-ui` holds files of npm's `swagger-ui-dist`, unchanged; decision 0019 says how they are renewed.
"""

from html import escape
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

FILES = Path(__file__).parent / "docs_files"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" type="image/png" href="{files}/swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="{files}/swagger-ui/swagger-ui.css">
</head>
<body>
<noscript>This page needs JavaScript. <a href="{openapi}">The same as JSON</a>.</noscript>
<div id="swagger-ui" data-openapi="{openapi}"></div>
<script src="{files}/swagger-ui/swagger-ui-bundle.js"></script>
<script src="{files}/start.js"></script>
</body>
</html>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
"""Swagger UI sets styles on its elements; its pictures are data URLs inside its style sheet."""


def name_operation(route: APIRoute) -> str:
    """The id of an operation: its route's name. Generated clients name their functions after it, so it stays."""
    return route.name


def install_docs(app: FastAPI) -> None:
    """Serve `/docs` and its files."""
    app.mount("/docs/assets", StaticFiles(directory=FILES), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = _PAGE.format(
            title=escape(app.title), files=escape(f"{root}/docs/assets"), openapi=escape(f"{root}{app.openapi_url}")
        )
        return HTMLResponse(page, headers=_HEADERS)
