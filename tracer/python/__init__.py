"""Split points inside a CPython interpreter (DESIGN.md section 9)."""
