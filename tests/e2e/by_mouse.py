"""The main job in `/docs`, as somebody does it by mouse."""

import json
import re
from pathlib import Path

from tests.browser import Operation, open_page
from tests.zips import make_zip


def shown_json(text: str) -> object:
    """The JSON in what the page shows of an answer; it may stand beside buttons and headers."""
    start = re.search(r"[\[{\"]", text)
    assert start, text
    return json.JSONDecoder().raw_decode(text[start.start() :])[0]


def do_main_job(url: str, folder: Path, *, image: str, model_zip: bytes, text: bytes) -> tuple[str, Path]:
    """Register a model, submit `text` as text.txt, poll, look at the log, and download; pictures go to `folder`.

    Returns the log and the path of the output.
    """
    (folder / "model.zip").write_bytes(model_zip)
    (folder / "input.zip").write_bytes(make_zip({"text.txt": text}))
    with open_page(f"{url}/docs") as page:
        page.locator(".opblock").first.wait_for()
        page.screenshot(path=folder / "1-opened.png")
        register = Operation(page, "models", "register_model")
        register.fill(human_readable_id="by-mouse", container_tag=image, model_available="true")
        register.attach(folder / "model.zip")
        status, body = register.execute()
        assert status == 200, body
        register.block.screenshot(path=folder / "2-registered.png")
        submit = Operation(page, "tasks", "submit_task")
        submit.fill(human_readable_id="by-mouse")
        submit.attach(folder / "input.zip")
        status, body = submit.execute()
        assert status == 200, body
        submit.block.screenshot(path=folder / "3-submitted.png")
        uid = shown_json(body)
        assert isinstance(uid, str)
        poll = Operation(page, "tasks", "show_task")
        poll.fill(uid=uid, wait="60")
        status, body = poll.execute()
        assert (status, '"status": "finished"' in body) == (200, True), body
        poll.block.screenshot(path=folder / "4-polled.png")
        log = Operation(page, "tasks", "show_log")
        log.fill(uid=uid)
        status, shown = log.execute()
        assert status == 200, shown
        log.block.screenshot(path=folder / "5-log.png")
        output = Operation(page, "tasks", "fetch_output")
        output.fill(uid=uid)
        assert output.execute()[0] == 200
        fetched = output.download(folder / "output.zip")
        output.block.screenshot(path=folder / "6-downloaded.png")
    return shown, fetched
