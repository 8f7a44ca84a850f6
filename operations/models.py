"""`inference-server models`: whose the models are. It uses the database directly, without any running service."""

from typing import Annotated

import typer

from contract.errors import ModelNotFound
from contract.model_versions import ModelChange
from operations.database import DataDir, fail, open_database, print_rows
from operations.keys import check_owner

_PAGE = 500

app = typer.Typer(no_args_is_help=True, help="See whose the models are, and give them away.")


@app.command("list")
def show(data_dir: DataDir = None) -> None:
    """List every model, whose it is, and for whom."""
    from private_api.audit.record import OPERATOR
    from private_api.models import list_models

    rows = [("ID", "VERSION", "OWNER", "FOR", "IMAGE")]
    after: str | None = None
    with open_database(data_dir) as database:
        while page := list_models(database, OPERATOR, limit=_PAGE, after=after):
            after = page[-1].human_readable_id
            for model in page:
                users = ", ".join(["its owner", *model.users]) if model.restricted else "everybody"
                row = (model.human_readable_id, str(model.version), model.owner or "-", users, model.container_tag)
                rows.append(row)
    print_rows(rows)


@app.command()
def give(
    human_readable_id: Annotated[str, typer.Argument(metavar="ID", help="The model's name.")],
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose it is from now on: an owner of keys.")],
    data_dir: DataDir = None,
) -> None:
    """Give a model, or one that is nobody's, to an owner, who alone may change it then."""
    from private_api.audit.record import OPERATOR
    from private_api.model_versions import change_model

    check_owner(owner, "OWNER")
    with open_database(data_dir) as database:
        try:
            change_model(database, human_readable_id, ModelChange(owner=owner), OPERATOR)
        except ModelNotFound:
            fail(f"no model has the id {human_readable_id!r}; `inference-server models list` shows them", code=1)
    typer.echo(f"{human_readable_id} belongs to {owner}", err=True)
