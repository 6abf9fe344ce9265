"""Certificates for servers on loopback, signed by an authority that only the test knows."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


class Authority:
    """``file``: its own certificate, as PEM."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.file = folder / "authority.pem"
        usage = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = self._signed(_begun(self._name, self._key).add_extension(usage, critical=True))
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def _signed(self, begun: x509.CertificateBuilder) -> x509.Certificate:
        return begun.issuer_name(self._name).sign(self._key, hashes.SHA256())

    def server(self, *names: str, address: str = "127.0.0.1") -> ssl.SSLContext:
        """For a server of these names, and of the address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        known: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        known.append(x509.IPAddress(ipaddress.ip_address(address)))
        begun = _begun(subject, key).add_extension(x509.SubjectAlternativeName(known), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = self._signed(begun.add_extension(issuer, critical=False))
        file = self._folder / f"{names[0]}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context


def _begun(subject: x509.Name, key: Key) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
