"""Datasets written in the field's formats, one module a format."""
