"""The defaults behind ``objects.defaults``: pods, machines, and the kinds with one or two fields to fill in."""
