"""The commands of `tidemill`, one module each. To add one, see `stacks/cli/app.py`."""
