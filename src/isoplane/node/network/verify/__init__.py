"""Real packets against the reference verdict, on this host: the lab that `isoplane policy verify` and the tests run."""
