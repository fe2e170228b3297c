"""Training runs: an open MLflow run that reads pinned data and logs models with their lineage."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .. import data, registry
from ..common.errors import ConfigError, NotFoundError
from ..common.settings import RuntimeSettings, runtime_settings
from ..common.tags import LAKE_COMMIT, LAKE_PATH, LAKE_REPOSITORY, NONE
from ..common.target import METADATA, Target
from .lineage import Lineage, code_folder
from .reference import log_reference, predicted_sample, target_document

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

    from ..serving import Trusted

_EXAMPLE_ROWS = 5


class Run:
    """An open MLflow run; `run` opens it.

    Attributes:
        model: the model it trains; also the name of the experiment and of the registered model.
        run_id: MLflow's id.
        tags: the lineage recorded so far.
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
        """Read data at a pinned commit, and record that commit as the run's lineage.

        Args:
            address: REPOSITORY/REF/PATH; by default the model's `data` in the stack config.
            validated: read the newest commit of REF that passed the gate, instead of the newest commit.

        Raises:
            UnvalidatedError: `validated` is set and no commit passed the gate.
            NotFoundError: there is no data, or the stack has no address for this model.
            ConfigError: the run already read other data; a model's lineage is a single commit.
        """
        address = address or self._data_address()
        lake = self._settings.lake
        repository, ref, path = data.split(address)
        if validated:
            commit = data.newest_validated(address, lake=lake)
            dataset = data.read(f"{repository}/{commit}/{path}", validated=True, lake=lake)
        else:
            dataset = data.read(address, lake=lake)
        found = {LAKE_REPOSITORY: repository, LAKE_COMMIT: dataset.commit, LAKE_PATH: path}
        before = {key: self.tags[key] for key in found if key in self.tags}
        if before and before != found:
            raise ConfigError(
                f"this run already read {'/'.join(before.values())}",
                field="data",
                value=f"{repository}/{ref}/{path}",
                hint="use one run for each, or read a path that contains both",
            )
        self.set_tags(found)
        self.tags.update(found)
        return dataset

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        from mlflow.entities import RunTag

        with registry.translate_errors(self.run_id):
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters as text."""
        from mlflow.entities import Param

        with registry.translate_errors(self.run_id):
            self._client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        logged = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        with registry.translate_errors(self.run_id):
            self._client.log_batch(self.run_id, metrics=logged)

    def log_text(self, text: str, path: str) -> None:
        """Log `text` as the artifact `path`."""
        with registry.translate_errors(self.run_id):
            self._client.log_text(self.run_id, text, path)

    def log_model(
        self,
        model: Any,
        *,
        features: pd.DataFrame,
        predictions: np.ndarray[Any, Any] | Sequence[float] | None = None,
        labels: Sequence[Any] | None = None,
        held_out: tuple[Any, Any] | None = None,
        trusted_types: Sequence[str] = (),
        trust: Sequence[Trusted] = (),
        requirements: Sequence[str] = (),
        code_paths: Sequence[Path] = (),
    ) -> registry.ModelVersion:
        """Log a fitted scikit-learn model with its contract and its reference, and register it as a new version.

        The served model returns probabilities if the estimator has `predict_proba`. The model is saved with skops,
        unless `trust` says otherwise. Drift is later measured against the reference: a profile, and a sample with
        predictions. Labels are later checked against the classes of the estimator, or against the range of `labels`.

        Args:
            model: the fitted estimator or pipeline.
            features: the rows it was fitted on. Their columns are the contract. Integers become doubles, so that
                requests can leave values out. A column with missing values here is optional in requests.
            predictions: the model's predictions, one for each row; by default computed for the sample.
            labels: the true values of `features`; for a model of numbers, the monitor flags labels outside their range.
            held_out: (predictions, true values) of rows that the model was not fitted on. The predictions may also come
                from the same pipeline before it was fitted on these rows. With them, the monitor warns when the
                relation between predictions and labels changes. Give probabilities or numbers, as the model serves.
            trusted_types: full names of types that loading this model may create, beyond skops' own list.
            trust: `pickle` saves the model as a pickle. Only a server with `serve.trust: [pickle]` loads it, because a
                pickle can run any code.
            requirements: further distributions that the model needs, as `name==version`.
            code_paths: folders or files of code that the model needs; they are stored with it.

        Raises:
            ConfigError: the model contains untrusted types, `features` has no rows, or `held_out` does not have
                one prediction for each true value.
        """
        if not len(features):
            raise ConfigError("the model's reference needs at least one row", field="features", value=0)
        contract = _contract(features)
        probabilities = hasattr(model, "predict_proba")
        predict = model.predict_proba if probabilities else model.predict
        classes = getattr(model, "classes_", None)
        sample = predicted_sample(contract, predictions, predict, classes)
        target = Target.of(classes, labels)
        about_target = target_document(target, held_out)
        signature = _signature(contract, predict(contract.head(_EXAMPLE_ROWS)))
        if "pickle" not in trust:
            _require_trusted(model, trusted_types)
        with registry.translate_errors(self.run_id):
            log_reference(self._client, self.run_id, contract, sample, about_target)
        with registry.translate_errors(self.model), warnings.catch_warnings():
            # MLflow warns about its own classes, integer columns (there are none) and deprecated pandas calls.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            import mlflow
            from mlflow.sklearn import SERIALIZATION_FORMAT_CLOUDPICKLE, SERIALIZATION_FORMAT_SKOPS
            from mlflow.sklearn import log_model as log_sklearn

            stored: dict[str, Any] = (
                {"serialization_format": SERIALIZATION_FORMAT_CLOUDPICKLE}
                if "pickle" in trust
                else {
                    "serialization_format": SERIALIZATION_FORMAT_SKOPS,
                    "skops_trusted_types": list(trusted_types),
                }
            )

            logged = log_sklearn(
                model,
                name="model",
                **stored,
                pyfunc_predict_fn="predict_proba" if probabilities else "predict",
                signature=signature,
                input_example=contract.head(_EXAMPLE_ROWS),
                # Explicit, because MLflow would load the model in another process to infer them.
                pip_requirements=_requirements(requirements),
                code_paths=[str(path) for path in code_paths] or None,
                # The model server checks labels against it.
                metadata={METADATA: target.to_json()},
            )
            # The version has its tags from the moment it becomes visible.
            made = mlflow.register_model(logged.model_uri, self.model, tags={LAKE_COMMIT: NONE, **self.tags})
        return registry.version(self.model, made.version, registry=self._settings.registry)

    def _data_address(self) -> str:
        try:
            return self._settings.models[self.model].data
        except KeyError:
            raise NotFoundError(
                "the stack has no model of this name", field="model", value=self.model, hint="pass the address to read"
            ) from None


@contextmanager
def run(model: str, *, settings: RuntimeSettings | None = None, code: Path | None = None) -> Generator[Run]:
    """Open a run for `model`; MLflow marks it as failed if the block raises.

    Args:
        model: the registered model's name.
        settings: the platform; by default that of TIDEMILL_RUNTIME.
        code: folder of the training code; by default that of the running script.

    Raises:
        UnreachableError: the registry does not answer.
        NotFoundError: the registry has no experiment `model`, and training may not create it.
    """
    chosen = settings or runtime_settings()
    lineage = Lineage.collect(code or code_folder())
    client = registry.connect(chosen.registry)
    import mlflow

    with registry.translate_errors(model):
        experiment = client.get_experiment_by_name(model)
        experiment_id = experiment.experiment_id if experiment else _create_experiment(client, model)
    with registry.translate_errors(model):
        opened = mlflow.start_run(experiment_id=experiment_id, tags=lineage.tags)
    with opened as active:
        made = Run(model, str(active.info.run_id), client, chosen, lineage)
        made.log_text(lineage.environment, "tidemill/environment.txt")
        if lineage.patch:
            made.log_text(lineage.patch, "tidemill/code.patch")
        yield made


def _create_experiment(client: MlflowClient, model: str) -> str:
    """Create the experiment of `model`, in a registry where training may do so.

    Raises:
        NotFoundError: training may not create it; in a stack, only `up` creates experiments.
    """
    from mlflow.exceptions import RestException

    try:
        return client.create_experiment(model)
    except RestException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        hint = "add the model to `models` in the stack config and run `tidemill up`"
        raise NotFoundError("the registry has no experiment of this name", value=model, hint=hint) from None


def _contract(features: pd.DataFrame) -> pd.DataFrame:
    """Return `features` with numbers as doubles and text as objects; booleans and times stay unchanged."""
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


def _require_trusted(model: Any, trusted: Sequence[str]) -> None:
    """Raise ConfigError if the model contains types that neither skops nor the caller trusts."""
    import skops.io

    unknown = sorted(set(skops.io.get_untrusted_types(data=skops.io.dumps(model))) - set(trusted))
    if unknown:
        raise ConfigError(
            "the model contains untrusted types",
            field="trusted_types",
            value=unknown,
            hint="review them, then list them in log_model(trusted_types=[...]); or save a pickle with "
            'log_model(trust=["pickle"]) and set serve.trust: [pickle]',
        )


def _requirements(further: Sequence[str]) -> list[str]:
    from importlib.metadata import version

    base = ("scikit-learn", "skops", "pandas", "numpy", "scipy")
    return [*(f"{name}=={version(name)}" for name in base), *further]
