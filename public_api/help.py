"""The documentation as a site at `/help`, so that places without the internet have it.

`make docs` writes `help_files`, and so does the build of the image. The site runs no script from inside a page and asks
no other host.
"""

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

FILES = Path(__file__).parent / "help_files"
START = "docs/index.html"
_HEADERS = {
    # The theme sets its colours in the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # After an upgrade a browser must not show the old pages; the ETag makes asking cheap.
    "Cache-Control": "no-cache",
}
_NOT_BUILT = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Help</title></head>
<body>
<h1>This server was started without its documentation</h1>
<p>The image has it. In a checkout, <code>make docs</code> builds it; then start the server again. Until then, the same
pages lie in the folder <code>docs</code>, and <a href="{root}/docs">/docs</a> describes every call.</p>
</body>
</html>
"""


class _Site(StaticFiles):
    """Files with the headers of this site."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def install_help(app: FastAPI, files: Path = FILES) -> None:
    """Serve the site in `files` at `/help`; if it was not built, a page that says how."""
    if (files / START).is_file():
        app.add_api_route("/help", _open_site, methods=["GET", "HEAD"], include_in_schema=False)
        app.add_api_route("/help/", _open_site, methods=["GET", "HEAD"], include_in_schema=False)
        app.mount("/help", _Site(directory=files), name="help")
    else:
        app.add_api_route("/help", _explain, methods=["GET", "HEAD"], include_in_schema=False)
        app.add_api_route("/help/{path:path}", _explain, methods=["GET", "HEAD"], include_in_schema=False)


def _open_site(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{_root(request)}/help/{START}")


def _explain(request: Request) -> HTMLResponse:
    return HTMLResponse(_NOT_BUILT.format(root=_root(request)), status_code=404, headers=_HEADERS)


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", ""))
