"""The minds: one module a role, records in, records out."""
