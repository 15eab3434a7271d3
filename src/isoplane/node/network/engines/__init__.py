"""Engines load rendered rules into the host and say whether they are still there. They choose nothing."""
