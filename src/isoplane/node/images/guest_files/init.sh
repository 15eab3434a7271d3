#!/bin/sh
# The demo guest's first process: drivers, network, a web page, a power button, a shell on the serial console.
# It reads these kernel parameters:
#   isoplane.hostname=NAME            its name; else cloud-init's local-hostname, else what DHCP says
#   isoplane.address=A.B.C.D/LEN      a fixed address instead of DHCP, with isoplane.gateway=A.B.C.D
#   isoplane.poweroff_after=SECONDS   the guest powers off by itself
#   isoplane.panic_after=SECONDS      its kernel panics
# and, from a NoCloud seed disk (label cidata), meta-data's local-hostname and user-data that starts with #!.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

parameter() {
	for word in $(cat /proc/cmdline); do
		case $word in "$1="*) echo "${word#*=}" ;; esac
	done
}

for module in $(cat /lib/modules/first); do insmod "/lib/modules/$module.ko"; done

# Disks are rare: their drivers wait until a virtio block device (id 2) is there.
name=$(parameter isoplane.hostname)
if grep -qs 0x0002 /sys/bus/virtio/devices/*/device; then
	for module in $(cat /lib/modules/disk); do insmod "/lib/modules/$module.ko"; done
	for disk in /sys/block/vd*; do
		# The label of an ISO 9660 volume stands at byte 32808.
		label=$(dd if="/dev/${disk##*/}" bs=1 skip=32808 count=6 2>/dev/null | tr A-Z a-z)
		[ "$label" = cidata ] && mount -t iso9660 -o ro "/dev/${disk##*/}" /mnt/seed
	done
	if [ -f /mnt/seed/meta-data ]; then
		: "${name:=$(sed -n 's/.*local-hostname"*: *"*\([^",]*\).*/\1/p' /mnt/seed/meta-data)}"
		if head -c 2 /mnt/seed/user-data | grep -q '#!'; then
			cp /mnt/seed/user-data /run/user-data && chmod +x /run/user-data && /run/user-data >/dev/console 2>&1 &
		fi
	fi
fi
[ -n "$name" ] && hostname "$name"

ip link set lo up
/etc/page
address=$(parameter isoplane.address)
if [ ! -e /sys/class/net/eth0 ]; then
	echo "isoplane guest $(hostname): no network card" >/dev/console
elif [ -n "$address" ]; then
	ip link set eth0 up
	ip address add "$address" dev eth0
	gateway=$(parameter isoplane.gateway)
	[ -n "$gateway" ] && ip route add default via "$gateway"
	/etc/page "${address%/*}"
else
	# -t 0 would give up at once: ask for as long as it takes, every second, for the port may open late.
	ip link set eth0 up
	udhcpc -b -S -i eth0 -s /etc/dhcp -t 5 -T 1 -A 1 -x "hostname:$(hostname)" >/dev/null 2>&1 &
fi

after() {
	seconds=$(parameter "$1")
	[ -n "$seconds" ] && (sleep "$seconds" && shift && "$@") &
}
after isoplane.poweroff_after /etc/power off
after isoplane.panic_after /etc/power panic

exec /sbin/init
