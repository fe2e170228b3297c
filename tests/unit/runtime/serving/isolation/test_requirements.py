"""What a model says it needs, against what the environment of these tests has."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill.runtime.serving.isolation.environment import environment_key, environment_requirements
from tidemill.runtime.serving.isolation.requirements import (
    InvalidRequirementsError,
    ModelRequirements,
    UnbuildableError,
    named_requirements,
    unmet_requirements,
    without_credentials,
)

NUMPY, PANDAS = version("numpy"), version("pandas")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def model(folder: Path, requirements: str, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text(requirements)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "# nothing but words\n\n   # and more\n",
        f"numpy=={NUMPY}\npandas>=2\n",
        f"numpy=={NUMPY} ; python_version >= '3.8'\n",
        "nothing-of-that-name==1.0 ; python_version < '3'\n",
        f"NumPy == {NUMPY}  # in another spelling\n",
        f"numpy \\\n  == {NUMPY} \\\n  --hash=sha256:{'0' * 64}\n",
        "--index-url https://example.org/simple\n--pre\nnumpy\n",
        "tidemill[flights]\n",
        "mlflow\n",
        "mlflow==3.0.1\n",
        "mlflow-skinny==3.1\n",
        "\ufeffnumpy\r\npandas\r\n",
    ],
)
def test_what_the_server_has_is_no_difference(tmp_path: Path, lines: str) -> None:
    assert unmet_requirements(model(tmp_path, lines)) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("numpy==1.26.4", f"numpy==1.26.4, the server has {NUMPY}"),
        ("numpy<1 --hash=sha256:00", f"numpy<1, the server has {NUMPY}"),
        ("nothing-of-that-name", "nothing-of-that-name, the server has none"),
        ("mlflow==1.30", f"mlflow==1.30, the server has {version('mlflow-skinny')}"),
        ("mlflow>=99", f"mlflow>=99, the server has {version('mlflow-skinny')}"),
        ("pandas[excel]", "pandas[excel] requires odfpy>=1.4.1, the server has none"),
        (
            "numpy @ https://me:secret@example.org/numpy-1.whl",
            f"numpy @ https://example.org/numpy-1.whl, the server has {NUMPY} of another origin",
        ),
        ("git+https://me:secret@example.org/a.git", "git+https://example.org/a.git, the server has none"),
        ("wheels/one-1.0-py3-none-any.whl", "one-1.0-py3-none-any.whl, the server has none"),
        ("!!!", "!!!, the server has none"),
    ],
)
def test_a_difference_is_said(tmp_path: Path, line: str, said: str) -> None:
    assert said in unmet_requirements(model(tmp_path, f"{line}\n"))


def test_a_wheel_beside_the_model_is_told_by_its_name(tmp_path: Path) -> None:
    assert unmet_requirements(model(tmp_path, f"./numpy-{NUMPY}-py3-none-any.whl\n")) == []
    assert unmet_requirements(model(tmp_path, "./numpy-1.0-py3-none-any.whl\n")) == [
        f"numpy-1.0-py3-none-any.whl, the server has {NUMPY}"
    ]


def test_the_python_of_the_model_counts_to_its_minor_version(tmp_path: Path) -> None:
    assert unmet_requirements(model(tmp_path, "", **{"python_env.yaml": f"python: {OWN}.99\n"})) == []
    assert unmet_requirements(model(tmp_path, "", **{"python_env.yaml": "python: '3.7.1'\n"})) == [
        f"Python 3.7, the server has {OWN}"
    ]


def test_included_files_and_constraints_are_read(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text("-c limits.txt\nnumpy==1.0\n")
    (tmp_path / "more" / "limits.txt").write_text("pandas<1\nnothing-of-that-name<1\n")
    found = unmet_requirements(model(tmp_path, "-r more/base.txt\n--requirement=more/base.txt\n"))
    assert found == [f"numpy==1.0, the server has {NUMPY}", f"pandas<1, the server has {PANDAS}"]
    assert ModelRequirements.of(tmp_path).constraints[:2] == ["pandas<1", "nothing-of-that-name<1"]


@pytest.mark.parametrize(
    "line",
    [
        "-r ../secret.txt",
        "-c/etc/passwd",
        "--requirement /etc/hosts",
        "-e .",
        "-r requirements.txt",
    ],
)
def test_what_is_not_the_models_own_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "secret.txt").write_text("numpy\n")
    with pytest.raises(InvalidRequirementsError):
        unmet_requirements(model(tmp_path / "model", f"{line}\n"))


def test_a_link_out_of_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("numpy\n")
    folder = model(tmp_path / "model", "-r link.txt\n")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UnbuildableError, match="outside the model's folder"):
        unmet_requirements(folder)


def test_the_environment_gets_what_the_host_needs_and_no_more(tmp_path: Path) -> None:
    described = f"mlflow_version: {version('mlflow-skinny')}\nflavors: {{sklearn: {{serialization_format: skops}}}}\n"
    needs = ModelRequirements.of(model(tmp_path, "scikit-learn==1.8\nPandas==2.3\n", MLmodel=described))
    own = version("mlflow-skinny")
    assert environment_requirements(needs) == [
        "scikit-learn==1.8",
        "Pandas==2.3",
        f"mlflow-skinny>={own},<={own}",
        f"pyarrow<={version('pyarrow')}",
        f"skops<={version('skops')}",
    ]
    full = ModelRequirements.of(model(tmp_path, "mlflow==3.1\nskops\npandas\npyarrow\n", MLmodel=described))
    assert environment_requirements(full) == ["mlflow-skinny==3.1", "skops", "pandas", "pyarrow"]
    newer = ModelRequirements.of(model(tmp_path, "pandas\npyarrow\nskops\n", MLmodel="mlflow_version: 99.1.0\n"))
    assert environment_requirements(newer)[-1] == "mlflow-skinny==99.1.0"


def test_the_key_tells_what_differs_and_not_where_it_is(tmp_path: Path) -> None:
    first = model(tmp_path / "a", "numpy==1.0\n")
    second = model(tmp_path / "b", "# said otherwise\nnumpy==1.0\n")
    assert environment_key(ModelRequirements.of(first)) == environment_key(ModelRequirements.of(second))
    third = model(tmp_path / "c", "numpy==1.1\n")
    assert environment_key(ModelRequirements.of(first)) != environment_key(ModelRequirements.of(third))
    fourth = model(tmp_path / "d", "numpy==1.0\n", **{"python_env.yaml": "python: 3.7.1"})
    assert environment_key(ModelRequirements.of(first)) != environment_key(ModelRequirements.of(fourth))


def test_named_requirements_keep_their_markers_extras_and_hashes() -> None:
    hashed = f"numpy==1.0 --hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}"
    assert named_requirements([hashed, "pandas[excel]>=2 ; python_version > '3'"]) == [
        hashed,
        'pandas[excel]>=2; python_version > "3"',
    ]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "-ihttps://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-f .",
        "--find-links wheels",
        "--trusted-host example.org",
        "--no-binary :all:",
        "--pre",
        "./one-1.0-py3-none-any.whl",
        "one-1.0.tar.gz",
        "wheels/one",
        "one @ file:///tmp/one-1.0-py3-none-any.whl",
        "one @ ./one-1.0.tar.gz",
        "one @ https://example.org/one-1.0-py3-none-any.whl",
        "one @ git+https://example.org/one.git",
        "git+https://example.org/one.git#egg=one",
        "https://example.org/one-1.0.tar.gz",
        "file:one-1.0.tar.gz",
        "one==1.0 --index-url https://example.org/simple",
        "one==1.0\n--index-url https://example.org/simple",
        "one==1.0 --config-settings=x=y",
        "one==1.0 --hash=sha256:00 --find-links=.",
        "!!!",
        "${HOME}",
    ],
)
def test_only_the_platforms_index_provides_code(line: str) -> None:
    with pytest.raises(InvalidRequirementsError) as refused:
        named_requirements(["numpy", line])
    assert line.split()[0] in str(refused.value)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                "numpy",
                "==1",
                "\\",
                "\n",
                " ",
                "#",
                "-r",
                "-c",
                "--hash",
                "[x]",
                ";",
                "@",
                "https://u:p@h/",
                "./a.whl",
                "\x00",
                "${X}",
                "'",
                "git+",
            ]
        )
    ).map("".join)
)
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "requirements.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = unmet_requirements(folder)
    except UnbuildableError:
        return
    assert all("//u:p@" not in said for said in found)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("https://a:b@example.org/x and http://c@host", "https://example.org/x and http://host"),
        ("error for url (https://token@example.org/simple/)", "error for url (https://example.org/simple/)"),
        ("no URL at all", "no URL at all"),
    ],
)
def test_credentials_of_urls_are_left_out(text: str, bare: str) -> None:
    assert without_credentials(text) == bare
