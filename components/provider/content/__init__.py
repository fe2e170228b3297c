"""Content resources: objects inside lakeFS and MLflow."""
