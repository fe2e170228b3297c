"""The Pulumi engine, driven through its Automation API on the very program a plain `pulumi up` runs."""
