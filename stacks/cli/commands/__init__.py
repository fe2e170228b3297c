"""The commands of `tidemill`, one module each. `app.py` lists them and says how to add one."""
