"""The content resources: what lives inside lakeFS and MLflow."""
