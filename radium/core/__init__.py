"""Values and codecs: no system call, no socket, no clock."""
