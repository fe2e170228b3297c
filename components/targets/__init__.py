"""The seven words a component speaks, and the targets which know them."""
