"""The Pulumi program, the stack config and the command line."""
