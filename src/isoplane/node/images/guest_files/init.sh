#!/bin/sh
# The demo guest's first process: drivers, network, a web page, a power button, a shell on the serial console.
# It reads these kernel parameters:
#   isoplane.hostname=NAME            its name; else cloud-init's local-hostname, else what DHCP says
#   isoplane.address=A.B.C.D/LEN      a fixed address instead of DHCP, with isoplane.gateway=A.B.C.D
#   isoplane.poweroff_after=SECONDS   the guest powers off by itself
#   isoplane.panic_after=SECONDS      its kernel panics
# and, from a NoCloud seed disk (label cidata), meta-data's local-hostname and user-data that starts with #!.
# Every process costs an emulated CPU some 10 ms, so what the shell can do itself it does itself.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

hostname= address= gateway= poweroff_after= panic_after=
read -r parameters </proc/cmdline
for word in $parameters; do
	case $word in
	isoplane.hostname=*) hostname=${word#*=} ;;
	isoplane.address=*) address=${word#*=} ;;
	isoplane.gateway=*) gateway=${word#*=} ;;
	isoplane.poweroff_after=*) poweroff_after=${word#*=} ;;
	isoplane.panic_after=*) panic_after=${word#*=} ;;
	esac
done

modprobe -a virtio_pci virtio_net button evdev

# Disks are rare: their drivers wait until a virtio block device (id 2) is there.
for device in /sys/bus/virtio/devices/*/device; do
	read -r id <"$device" && [ "$id" = 0x0002 ] && disks=yes
done
if [ -n "$disks" ]; then
	modprobe -a virtio_blk isofs
	for disk in /sys/block/vd*; do
		# The label of an ISO 9660 volume stands at byte 32808.
		label=$(dd if="/dev/${disk##*/}" bs=1 skip=32808 count=6 2>/dev/null | tr A-Z a-z)
		[ "$label" = cidata ] && mount -t iso9660 -o ro "/dev/${disk##*/}" /mnt/seed
	done
	if [ -f /mnt/seed/meta-data ]; then
		: "${hostname:=$(sed -n 's/.*local-hostname"*: *"*\([^",]*\).*/\1/p' /mnt/seed/meta-data)}"
		if head -c 2 /mnt/seed/user-data | grep -q '#!'; then
			cp /mnt/seed/user-data /run/user-data && chmod +x /run/user-data && /run/user-data >/dev/ttyS0 2>&1 &
		fi
	fi
fi
[ -n "$hostname" ] && echo "$hostname" >/proc/sys/kernel/hostname

if [ ! -e /sys/class/net/eth0 ]; then
	echo "isoplane guest $hostname: no network card" >/dev/ttyS0
elif [ -n "$address" ]; then
	# Announce the address, or who asked for it too early asks again only a second later.
	echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_notify
	ip address add "$address" dev eth0
	ip link set eth0 up
	[ -n "$gateway" ] && ip route add default via "$gateway"
	. /etc/page "${address%/*}"
else
	# Ask every second for as long as it takes, for the port may open late.
	ip link set eth0 up
	udhcpc -b -i eth0 -s /etc/dhcp -t 5 -T 1 -A 1 ${hostname:+-x "hostname:$hostname"} >/dev/null 2>&1 &
fi

# What the first page need not wait for: the panic notifier, randomness, the loopback interface.
(
	modprobe -a pvpanic_mmio virtio_rng
	ip link set lo up
	[ -n "$poweroff_after" ] && sleep "$poweroff_after" && exec /etc/power off
	[ -n "$panic_after" ] && sleep "$panic_after" && exec /etc/power panic
) &

exec /sbin/init
