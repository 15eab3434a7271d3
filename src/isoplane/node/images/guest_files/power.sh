#!/bin/sh
# The end: "off" powers off at once, "panic" makes the kernel panic. acpid calls it when the power button is pressed.
case $1 in
panic)
	echo "isoplane guest $(hostname): panic, as asked" >/dev/console
	echo c >/proc/sysrq-trigger
	;;
*)
	echo "isoplane guest $(hostname): powering off" >/dev/console
	sync
	poweroff -f
	;;
esac
