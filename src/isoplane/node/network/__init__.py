"""The machine's network: addresses, links, the Open vSwitch bridge, and the engines that load policy text as it is."""
