"""Releases of vendors, downloaded and verified.

The hash comes from the table or, if the table has none, from the vendor's checksum file. Without a matching hash
nothing is unpacked. Proxies (HTTPS_PROXY, NO_PROXY) and private certificate authorities (the system's store,
SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE) are used.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .base import Machine, Package, Progress, WayError

if TYPE_CHECKING:
    import httpx

_HASH_LENGTH = 64
_LINE_EVERY = 5.0


@dataclass(frozen=True)
class Release:
    """A tar.gz of the vendor. The texts may contain {version}, {os}, {arch} and {archive}.

    Attributes:
        archive: its file name.
        url: URL of its folder.
        checksums: URL of the file with its SHA-256.
        programs: program -> its path in the archive.
        os_names, arch_names: Go's name -> the vendor's name, if it differs.
        hashes: `<os>-<arch>` -> SHA-256 of the archive, if known.
        tried: whether this way has been tested.
    """

    archive: str
    url: str
    checksums: str
    programs: Mapping[str, str]
    os_names: Mapping[str, str] = field(default_factory=dict[str, str])
    arch_names: Mapping[str, str] = field(default_factory=dict[str, str])
    hashes: Mapping[str, str] = field(default_factory=dict[str, str])
    tried: bool = False
    name: str = "release"

    def obstacle(self, machine: Machine) -> str | None:
        """Return why the vendor has no release for the machine, or None."""
        if machine.os not in {"linux", "darwin"} or machine.arch not in {"amd64", "arm64"}:
            return f"there is no release for {machine}"
        return None

    def urls(self, package: Package, machine: Machine) -> tuple[str, str, str]:
        """Return the archive's file name, its URL, and the URL of the checksum file."""
        words = {
            "version": package.version,
            "os": self.os_names.get(machine.os, machine.os),
            "arch": self.arch_names.get(machine.arch, machine.arch),
        }
        archive = self.archive.format(**words)
        return archive, f"{self.url.format(**words)}/{archive}", self.checksums.format(**words, archive=archive)

    def fill(self, package: Package, folder: Path, machine: Machine, progress: Progress) -> Mapping[str, Path]:
        """Download, verify and unpack the release."""
        import httpx

        archive, url, checksums = self.urls(package, machine)
        progress(f"{package.name} {package.version}: downloading {url}")
        file = folder / "archive.tar.gz"
        try:
            timeout = httpx.Timeout(60.0, connect=10.0)
            with httpx.Client(verify=_trusted(), follow_redirects=True, timeout=timeout) as client:
                expected = self.hashes.get(str(machine)) or _published(client, checksums, archive)
                found = _download(client, url, file, package, progress)
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise WayError(f"{url} cannot be reached: {error}") from error
        if found != expected:
            raise WayError(f"{archive} has the SHA-256 {found}, expected {expected}")
        try:
            with tarfile.open(file) as tar:
                _extract(tar, folder / "release")
        except (tarfile.TarError, EOFError) as error:
            raise WayError(f"{archive} cannot be unpacked: {error}") from error
        file.unlink()
        words = {"version": package.version, "os": machine.os, "arch": machine.arch}
        programs = {name: folder / "release" / path.format(**words) for name, path in self.programs.items()}
        for path in programs.values():
            if not path.is_file():
                raise WayError(f"{archive} does not contain {path.relative_to(folder / 'release')}")
        return programs


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack `tar`; no member may leave `folder`."""
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    # Python before 3.11.4 has no filters: unpack only files and folders.
    members = [member for member in tar.getmembers() if member.isfile() or member.isdir()]
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise WayError(f"the archive contains {member.name}, which is outside its folder")
        member.mode &= 0o755
    tar.extractall(folder, members)  # noqa: S202 - checked above


def _trusted() -> ssl.SSLContext:
    import certifi

    # Uses the system's store, SSL_CERT_FILE and SSL_CERT_DIR; some Pythons have no store.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        try:
            context.load_verify_locations(
                bundle if Path(bundle).is_file() else None, None if Path(bundle).is_file() else bundle
            )
        except OSError as error:
            raise WayError(f"REQUESTS_CA_BUNDLE={bundle} cannot be read: {error}") from error
    return context


def _published(client: httpx.Client, url: str, archive: str) -> str:
    """Return the hash of `archive` from a checksum file: lines of `HASH  NAME`, or the hash alone."""
    answer = client.get(url).raise_for_status()
    for line in answer.text.splitlines():
        match line.split():
            case [digest] if len(digest) == _HASH_LENGTH:
                return digest.lower()
            case [digest, name] if name.lstrip("*") == archive and len(digest) == _HASH_LENGTH:
                return digest.lower()
            case _:
                continue
    raise WayError(f"{url} does not list {archive}, so it cannot be verified")


def _download(client: httpx.Client, url: str, file: Path, package: Package, progress: Progress) -> str:
    digest = hashlib.sha256()
    reported = time.monotonic()
    with client.stream("GET", url) as answer, file.open("wb") as out:
        answer.raise_for_status()
        total = int(answer.headers.get("content-length", 0))
        done = 0
        for block in answer.iter_bytes(1 << 20):
            digest.update(block)
            out.write(block)
            done += len(block)
            if time.monotonic() - reported >= _LINE_EVERY:
                reported = time.monotonic()
                of = f" of {total / 1e6:.0f}" if total else ""
                progress(f"{package.name} {package.version}: downloaded {done / 1e6:.0f}{of} MB")
    return digest.hexdigest()
