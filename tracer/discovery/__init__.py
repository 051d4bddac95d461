"""Discovery: what in a running program is worth running elsewhere (`radium trace`)."""
