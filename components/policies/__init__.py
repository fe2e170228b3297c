"""The policy pack: rules that the engine checks on each resource before it creates or changes anything.

`rules` holds all of them, as pure functions on plain values; `tidemill.stacks.engine.policy_pack` passes them to the
engine. This package does not import Pulumi.
"""
