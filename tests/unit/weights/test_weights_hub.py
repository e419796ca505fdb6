import hashlib
import json
import logging
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from everview.errors import WeightsError
from everview.weights import hub, sources

COMMIT = "a" * 40


class FakeHub(BaseHTTPRequestHandler):
    """The few answers of the Hugging Face hub that a download needs."""

    files: ClassVar[dict] = {}
    drop_after: ClassVar[int | None] = None
    ranges: ClassVar[list[int]] = []
    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def log_message(self, *args):
        pass

    def _answer(self, *, with_body):
        self.asked.append(self.path)
        owner, name, _, revision, file = self.path.lstrip("/").split("/", 4)
        content = self.files.get((f"{owner}/{name}", file))
        error = None
        if owner == "gated":
            error = (403, "GatedRepo")
        elif owner == "nobody":
            error = (404, "RepoNotFound")
        elif revision == "nowhere":
            error = (404, "RevisionNotFound")
        elif content is None:
            error = (404, "EntryNotFound")
        if error:
            self.send_response(error[0])
            self.send_header("X-Error-Code", error[1])
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self.ranges.append(start)
            body = content[start:]
            if self.drop_after is not None:
                body, FakeHub.drop_after = body[: self.drop_after], None
                self.close_connection = True
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    address = f"http://127.0.0.1:{server.server_port}"
    FakeHub.files, FakeHub.ranges, FakeHub.drop_after, FakeHub.asked = {}, [], None, []
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def offline(monkeypatch):
    """Call it to cut the connection; the hub's own switch, so that nothing is tried for long."""
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_the_first_file_that_the_repository_has_is_fetched(server):
    FakeHub.files = {("me/model", "model.pt"): b"values"}
    path = hub.fetch("me/model", ["model.safetensors", "model.pt"])
    assert path.name == "model.pt"
    assert path.read_bytes() == b"values"


def test_without_a_connection_an_earlier_download_is_used(server, offline):
    FakeHub.files = {("me/model", "model.pt"): b"values"}
    first = hub.fetch("me/model", ["model.safetensors", "model.pt"])
    offline()
    assert hub.fetch("me/model", ["model.safetensors", "model.pt"]) == first
    assert hub.cached("me/model", ["model.pt"]) == first
    assert hub.cached("me/model", ["other.pt"]) is None


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_what_is_here_is_used_without_asking_the_server(server, revision):
    FakeHub.files = {("me/model", "model.pt"): b"values"}
    names = ["model.safetensors", "model.pt"]
    first = hub.fetch("me/model", names, revision=revision)
    FakeHub.asked.clear()
    assert hub.fetch("me/model", names, revision=revision) == first
    assert FakeHub.asked == []


def test_a_branch_that_is_asked_for_may_have_moved(server, offline):
    FakeHub.files = {("me/model", "model.pt"): b"values"}
    first = hub.fetch("me/model", ["model.pt"], revision="v2")
    FakeHub.asked.clear()
    hub.fetch("me/model", ["model.pt"], revision="v2")
    assert FakeHub.asked
    offline()
    assert hub.fetch("me/model", ["model.pt"], revision="v2") == first


def test_a_description_that_a_repository_does_not_have_is_asked_for_once(server):
    FakeHub.files = {("me/model", "model.safetensors"): b"values"}
    first = sources.find_source("me/model")
    assert FakeHub.asked[-1].endswith("config.json")
    FakeHub.asked.clear()
    assert sources.find_source("me/model") == first
    assert FakeHub.asked == []


def test_shards_and_description_come_from_the_commit_of_the_file_that_is_here(server):
    index = {"weight_map": {"a": "x-1.safetensors"}}
    FakeHub.files = {
        ("me/model", "model.safetensors.index.json"): json.dumps(index).encode(),
        ("me/model", "x-1.safetensors"): b"1",
        ("me/model", "config.json"): b"{}",
    }
    sources.find_source("me/model")
    names = ("x-1.safetensors", "config.json")
    later = {path.rsplit("/", 2)[1] for path in FakeHub.asked if path.endswith(names)}
    assert later == {COMMIT}


def test_the_hub_does_not_tell_of_its_retries(server, monkeypatch):
    told, levels = [], []
    logger = logging.getLogger("huggingface_hub.utils._http")
    handler = logging.Handler()
    handler.emit = told.append
    monkeypatch.setattr(logger, "handlers", [handler])

    def tiresome(*arguments, **keywords):
        levels.append(logger.getEffectiveLevel())
        logger.warning("Retrying in 1s [Retry 1/5].")
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(hub, "hf_hub_download", tiresome)
    before = logger.getEffectiveLevel()
    with pytest.raises(WeightsError, match="is not on this machine"):
        hub.fetch("me/model", ["model.pt"])
    assert told == []
    assert levels == [logging.ERROR]
    assert logger.getEffectiveLevel() == before


def test_without_connection_and_download_the_message_says_what_to_fetch_and_where_to_put_it(
    server, offline, tmp_path
):
    offline()
    with pytest.raises(WeightsError) as caught:
        hub.fetch("me/model", ["model.pt", "b.pt"], revision="v2")
    message = str(caught.value)
    assert "hf download me/model model.pt --revision v2" in message
    assert f"{constants.ENDPOINT}/me/model/resolve/v2/model.pt" in message
    assert "--model PATH/model.pt" in message
    assert f"models--me--model of that machine's cache to {tmp_path / 'cache'}" in message
    assert caught.value.exit_code == 3


def test_an_interrupted_download_goes_on_where_it_stopped(server, monkeypatch):
    content = bytes(range(256)) * 40_000
    FakeHub.files = {("me/model", "model.pt"): content}
    FakeHub.drop_after = 3_000_000
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    with suppress(WeightsError):  # newer hubs try again on their own
        hub.fetch("me/model", ["model.pt"])
    path = hub.fetch("me/model", ["model.pt"])
    assert path.read_bytes() == content
    assert FakeHub.ranges[0] == 0
    assert FakeHub.ranges[-1] >= 1_000_000


def test_a_revision_is_kept_apart(server):
    FakeHub.files = {("me/model", "model.pt"): b"values"}
    path = hub.fetch("me/model", ["model.pt"], revision=COMMIT)
    assert path.parent.name == COMMIT


def test_an_index_brings_its_shards(server):
    index = {"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}
    names = {"m.safetensors.index.json": json.dumps(index).encode()}
    names |= {"x-1.safetensors": b"1", "x-2.safetensors": b"2"}
    FakeHub.files = {("me/model", name): content for name, content in names.items()}
    path = hub.fetch("me/model", ["m.safetensors.index.json"])
    assert (path.parent / "x-1.safetensors").read_bytes() == b"1"
    assert (path.parent / "x-2.safetensors").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("gated/model", None, "asks for your consent.*hf auth login"),
        ("nobody/model", None, "there is no model 'nobody/model'"),
        ("me/model--x", None, "there is no model"),
        ("me/model", "nowhere", "no revision 'nowhere'"),
        ("me/empty", None, "has none of model.pt; download"),
    ],
)
def test_refusals_of_the_hub_become_advice(server, repo, revision, message):
    FakeHub.files = {("me/model", "model.pt"): b"values"}
    with pytest.raises(WeightsError, match=message):
        hub.fetch(repo, ["model.pt"], revision=revision)


def test_the_fake_hub_is_what_is_asked(server):
    assert constants.ENDPOINT in huggingface_hub.hf_hub_url("a/b", "c")


def test_a_download_that_breaks_off_for_good_says_that_it_can_go_on(server, monkeypatch):
    def broken(*args, **kwargs):
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(hub, "hf_hub_download", broken)
    with pytest.raises(WeightsError, match=r"stopped: connection reset by peer\. .*goes on where"):
        hub.fetch("me/model", ["model.pt"])
