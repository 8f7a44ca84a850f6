"""`make demo`: one whole task on this machine, from nothing to a result zip.

Starts a standalone server, registers a model, submits a real input and shows what came out. If a Docker Engine answers
and has the base image, the model is a neural network that reads text (examples/ocr), otherwise a program without a
container (examples/wordcount).
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from inference_client import InferenceClient, ModelRegistration
from kit.logging import configure_logging
from standalone.server import Options, Server, standalone_server

EXAMPLES = Path(__file__).parent
DEMO = Path("demo")
OCR_IMAGE = "inference-server/ocr:1"
BASE_IMAGE = "python:3.13-slim"
PAGE = ["InferenceServer read this page", "Patient 4711, spleen volume 212 ml", "No task is ever lost"]
TEXT = "A zip goes in, a zip comes out.\nA zip that is lost is no zip at all.\n"


def main() -> int:
    """Run the demo and return its exit code."""
    configure_logging("WARNING", "text")
    DEMO.mkdir(exist_ok=True)
    ready = _build_ocr_image()
    options = Options(data_dir=DEMO / "data", port=0, grpc_port=None, engine="docker" if ready else "process")
    with standalone_server(options) as server, InferenceClient(server.url) as client:
        print(f"server:  {server.url} ({server.engine})")
        result = _read_page(client) if ready else _count_words(client)
        print(f"result:  {result}")
        _list_zip(result)
        _show_next_steps(server, options)
    return 0


def _build_ocr_image() -> bool:
    inspect = ["docker", "image", "inspect", "--format", "present", BASE_IMAGE]
    try:
        subprocess.run(inspect, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        print(f"docker:  no Engine answers, or it has no {BASE_IMAGE}; the demo runs a model without a container")
        return False
    print(f"docker:  building {OCR_IMAGE} (half a minute the first time)", flush=True)
    build = ["docker", "build", "--quiet", "--tag", OCR_IMAGE, str(EXAMPLES / "ocr")]
    answer = subprocess.run(build, capture_output=True, text=True, check=False)
    if answer.returncode:
        print(f"docker:  the build failed; the demo runs a model without a container\n{answer.stderr}", file=sys.stderr)
    return answer.returncode == 0


def _read_page(client: InferenceClient) -> Path:
    model_zip, page = DEMO / "ocr-model.zip", DEMO / "page.png"
    _run(EXAMPLES / "ocr/build_model_zip.py", model_zip)
    _run(EXAMPLES / "ocr/make_page.py", page, *PAGE)
    _register(client, "ocr", OCR_IMAGE, model_zip)
    result = _submit(client, "ocr", page)
    with zipfile.ZipFile(result) as archive:
        pages = json.loads(archive.read("text.json"))["pages"]
    for line in pages[0]["lines"]:
        print(f"read:    {line['text']}  (confidence {line['confidence']:.2f})")
    return result


def _count_words(client: InferenceClient) -> Path:
    model_zip, text = DEMO / "wordcount-model.zip", DEMO / "text.txt"
    _run(EXAMPLES / "zip_folder.py", EXAMPLES / "wordcount", model_zip)
    text.write_text(TEXT)
    _register(client, "wordcount", "process:count.py", model_zip)
    result = _submit(client, "wordcount", text)
    with zipfile.ZipFile(result) as archive:
        print(f"counted: {archive.read('summary.json').decode().strip()}")
    return result


def _register(client: InferenceClient, model: str, container_tag: str, model_zip: Path) -> None:
    registration = ModelRegistration(
        human_readable_id=model, container_tag=container_tag, description="from make demo", replace=True
    )
    view = client.add_model(registration, model_zip)
    print(f"model:   {view.human_readable_id} version {view.version} = {view.container_tag}")


def _submit(client: InferenceClient, model: str, file: Path) -> Path:
    uid = client.submit(model, [file])
    print(f"task:    {uid}")
    view = client.wait(uid)
    print(f"status:  {view.status}")
    for line in b"".join(client.logs(uid)).decode().splitlines():
        print(f"log:     {line}")
    return client.fetch(uid, DEMO / "result.zip")


def _list_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            print(f"         {entry.file_size:>9} bytes  {entry.filename}")


def _show_next_steps(server: Server, options: Options) -> None:
    engine = "" if options.engine == "docker" else f" --engine {options.engine}"
    print(
        f"\nThat was one whole task. To keep a server running: .venv/bin/inference-server standalone{engine}\n"
        f"and in another shell: .venv/bin/infer models list   (this demo's server, {server.url}, stops now)"
    )


def _run(script: Path, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
