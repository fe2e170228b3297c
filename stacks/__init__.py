"""The program, its settings and the command line."""
