# SPDX-License-Identifier: GPL-2.0-or-later
"""A certificate authority for tests, in a directory laid out as QEMU's tls-creds-x509 wants it."""

from __future__ import annotations

from pathlib import Path

from tests.host.command import run


class Authority:
    """An authority of its own; its certificate and those that it signs live for a day."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        usage = ("-addext", "keyUsage=critical,keyCertSign")
        self.certificate = self._create("ca", *usage)

    def server(self, hostname: str = "console.test") -> Path:
        """Sign a server's certificate and give back where it lies."""
        # QEMU makes a group of its own where it finds none, which takes it up to 1.3 s.
        group = ("-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
        to = ("-out", str(self.directory / "dh-params.pem"))
        run("openssl", "genpkey", "-genparam", *group, *to)
        return self._sign("server", "serverAuth", f"subjectAltName=DNS:{hostname}")

    def client(self) -> tuple[str, str]:
        """Sign a client's certificate and give back where it and its key lie."""
        certificate = self._sign("client", "clientAuth")
        return str(certificate), str(self.directory / "client-key.pem")

    def _sign(self, name: str, purpose: str, *more_extensions: str) -> Path:
        extensions = (
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature,keyEncipherment",
            f"extendedKeyUsage={purpose}",
            *more_extensions,
        )
        options = [word for extension in extensions for word in ("-addext", extension)]
        key = str(self.directory / "ca-key.pem")
        return self._create(name, "-CA", str(self.certificate), "-CAkey", key, *options)

    def _create(self, name: str, *options: str) -> Path:
        key, certificate = (self.directory / f"{name}-{kind}.pem" for kind in ("key", "cert"))
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-keyout", str(key), "-out", str(certificate))
        subject = ("-subj", f"/CN={name}", "-days", "1")
        run("openssl", "req", "-x509", *new_key, *files, *subject, *options)
        return certificate
