#!/bin/sh
# Four network namespaces as four hosts: `mpirun -n 4 easyfirst train` across them, one cut off for 10 s, and one for good.
# usage: tests/mpi_hosts.sh     (as root; $EASYFIRST is the program; from the root of the sources). Prints TAP.
# Each host has an own network, one cable to a switch, and an own name; mpirun is on the first and starts the others'
# daemons through a script in place of ssh. All have the same files, as a cluster's do. Processes talk over TCP alone.
program=$(realpath "${EASYFIRST:-build/easyfirst}")
[ -w /dev/shm ] && TMPDIR=${TMPDIR:-/dev/shm} && export TMPDIR
folder=$(mktemp -d) || exit 1
name=ef$$
number=0
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PMIX_MCA_gds=hash
# Between hosts TCP alone; the daemons' connections are given up 16 to 19 s after a host stopped answering.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_oob_tcp_if_include=10.77.0.0/24
export OMPI_MCA_oob_tcp_keepalive_time=3 OMPI_MCA_oob_tcp_keepalive_intvl=4 OMPI_MCA_oob_tcp_keepalive_probes=4

result() {
    number=$((number + 1))
    if [ "$1" = 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; fi
}
remove() {
    for h in 1 2 3 4 switch; do
        ip netns pids "$name-$h" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
        ip netns del "$name-$h" 2>/dev/null
    done
    rm -rf "$folder"
}
trap remove EXIT
skip() {
    echo "ok 1 # SKIP $*"
    echo "1..1"
    exit 0
}
command -v mpirun >/dev/null 2>&1 || skip "no mpirun here (Debian: openmpi-bin)"
command -v ip >/dev/null 2>&1 || skip "no ip here (Debian: iproute2)"
[ "$(id -u)" = 0 ] || skip "needs root, for network namespaces"
ip netns add "$name-switch" 2>/dev/null || skip "no network namespaces here"
ip -n "$name-switch" link add bridge type bridge 2>/dev/null || skip "no bridges here"
ip -n "$name-switch" link set bridge up
for h in 1 2 3 4; do
    ip netns add "$name-$h" && ip -n "$name-switch" link add "cable$h" type veth peer name eth0 netns "$name-$h" &&
        ip -n "$name-switch" link set "cable$h" master bridge up && ip -n "$name-$h" link set lo up &&
        ip -n "$name-$h" addr add "10.77.0.$h/24" dev eth0 && ip -n "$name-$h" link set eth0 up || skip "no such network here"
done

# on HOST COMMAND...: there, under a name of its own.
cat >"$folder/on" <<EOF
#!/bin/sh
host=\${1##*.}
shift
exec ip netns exec $name-\$host unshare --uts sh -c 'hostname host'\$host'; exec sh -c "\$*"' sh "\$@"
EOF
chmod +x "$folder/on"

"$program" new "$folder/model" --tokenizer tests/golden/models/tiny-base/language/sentencepiece.bpe.model --layers 2 \
    --width 32 --heads 2 --ffn 64 --positions 130 --seed 5 >"$folder/log" 2>&1 || cat "$folder/log"
awk -v file="$folder/pairs.jsonl" 'BEGIN {
    for (i = 0; i < 47; i++) printf "{\"inputs\": \"one %d two\", \"targets\": \"eins %d zwei %d\"}\n", i, i, i % 7 > file }'

# start RANKS RUN ARGUMENTS...: across as many hosts, one process on each, in the background: $job; the log is RUN.log.
start() {
    n=$1 run=$2
    shift 2
    hosts=$(seq -s, -f 10.77.0.%g "$n")
    "$folder/on" 10.77.0.1 mpirun --allow-run-as-root --mca plm_rsh_agent "$folder/on" --host "$hosts" -n "$n" --bind-to none \
        "$program" train "$@" --out "$folder/$run" >"$folder/$run.log" 2>&1 &
    job=$!
}
train="adapt -m $folder/model --data $folder/pairs.jsonl --batch-sequences 5 --lr 1e-3 --zero 3 --valid $folder/pairs.jsonl
       --valid-limit 5 --valid-every 0 --show-answers 0 --log-every 1 --save-every 5 --quiet"
steps() { [ -s "$folder/$1/metrics.jsonl" ] && wc -l <"$folder/$1/metrics.jsonl" || echo 0; }
# until SECONDS COMMAND...: waits for it.
until_so() {
    left=$(($1 * 10))
    shift
    while ! "$@"; do
        left=$((left - 1))
        [ $left -le 0 ] && return 1
        sleep 0.1
    done
}
further() { [ "$(steps "$1")" -gt "$2" ]; }
gone() { ! kill -0 "$job" 2>/dev/null; }
# Programs that still run, on any host.
alive() {
    for h in 1 2 3 4; do ip netns pids "$name-$h"; done | while read -r p; do
        [ "$(readlink "/proc/$p/exe" 2>/dev/null)" = "$program" ] && echo "$p"
    done
}
all_gone() { gone && [ -z "$(alive)" ]; }
cable() { ip -n "$name-switch" link set "cable$1" "$2"; }
curve() { sed 's/"tokens_per_s.*"skipped"/"skipped"/; s/, "seconds": [^,}]*//' "$folder/$1/metrics.jsonl" >"$folder/$1.curve"; }
since() { echo $((($(date +%s%N) - began) / 1000000)); }

# shellcheck disable=SC2086
start 4 whole $train --steps 100000 --stop-after 20
bad=0
until_so 120 gone || bad=1
wait $job || bad=1
[ "$(steps whole)" -ge 20 ] || bad=1
[ $bad = 0 ] || tail -n 5 "$folder/whole.log" | sed 's/^/# /'
result $bad "four hosts, ZeRO 3"
[ $bad = 0 ] || { echo "1..$number" && exit 1; }

# Cut off for 10 s.
# shellcheck disable=SC2086
start 4 short $train --steps 100000
bad=0
until_so 60 further short 5 || bad=1
cable 3 down
sleep 1
before=$(steps short)
sleep 9
during=$(steps short)
began=$(date +%s%N)
cable 3 up
until_so 60 further short "$((during + 3))" || bad=1
echo "# cut off for 10 s: $((during - before)) steps in the last 9 of them, further $(since) ms after"
gone && bad=1
for p in $(ip netns pids "$name-1"); do [ "$(cat "/proc/$p/comm")" = mpirun ] && kill -USR1 "$p"; done
until_so 60 all_gone || bad=1
[ $bad = 0 ] || tail -n 5 "$folder/short.log" | sed 's/^/# /'
result $bad "one host cut off for 10 s: the run continues"

# Cut off for good.
# shellcheck disable=SC2086
start 4 good $train --steps 100000
bad=0
until_so 60 further good 7 || bad=1
began=$(date +%s%N)
cable 4 down
until_so 60 all_gone || bad=1
took=$(since)
echo "# cut off for good: all have ended $took ms after, at step $(steps good)"
[ "$took" -le 30000 ] || bad=1
wait $job && bad=1
grep -v '^ *$' "$folder/good.log" | grep -i 'lost' | head -n 3 | sed 's/^/# /'
grep -qi 'lost' "$folder/good.log" || bad=1
[ $bad = 0 ] || { tail -n 8 "$folder/good.log" | sed 's/^/# /'; }
result $bad "one host cut off for good: all end within 30 s, with a message"

# Three hosts resume it, then all four.
bad=0
start 3 good --resume --stop-after 3
until_so 60 all_gone || bad=1
wait $job || bad=1
result $bad "the other three resume"
cable 4 up
# shellcheck disable=SC2086
start 4 again $train --steps 100000 --stop-after 9
until_so 60 all_gone
start 4 again --resume --stop-after 8
until_so 60 all_gone
curve again && curve whole
bad=0
[ "$(wc -l <"$folder/again.curve")" = 17 ] && head -n 17 "$folder/whole.curve" | cmp -s - "$folder/again.curve" || bad=1
result $bad "four hosts resume: the bits of a run without a pause"
echo "1..$number"
