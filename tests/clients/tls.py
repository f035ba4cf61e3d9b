"""The server behind a certificate: `tls.py PROGRAM MODEL.gguf`. The certificate is made here and signs itself."""

import http.client
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import warnings

PROGRAM, MODEL = sys.argv[1:3]
# Python warns of the old versions that are asked for here on purpose.
warnings.simplefilter("ignore", DeprecationWarning)
WORK = pathlib.Path(tempfile.mkdtemp())
SERVER = None


def certificate(name, days):
    """A key and a certificate of its own for this machine."""
    key, certificate = WORK / f"{name}.key", WORK / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days)]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return key, certificate


def start(*arguments):
    environment = os.environ | {"HANDMILL_HOME": str(WORK / "store")}
    command = [PROGRAM, "serve", MODEL, "--port", "0", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def refused(word, *arguments):
    """A server that cannot start says why."""
    server = start(*arguments)
    said = server.communicate(timeout=30)[1]
    assert server.returncode in (1, 2) and word in said and "panicked" not in said, (server.returncode, said)


try:
    key, pem = certificate("one", 2)
    other, _ = certificate("other", 2)
    (WORK / "empty").write_text("")
    refused("cert", "--tls-cert", WORK / "empty", "--tls-key", key)
    refused("key", "--tls-cert", pem, "--tls-key", WORK / "empty")
    refused("key", "--tls-cert", pem, "--tls-key", other)
    refused("nowhere", "--tls-cert", WORK / "nowhere", "--tls-key", key)
    refused("--tls-key", "--tls-cert", pem)

    SERVER = start("--tls-cert", pem, "--tls-key", key)
    port = None
    for line in SERVER.stderr:
        if "listening on https://" in line:
            port = int(line.strip().rsplit(":", 1)[1])
        if line.strip().endswith("ready"):
            break
    trusting = ssl.create_default_context(cafile=pem)

    def get(path, context, host="localhost"):
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

    assert get("/api/version", trusting)[0] == 200
    assert get("/health", trusting, "127.0.0.1")[0] == 200
    connection = http.client.HTTPSConnection("localhost", port, context=trusting, timeout=30)
    body = '{"model": "%s", "prompt": "hello", "options": {"num_predict": 3}}' % pathlib.Path(MODEL).stem.lower()
    connection.request("POST", "/api/generate", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200 and text.count(b"\n") >= 2, (response.status, text)
    # Whoever does not know the certificate does not trust it; old versions are not spoken.
    try:
        get("/api/version", ssl.create_default_context())
        raise SystemExit("a certificate that signs itself was trusted")
    except ssl.SSLCertVerificationError:
        pass
    old = ssl.create_default_context(cafile=pem)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    try:
        get("/api/version", old)
        raise SystemExit("TLS 1.1 was spoken")
    except (ssl.SSLError, ConnectionError):
        pass
    # Plain words, silence and garbage in place of a handshake hold nobody up.
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for i, stream in enumerate(silent):
        stream.sendall([b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100][i % 3])
    start_of = time.monotonic()
    assert get("/api/version", trusting)[0] == 200
    assert time.monotonic() - start_of < 2
    SERVER.terminate()
    assert SERVER.wait(timeout=30) == 0
    print("TLS: answers, streams, wrong files and wrong clients")
finally:
    if SERVER and SERVER.poll() is None:
        SERVER.kill()
    shutil.rmtree(WORK, ignore_errors=True)
