"""The Pulumi engine, driven through its Automation API with the same program that a plain `pulumi up` runs."""
