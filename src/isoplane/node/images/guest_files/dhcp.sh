#!/bin/sh
# What udhcpc asks for: put its lease on the interface. Variables are udhcpc's own.
case $1 in
deconfig)
	ip address flush dev "$interface"
	ip link set "$interface" up
	;;
bound | renew)
	ip address replace "$ip/${mask:-24}" dev "$interface"
	[ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
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
	[ "$(hostname)" = "(none)" ] && [ -n "$hostname" ] && hostname "$hostname"
	[ "$1" = bound ] && /etc/page "$ip"
	;;
esac
exit 0
