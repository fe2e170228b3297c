"""Reads `conda.yaml`, the only environment file of some models: its Python version, and its packages as pip names them.

tidemill builds environments from wheels. So a conda package is accepted only if PyPI has the same package under a known
name: an unknown name on PyPI may be another project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet

BUILD_TOOLS: Final = ("pip", "setuptools", "wheel")
_SPEC = re.compile(r"(?:[\w./-]+::)?(?P<name>[A-Za-z0-9_.-]+)\s*(?P<version>.*)")
_SAME_NAME: Final = frozenset(
    {
        *("beautifulsoup4", "bokeh", "boto3", "catboost", "category_encoders", "cffi", "cloudpickle"),
        *("cryptography", "cython", "dask", "dill", "fastapi", "filelock", "flask", "h5py", "holidays"),
        *("imbalanced-learn", "jinja2", "joblib", "jsonschema", "keras", "lifelines", "lightgbm", "llvmlite"),
        *("lxml", "markupsafe", "matplotlib", "mlflow", "mlflow-skinny", "networkx", "nltk", "numba", "numexpr"),
        *("numpy", "onnx", "onnxruntime", "packaging", "pandas", "patsy", "pillow", "plotly", "polars", "prophet"),
        *("protobuf", "psutil", "pyarrow", "pydantic", "pyspark", "python-dateutil", "pytz", "pyyaml", "regex"),
        *("requests", "scikit-image", "scikit-learn", "scipy", "seaborn", "sentencepiece", "shap", "six"),
        *("skl2onnx", "skops", "spacy", "sqlalchemy", "statsmodels", "sympy", "tensorflow", "threadpoolctl"),
        *("tokenizers", "tqdm", "transformers", "typing-extensions", "typing_extensions", "tzdata", "urllib3"),
        *("xgboost", "xlrd"),
        *BUILD_TOOLS,
    }
)
_OTHER_NAME: Final = {"pytorch": "torch", "pytorch-cpu": "torch", "py-xgboost": "xgboost", "py-xgboost-cpu": "xgboost"}


def read_conda(document: Mapping[str, Any]) -> tuple[str | None, list[str], list[str]]:
    """Return the Python version, the requirements as pip writes them, and the packages that pip cannot install.

    >>> read_conda({"dependencies": ["python=3.10.2", "conda-forge::numpy=1.26", "openjdk", {"pip": ["mlflow"]}]})
    ('3.10.2', ['numpy==1.26.*', 'mlflow'], ['openjdk'])
    """
    python: str | None = None
    lines: list[str] = []
    unknown: list[str] = []
    given = document.get("dependencies")
    for item in cast("list[Any]", given) if isinstance(given, list) else []:
        if isinstance(item, dict):
            pip = cast("dict[str, Any]", item).get("pip")
            lines += [str(line) for line in cast("list[Any]", pip)] if isinstance(pip, list) else []
            continue
        found = _SPEC.fullmatch(str(item).strip())
        name = found["name"].lower() if found else ""
        version = _version(found["version"]) if found else None
        if name == "python":
            python = (version or "").removeprefix("==").removesuffix(".*") or None
        elif version is None or (name not in _SAME_NAME and name not in _OTHER_NAME):
            unknown.append(str(item))
        else:
            lines.append(f"{_OTHER_NAME.get(name, name)}{version}")
    return python, lines, unknown


def _version(text: str) -> str | None:
    """Return conda's version specification as pip writes it, without the build, or None if pip has none like it.

    >>> [_version(text) for text in ("=1.26", "==1.26", "1.26.4", "=1.26.4=py310_0", ">=1,<2", "", ">=1|<2")]
    ['==1.26.*', '==1.26', '==1.26.4', '==1.26.4.*', '>=1,<2', '', None]
    """
    exact = text.startswith("==") or text[:1].isdigit()
    if exact or text.startswith("="):
        version = re.split(r"[=\s]", text.lstrip("="))[0]
        text = f"=={version}" if exact or version.endswith("*") else f"=={version}.*"
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return None
    return text
