"""BPF: programs compiled with bcc, their maps, and the links that attach them. Without policy.

The programs themselves (*.c) lie beside this file.
"""
