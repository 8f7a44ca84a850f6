"""Markdown out of an OpenAPI document: every operation with its parameters and answers, then every schema."""

from collections.abc import Iterator, Mapping
from typing import Any

Node = Mapping[str, Any]


def describe(document: Node) -> str:
    """The calls by tag, then the schemas, each under a heading of the second level."""
    lines: list[str] = []
    for tag in document["tags"]:
        lines += [f"## {tag['name'].capitalize()}", "", tag["description"], ""]
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if tag["name"] in operation.get("tags", ()):
                    lines += _operation(f"{method.upper()} {path}", operation)
    lines += ["## Schemas", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join(lines) + "\n"


def _operation(title: str, operation: Node) -> Iterator[str]:
    yield from (f"### `{title}`", "", f"**{operation['summary']}** (`{operation['operationId']}`)", "")
    if "description" in operation:
        yield from (operation["description"], "")
    parameters = operation.get("parameters", ())
    if parameters:
        yield from ("| parameter | in | type | |", "|---|---|---|---|")
        yield from (_parameter(each) for each in parameters)
        yield ""
    if "requestBody" in operation:
        yield from (f"Body: {_content(operation['requestBody'])}", "")
    yield from ("| answer | body | |", "|---|---|---|")
    for code, answer in operation["responses"].items():
        yield f"| {code} | {_content(answer)} | {_cell(answer.get('description', ''))} |"
    yield ""


def _parameter(parameter: Node) -> str:
    required = "" if parameter.get("required") else _default(parameter["schema"])
    text = parameter.get("description") or parameter["schema"].get("description", "")
    kind = _type(parameter["schema"])
    return f"| `{parameter['name']}` | {parameter['in']} | {kind} | {_cell(f'{text}{required}')} |"


def _default(schema: Node) -> str:
    default = schema.get("default")
    return "" if default in (None, "", []) else f" Default: `{default}`."


def _content(holder: Node) -> str:
    kinds = [
        f"`{name}`" + (f" {_type(body['schema'])}" if name == "application/json" and "schema" in body else "")
        for name, body in holder.get("content", {}).items()
    ]
    return ", ".join(kinds)


def _schema(name: str, schema: Node) -> Iterator[str]:
    yield from (f"### {name}", "")
    if "description" in schema:
        yield from (schema["description"], "")
    if "enum" in schema:
        yield from (", ".join(f"`{value}`" for value in schema["enum"]), "")
    if "properties" in schema:
        yield from ("| member | type | |", "|---|---|---|")
        for member, of in schema["properties"].items():
            yield f"| `{member}` | {_type(of)} | {_cell(of.get('description', '') + _default(of))} |"
        yield ""


def _type(schema: Node) -> str:
    """A schema in a word or two; another schema is linked."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema.get("anyOf") or schema["oneOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or schema.get("const", "any"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
