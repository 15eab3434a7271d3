#!/bin/sh
# Write the page that httpd serves, and say on the console where it is. $1: the guest's address.
# Shell builtins only: see init.sh.
read -r name </proc/sys/kernel/hostname
[ "$name" = "(none)" ] && name=guest
read -r kernel </proc/sys/kernel/osrelease
read -r _ memory _ </proc/meminfo
cpus=0
while read -r key _; do [ "$key" = processor ] && cpus=$((cpus + 1)); done </proc/cpuinfo
echo "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>$name</title></head>
<body><h1>Hello from the virtual machine $name</h1>
<p>Linux $kernel, CPUs: $cpus, memory: $((memory / 1024)) MiB, address: $1.</p></body></html>" >/www/index.html
echo "isoplane guest $name: serving http://$1:8080/" >/dev/ttyS0
