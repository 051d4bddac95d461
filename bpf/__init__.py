"""BPF programs. None yet: the uprobe trap brings the first one."""
