"""One machine: the agent that makes desired state actual, the runtimes it uses, the network it plugs workloads into."""
