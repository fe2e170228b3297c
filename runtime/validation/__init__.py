"""The gate: expectations, and the service which the lake calls."""
