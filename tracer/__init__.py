"""The initiator: traps calls of the tracee, carries them out and brings them home."""
