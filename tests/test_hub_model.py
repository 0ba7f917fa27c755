"""The hub code against a hub of our own: a web server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autotune.errors import BaseModelError
from autotune.pipeline.hub_model import choose_files
from tests import studies, tiny

COMMIT = "0123456789abcdef" * 2 + "01234567"
#: Runs in a process of its own, since huggingface_hub reads its settings once.
PROGRAM = """
import sys
from pathlib import Path
from autotune.errors import BaseModelError
from autotune.pipeline.base_model import fingerprint, materialize, resolve
source = resolve(sys.argv[1], Path("."))
try:
    print(fingerprint(source)["revision"])
    print(materialize(source, Path("unused")))
except BaseModelError as error:
    print("REFUSED", error)
"""


@dataclass
class Hub:
    """Serves ``folder`` as the model org/tiny, whose branch main stands for COMMIT."""

    folder: Path
    cache: Path
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def run(self, spec: str, **environment: str) -> list[str]:
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(self.cache), "HF_HUB_DISABLE_XET": "1",
                    "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "*", **environment}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, spec], env={**os.environ, **settings}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def downloaded(self) -> set[str]:
        return {r.rsplit("/", 1)[-1] for r in self.requests if "/resolve/" in r and r.startswith("GET")}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            if path in ("/api/models/org/tiny", *(f"/api/models/org/tiny/revision/{r}" for r in ("main", COMMIT))):
                names = sorted(p.relative_to(hub.folder).as_posix() for p in hub.folder.rglob("*") if p.is_file())
                info = {"_id": "1", "id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
                self.send(json.dumps(info).encode(), {"Content-Type": "application/json"})
            elif path.startswith(f"/api/models/org/tiny/tree/{COMMIT}"):
                files = [p for p in hub.folder.rglob("*") if p.is_file()]
                tree = [{"type": "file", "path": p.relative_to(hub.folder).as_posix(), "size": p.stat().st_size,
                         "oid": etag(p)} for p in files]  # fmt: skip
                self.send(json.dumps(tree).encode(), {"Content-Type": "application/json"})
            elif path.startswith(tuple(f"/org/tiny/resolve/{r}/" for r in (COMMIT, "main"))):
                file = hub.folder / path.split("/", 5)[5]
                if file.is_file():
                    self.send(file.read_bytes(), {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT})
                else:
                    self.send(b"", {"X-Error-Code": "EntryNotFound"}, 404)
            elif path.startswith("/api/models/org/tiny/revision/"):
                self.send(b"", {"X-Error-Code": "RevisionNotFound"}, 404)
            else:
                self.send(b"", {"X-Error-Code": "RepoNotFound"}, 404)

        do_GET = do_HEAD = answer

        def send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:40]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def hub(llama: Path, tmp_path: Path) -> Iterator[Hub]:
    served = Hub(Path(shutil.copytree(llama, tmp_path / "served")), tmp_path / "cache")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


def test_download_and_use_without_a_connection(hub: Hub) -> None:
    for unwanted in ("pytorch_model.bin", "README.md", "modeling_x.py", "consolidated.safetensors", "onnx/model.onnx"):
        (hub.folder / unwanted).parent.mkdir(exist_ok=True)
        (hub.folder / unwanted).write_bytes(b"unwanted")
    commit, folder = hub.run("org/tiny")
    assert commit == COMMIT
    got = {path.name for path in Path(folder).iterdir()}
    assert got == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                   "tokenizer_config.json"}  # fmt: skip
    assert (Path(folder) / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert hub.downloaded() == got
    assert hub.run("org/tiny", HF_HUB_OFFLINE="1") == [COMMIT, folder]
    assert hub.run(f"org/tiny@{COMMIT}", HF_ENDPOINT="http://127.0.0.1:9") == [COMMIT, folder]
    (Path(folder) / "model.safetensors").unlink()  # as after an interrupted download
    assert "the hub cannot be reached" in hub.run("org/tiny", HF_HUB_OFFLINE="1")[1]


def test_a_study_runs_on_a_hub_model_and_again_without_a_connection(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(hub.cache), "HF_HUB_DISABLE_XET": "1",
                        "no_proxy": "*"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    folder = tmp_path / "study"
    folder.mkdir()
    space = {**studies.study()["space"], "deploy": [{"precision": "int4"}]}
    study = studies.write_study(folder, model="org/tiny", space=space, budget={"adapters": 1})
    done = studies.run(study, folder / "first")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = studies.run(study, folder / "second")
    assert done.returncode == 0, done.stdout + done.stderr
    assert studies.results(folder / "second")["cost"]["adapters_trained"] == 0


def test_unsupported_model_is_refused_before_its_weights_travel(hub: Hub) -> None:
    config = hub.folder / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "GPT2LMHeadModel"))
    refusal = hub.run("org/tiny")[1]
    assert "GPT2LMHeadModel" in refusal
    assert hub.downloaded() == {"config.json"}


def test_unknown_names_and_revisions(hub: Hub) -> None:
    assert hub.run("org/none") == [
        "REFUSED hub model org/none: no such model, or a private one; accepted: org/name as on the hub"
    ]
    assert "no such revision; accepted: a branch, tag or commit" in hub.run("org/tiny@v9")[0]


def test_no_connection(hub: Hub) -> None:
    refusal = hub.run("org/tiny", HF_ENDPOINT="http://127.0.0.1:9")[0]
    assert "the hub cannot be reached" in refusal
    assert "accepted: a connection, or a local folder" in refusal


def test_choose_files_takes_one_checkpoint() -> None:
    files = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "model.safetensors.index.json", "consolidated.safetensors", "tokenizer.model", "merges.txt",
             "chat_template.jinja", "original/tokenizer.model", "LICENSE"]  # fmt: skip
    assert choose_files("org/name", files) == sorted(
        set(files) - {"consolidated.safetensors", "original/tokenizer.model", "LICENSE"}
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json", "pytorch_model.bin"], r"weights only as pickle \(pytorch_model.bin\)"),
        (["README.md", "m-q4.gguf"], r"only GGUF files \(m-q4.gguf, .*download one .gguf file"),
        (["README.md"], "no config.json"),
        (["config.json", "sub/model.safetensors"], "no model\\*.safetensors"),
    ],
)
def test_repositories_without_a_usable_checkpoint(files: list[str], message: str) -> None:
    with pytest.raises(BaseModelError, match=message):
        choose_files("org/name", files)
