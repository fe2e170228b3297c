"""Stand-ins for providers whose plugins, daemons or clouds a test cannot have: the real engine runs against them.

`provider` answers the engine: it makes nothing, and records everything. `outputs` says what it invents where a real
provider would tell (ids, ARNs, addresses). `engine` drives the real engine against it the way tidemill does, and reads
the record.
"""
