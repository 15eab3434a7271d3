"""Virtual machines by QEMU.

A VMI's spec becomes a ``Domain`` (domain.py, volumes.py), the domain becomes files (disks.py, qcow2.py, iso.py, cloudinit.py)
and a command line (command.py), and a ``Machine`` (machine.py) launches, follows, adopts and ends the process, over QMP
(qmp.py), remembering what a restart of the plane must not lose (records.py).  ``QemuRuntime`` (runtime.py) is the
Runtime protocol over all of them.  Networks are the fabric's: QEMU opens the tap it is given.
"""

from isoplane.node.runtime.qemu.runtime import QemuRuntime

__all__ = ["QemuRuntime"]
