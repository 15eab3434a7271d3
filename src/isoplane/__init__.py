"""isoplane: one control plane for containers and virtual machines.

The packages are layers and import one way: ``objects`` < the pure cores (``workload``, ``quota``, ``policy``,
``placement``) < ``store``, ``client`` < ``server``, ``controllers``, ``node`` < ``cli``.  ARCHITECTURE.md is the tour.
"""

__version__ = "0.1.0"
