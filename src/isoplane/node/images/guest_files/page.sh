#!/bin/sh
# Write the page that httpd serves, and say on the console where it is. $1: the guest's address, once it has one.
name=$(hostname)
memory=$(awk '/MemTotal/ { printf "%d", $2 / 1024 }' /proc/meminfo)
cat >/www/index.html.new <<EOF
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$name</title></head>
<body><h1>Hello from the virtual machine $name</h1>
<p>$(uname -sr), $(grep -c ^processor /proc/cpuinfo) CPU, $memory MiB of memory, address ${1:-none}.</p></body></html>
EOF
mv /www/index.html.new /www/index.html
[ -n "$1" ] && echo "isoplane guest $name: serving http://$1:8080/" >/dev/console
exit 0
