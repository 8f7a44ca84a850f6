"""`infer open`: a task in the browser."""

import sys
import webbrowser

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_json, print_line
from inference_client.cli.server_options import server_options
from inference_client.cli.uids import UidArgument, named_task
from inference_client.config import environment

_WINDOWS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""One of them is set where a browser can open a window, on systems where that is not certain."""


def open_page(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Open a task's page in the browser, and print its address.

    A server without a dashboard shows the task's status as JSON instead, or its /docs if it wants a key.
    """
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, named_task(client, uid) as whole:
        url = client.task_page(whole)
    opened = _open(url)
    if as_json:
        print_json({"uid": whole, "url": url, "opened": opened})
    else:
        print_line(url)
    if not opened:
        display.say("no browser can be opened here: open the address yourself")


def _open(url: str) -> bool:
    # Without a window Python would start a browser of the terminal, in the middle of a script.
    if sys.platform not in ("darwin", "win32") and not any(environment().get(name) for name in _WINDOWS):
        return False
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False
