"""Parts of OpenAPI that several services share: bodies and answers that are a zip."""

from collections.abc import Mapping
from typing import Any

ZIP = "application/zip"
OCTETS = "application/octet-stream"
"""The same bytes under the name that every generator of clients knows."""
_BYTES = {"schema": {"type": "string", "format": "binary"}}


def _zip_body(*, required: bool) -> Mapping[str, Any]:
    form = {
        "type": "object",
        "properties": {"zip_file": {"type": "string", "format": "binary", "description": "The zip."}},
        **({"required": ["zip_file"]} if required else {}),
    }
    content = {"multipart/form-data": {"schema": form}, ZIP: _BYTES, OCTETS: _BYTES}
    return {"requestBody": {"required": required, "content": content}}


ZIP_BODY = _zip_body(required=True)
"""A body that is a zip, declared by hand because FastAPI's UploadFile would spool the whole upload first."""
OPTIONAL_ZIP_BODY = _zip_body(required=False)

ZIP_ANSWER: Mapping[int | str, dict[str, Any]] = {
    200: {"description": "The zip.", "content": {ZIP: _BYTES, OCTETS: _BYTES}}
}
