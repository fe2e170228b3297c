"""tidemill's model server against its peers; see docs/benchmarks.md."""
