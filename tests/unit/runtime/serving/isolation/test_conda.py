"""The environment files of models other than `requirements.txt`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidemill.runtime.serving.isolation.conda import read_conda
from tidemill.runtime.serving.isolation.environment import environment_key, environment_requirements
from tidemill.runtime.serving.isolation.requirements import ModelRequirements, UnbuildableError, unmet_requirements

PYTHON_ENV = (
    "python: 3.8.18\nbuild_dependencies:\n- pip==23.0\n- setuptools==68.2.2\n- wheel\ndependencies:\n- -r r.txt\n"
)
CONDA = """
name: mlflow-env
channels: [conda-forge]
dependencies:
- python=3.8.18
- pip<=23.0
- setuptools=68.2
- conda-forge::numpy=1.24.4=py38h59b608b_0
- pandas 1.5.3
- scikit-learn>=1.2,<1.3
- pytorch==2.1.0
- pip:
  - mlflow==2.9.2
  - -r more.txt
"""


def files(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_build_dependencies_are_installed_but_not_required_of_the_server(tmp_path: Path) -> None:
    folder = files(tmp_path / "model", requirements__txt="numpy\n", python_env__yaml=PYTHON_ENV)
    needs = ModelRequirements.of(folder)
    assert needs.build == ["pip==23.0", "setuptools==68.2.2", "wheel"]
    assert environment_requirements(needs)[-3:] == needs.build
    assert all("setuptools" not in reason for reason in unmet_requirements(folder))
    before = environment_key(needs)
    files(folder, python_env__yaml=PYTHON_ENV.replace("68.2.2", "69.0.0"))
    assert environment_key(ModelRequirements.of(folder)) != before


def test_a_requirement_replaces_the_build_dependency_of_its_name(tmp_path: Path) -> None:
    folder = files(tmp_path / "model", requirements__txt="setuptools==70.0.0\n", python_env__yaml=PYTHON_ENV)
    lines = environment_requirements(ModelRequirements.of(folder))
    assert [line for line in lines if line.startswith("setuptools")] == ["setuptools==70.0.0"]
    assert "pip==23.0" in lines


def test_a_model_with_only_a_conda_file_has_its_requirements(tmp_path: Path) -> None:
    needs = ModelRequirements.of(files(tmp_path / "model", conda__yaml=CONDA, more__txt="shap==0.42\n"))
    assert needs.python == "3.8"
    assert needs.lines == [
        "numpy==1.24.4.*", "pandas==1.5.3", "scikit-learn>=1.2,<1.3", "torch==2.1.0", "mlflow==2.9.2", "shap==0.42",
    ]  # fmt: skip
    assert needs.build == ["pip<=23.0", "setuptools==68.2.*"]
    assert any(reason.startswith("Python 3.8") for reason in unmet_requirements(tmp_path / "model"))


def test_requirements_come_before_the_conda_file(tmp_path: Path) -> None:
    folder = files(tmp_path / "model", conda__yaml=CONDA, requirements__txt="numpy\n", python_env__yaml=PYTHON_ENV)
    assert ModelRequirements.of(folder).lines == ["numpy"]


@pytest.mark.parametrize(
    "package", ["cudatoolkit=11.8", "openjdk", "graphviz=8", "numpy>=1|<2", "numpy[version='>=1']", "opencv=4"]
)
def test_what_pip_does_not_have_under_that_name_is_refused_by_name(tmp_path: Path, package: str) -> None:
    text = f"dependencies:\n- python=3.10\n- scipy\n- {package}\n- pip: [numpy]\n"
    with pytest.raises(UnbuildableError) as refused:
        ModelRequirements.of(files(tmp_path / "model", conda__yaml=text))
    assert f"no known wheel on the package index: {package};" in str(refused.value)
    assert "conda.yaml" in str(refused.value)


@pytest.mark.parametrize("line", ["-e ../code", "--editable ."])
def test_a_folder_of_the_training_machine_is_refused_here_too(tmp_path: Path, line: str) -> None:
    text = f"dependencies:\n- pip: ['{line}']\n"
    with pytest.raises(UnbuildableError, match=r"conda\.yaml: it names a folder"):
        ModelRequirements.of(files(tmp_path / "model", conda__yaml=text))


@pytest.mark.parametrize("text", ["", "[]", "dependencies: 3", "dependencies: [{pip: numpy}]", "dependencies: null"])
def test_a_file_without_packages_has_no_requirements(tmp_path: Path, text: str) -> None:
    needs = ModelRequirements.of(files(tmp_path / "model", conda__yaml=text))
    assert (needs.lines, needs.python) == ([], None)


@pytest.mark.parametrize(
    ("spec", "python"), [("python=3.10", "3.10"), ("python 3.9.1", "3.9.1"), ("python>=3.8", ">=3.8")]
)
def test_the_python_of_a_conda_file(spec: str, python: str) -> None:
    assert read_conda({"dependencies": [spec]}) == (python, [], [])
