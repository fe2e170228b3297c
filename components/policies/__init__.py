"""The policy pack: rules which the engine asks of each resource before it makes it.

`rules` holds them all, as pure functions on plain values; `tidemill.stacks.engine.policy_pack` gives them to the
engine. Nothing here imports Pulumi.
"""
