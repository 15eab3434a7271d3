"""The one shape. Everything that differs between a Pod and a VirtualMachineInstance is said once, in ``pod.py`` and ``vmi.py``.

An adapter projects an API object onto one immutable :class:`~isoplane.workload.shape.Workload`, and an observed state back
on that kind's own status.  Pure: values in, values out.
"""
