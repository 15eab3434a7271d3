"""What starts, stops and observes the units of a workload: OCI containers, QEMU machines, or a simulation of either."""
