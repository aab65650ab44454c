"""`python -m loraplex.certificate NAME FOLDER PUBLIC_FOLDER`: a certificate for one server of a
private network. It signs itself: who connects is given exactly this one to trust."""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_VALID = timedelta(days=3650)


def issue(name: str, folder: Path) -> Path:
    """`NAME.pem` and `NAME.key` in a folder, unless they are there; returns the first."""
    file = folder / f"{name}.pem"
    if not file.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.key").write_bytes(private)
        public = _sign(name, key).public_bytes(serialization.Encoding.PEM)
        file.write_bytes(public)  # last: what is there is whole
    return file


def _sign(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key, hashes.SHA256())


if __name__ == "__main__":
    name, folder, public = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    public.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(issue(name, folder), public / f"{name}.pem")
