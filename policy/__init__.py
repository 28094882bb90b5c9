"""The departments' rules: what a file is, and who sees it how. Pure; imports neither neighbour."""
