"""The commands of `keyserver`, one file a noun. Data goes to stdout, everything else to stderr."""
