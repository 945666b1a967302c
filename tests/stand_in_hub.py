"""A stand-in for the Hugging Face hub on this machine: what huggingface_hub asks it for, and commits that it keeps.

It answers as the hub's public HTTP interface does: the facts of a model at a revision, its files by name, and commits.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Container
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

NEWEST = "main"


@dataclass
class Repository:
    """Commits, oldest first, and what goes wrong."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    missing: set[str] = field(default_factory=set)
    """Files that are named but not there."""
    truncated: set[str] = field(default_factory=set)
    """Files that arrive shorter than they are."""


class StandInHub:
    """The server; `repositories` may be changed while it runs."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection ends with its answer

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_POST = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(
        self,
        name: str,
        files: dict[str, bytes],
        card: dict[str, Any] | None = None,
        deleted: Container[str] = (),
    ) -> str:
        """Add a commit; its hash."""
        repository = self.repositories.setdefault(name, Repository())
        if card is not None:
            repository.card = card
        whole = {**(list(repository.commits.values())[-1] if repository.commits else {}), **files}
        whole = {file: content for file, content in whole.items() if file not in deleted}
        content = b"".join(key.encode() + value for key, value in sorted(whole.items()))
        sha = hashlib.sha1(content + str(len(repository.commits)).encode()).hexdigest()
        repository.commits[sha] = whole
        return sha

    def newest(self, name: str) -> dict[str, bytes]:
        """The files of the newest commit."""
        return list(self.repositories[name].commits.values())[-1]

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        path = unquote(to.path.partition("?")[0])
        self.requests.append(f"{to.command} {path}")
        body = to.rfile.read(int(to.headers.get("Content-Length") or 0))
        parts = path.strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if name in self.repositories:
                return _json(to, {"error": "exists", "url": f"{self.url}/{name}"}, 409)
            self.repositories[name] = Repository(private=wanted.get("visibility") == "private")
            self.commit(name, {".gitattributes": b""})
            return _json(to, {"url": f"{self.url}/{name}", "name": name})
        if parts[:2] == ["api", "validate-yaml"]:
            return _json(to, {"errors": [], "warnings": []})
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        repository, rest = self.repositories.get(name), parts[4:] if is_api else parts[2:]
        if repository is None:
            return _error(to, 401, "RepoNotFound", "Repository not found")
        if repository.gated:
            return _error(to, 403, "GatedRepo", "Access to this model is restricted")
        if is_api and rest[:1] in (["preupload"], ["commit"]):
            return self._change(to, name, rest[0], body)
        revision = rest[1] if len(rest) > 1 else NEWEST
        sha = list(repository.commits)[-1] if revision == NEWEST else revision
        if sha not in repository.commits:
            return _error(to, 404, "RevisionNotFound", "Invalid rev id")
        files = repository.commits[sha]
        if is_api:
            siblings = [{"rfilename": file} for file in files]
            return _json(to, {"id": name, "sha": sha, "siblings": siblings, "cardData": repository.card or None})
        return _send_file(to, repository, sha, "/".join(rest[2:]), files)

    def _change(self, to: BaseHTTPRequestHandler, name: str, what: str, body: bytes) -> None:
        if what == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return _json(to, {"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {x["value"]["path"]: base64.b64decode(x["value"]["content"]) for x in lines if x["key"] == "file"}
        deleted = {line["value"]["path"] for line in lines if line["key"] == "deletedFile"}
        sha = self.commit(name, added, deleted=deleted)
        return _json(to, {"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{name}/commit/{sha}"})


def _send_file(
    to: BaseHTTPRequestHandler, repository: Repository, sha: str, file: str, files: dict[str, bytes]
) -> None:
    if file not in files or file in repository.missing:
        return _error(to, 404, "EntryNotFound", "Entry not found")
    content = files[file]
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    size = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": etag, "X-Repo-Commit": sha, "ETag": etag}
    _send(to, content[:-10] if file in repository.truncated and to.command == "GET" else content, 200, size)


def _error(to: BaseHTTPRequestHandler, status: int, code: str, message: str) -> None:
    _send(to, message.encode(), status, {"X-Error-Code": code, "X-Error-Message": message})


def _json(to: BaseHTTPRequestHandler, value: Any, status: int = 200) -> None:
    _send(to, json.dumps(value).encode(), status, {"Content-Type": "application/json"})


def _send(to: BaseHTTPRequestHandler, content: bytes, status: int, headers: dict[str, str]) -> None:
    to.send_response(status)
    for key, value in ({"Content-Length": str(len(content))} | headers).items():
        to.send_header(key, value)
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(content)
