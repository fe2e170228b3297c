"""Rules across the teams of one project, and the list of its stacks."""
