"""The part of a process that services and jobs share: its inputs, and the spec from which `launch` starts it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NotRequired, cast

from ....runtime.common.errors import ConfigError, PlatformError
from ....runtime.common.files import write_private
from ...layout import StackRoot
from ..base import UNKNOWN, Properties
from . import launch
from .data import Local, LocalInputs
from .files import root_of, secret_value
from .placeholders import Placeholders, check_placeholders
from .ports import HOST, kept_port

if TYPE_CHECKING:
    from ..base import Text

Progress = Callable[[str], None]

_STOP_SECONDS = 10.0  # between SIGTERM and SIGKILL


class ProcessInputs(LocalInputs):
    """Inputs of services and jobs.

    `secret_env` maps variables to names of secrets, `secrets` names the other secrets that the process reads, and
    `config_files` maps relative paths to texts. `cwd` is an absolute path. None leaves an input out.
    """

    argv: Sequence[Text]
    env: NotRequired[Mapping[str, Text] | None]
    secret_env: NotRequired[Mapping[str, Text] | None]
    secrets: NotRequired[Sequence[Text] | None]
    config_files: NotRequired[Mapping[str, Text] | None]
    cwd: NotRequired[Text | None]


class Process(Local):
    """A process: a service or a job."""

    def check(self, inputs: Properties) -> Properties:
        """Check the types of the inputs and their placeholders."""
        inputs = super().check(inputs)
        if inputs["argv"] is not UNKNOWN and not isinstance(inputs["argv"], list):
            raise ConfigError("must be a list", field="argv")
        for field, text in _texts(inputs):
            check_placeholders(text, field, secrets=field.startswith("configFiles"))
        for name in _mapping(inputs, "configFiles"):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ConfigError("must be a relative path", field="configFiles", value=name)
        cwd = inputs.get("cwd")
        if isinstance(cwd, str) and not Path(cwd).is_absolute():
            raise ConfigError("must be an absolute path", field="cwd", value=cwd)
        return inputs


def is_known(inputs: Properties) -> bool:
    """Return whether every value in `inputs` is known."""

    def walk(value: Any) -> bool:
        if isinstance(value, dict):
            return all(walk(item) for item in cast("dict[str, Any]", value).values())
        if isinstance(value, list):
            return all(walk(item) for item in cast("list[Any]", value))
        return value is not UNKNOWN

    return walk(inputs)


def digest_of(inputs: Properties, folder: Path, *, get_tools: Progress | None) -> str:
    """Return a hash of everything the process is started with; a process with another hash must be restarted.

    Args:
        inputs: the inputs of the resource.
        folder: the folder of the service or job.
        get_tools: receives progress while a missing tool is downloaded or built; None raises instead.

    Raises:
        TidemillError: a secret, tool or endpoint does not exist.
    """
    root = root_of(inputs)
    texts = _placeholders(inputs, root, folder, hashed=True, get_tools=get_tools)
    wanted = {field: texts.resolve(text) for field, text in _texts(inputs)}
    names = {str(name) for name in (*_mapping(inputs, "secretEnv").values(), *(inputs.get("secrets") or ()))}
    values = {name: hashlib.sha256(secret_value(root, name).encode()).hexdigest() for name in sorted(names)}
    rest = {key: inputs.get(key) for key in ("secretEnv", "cwd", "openFiles", "stopSeconds")}
    rest |= {"ports": [kept_port(root, name) for name in inputs.get("endpoints") or ()]}
    return hashlib.sha256(json.dumps([wanted, values, rest], sort_keys=True).encode()).hexdigest()


def write_spec(
    inputs: Properties, folder: Path, digest: str, *, record: Path, get_tools: Progress, **more: Any
) -> Path:
    """Write the config files and the spec of the process into `folder`, and return the path of the spec.

    Args:
        inputs: the inputs of the resource.
        folder: the folder of the service or job.
        digest: see `digest_of`.
        record: file in which the running process is recorded.
        get_tools: receives progress while a missing tool is downloaded or built.
        more: further fields of the spec.

    Raises:
        TidemillError: a secret, tool or endpoint does not exist.
        PlatformError: the working directory does not exist.
    """
    root = root_of(inputs)
    name = str(inputs["name"])
    texts = _placeholders(inputs, root, folder, hashed=False, get_tools=get_tools)
    config, scratch = folder / "config", folder / "scratch"
    # A service must never read a file of an earlier config.
    shutil.rmtree(config, ignore_errors=True)
    for path in (folder, config, scratch):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file, text in _mapping(inputs, "configFiles").items():
        write_private(config / file, texts.resolve(text))
    cwd = Path(str(inputs.get("cwd") or scratch))
    if not cwd.is_dir():
        raise PlatformError("no such folder", field=f"{name}.cwd", value=str(cwd))
    # A missing secret fails here, not when the process starts.
    secret_env = _mapping(inputs, "secretEnv")
    for secret in secret_env.values():
        secret_value(root, secret)
    spec: dict[str, Any] = {
        "argv": [texts.resolve(part) for part in inputs["argv"]],
        "env": {key: texts.resolve(value) for key, value in _mapping(inputs, "env").items()},
        "secretEnv": {key: str(root.secrets / secret) for key, secret in secret_env.items()},
        "cwd": str(cwd),
        "openFiles": inputs.get("openFiles"),
        "stopSeconds": float(inputs.get("stopSeconds") or _STOP_SECONDS),
        "marker": f"{root.path}/{name}",
        "record": str(record),
        "digest": digest,
        **more,
    }
    path = folder / "spec.json"
    launch.write(path, spec)
    return path


def _placeholders(
    inputs: Properties, root: StackRoot, folder: Path, *, hashed: bool, get_tools: Progress | None
) -> Placeholders:
    endpoints: list[str] = inputs.get("endpoints") or []
    endpoint = (HOST, kept_port(root, endpoints[0])) if endpoints else None

    def tool(name: str) -> Path:
        from ... import tools

        return tools.ensure(name, get_tools) if get_tools else tools.find(name)

    return Placeholders(root, folder, endpoint, tool, hashed)


def _mapping(inputs: Properties, key: str) -> dict[str, str]:
    value = inputs.get(key)
    return cast("dict[str, str]", value) if isinstance(value, dict) else {}


def _texts(inputs: Properties) -> Iterator[tuple[str, str]]:
    """Yield (field, text) for each known text that may contain placeholders."""
    argv: Any = inputs.get("argv")
    if isinstance(argv, list):
        for index, part in enumerate(cast("list[Any]", argv)):
            if isinstance(part, str):
                yield f"argv[{index}]", part
    for key in ("env", "configFiles"):
        for name, text in _mapping(inputs, key).items():
            if text is not UNKNOWN:
                yield f"{key}.{name}", text
