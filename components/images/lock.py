"""Reads the requirements of an image, with their hashes, from the project's `uv.lock`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...runtime.common.errors import ConfigError, NotFoundError

_SELF = "tidemill"

# uv.lock is TOML without a published schema.
_Entry = dict[str, Any]


def requirements(
    project: Path, extras: Iterable[str], *, python: str, own_extras: Iterable[str] | None = None, arch: str = "x86_64"
) -> str:
    """Return the text of a requirements file with tidemill's dependencies, and those of the project if requested.

    It contains neither tidemill nor the project: both are copied into the image.

    Args:
        project: the folder of `uv.lock`.
        extras: extras of tidemill.
        python: Python's version in the image, such as `3.11`.
        own_extras: extras of the project's own package, to include its dependencies; None leaves them out.
        arch: `x86_64` or `aarch64`.

    Raises:
        NotFoundError: there is no `uv.lock`.
        ConfigError: a package or extra is missing from it, or a package has no hash.
    """
    path = project / "uv.lock"
    try:
        lock = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(
            "images need a lock file", field="uv.lock", value=str(path), hint="run `uv lock` beside Pulumi.yaml"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML ({error})", field="uv.lock", value=str(path), hint="run `uv lock`") from None
    closure = _Closure(path, lock.get("package", []), _environment(python, arch))
    closure.take(_SELF, extras)
    if own_extras is not None and (own := closure.own()):
        closure.take(own, own_extras)
    return closure.text()


def _environment(python: str, arch: str) -> dict[str, str]:
    short = ".".join(python.split(".")[:2])
    return {
        "implementation_name": "cpython",
        "implementation_version": python if python.count(".") == 2 else f"{python}.0",
        "os_name": "posix",
        "platform_machine": arch,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python if python.count(".") == 2 else f"{python}.0",
        "python_version": short,
        "sys_platform": "linux",
        "extra": "",
    }


class _Closure:
    """Selected packages of a lock and all their dependencies."""

    def __init__(self, path: Path, packages: list[_Entry], environment: Mapping[str, str]) -> None:
        self._path = path
        self._environment = dict(environment)
        self._known: dict[str, list[_Entry]] = {}
        for package in packages:
            self._known.setdefault(package["name"], []).append(package)
        self._taken: dict[tuple[str, str], set[str]] = {}

    def own(self) -> str | None:
        """Return the name of the project's own package; tidemill only if there is no other."""
        names = [name for name, entries in self._known.items() for entry in entries if _is_own(entry)]
        return next((name for name in names if name != _SELF), names[0] if names else None)

    def take(self, name: str, extras: Iterable[str]) -> None:
        """Add `name` with `extras`, and all dependencies."""
        if name not in self._known:
            raise ConfigError(
                "is not in the lock",
                field=str(self._path),
                value=name,
                hint=f"add {name} to pyproject.toml and run `uv lock`",
            )
        self._follow(self._one(name, None), set(extras))

    def text(self) -> str:
        """Return a line per package, followed by its hashes. Packages without a wheel are allowed to be built."""
        lines: list[str] = []
        sources: list[str] = []
        for name, version in sorted(self._taken):
            entry = self._one(name, version)
            if name == _SELF or _is_own(entry):
                continue
            files = [*entry.get("wheels", ()), *([entry["sdist"]] if "sdist" in entry else ())]
            hashes = sorted({str(file["hash"]) for file in files if "hash" in file})
            if not hashes:
                raise ConfigError(
                    "has no hash in the lock, so an image cannot install it safely",
                    field=str(self._path),
                    value=name,
                    hint="install it from a package registry",
                )
            lines.append(" \\\n".join([f"{name}=={version}", *(f"    --hash={found}" for found in hashes)]))
            if not entry.get("wheels"):
                sources.append(f"--no-binary {name}")
        return "\n".join([*sources, *lines, ""])

    def _follow(self, entry: _Entry, extras: set[str]) -> None:
        key = (entry["name"], entry["version"])
        first = key not in self._taken
        new = extras - self._taken.setdefault(key, set())
        self._taken[key] |= new
        dependencies: list[_Entry] = list(entry.get("dependencies", ())) if first else []
        groups: dict[str, list[_Entry]] = entry.get("optional-dependencies", {})
        for extra in sorted(new):
            if extra not in groups:
                if _is_own(entry) or entry["name"] == _SELF:
                    raise ConfigError(
                        f"{entry['name']} has no such extra",
                        field="training_extras",
                        value=extra,
                        hint=f"use some of {', '.join(groups) or 'none'}",
                    )
                continue  # this release lacks the extra; installers only warn about it
            dependencies += groups[extra]
        for dependency in dependencies:
            if self._applies(dependency.get("marker")):
                self._follow(self._one(dependency["name"], dependency.get("version")), set(dependency.get("extra", ())))

    def _one(self, name: str, version: str | None) -> _Entry:
        """Return the entry of `name`; if the lock has several, the one for this Python."""
        entries = self._known[name]
        if version is not None:
            return next(entry for entry in entries if entry["version"] == version)
        fitting = [entry for entry in entries if any(map(self._applies, entry.get("resolution-markers", [None])))]
        return (fitting or entries)[0]

    def _applies(self, marker: str | None) -> bool:
        from packaging.markers import Marker

        return marker is None or Marker(marker).evaluate(self._environment)


def _is_own(entry: _Entry) -> bool:
    source: dict[str, Any] = entry.get("source", {})
    return source.get("editable") == "." or source.get("virtual") == "."
