"""What holds across the stacks of one project: the rules all teams keep, and the list of who has what."""
