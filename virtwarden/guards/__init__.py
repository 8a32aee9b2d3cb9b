"""The guards, each one protection; `lifecycle.GUARDS` has their order."""
