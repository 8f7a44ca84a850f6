"""Single files of inputs and outputs through the door: their list, their bytes, their headers, and who gets them."""

import hashlib
import io
import logging
import os
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from contract.access import Scope
from contract.claims import ClaimRequest
from contract.schemas import Commit
from private_api.database import Database
from private_api.keys import create_key
from tests.integration.public_door import PLAIN, exchange, serve_door
from tests.running_api import RunningApi, run_private_api
from tests.zips import make_zip

NAMES = (
    "mask.txt",
    "case 1/scan #2?.txt",
    "Ärzte/Größe 100%.txt",
    "50%2F50/a;b&c=d+e.txt",
    "data:TEXT/JAVASCRIPT,x.txt",
    'it\'s "quoted".txt',
)
FILES = {name: f"the bytes of {name}".encode() * 50 for name in NAMES}
NOISE = os.urandom(3 * 1024**2)


def make_output(method: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.mkdir("case 1")
        for name, data in {**FILES, "noise.bin": NOISE, "empty": b""}.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 11, 27, 7, 30, 2)), data, compress_type=method)
    return target.getvalue()


class Lab:
    """An open server with a task of its own making in every state."""

    def __init__(self, api: RunningApi, url: str) -> None:
        self.api, self.url = api, url

    def http(self, key: str | None = None) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": key} if key else {}, **PLAIN)

    def key(self, owner: str, *scopes: Scope) -> str:
        database = Database(self.api.database_url)
        try:
            return create_key(database, owner=owner, scopes=list(scopes), lifetime=None)
        finally:
            database.close()

    def submit(self, content: bytes, key: str | None = None) -> str:
        with self.http(key) as http:
            answer = http.post("/api/tasks/?human_readable_id=echo", files={"zip_file": content})
            assert answer.status_code == 200, answer.text
            uid: str = answer.json()
            return uid

    def finish(self, uid: str, output: bytes) -> None:
        with self.api.consumer() as consumer:
            held = consumer.claim(ClaimRequest(consumer="tests", uid=uid))
            assert held is not None
            assert held.uid == uid
            stored = consumer.upload_output(uid, held.fence, [output])
            commit = Commit(consumer="tests", sha256=stored.sha256, size_bytes=stored.size_bytes)
            consumer.commit(uid, held.fence, commit)

    def finished(self, output: bytes, key: str | None = None) -> str:
        uid = self.submit(output, key)
        self.finish(uid, output)
        return uid


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("files")
    with run_private_api(f"sqlite:///{folder / 'db'}", folder) as api, serve_door(api.url) as url:
        with httpx.Client(base_url=url, **PLAIN) as http:
            http.post("/api/models/", params={"human_readable_id": "echo", "container_tag": "echo:1"})
        yield Lab(api, url)


@pytest.fixture
def http(lab: Lab) -> Iterator[httpx.Client]:
    with lab.http() as http:
        yield http


@pytest.fixture(scope="module", params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def task(lab: Lab, request: pytest.FixtureRequest) -> str:
    return lab.finished(make_output(request.param))


@pytest.mark.parametrize("side", ["input", "output"])
def test_the_list_has_every_file_with_what_is_known_of_it(http: httpx.Client, task: str, side: str) -> None:
    listed = http.get(f"/api/tasks/{task}/{side}/files").json()
    assert [each["path"] for each in listed] == [*NAMES, "noise.bin", "empty"]
    assert listed[0] == {
        "path": "mask.txt",
        "size_bytes": len(FILES["mask.txt"]),
        "crc32": f"{zlib.crc32(FILES['mask.txt']):08x}",
        "modified_at": "2026-11-27T07:30:02Z",
        "media_type": "text/plain",
    }
    pages = [http.get(f"/api/tasks/{task}/{side}/files", params={"limit": 3}).json()]
    while len(pages[-1]) == 3:
        query = {"limit": 3, "after": pages[-1][-1]["path"]}
        pages.append(http.get(f"/api/tasks/{task}/{side}/files/", params=query).json())
    assert [each for page in pages for each in page] == listed
    refused = http.get(f"/api/tasks/{task}/{side}/files", params={"after": "case 1"})
    assert (refused.status_code, refused.json()["detail"]) == (422, "after: no file has this path")


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("safe", ["/", ""], ids=["plain slashes", "encoded slashes"])
def test_a_file_is_found_by_its_exact_name(http: httpx.Client, task: str, side: str, safe: str) -> None:
    for name, content in FILES.items():
        answer = http.get(f"/api/tasks/{task}/{side}/files/{quote(name, safe=safe)}")
        assert (answer.status_code, answer.content) == (200, content), name
    for name in ("MASK.txt", "case 1", "case 1/", "mask.txt/", "nothing", "a//b", "50/50/a;b&c=d+e.txt"):
        answer = http.get(f"/api/tasks/{task}/{side}/files/{quote(name, safe=safe)}")
        assert (answer.status_code, answer.json()["error"]) == (404, "FileNotFound"), name


def test_no_path_leads_out_of_the_archive(lab: Lab, task: str) -> None:
    for path in ("../../status", "..%2F..%2Fstatus", "%2e%2e/%2e%2e/status", "./mask.txt", "%2Fetc/passwd", "a%00b"):
        received = exchange(lab.url, f"GET /api/tasks/{task}/output/files/{path}")
        assert b" 404 " in received.partition(b"\r\n")[0], path
        assert b'"status"' not in received


def test_ranges_resume_against_the_same_bytes_only(http: httpx.Client, task: str) -> None:
    url = f"/api/tasks/{task}/output/files/noise.bin"
    whole = http.get(url)
    assert whole.content == NOISE
    assert (whole.headers["accept-ranges"], whole.headers["content-length"]) == ("bytes", str(len(NOISE)))
    etag, size = whole.headers["etag"], len(NOISE)
    for asked, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=1500000-2600000", 1_500_000, 2_600_001),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{10 * size}", 0, size),
        (f"bytes=5-{10 * size}", 5, size),
    ):
        part = http.get(url, headers={"Range": asked, "If-Range": etag})
        assert (part.status_code, part.content) == (206, NOISE[start:stop]), asked
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    for asked in (f"bytes={size}-", f"bytes={size}-{size + 5}", "bytes=-0"):
        outside = http.get(url, headers={"Range": asked})
        assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{size}")
    for headers in (
        {"Range": "bytes=0-3", "If-Range": '"another"'},
        {"Range": "bytes=0-3,5-6"},
        {"Range": "bytes=9-3"},
        {"Range": f"bytes=0-{'9' * 5000}"},
        {"Range": "lines=1-2"},
    ):
        assert http.get(url, headers=headers).status_code == 200, headers
    assert http.get(url, headers={"If-None-Match": etag}).status_code == 304
    empty = http.get(f"/api/tasks/{task}/output/files/empty")
    assert (empty.status_code, empty.content) == (200, b"")


def test_head_answers_the_headers_alone(http: httpx.Client, task: str) -> None:
    url = f"/api/tasks/{task}/output/files/noise.bin"
    head, whole = http.head(url), http.get(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges", "content-disposition"):
        assert head.headers[name] == whole.headers[name]
    assert http.head(f"/api/tasks/{task}/output/files/nothing").status_code == 404


def test_no_browser_runs_a_file_as_part_of_the_server(lab: Lab, http: httpx.Client) -> None:
    types = {
        "page.html": "text/html",
        "picture.svg": "image/svg+xml",
        "x.js": "text/plain",
        "x.mjs": "text/plain",
        "Y.JS": "text/plain",
        "x.css": "text/plain",
        "data:TEXT/JAVASCRIPT,x": "application/octet-stream",
        "ct.nii.gz": "application/gzip",
        "ct.nii": "application/octet-stream",
        "facts.json": "application/json",
        "slice.png": "image/png",
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in types:
            archive.writestr(name, "<script>alert(1)</script>")
    uid = lab.finished(target.getvalue())
    assert {each["path"]: each["media_type"] for each in http.get(f"/api/tasks/{uid}/output/files").json()} == types
    for name, kind in types.items():
        answer = http.get(f"/api/tasks/{uid}/output/files/{quote(name)}")
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("attachment; filename")


def test_a_file_is_stored_under_its_own_name(http: httpx.Client, task: str) -> None:
    for name, disposition in (
        ("mask.txt", 'attachment; filename="mask.txt"'),
        ("Ärzte/Größe 100%.txt", "attachment; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20100%25.txt"),
        ('it\'s "quoted".txt', "attachment; filename*=UTF-8''it%27s%20%22quoted%22.txt"),
    ):
        answer = http.head(f"/api/tasks/{task}/output/files/{quote(name)}")
        assert answer.headers["content-disposition"] == disposition


def test_without_files_the_codes_are_those_of_the_output(lab: Lab, http: httpx.Client) -> None:
    uid = lab.submit(make_output(zipfile.ZIP_STORED))
    for path in ("files", "files/mask.txt"):
        assert http.get(f"/api/tasks/{uid}/output/{path}").status_code == 551
        assert http.get(f"/api/tasks/{uid}/input/{path}").status_code == 200
    http.post(f"/api/tasks/{uid}/cancel")
    assert http.get(f"/api/tasks/{uid}/output/files").status_code == 552
    lost = lab.finished(make_output(zipfile.ZIP_STORED))
    for path in lab.api.data_dir.glob(f"archives/*/{lost}*"):
        for file in [path] if path.is_file() else path.iterdir():
            file.unlink()
    for path in ("files", "files/mask.txt"):
        assert http.get(f"/api/tasks/{lost}/output/{path}").status_code == 553
        answer = http.get(f"/api/tasks/{lost}/input/{path}")
        assert (answer.status_code, answer.json()["error"]) == (410, "InputMissing")
    for known in ("0" * 64, "x"):
        assert http.get(f"/api/tasks/{known}/output/files").status_code == 554


def test_names_that_differ_only_in_case_are_two_files_of_an_output(lab: Lab, http: httpx.Client) -> None:
    content = {"T1.nii": b"upper", "t1.nii": b"lower", "A/x": b"1", "a/x": b"2"}
    uid = lab.submit(make_output(zipfile.ZIP_STORED))
    lab.finish(uid, make_zip(content))
    listed = http.get(f"/api/tasks/{uid}/output/files").json()
    assert [file["path"] for file in listed] == list(content)
    for name, data in content.items():
        assert http.get(f"/api/tasks/{uid}/output/files/{name}").content == data


def test_the_files_of_others_are_for_the_admin_alone_and_that_is_logged(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys = {
        "owner": lab.key("ada", Scope.SUBMIT),
        "stranger": lab.key("bob", Scope.SUBMIT),
        "operator": lab.key("carol", Scope.OPERATE),
        "admin": lab.key("dan", Scope.ADMIN),
    }
    output = make_output(zipfile.ZIP_DEFLATED)
    uid = lab.finished(output, keys["owner"])
    for role, code in (("owner", 200), ("stranger", 554), ("operator", 403), ("admin", 200)):
        with lab.http(keys[role]) as http:
            for side in ("input", "output"):
                for path in ("files", "files/mask.txt"):
                    answer = http.get(f"/api/tasks/{uid}/{side}/{path}")
                    assert answer.status_code == code, (role, side, path)
                    assert code == 200 or "mask" not in answer.text
    told = [record.getMessage() for record in caplog.records if "are read by" in record.getMessage()]
    assert len(told) == 4
    assert "files or a log of the owner ada are read by the admin dan" in told[0]
    # Whoever knows the uid of a task without an owner may read it.
    open_task = lab.finished(output)
    with lab.http(keys["stranger"]) as http:
        assert http.get(f"/api/tasks/{open_task}/output/files").status_code == 200


def test_an_output_that_is_no_zip_is_said_so(lab: Lab, http: httpx.Client) -> None:
    uid = lab.submit(make_output(zipfile.ZIP_STORED))
    lab.finish(uid, b"no zip at all")
    for path in ("files", "files/mask.txt"):
        answer = http.get(f"/api/tasks/{uid}/output/{path}")
        assert (answer.status_code, answer.json()["error"]) == (422, "InvalidArchive")


def test_a_damaged_file_never_arrives_as_if_it_were_whole(lab: Lab, http: httpx.Client) -> None:
    output = make_output(zipfile.ZIP_STORED)
    at = output.index(NOISE[:100])
    uid = lab.submit(make_output(zipfile.ZIP_STORED))
    lab.finish(uid, output[:at] + bytes([output[at] ^ 1]) + output[at + 1 :])
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(f"/api/tasks/{uid}/output/files/noise.bin")
    assert http.get(f"/api/tasks/{uid}/output/files/mask.txt").content == FILES["mask.txt"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_large_file_is_neither_held_nor_unpacked(lab: Lab, http: httpx.Client, tmp_path: Path, method: int) -> None:
    size, piece = 192 * 1024**2, os.urandom(1024**2)
    digest = hashlib.sha256()
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w", method, compresslevel=0) as archive, archive.open("large.bin", "w") as entry:
        for number in range(size // len(piece)):
            entry.write(piece[number:] + piece[:number])
            digest.update(piece[number:] + piece[:number])
    # The private API takes at most 64 MiB here: the file is put where it keeps outputs.
    uid = lab.finished(make_output(method))
    (stored,) = (lab.api.data_dir / "archives" / "outputs" / uid).iterdir()
    path.replace(stored)
    files, received = lab.api.files(), hashlib.sha256()
    tracemalloc.start()
    try:
        with http.stream("GET", f"/api/tasks/{uid}/output/files/large.bin") as answer:
            for chunk in answer.iter_raw():
                received.update(chunk)
        last = http.get(f"/api/tasks/{uid}/output/files/large.bin", headers={"Range": "bytes=-3"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received.hexdigest() == digest.hexdigest()
    number = size // len(piece) - 1
    assert last.content == (piece[number:] + piece[:number])[-3:]
    assert peak < 32 * 1024**2
    assert lab.api.files() == files
