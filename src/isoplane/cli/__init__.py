"""The command line: one file per command. It reads flags, calls what exists, prints; it decides nothing."""
