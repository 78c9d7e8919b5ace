#!/bin/sh
# Runs a program for as long as somebody holds the other end of stdin open.
#
#   sh -c "$(cat supervise.sh)" supervise LAST_SIGNAL LOG LITTER PROGRAM [ARGUMENT...]
#
# Each line on stdin is the name of a signal for the program. At the end of stdin, which comes when the process that
# started us closes the pipe or dies, the program gets LAST_SIGNAL, and when it has ended, LITTER is removed, if that
# isn't empty. The program's output goes to LOG. What we get as stdout is a locked file: the program inherits it, so
# that the lock lasts as long as the program and its children. The exit status is the program's.
last_signal=$1 log=$2 litter=$3
shift 3

# Whoever ends all processes around us at once must not end the one that cleans up after them.
trap : HUP INT TERM
abandoned=
trap 'abandoned=yes' USR1

exec 3<&0 4>&1 </dev/null >>"$log" 2>&1

"$@" 3<&- &
program=$!
exec >/dev/null 2>&1

(
    trap '' HUP INT TERM
    while read -r signal; do kill -s "$signal" "$program"; done
    kill -s USR1 $$
    kill -s "$last_signal" "$program"
) <&3 4>&- &
watcher=$!

# A signal that we trap interrupts the wait.
while wait "$program"; status=$?; [ "$status" -gt 128 ] && kill -s 0 "$program"; do :; done

kill -s KILL "$watcher"
wait "$watcher"
if [ -n "$abandoned" ] && [ -n "$litter" ]; then rm -rf "$litter"; fi
exit "$status"
