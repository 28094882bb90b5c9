"""The key server: certificates, keys on loan, policy bundles and the log."""
