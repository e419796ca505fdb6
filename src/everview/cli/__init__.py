"""The command line: one verb per file, a dataclass per verb; the one room that may print."""
