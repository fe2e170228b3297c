"""The primitives a component speaks, and the targets which know them."""
