"""Profiles: the schema, and the library of profiles for common libraries."""
