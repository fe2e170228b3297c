"""Creates, updates and extends the projects of teams from the project template."""
