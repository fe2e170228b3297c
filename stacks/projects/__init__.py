"""Projects of teams: made from the template, brought up to a later version of it, added to."""
