"""The platform's components, its targets, the provider and the tools."""
