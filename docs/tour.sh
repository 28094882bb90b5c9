#!/bin/bash
# A short tour of a running demo: docs/tour.sh DEMO BIN, the demo's folder and the folder of the commands.
#
# What the sample policy lists (head, tar) sees text; what it does not list (cat, cp, this shell) sees sealed bytes.
set -eu

demo=$(cd "$1" && pwd)
bin=$2
here=$PWD
short() { case $1 in "$here"/*) echo "${1#"$here"/}" ;; *) echo "$1" ;; esac; }
server=$(short "$demo/server")
agent=$(short "$demo/agent")
drive=$(short "$demo/drive")
file=$drive/sales/clients/customers.txt
bold= plain=
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() {
  printf '$ %s\n' "$1"
  # A refused command is part of the show; its message is enough.
  bash -c "$1" || true
}
printable() { tr -cd '[:print:]' | sed 's/  */ /g' | cut -c 1-"$1" | fold -w 110; }
# Records travel to the key server in batches: wait until the last of them is there.
arrived() {
  local try
  for try in $(seq 50); do
    if "$bin/fsdriver" --home "$agent" status -o json | grep -Eq '"waiting": *0,'; then return; fi
    sleep 0.1
  done
}

say "1. A shell, which no rule lists, drops a document into the folder of the label sales/clients."
printf 'customer       contact   turnover\nLamps & Co     Dana      120000\nRed Harbour    Chen       84000\n' >"$file"
echo "(written: $file)"

say "2. head is listed for that label: it reads the document."
show "head -n 2 $file"

say "3. cat is not: the same file, under the same name, at the same time, is sealed for it."
printf '$ %s\n' "cat $file"
cat "$file" | printable 330

say "4. So is every copy that an unlisted program makes. tar is listed, and what it saves in the drive is sealed too."
show "cp $file $(short "$demo")/stick.txt && grep -c customer $(short "$demo")/stick.txt"
show "tar -czf $drive/sales/clients/backup.tgz -C $drive/sales/clients customers.txt"
show "tar -tvzf $drive/sales/clients/backup.tgz"
show "ls -l $drive/sales/clients"

say "5. Every open left a record before it was answered, and the key server has them."
arrived
show "$bin/keyserver --home $server audit list --file /sales/clients/customers.txt --event open --limit 4"
echo "The same as JSON, and the copy that cp made, with where it went:"
show "$bin/keyserver --home $server audit list --event copy -o jsonl | grep stick.txt | tail -n 1"
show "$bin/keyserver --home $server audit verify"

say "6. Why is it so?"
show "$bin/fsdriver --home $agent why $file --program /usr/bin/cat"
show "$bin/fsdriver --home $agent why $file --program /usr/bin/head"

console=$(sed -n 's/.*"admin_url": *"\([^"]*\)".*/\1/p' "$server/addresses.json")
say "Where things are"
cat <<END
the drive          $drive  (what lies on disk: $(short "$demo/store"))
drive commands     $bin/fsdriver --home $agent status | why FILE | info FILE
server commands    $bin/keyserver --home $server audit list | machine list | lease list | user disable NAME
take keys back     $bin/keyserver --home $server lease revoke ID
console            $console  (user admin, password in $server/admin-password)
to stop            make stop   (this demo is not for real files: its keys lie beside them)
END
