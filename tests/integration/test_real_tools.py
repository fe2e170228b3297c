"""The real tools run, at the versions of the table."""

from __future__ import annotations

import pytest
from tidemill.components import tools
from tidemill.components.tools.base import fits
from tidemill.components.tools.doctor import rows
from tidemill.components.tools.table import PACKAGES
from tidemill.components.tools.toolbox import version_of

pytestmark = pytest.mark.integration

REQUIRED = [(package, program) for package in PACKAGES if not package.optional for program in package.programs]


@pytest.mark.timeout(3600)  # built from source on a machine which has nothing yet
@pytest.mark.parametrize(("package", "program"), REQUIRED, ids=[program.name for _, program in REQUIRED])
def test_a_tool_runs_at_the_pinned_version(package: tools.Package, program: tools.Program) -> None:
    path = tools.ensure(program.name, progress=print)
    assert tools.find(program.name) == path
    version = version_of(path, program)
    assert fits(package, version)
    if path.parent.name == "bin" and path.is_relative_to(tools.cache_folder()) and "-go-" in str(path):
        assert version == package.version


def test_doctor_finds_what_is_required() -> None:
    for _, program in REQUIRED:
        tools.ensure(program.name)
    found = {row.name: row for row in rows()}
    assert set(found) == {program.name for package in PACKAGES for program in package.programs}
    for _, program in REQUIRED:
        row = found[program.name]
        assert (row.state, row.note, row.hint) == ("ready", None, None)
