"""The contract of a model version, made from its MLflow signature."""
