"""Training runs which can say where their model comes from.

with training.run("flights") as run:
frame = run.read().to_pandas()  # the newest data which passed the gate
...
run.log_metrics({"roc_auc": auc})
run.log_model(pipeline, features=frame[FEATURES], trusted_types=[...])
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .. import data, registry
from ..common.errors import ConfigError, NotFoundError
from ..common.settings import RuntimeSettings, runtime_settings
from ..drift import Profile
from .lineage import LAKE_COMMIT, LAKE_PATH, LAKE_REPOSITORY, NONE, Lineage, code_folder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

__all__ = ["PREDICTION", "PROFILE_ARTIFACT", "SAMPLE_ARTIFACT", "SAMPLE_ROWS", "Run", "run"]

PROFILE_ARTIFACT = "tidemill/reference_profile.json"
SAMPLE_ARTIFACT = "tidemill/reference_sample.parquet"
SAMPLE_ROWS = 1000
PREDICTION = "prediction"
"""The sample's column of predictions; of a classifier with more than two classes, `prediction_CLASS` for each."""

_EXAMPLE_ROWS = 5
_SEED = 0


class Run:
    """An open MLflow run; made by `run`.

    Attributes:
        model: name of the model it trains, which is the experiment's and the registered model's too.
        run_id: MLflow's id.
        tags: the lineage so far.
    """

    def __init__(
        self, model: str, run_id: str, client: MlflowClient, settings: RuntimeSettings, lineage: Lineage
    ) -> None:
        self.model = model
        self.run_id = run_id
        self.tags: dict[str, str] = dict(lineage.tags)
        self._client = client
        self._settings = settings

    def read(self, address: str | None = None, *, validated: bool = True) -> data.Dataset:
        """Read data, pinned, and write on the run what was read.

        Args:
            address: REPOSITORY/REF/PATH; the model's own `data` by default.
            validated: take the newest commit of REF which the gate accepted; else the commit that REF names.

        Raises:
            UnvalidatedError: `validated`, and the gate accepted none.
            NotFoundError: nothing is there, or no address is known.
            ConfigError: the run read other data before; the lineage of a model is one commit.
        """
        wanted = address or self._address()
        lake = self._settings.lake
        repository, ref, path = data.split(wanted)
        if validated:
            commit = data.newest_validated(wanted, lake=lake)
            dataset = data.read(f"{repository}/{commit}/{path}", lake=lake)
        else:
            dataset = data.read(wanted, lake=lake)
        found = {LAKE_REPOSITORY: repository, LAKE_COMMIT: dataset.commit, LAKE_PATH: path}
        before = {key: self.tags[key] for key in found if key in self.tags}
        if before and before != found:
            raise ConfigError(
                f"this run already read {'/'.join(before.values())}",
                field="data",
                value=f"{repository}/{ref}/{path}",
                hint="open a run for each, or read a path which holds both",
            )
        self.set_tags(found)
        self.tags.update(found)
        return dataset

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        from mlflow.entities import RunTag

        with registry.translated(self.run_id):
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; each is kept as text."""
        from mlflow.entities import Param

        with registry.translated(self.run_id):
            self._client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics, in whatever unit their name says."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        logged = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        with registry.translated(self.run_id):
            self._client.log_batch(self.run_id, metrics=logged)

    def log_text(self, text: str, path: str) -> None:
        """Keep `text` as the artifact `path`."""
        with registry.translated(self.run_id):
            self._client.log_text(self.run_id, text, path)

    def log_model(
        self,
        model: Any,
        *,
        features: pd.DataFrame,
        predictions: np.ndarray[Any, Any] | Sequence[float] | None = None,
        trusted_types: Sequence[str] = (),
        requirements: Sequence[str] = (),
        code_paths: Sequence[Path] = (),
    ) -> registry.ModelVersion:
        """Keep a fitted scikit-learn model with its contract and its reference, and register it as a new version.

        Classifiers which can are logged such that the served model gives probabilities. The model is saved with skops,
        never with pickle. The reference (a profile, and a sample with predictions) is what drift is measured against.

        Args:
            model: the fitted estimator or pipeline.
            features: the rows it was fitted on. Their columns are the contract: whole numbers are asked for as
                doubles, so that a missing one can be said; a column is optional where a row here lacks it.
            predictions: what it predicts for `features`, a row each; computed for the sample by default.
            trusted_types: types outside skops' own list which loading this model may make, by their full names.
            requirements: further distributions which the model needs, as `name==version`.
            code_paths: folders or files of code which the model needs, kept with it.

        Raises:
            ConfigError: the model holds types which are not trusted, or no rows are given.
        """
        if not len(features):
            raise ConfigError("the model's reference needs rows", field="features", value=0)
        contract = _contract(features)
        probabilities = hasattr(model, "predict_proba")
        predict = model.predict_proba if probabilities else model.predict
        sample, predicted = _sample(contract, predictions, predict)
        signature = _signature(contract, predict(contract.head(_EXAMPLE_ROWS)))
        _trust(model, trusted_types)
        self._keep_reference(contract, sample, predicted, getattr(model, "classes_", None))
        with registry.translated(self.model), warnings.catch_warnings():
            # MLflow speaks of its own classes, of columns of whole numbers (there are none), and uses old pandas ways.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            import mlflow
            from mlflow.sklearn import SERIALIZATION_FORMAT_SKOPS
            from mlflow.sklearn import log_model as log_sklearn

            logged = log_sklearn(
                model,
                name="model",
                serialization_format=SERIALIZATION_FORMAT_SKOPS,
                skops_trusted_types=list(trusted_types),
                pyfunc_predict_fn="predict_proba" if probabilities else "predict",
                signature=signature,
                input_example=contract.head(_EXAMPLE_ROWS),
                # Named, not guessed: MLflow's guess loads the model once more in a process of its own.
                pip_requirements=_requirements(requirements),
                code_paths=[str(path) for path in code_paths] or None,
            )
            # The version bears the tags from the moment on that it can be seen.
            made = mlflow.register_model(logged.model_uri, self.model, tags={LAKE_COMMIT: NONE, **self.tags})
        return registry.version(self.model, made.version, registry=self._settings.registry)

    def _keep_reference(
        self, features: pd.DataFrame, sample: pd.DataFrame, predicted: np.ndarray[Any, Any], classes: Any
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = _prediction_columns(predicted, classes)
        self.log_text(Profile.of(features).to_json(), PROFILE_ARTIFACT)
        table = pa.Table.from_pandas(sample.assign(**columns), preserve_index=False)
        with tempfile.TemporaryDirectory(prefix="tidemill-reference-") as folder, registry.translated(self.run_id):
            file = Path(folder, Path(SAMPLE_ARTIFACT).name)
            pq.write_table(table.replace_schema_metadata(), file)
            self._client.log_artifact(self.run_id, str(file), str(Path(SAMPLE_ARTIFACT).parent))

    def _address(self) -> str:
        try:
            return self._settings.models[self.model].data
        except KeyError:
            raise NotFoundError(
                "the stack has no such model", field="model", value=self.model, hint="name the address to read"
            ) from None


@contextmanager
def run(model: str, *, settings: RuntimeSettings | None = None, code: Path | None = None) -> Generator[Run]:
    """Open a run for `model`; it is marked as failed when the block raises.

    Args:
        model: the registered model's name.
        settings: the platform; that of TIDEMILL_RUNTIME by default.
        code: folder of the training code; that of the running script by default.

    Raises:
        UnreachableError: the registry does not answer.
    """
    chosen = settings or runtime_settings()
    lineage = Lineage.collect(code or code_folder())
    client = registry.connect(chosen.registry)
    import mlflow

    with registry.translated(model):
        experiment = client.get_experiment_by_name(model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(model)
    with registry.translated(model):
        opened = mlflow.start_run(experiment_id=experiment_id, tags=lineage.tags)
    with opened as active:
        made = Run(model, str(active.info.run_id), client, chosen, lineage)
        made.log_text(lineage.environment, "tidemill/environment.txt")
        if lineage.patch:
            made.log_text(lineage.patch, "tidemill/code.patch")
        yield made


def _contract(features: pd.DataFrame) -> pd.DataFrame:
    """Return `features` with whole numbers as doubles, booleans as they are, and anything else but times as text."""
    import pandas as pd

    def convert(column: pd.Series) -> pd.Series:
        kind = pd.api.types
        if kind.is_bool_dtype(column) or kind.is_datetime64_any_dtype(column):
            return column
        if kind.is_numeric_dtype(column):
            return column.astype("float64")
        return column.astype("object").where(column.notna(), None)

    columns = {name: convert(cast("pd.Series", features[name])) for name in features.columns}
    return pd.DataFrame(columns).reset_index(drop=True)


def _signature(features: pd.DataFrame, predicted: Any) -> ModelSignature:
    from mlflow.models import infer_signature

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return infer_signature(features, predicted)


def _sample(features: pd.DataFrame, predictions: Any, predict: Any) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Return at most SAMPLE_ROWS rows, the same for the same data, and what is predicted for them."""
    import numpy as np

    rows = np.arange(len(features))
    if len(rows) > SAMPLE_ROWS:
        rows = np.sort(np.random.default_rng(_SEED).choice(rows, SAMPLE_ROWS, replace=False))
    sample = features.iloc[rows].reset_index(drop=True)
    if predictions is None:
        return sample, np.asarray(predict(sample))
    given = np.asarray(predictions)
    if len(given) != len(features):
        raise ConfigError(f"{len(features)} rows need as many predictions", field="predictions", value=len(given))
    return sample, given[rows]


def _prediction_columns(predicted: np.ndarray[Any, Any], classes: Any) -> dict[str, np.ndarray[Any, Any]]:
    if predicted.ndim == 1:
        return {PREDICTION: predicted}
    if predicted.shape[1] == 2:
        return {PREDICTION: predicted[:, 1]}
    names = range(predicted.shape[1]) if classes is None else classes
    return {f"{PREDICTION}_{name}": predicted[:, index] for index, name in enumerate(names)}


def _trust(model: Any, trusted: Sequence[str]) -> None:
    """Refuse a model with types which neither skops nor the caller trusts, before anything is uploaded."""
    import skops.io

    unknown = sorted(set(skops.io.get_untrusted_types(data=skops.io.dumps(model))) - set(trusted))
    if unknown:
        raise ConfigError(
            "the model holds types which nobody named as trusted",
            field="trusted_types",
            value=unknown,
            hint="look at what they do, and name them in log_model(trusted_types=[...])",
        )


def _requirements(further: Sequence[str]) -> list[str]:
    from importlib.metadata import version

    base = ("scikit-learn", "skops", "pandas", "numpy", "scipy")
    return [*(f"{name}=={version(name)}" for name in base), *further]
