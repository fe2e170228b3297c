"""The commands of `tidemill`, one module each; its public function or `app` is the command. `app.py` lists them."""
