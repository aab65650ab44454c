"""A client that is given the certificate trusts its server, and no other name."""

import socket
import ssl
import threading
from pathlib import Path

from loraplex.certificate import issue


def _served_as(name: str, certificate: Path) -> str:
    """What a client that wants `name` says of a server with the certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, certificate.with_suffix(".key"))
    client = ssl.create_default_context(cafile=str(certificate))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as trusted:
            return trusted.version() or ""
    except ssl.SSLCertVerificationError as wrong:
        return wrong.verify_message
    finally:
        ours.close()
        serving.join()


def test_it_is_trusted_for_its_name_alone_and_made_once(tmp_path: Path) -> None:
    certificate = issue("valkey", tmp_path)
    content = certificate.read_bytes()
    assert _served_as("valkey", certificate) == "TLSv1.3"
    assert "mismatch" in _served_as("postgres", certificate)
    assert issue("valkey", tmp_path).read_bytes() == content


def test_what_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "valkey.key").write_text("half a key")
    assert _served_as("valkey", issue("valkey", tmp_path)) == "TLSv1.3"
