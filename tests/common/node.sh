# Shell functions of the scripts that suites run on nodes. $W is the work directory, $ISA the node's ISA,
# $T the executables' suffix; programs are started by $LAUNCH; $PATIENCE is how often `finish` looks. Each case ends with
# one line "RESULT name ok" or "RESULT name why not".
case $(uname -m) in x86_64) ISA=x86_64 T=x86-64 ;; *) ISA=aarch64 T=aarch64 ;; esac
I="$W/isamorph-$ISA"
LAUNCH=setsid

one_line() { # text: what a command said; without a word, what the kernel said last
    [ -n "$1" ] && { echo "$1" | tr '\n' ' '; return; }
    dmesg | tail -n 3 | tr '\n' ' '
}
start() { # case program seed variant seconds [argument]: starts it as a session leader and lets it work; sets PID
    # `out` must be there first: a file that is made while somebody looks for it may end up without a name on a
    # shared directory (the kernel drops the negative entry that it is just being given).
    mkdir -p "$W/t/$1"; cd "$W/t/$1"; : > out
    $LAUNCH "$W/$2" "$W/t/$1/stop" "$3" "$4" ${6:+"$6"} < /dev/null > out 2>&1 &
    PID=$!; i=0
    while ! grep -q '^READY' out; do
        i=$((i+1)); [ $i -gt 400 ] && { echo "RESULT $1 did not start: $(head -n 1 out)"; return 1; }
        sleep 0.05
    done
    sleep "$5"
}
finish() { # case seconds: lets it work, tells it to stop, reads what it found
    sleep "$2"; : > "$W/t/$1/stop"; i=0
    while [ $i -lt "${PATIENCE:-1200}" ]; do
        if grep -q '^FAIL' "$W/t/$1/out"; then echo "RESULT $1 $(grep '^FAIL' "$W/t/$1/out" | head -n 1)"; return 1; fi
        if grep -q '^PASS' "$W/t/$1/out"; then echo "RESULT $1 ok"; return 0; fi
        i=$((i+1)); sleep 0.05
    done
    echo "RESULT $1 no PASS on the $ISA node: $(tail -n 1 "$W/t/$1/out")"
    # A restored process that hangs must not slow down the others.
    P=$(sed -n 's/^READY pid=//p' "$W/t/$1/out"); [ -z "$P" ] || kill -9 "$P"; return 1
}
gone() { # pid: waits until the dumped process is reaped
    i=0
    while [ -e "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2> /dev/null && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.02; done
}
dump() { # case pid folder [--arch ISA]
    if ! E=$("$I" dump -v4 -o dump.log -t "$2" -D "$W/t/$1/$3" $4 $5 2>&1 < /dev/null); then
        S=$?; kill -9 "$2"; echo "RESULT $1 dump on the $ISA node: status $S: $(one_line "$E")"; return 1
    fi
    wait "$2" 2> /dev/null; gone "$2"
}
restore() { # case folder
    if ! E=$("$I" restore -v4 -o restore.log -d --pidfile "$W/t/$1/pid" -D "$W/t/$1/$2" 2>&1 < /dev/null); then
        echo "RESULT $1 restore on the $ISA node: status $?: $(one_line "$E")"; return 1
    fi
}
criu_dump() { # case pid folder
    mkdir -p "$W/t/$1/$3"
    if ! criu dump -v4 -o dump.log -t "$2" -D "$W/t/$1/$3" > /dev/null 2>&1 < /dev/null; then
        kill -9 "$2"; echo "RESULT $1 criu dump on the $ISA node: $(grep Error "$W/t/$1/$3/dump.log" | head -n 3 | tr '\n' ' ')"; return 1
    fi
    wait "$2" 2> /dev/null; gone "$2"
}
criu_restore() { # case folder
    if ! criu restore -v4 -o restore.log -d -D "$W/t/$1/$2" > /dev/null 2>&1 < /dev/null; then
        echo "RESULT $1 criu restore on the $ISA node: $(grep Error "$W/t/$1/$2/restore.log" | head -n 3 | tr '\n' ' ')"; return 1
    fi
}
park() { # case pid
    if ! E=$("$I" park -t "$2" 2>&1 < /dev/null); then
        kill -9 "$2"; echo "RESULT $1 park on the $ISA node: $E"; return 1
    fi
}
unpark() { # case pid
    if ! E=$("$I" unpark -t "$2" 2>&1 < /dev/null); then
        kill -9 "$2"; echo "RESULT $1 unpark on the $ISA node: $E"; return 1
    fi
}
transform() { # case folder arch
    if ! E=$("$I" transform -D "$W/t/$1/$2" --arch "$3" 2>&1 < /dev/null); then
        echo "RESULT $1 transform on the $ISA node: $E"; return 1
    fi
}
