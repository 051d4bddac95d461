"""One file per command of the radium program."""
