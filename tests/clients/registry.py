"""Pulls from a registry: Debian's docker-registry with a model as Ollama pushes it, and registries that mean it no good.

`registry.py PROGRAM MODEL.gguf`: the real registry is skipped where the program docker-registry is not installed.
"""

import hashlib
import http.server
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PROGRAM, MODEL = sys.argv[1], pathlib.Path(sys.argv[2])
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
WORK = pathlib.Path(tempfile.mkdtemp())


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(kind, data):
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest(data), "size": len(data)}


def manifest(layers):
    config = b'{"model_format": "gguf", "model_family": "llama"}'
    described = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest(config), "size": len(config)}
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}, config


def handmill(store, *arguments, limit=600):
    """Runs the program over a store of its own: exit code, what it wrote."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=os.environ | {"HANDMILL_HOME": str(store)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    return done.returncode, done.stdout


def sound(store, after):
    """Fails unless every checksum of the store is right and nothing unfinished lies in it."""
    code, said = handmill(store, "verify")
    assert code == 0, f"after {after}: {said}"
    stray = [p for p in (store / "blobs").iterdir() if not p.name.startswith("sha256-") or len(p.name) != 71]
    assert not stray, f"after {after}: {stray}"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def real():
    """Push as a client of such registries does, pull, pull again, and pull with a kill at twenty moments."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    (WORK / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {WORK}/registry}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    server = subprocess.Popen(["docker-registry", "serve", WORK / "registry.yml"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{base}/v2/").read()
                break
            except OSError:
                time.sleep(0.1)

        def send(method, url, data, kind="application/octet-stream"):
            request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
            return urllib.request.urlopen(request)

        def push(tag, blobs):
            described, config = manifest([layer(kind, data) for kind, data in blobs])
            for data in [config, *(data for _, data in blobs)]:
                place = send("POST", f"{base}/v2/library/pushed/blobs/uploads/", b"").headers["Location"]
                place = place if place.startswith("http") else base + place
                mark = "&" if "?" in place else "?"
                assert send("PUT", f"{place}{mark}digest={digest(data)}", data).status == 201
            assert send("PUT", f"{base}/v2/library/pushed/manifests/{tag}", json.dumps(described).encode(), MANIFEST).status == 201

        blobs = [("model", MODEL.read_bytes()), ("template", b"{{ .System }}|{{ .Prompt }}|"), ("system", b"Be brief."), ("params", b'{"num_predict": 4}')]
        push("one", blobs)
        push("adapted", [blobs[0], ("adapter", b"GGUF, but nobody has looked yet")])

        name = f"127.0.0.1:{port}/library/pushed:one"
        store = WORK / "store"
        code, said = handmill(store, "pull", name)
        assert code == 0, said
        sound(store, "a pull")
        code, said = handmill(store, "run", name, "hello", "-n", "4", "--temp", "0")
        assert code == 0, said
        code, said = handmill(store, "pull", name)
        assert code == 0, said
        code, said = handmill(store, "pull", f"127.0.0.1:{port}/library/pushed:two")
        assert code != 0 and "404" in said, said

        # An adapter comes with its model; what puts it on is the server.
        name_of_both = f"127.0.0.1:{port}/library/pushed:adapted"
        code, said = handmill(store, "pull", name_of_both)
        assert code == 0, said
        sound(store, "a pull with an adapter")
        code, said = handmill(store, "run", name_of_both, "hello")
        assert code != 0 and "--lora" in said, said

        killed = WORK / "killed"
        draw, cut = random.Random(7), 0
        whole = time.monotonic()
        handmill(WORK / "timed", "pull", name)
        whole = time.monotonic() - whole
        shutil.rmtree(WORK / "timed")
        for _ in range(20):
            run = subprocess.Popen([PROGRAM, "pull", name], env=os.environ | {"HANDMILL_HOME": str(killed)}, stderr=subprocess.DEVNULL)
            time.sleep(draw.random() * whole)
            run.send_signal(signal.SIGKILL)
            cut += run.wait() == -signal.SIGKILL
            # Whatever it left: what has a name is right.
            code, said = handmill(killed, "verify")
            assert code == 0, said
            if cut % 5 == 0:
                shutil.rmtree(killed, ignore_errors=True)
        code, said = handmill(killed, "pull", name)
        assert code == 0, said
        sound(killed, "kills")
        print(f"docker-registry: pushed, pulled, pulled again; {cut} of 20 pulls killed, the store sound after each")
    finally:
        server.terminate()
        server.wait()


GGUF = b"GGUF" + bytes(200_000)


class Evil(http.server.BaseHTTPRequestHandler):
    """Each model's name says what is wrong with it."""

    protocol_version = "HTTP/1.1"
    asked = []

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, length=None, headers=()):
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers:
            self.send_header(name, value)
        if length != "none":
            self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        Evil.asked.append(self.path)
        parts = self.path.split("/")
        kind = parts[2] if len(parts) > 2 else ""
        try:
            self.manifest(kind) if "/manifests/" in self.path else self.blob(kind)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def manifest(self, kind):
        model = layer("model", GGUF)
        if kind == "digest":
            model["digest"] = digest(b"something else")
        for name, wrong in [("traversal", "sha256:../../../../etc/passwd"), ("windows", "sha256:..\\..\\x"), ("bare", "x"), ("upper", "sha256:" + "A" * 64)]:
            if kind == name:
                model["digest"] = wrong
        if kind == "negative":
            model["size"] = -1
        if kind == "giant":
            model["size"] = 1 << 62
        described, _ = manifest([model])
        text = json.dumps(described).encode()
        if kind == "html":
            text = b"<html>hello</html>"
        elif kind == "nolayers":
            text = json.dumps(manifest([])[0]).encode()
        elif kind == "deep":
            text = b"[" * 100_000
        elif kind == "longmanifest":
            text = text + b" " * (8 << 20)
        elif kind == "manifestloop":
            return self.answer(b"", 302, headers=[("Location", self.path)])
        elif kind == "realm":
            challenge = f'Bearer realm="http://127.0.0.1:{CANARY.server_port}/token",service="x"'
            return self.answer(b"", 401, headers=[("WWW-Authenticate", challenge)])
        self.answer(text)

    def blob(self, kind):
        if kind == "blobloop":
            return self.answer(b"", 307, headers=[("Location", self.path)])
        if kind == "scheme":
            return self.answer(b"", 307, headers=[("Location", "file:///etc/passwd")])
        if kind == "short":
            return self.answer(GGUF[:1000], length=len(GGUF))
        if kind == "shorter":
            return self.answer(GGUF[:1000])
        if kind == "endless":
            self.answer(b"", length="none")
            while True:
                self.wfile.write(GGUF)
        if kind == "gzip":
            return self.answer(GGUF, headers=[("Content-Encoding", "gzip")])
        if kind == "range":
            return self.answer(GGUF[:10], 206, headers=[("Content-Range", "bytes 5-14/20")])
        self.answer(GGUF)


class Canary(http.server.BaseHTTPRequestHandler):
    """Nobody has any business here."""

    asked = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        Canary.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(404)
        self.end_headers()


KINDS = "digest traversal windows bare upper negative giant html nolayers deep longmanifest manifestloop realm blobloop scheme short shorter endless gzip range".split()


def evil():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    for each in (server, CANARY):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    wrong = []

    def one(kind):
        store = WORK / f"evil-{kind}"
        start = time.monotonic()
        code, said = handmill(store, "pull", f"127.0.0.1:{server.server_port}/{kind}/model:latest")
        took = time.monotonic() - start
        if code != 1 or took > 60 or "panicked" in said or not said.strip():
            wrong.append(f"{kind}: exit code {code} after {took:.1f} s: {said}")
        blobs = store / "blobs"
        left = sum(p.stat().st_size for p in store.rglob("*") if p.is_file()) if store.exists() else 0
        if blobs.exists() and any(blobs.iterdir()) or left > 2 * len(GGUF):
            wrong.append(f"{kind}: {left} bytes and blobs are left")

    threads = [threading.Thread(target=one, args=(kind,)) for kind in KINDS]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong, "\n".join(wrong)
    assert not Canary.asked, f"a registry sent the program elsewhere: {Canary.asked}"
    assert not any(".." in path for path in Evil.asked), Evil.asked
    for text in ["../x", "127.0.0.1/../x", "127.0.0.1:1/a/../../b", "127.0.0.1:1/a/b:../c", "a b/c/d", "127.0.0.1:1//b"]:
        code, said = handmill(WORK / "names", "pull", text)
        assert code == 1, f"{text}: {code} {said}"
    print(f"{len(KINDS)} registries that mean no good are refused, each with an error of its own")


CANARY = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Canary)
try:
    evil()
    if shutil.which("docker-registry"):
        real()
    else:
        print("skipped: the real registry needs the program docker-registry")
        assert os.environ.get("HANDMILL_REQUIRE_MODELS") != "1", "docker-registry is missing"
finally:
    shutil.rmtree(WORK, ignore_errors=True)
