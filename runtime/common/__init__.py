"""What every package of the runtime uses: errors, settings, ids, secrets, files, and the frame of a service."""
