#!/bin/sh
# The end: "off" powers off at once, "panic" makes the kernel panic. acpid calls it when the power button is pressed.
read -r name </proc/sys/kernel/hostname
case $1 in
panic)
	echo "isoplane guest $name: panic, as asked" >/dev/ttyS0
	echo c >/proc/sysrq-trigger
	;;
*)
	echo "isoplane guest $name: powering off" >/dev/ttyS0
	sync
	poweroff -f
	;;
esac
