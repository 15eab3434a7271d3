#!/bin/sh
# What udhcpc asks for: put its lease on the interface. Variables are udhcpc's own.
case $1 in
deconfig)
	ip address flush dev "$interface"
	;;
bound | renew)
	ip address replace "$ip/${mask:-24}" dev "$interface"
	[ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
	# Announce the address, or who asked for it too early asks again only a second later.
	[ "$1" = bound ] && arping -q -U -c 1 -I "$interface" "$ip" >/dev/null 2>&1 &
	for gateway in $router; do
		# A gateway outside the prefix (routed taps) needs a route of its own first.
		ip route replace default via "$gateway" dev "$interface" 2>/dev/null || {
			ip route replace "$gateway" dev "$interface" scope link
			ip route replace default via "$gateway" dev "$interface"
		}
		break
	done
	: >/etc/resolv.conf
	[ -n "$domain" ] && echo "search $domain" >>/etc/resolv.conf
	for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
	read -r name </proc/sys/kernel/hostname
	[ "$name" = "(none)" ] && [ -n "$hostname" ] && echo "$hostname" >/proc/sys/kernel/hostname
	[ "$1" = bound ] && . /etc/page "$ip"
	;;
esac
exit 0
